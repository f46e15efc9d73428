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
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from unistream.clock import Clock, Random
from unistream.config import Settings
from unistream.durations import seconds
from unistream.errors import StateError
from unistream.faults import point
from unistream.io.base import Position, Token
from unistream.runtime.task import OperatorTask, SinkTask, SourceTask, Task
from unistream.state.backend import StateStore
from unistream.state.checkpoint_store import CheckpointStore
from unistream.state.local_storage import LocalStorage
from unistream.state.manifest import Manifest, SinkToken, SubtaskState
from unistream.state.ownership import own
from unistream.state.rocksdb import RocksBackend
from unistream.state.snapshot import PendingSnapshot
from unistream.state.storage import Storage, storage_for

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Draft:
    """A checkpoint on its way from step 3 to step 6."""

    id: int
    pending: PendingSnapshot
    positions: Mapping[str, Mapping[str, Position]]
    tokens: Sequence[tuple[SinkTask, Token]]
    read_rows: float


class Checkpoints:
    """The checkpoints of one run: restores the newest one when made, then makes new ones.

    With `background` off everything happens on the calling thread, for tests.
    """

    def __init__(
        self, path: str | Path, settings: Settings, clock: Clock, random: Random, background: bool = True
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
            self._restored = self._restore()
        except BaseException:
            self._lease.release()
            raise
        self._executor = ThreadPoolExecutor(1, "unistream-checkpoint") if background else None
        self._draft: _Draft | None = None
        self._publishing: Future[Manifest] | None = None
        self._sources: dict[str, SourceTask] = {}
        self._last = clock.steady()
        self._rows_then = 0.0
        self.latest: tuple[int, int] | None = None
        """Id and time (microseconds) of the newest complete checkpoint of this run."""

    # Restoring

    def _restore(self) -> Manifest | None:
        manifest = self._store.newest()
        if manifest is not None:
            for state in self._store.fetch(manifest, self._folder / "restored"):
                self._backend.restore(state.tables, state.files)
            logger.info("restored checkpoint %s", manifest.id)
        shutil.rmtree(self._folder / "restored", ignore_errors=True)
        return manifest

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
        if self._restored is None:
            return []
        return [token.token for token in self._restored.tokens if token.vertex == vertex]

    def store(self, operator_id: str) -> StateStore:
        """The tables of one operator, with their restored content."""
        return self._backend.store(operator_id)

    def check_all_used(self, vertices: Sequence[str], allow_dropped: bool) -> None:
        """After all operators were opened: state and positions that nobody took would be lost silently."""
        if self._restored is None or allow_dropped:
            return
        known = set(vertices)
        tables = [f"table {table!r} of {operator!r}" for operator, table in self._backend.unclaimed()]
        sources = [f"positions of source {name!r}" for name in self._restored.positions if name not in known]
        sinks = [f"rows of sink {t.vertex!r}" for t in self._restored.tokens if t.vertex not in known]
        dropped = sorted({*tables, *sources, *sinks})
        if dropped:
            raise StateError(
                f"The program no longer has what checkpoint {self._restored.id} holds: {', '.join(dropped)}",
                hint="give steps their old names with .named(...), or start with allow_dropped_state=True",
            )

    # The eight steps

    def step(self, tasks: Sequence[Task], final: bool = False) -> None:
        """Called after each tick: finish a checkpoint that was published, begin one that is due."""
        self._lease.renew()
        if final:
            self._finish(wait=True)
            self._begin(tasks, final=True)
            self._finish(wait=True)
            return
        self._finish(wait=False)
        if self._draft is None and self._clock.steady() - self._last >= self._interval:
            self._begin(tasks, final=False)

    def _begin(self, tasks: Sequence[Task], final: bool) -> None:
        self._last = self._clock.steady()
        read_rows = sum(task.metrics.get("rows_in") for task in tasks)
        if not final and read_rows == self._rows_then and self.latest is not None:
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
        positions = {source.vertex.id: dict(source.positions) for source in sources}
        self._draft = _Draft(checkpoint, pending, positions, tokens, read_rows)
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
        )
        return self._store.publish(manifest)

    def _finish(self, wait: bool) -> None:
        """Steps 6 to 8, once the manifest is there."""
        draft, publishing = self._draft, self._publishing
        if draft is None or publishing is None or not (wait or publishing.done()):
            return
        manifest = publishing.result()
        self._draft = self._publishing = None
        for sink, token in draft.tokens:
            sink.commit(token)
        self._rows_then = draft.read_rows
        self.latest = (manifest.id, self._clock.now())
        self._acknowledge(draft)
        if self._executor is None:
            self._store.retain(self._settings.checkpoints_kept)
        else:
            self._executor.submit(self._forget_older)

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
        self._backend.close()
        shutil.rmtree(self._folder, ignore_errors=True)
        self._lease.release()


def _work_folder(storage: Storage) -> Path:
    """A place for state files while the job runs, beside the checkpoints where links between the two work."""
    if isinstance(storage, LocalStorage):
        folder = Path(storage.url) / "running"
        shutil.rmtree(folder, ignore_errors=True)  # of an owner that died; we own the directory now
        folder.mkdir(parents=True)
        return folder
    return Path(tempfile.mkdtemp(prefix="unistream-"))
