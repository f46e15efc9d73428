"""A checkpoint, in order.

1 Between two ticks nothing is polled, so no row is on its way.
2 Writers `prepare`: what they have is durable and invisible; their tokens will commit it.
3 State tables are snapshot: their content is fixed here and written in the background.
4 The manifest names positions, tokens, state files and the vertices they belong to.
5 The manifest is published in one step. The checkpoint exists from here.
6 Sinks `commit` the tokens; doing so again changes nothing.
7 Sources are told which positions will not be asked for again.
8 Older checkpoints and the files nobody names are forgotten.

1, 2, 3, 6 and 7 run on the operator thread, the writing of 3, 4, 5 and 8 beside it. After a crash the newest
published manifest decides: its tokens are committed again, everything later is dropped.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

from unistream.clock import Clock, Random
from unistream.config import Settings
from unistream.durations import seconds
from unistream.errors import StateError
from unistream.faults import point
from unistream.io.base import Position, Token
from unistream.runtime.journal import Journal
from unistream.runtime.origin import COMMITTED, Origin
from unistream.runtime.questions import over
from unistream.runtime.task import OperatorTask, SinkTask, SourceTask, Task
from unistream.state.backend import StateStore
from unistream.state.checkpoint_store import CheckpointStore
from unistream.state.local_storage import LocalStorage
from unistream.state.manifest import Manifest, SinkToken, SubtaskState
from unistream.state.ownership import own
from unistream.state.rocksdb import RocksBackend
from unistream.state.shown import is_shown
from unistream.state.snapshot import PendingSnapshot
from unistream.state.storage import Storage, storage_for

logger = logging.getLogger(__name__)

NOTES = "notes"
"""Key of `Manifest.extra`: which files of the journal have notes from after the checkpoint."""


@dataclass(frozen=True, slots=True)
class _Draft:
    """A checkpoint on its way from step 3 to step 6."""

    id: int
    pending: PendingSnapshot
    positions: Mapping[str, Mapping[str, Position]]
    tokens: Sequence[tuple[SinkTask, Token]]
    read_rows: float
    notes: int
    savepoints: Sequence[tuple[str | Path, Future[int]]] = ()


class Checkpoints:
    """The checkpoints of one run: restores the newest one when made, then makes new ones.

    `restore` names another one to begin from, see `Origin`. With `background` off everything happens on the
    calling thread, for tests.
    """

    def __init__(
        self,
        path: str | Path,
        settings: Settings,
        clock: Clock,
        random: Random,
        *,
        background: bool = True,
        restore: int | str | Path | None = None,
    ) -> None:
        self._settings = settings
        self._interval = seconds(settings.checkpoint_interval)
        self._clock = clock
        storage = storage_for(path)
        self._lease = own(storage, None, clock, random)
        try:
            self._store = CheckpointStore(storage, self._lease, clock=clock)
            self._folder = _work_folder(storage)
            self._backend = RocksBackend(
                self._folder / "state",
                memory_budget_bytes=settings.memory_budget_bytes,
                key_groups=settings.key_groups,
            )
            self._origin = Origin.of(self._store, restore)
            self._restored = self._restore()
            self.journal = self._open_journal(storage)
        except BaseException:
            self._lease.release()
            raise
        self._executor = ThreadPoolExecutor(1, "unistream-checkpoint") if background else None
        self._renewer = ThreadPoolExecutor(1, "unistream-ownership")  # starts no thread unless it is used
        self._draft: _Draft | None = None
        self._publishing: Future[Manifest] | None = None
        self._renewing: Future[None] | None = None
        self._wanted: list[tuple[str | Path, Future[int]]] = []
        self._sources: dict[str, SourceTask] = {}
        self._last = clock.steady()
        self._rows_then = 0.0
        self.latest: tuple[int, int] | None = None
        """Id and time (microseconds) of the newest complete checkpoint of this run."""

    # Restoring

    def _restore(self) -> Manifest | None:
        manifest = self._origin.manifest
        if manifest is not None:
            for state in self._origin.store.fetch(manifest, self._folder / "restored"):
                self._backend.restore(state.tables, state.files)
            self._lease.begin_after(manifest.id)  # sinks name what they write by ids that only grow
            logger.info("restored checkpoint %s of %s", manifest.id, self._origin.store.storage.url)
        shutil.rmtree(self._folder / "restored", ignore_errors=True)
        return manifest

    def _open_journal(self, storage: Storage) -> Journal | None:
        """Beside the checkpoints; in an object store a note would cost a round trip for each tick."""
        if not isinstance(storage, LocalStorage):
            return None
        since = 0 if self._restored is None else self._restored.extra.get(NOTES)
        return Journal(Path(storage.url) / "journal", since, self._settings.checkpoints_kept)

    @property
    def job_id(self) -> str:
        """Stable over restarts from this directory."""
        return self._lease.job_id

    @property
    def restored(self) -> bool:
        """Whether there was a checkpoint to go on from."""
        return self._restored is not None

    def positions(self, vertex: str) -> Mapping[str, Position]:
        """Where the source goes on."""
        return {} if self._restored is None else self._restored.positions.get(vertex, {})

    def tokens(self, vertex: str) -> list[Token]:
        """What the restored checkpoint committed, or was about to."""
        return [token.token for token in self._origin.tokens if token.vertex == vertex]

    def store(self, operator_id: str) -> StateStore:
        """The tables of one operator, with their restored content."""
        return self._backend.store(operator_id)

    def check_all_used(self, vertices: Sequence[str], stateful: Sequence[str], allow_dropped: bool) -> None:
        """After all operators were opened: state and positions that nobody took would be lost silently."""
        if self._restored is None:
            return
        known = set(vertices)
        left = [(operator, table) for operator, table in self._backend.unclaimed() if not is_shown(table)]
        tables = [f"table {table!r} of {operator!r}" for operator, table in left]
        sources = [f"positions of source {name!r}" for name in self._restored.positions if name not in known]
        sinks = [
            f"rows of sink {token.vertex!r}" for token in self._origin.tokens if token.vertex not in known
        ]
        dropped = sorted({*tables, *sources, *sinks})
        if dropped and not allow_dropped:
            raise StateError(
                f"The program no longer has what checkpoint {self._restored.id} holds: {', '.join(dropped)}",
                hint="give steps their old names with .named(...), or start with allow_dropped_state=True",
            )
        self._say_what_was_kept(stateful, dropped)

    def _say_what_was_kept(self, stateful: Sequence[str], dropped: Sequence[str]) -> None:
        """Before the first row; what is dropped is worth a warning."""
        assert self._restored is not None
        held = {operator for state in self._restored.states for operator in state.tables["operators"]}
        for what, level, names in (
            ("kept", logging.INFO, [name for name in stateful if name in held]),
            ("new, begins empty", logging.INFO, [name for name in stateful if name not in held]),
            ("dropped", logging.WARNING, dropped),
        ):
            if names:
                logger.log(level, "checkpoint %s, %s: %s", self._restored.id, what, ", ".join(names))

    # The eight steps

    def step(self, tasks: Sequence[Task], final: bool = False) -> None:
        """Called after each tick: finish a checkpoint that was published, begin one that is due."""
        self._renew()
        if final:
            self._finish(wait=True)
            self._begin(tasks, anyway=True)
            self._finish(wait=True)
            return
        self._finish(wait=False)
        due = self._clock.steady() - self._last >= self._interval
        if self._draft is None and (due or self._wanted):
            self._begin(tasks, anyway=bool(self._wanted))

    def want_savepoint(self, target: str | Path, answer: Future[int]) -> None:
        """The next checkpoint begins with the next tick and is copied to `target`."""
        self._wanted.append((target, answer))

    def _renew(self) -> None:
        """Beside the ticks: an object store may take its time to answer."""
        if self._executor is None:
            self._lease.renew()
        elif self._lease.renewal_is_due and (self._renewing is None or self._renewing.done()):
            self._renewing = self._renewer.submit(self._renew_now)

    def _renew_now(self) -> None:
        try:
            self._lease.renew()
        except Exception as error:  # tried again in the next tick; whoever takes over fences this job
            logger.warning("the ownership of %s was not renewed: %s", self._lease.storage.url, error)

    def _begin(self, tasks: Sequence[Task], anyway: bool) -> None:
        self._last = self._clock.steady()
        read_rows = sum(task.metrics.get("rows_in") for task in tasks)
        if not anyway and read_rows == self._rows_then and self.latest is not None:
            return  # nothing came in, so there is nothing new to keep
        checkpoint = self._store.next_id
        with point("checkpoint.snapshot"):
            for task in tasks:
                if isinstance(task, OperatorTask):
                    task.operator.before_checkpoint()
            sinks = [task for task in tasks if isinstance(task, SinkTask)]
            prepared = [(sink, sink.prepare(checkpoint)) for sink in sinks]
            tokens = [(sink, token) for sink, token in prepared if token is not None]
            pending = self._backend.snapshot(checkpoint)
        sources = [task for task in tasks if isinstance(task, SourceTask)]
        positions = {str(source.vertex.id): dict(source.positions) for source in sources}
        wanted, self._wanted = self._wanted, []
        notes = 0 if self.journal is None else self.journal.next()
        self._draft = _Draft(checkpoint, pending, positions, tokens, read_rows, notes, wanted)
        if self._executor is None:
            self._publishing = Future()
            self._publishing.set_result(self._publish(self._draft))
        else:
            self._publishing = self._executor.submit(self._publish, self._draft)

    def _publish(self, draft: _Draft) -> Manifest:
        """Steps 3 to 5, off the operator thread."""
        snapshot = draft.pending.finish()
        try:
            entries = self._store.upload(snapshot.files)
        finally:
            snapshot.release()
        manifest = Manifest(
            id=draft.id,
            states=(SubtaskState(files=entries, tables=snapshot.tables),),
            positions={vertex: dict(splits) for vertex, splits in draft.positions.items()},
            tokens=tuple(SinkToken(vertex=sink.vertex.id, token=token) for sink, token in draft.tokens),
            key_groups=self._settings.key_groups,
            engine=version("unistream"),
            extra=self._origin.extra | ({NOTES: draft.notes} if draft.notes else {}),
        )
        return self._store.publish(manifest)

    def _finish(self, wait: bool) -> None:
        """Steps 6 to 8, once the manifest is there."""
        draft, publishing = self._draft, self._publishing
        if draft is None or publishing is None or not (wait or publishing.done()):
            return
        self._draft = self._publishing = None
        try:
            manifest = publishing.result()
            for sink, token in draft.tokens:
                sink.commit(token)
        except BaseException as error:
            for _, answer in draft.savepoints:
                answer.set_exception(error)
            raise
        self._rows_then = draft.read_rows
        self.latest = (manifest.id, self._clock.now())
        self._acknowledge(draft)
        if self.journal is not None:
            self.journal.published(draft.notes)
        for target, answer in draft.savepoints:
            self._beside(partial(self._copy, manifest.id, target, answer))
        self._beside(self._forget_older)

    def _beside(self, work: Callable[[], None]) -> None:
        if self._executor is None:
            work()
        else:
            self._executor.submit(work)

    def _copy(self, id: int, target: str | Path, answer: Future[int]) -> None:
        try:
            self._store.savepoint(id, target, extra={COMMITTED: True})
        except Exception as error:  # for whoever asked; the job itself is well
            answer.set_exception(error)
        else:
            answer.set_result(id)

    def _forget_older(self) -> None:
        try:
            self._store.retain(self._settings.checkpoints_kept)
        except Exception as error:  # untidy, but no reason to end a job whose state is safe
            logger.warning("older checkpoints were not removed: %s", error)

    def _acknowledge(self, draft: _Draft) -> None:
        for vertex, positions in draft.positions.items():
            source = self._sources.get(vertex)
            if source is not None:
                source.feed.acknowledge(positions)

    def follow(self, tasks: Sequence[Task]) -> None:
        """The sources that are told when their rows are safe."""
        self._sources = {task.vertex.id: task for task in tasks if isinstance(task, SourceTask)}

    def close(self) -> None:
        """Give the directory up. A checkpoint on its way may still be published; a restart finds it."""
        if self._executor is not None:
            self._executor.shutdown(wait=True)
            self._renewer.shutdown(wait=True)
        unanswered = self._wanted if self._draft is None else [*self._wanted, *self._draft.savepoints]
        for _, answer in unanswered:
            answer.set_exception(over())
        self._backend.close()
        if self.journal is not None:
            self.journal.close()
        shutil.rmtree(self._folder, ignore_errors=True)
        self._lease.release()


def _work_folder(storage: Storage) -> Path:
    """A place for state files while the job runs, beside the checkpoints where links between the two work."""
    if isinstance(storage, LocalStorage):
        folder = Path(storage.url) / ".unistream-running"  # a name that nobody else has: it is removed
        shutil.rmtree(folder, ignore_errors=True)  # of an owner that died; we own the directory now
        folder.mkdir(parents=True)
        return folder
    return Path(tempfile.mkdtemp(prefix="unistream-"))
