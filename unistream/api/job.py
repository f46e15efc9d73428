"""`Job` and `Run`: the one place where a plan meets a runtime."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal

from unistream.api.termination import terminable
from unistream.clock import Clock, SystemClock
from unistream.config import Settings
from unistream.durations import Duration
from unistream.errors import InvalidQuery, InvalidSettings, JobFailed
from unistream.expressions.schema import Changes
from unistream.graph import JobGraph
from unistream.location import user_location
from unistream.plan.explain import explain
from unistream.plan.lower import lower
from unistream.plan.nodes import Write
from unistream.plan.optimizer import optimize
from unistream.runtime.job import Execution
from unistream.runtime.local import LocalRuntime
from unistream.runtime.progress import Progress
from unistream.runtime.recovery import NEVER, Exponential, RestartStrategy
from unistream.runtime.surroundings import Surroundings
from unistream.runtime.time_report import TimeReport

if TYPE_CHECKING:
    from unistream.api.state import LiveState
    from unistream.state.backend import StateStore

logger = logging.getLogger(__name__)

Until = Literal["end", "available"]


class Job:
    """One or more sinks and all that leads to them. It has not run; `run` and `start` do that.

    >>> import unistream as us
    >>> job = us.from_frame({"a": [1, 2]}).sink_batches(lambda frame: None)
    >>> job
    <Job bounded to function; not started>
    >>> job.run(progress=False).rows_out
    2
    """

    __slots__ = ("_roots",)

    def __init__(self, roots: tuple[Write, ...]) -> None:
        self._roots = roots
        for root in roots:
            _check_sink(root)

    def run(
        self,
        *,
        until: Until = "end",
        checkpoint: str | Path | None = None,
        every: Duration | None = None,
        restore: int | str | Path | None = None,
        restart: RestartStrategy | None = None,
        allow_dropped_state: bool = False,
        progress: bool | None = None,
        settings: Settings | None = None,
        clock: Clock | None = None,
    ) -> Progress:
        """Run and wait, with a progress display in a terminal or notebook; returns the final progress.

        An interrupt (Ctrl-C, the notebook's stop) or a termination signal ends the job cleanly, with a last
        checkpoint, before it is raised again. For the options see `start`.
        """
        from unistream.api.display import following

        with terminable() as termination:
            with termination.held():
                run = self._prepared(
                    until, checkpoint, every, restore, restart, allow_dropped_state, settings, clock
                )
            try:
                with termination.held():
                    run._execution.start()
                with following(run, progress):
                    run.wait()
            except (KeyboardInterrupt, SystemExit):
                run._end()
                raise
        return run.progress

    def start(
        self,
        *,
        until: Until = "end",
        checkpoint: str | Path | None = None,
        every: Duration | None = None,
        restore: int | str | Path | None = None,
        restart: RestartStrategy | None = None,
        allow_dropped_state: bool = False,
        settings: Settings | None = None,
        clock: Clock | None = None,
    ) -> Run:
        """Run in the background; returns once sources and sinks are open.

        `until="available"` ends when everything that is there now was worked off. `checkpoint` is a folder
        or URL: every so often (`every`, 10 s by default) all state and positions are kept there, and the
        next start goes on from the newest; with it a failed job is restarted as `restart` says (with
        growing delays by default). A program that no longer has a step whose state was kept is refused
        unless `allow_dropped_state`.

        `restore` begins from another checkpoint: the folder of a savepoint, for a directory that has no
        checkpoints yet, or the id of an older one of this directory. It does so once: started again with
        the same arguments, the job goes on from the newest. Going back does not take back what sinks have
        written since, so write to a new place.
        """
        run = self._prepared(until, checkpoint, every, restore, restart, allow_dropped_state, settings, clock)
        run._execution.start()
        return run

    def _prepared(
        self,
        until: Until,
        checkpoint: str | Path | None,
        every: Duration | None,
        restore: int | str | Path | None,
        restart: RestartStrategy | None,
        allow_dropped_state: bool,
        settings: Settings | None,
        clock: Clock | None,
    ) -> Run:
        """A run that is known to whoever asked for it before anything happens, so that it can be stopped."""
        settings = settings or Settings.load()
        if every is not None:
            if checkpoint is None:
                hint = "say where they go, as in checkpoint='ckpt/', or leave every= out"
                raise InvalidSettings("every= needs checkpoint=", user_location(), hint)
            settings = settings.override(checkpoint_interval=every)
        clock = clock or SystemClock()

        def make() -> LocalRuntime:
            return self.runtime(
                until=until,
                checkpoint=checkpoint,
                restore=restore,
                allow_dropped_state=allow_dropped_state,
                settings=settings,
                clock=clock,
            )

        if restart is not None and not isinstance(restart, RestartStrategy):
            hint = "use us.FixedDelay(3), us.Exponential() or us.FailureRate(5)"
            raise InvalidSettings(f"restart={restart!r} is no strategy", user_location(), hint)
        strategy = restart or (NEVER if checkpoint is None else Exponential())
        return Run(Execution(make, clock, self._roots[0].sink.name, strategy))

    def runtime(
        self,
        *,
        until: Until = "end",
        checkpoint: str | Path | None = None,
        restore: int | str | Path | None = None,
        allow_dropped_state: bool = False,
        settings: Settings | None = None,
        clock: Clock | None = None,
        threads: bool = True,
    ) -> LocalRuntime:
        """What runs the job, to be ticked by hand; without `threads` nothing happens between ticks."""
        if until not in ("end", "available"):
            hint = 'use until="end" or until="available"'
            raise InvalidSettings(f"until={until!r} is not known", user_location(), hint)
        settings = settings or Settings.load()
        for name, place in (("checkpoint", checkpoint), ("restore", restore)):
            _check_place(name, place)
        if checkpoint is not None:
            settings = settings.override(whole_query=False)
        elif restore is not None:
            hint = "give the folder for the checkpoints that follow, as in checkpoint='ckpt/'"
            raise InvalidSettings("restore= needs checkpoint=", user_location(), hint)
        surroundings = Surroundings(
            store=_stores(),
            checkpoint=checkpoint,
            restore=restore,
            allow_dropped_state=allow_dropped_state,
            settings=settings,
            clock=clock or SystemClock(),
            until=until,
            threads=threads,
        )
        return LocalRuntime(self.graph(settings), surroundings)

    def graph(self, settings: Settings | None = None) -> JobGraph:
        """The graph that would run."""
        return lower(optimize(self._roots), settings or Settings.load())

    def explain(self, format: str = "text", settings: Settings | None = None) -> str:
        """The optimized plan and the graph that would run: "text", "mermaid" or "json"."""
        return explain(optimize(self._roots), self.graph(settings), format)

    @property
    def bounded(self) -> bool:
        """Whether it ends by itself."""
        return all(root.schema.bounded for root in self._roots)

    def __repr__(self) -> str:
        sinks = ", ".join(root.sink.name for root in self._roots)
        return f"<Job {'bounded' if self.bounded else 'unbounded'} to {sinks}; not started>"


def job(*jobs: Job) -> Job:
    """Several sinks as one job, which reads shared sources once.

    >>> import unistream as us
    >>> stream, seen = us.from_frame({"a": [1, 2]}), []
    >>> both = us.job(stream.sink_batches(seen.append), stream.select("a").sink_batches(seen.append))
    >>> both.run(progress=False).rows_in
    2
    """
    hint = "as in `us.job(a.sink_csv(...), b.sink_parquet(...))`"
    if not jobs:
        raise InvalidQuery("job needs at least one sink", user_location(), hint)
    for one in jobs:
        if not isinstance(one, Job):
            raise InvalidQuery(f"job takes jobs, not {type(one).__name__}", user_location(), hint)
    return Job(tuple(root for one in jobs for root in one._roots))


class Run:
    """A job that was started. Leaving it as a context manager stops it.

    >>> import unistream as us
    >>> with us.from_frame({"a": [1, 2]}).sink_batches(lambda frame: None).start() as run:
    ...     run.wait(), run.progress.rows_in
    (True, 2)
    """

    def __init__(self, execution: Execution) -> None:
        self._execution = execution

    @property
    def status(self) -> str:
        """running, stopping, stopped, finished or failed."""
        return self._execution.status

    @property
    def progress(self) -> Progress:
        """Where it stands now."""
        return self._execution.progress()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the end; true when it came. Raises `JobFailed` when the job failed."""
        # Waiting in short turns lets an interrupt through on every platform.
        left = timeout
        while not self._execution.wait(0.1 if left is None else min(0.1, max(left, 0.0))):
            if left is not None:
                left -= 0.1
                if left <= 0:
                    return False
        error = self._execution.error
        if error is not None:
            raise error
        return True

    def stop(self, *, drain: bool = False, timeout: float = 2.0) -> bool:
        """End after the current tick, with a last checkpoint; true when it ended within `timeout` seconds.

        With `drain` the inputs count as ended: open windows close and their results are written.
        """
        self._execution.stop(drain)
        return self._execution.wait(timeout)

    def _end(self) -> None:
        """Stop, and wait for the end however long the tick takes; an interrupt meanwhile ends at once."""
        if self.stop():
            return
        logger.warning(
            "waiting for the end of the tick and the last checkpoint; interrupt again to end at once"
        )
        while not self._execution.wait(0.1):
            pass

    def explain_time(self, key: object = None, *, timeout: float = 10.0) -> TimeReport:
        """Watermarks of the job, which split or source holds them back, and what waits: in words and as data.

        With `key` (a value, a tuple, or a dict of the key columns) also which windows are open for that key,
        what is in them so far, when each fires and why it has not yet: `windows` of the report has them as
        frames. All that is kept is searched for it between two ticks.

        >>> import unistream as us
        >>> rows = us.from_frame({"t": [0, 5]}).with_event_time("t", unit="s")
        >>> with rows.sink_batches(lambda frame: None).start() as run:
        ...     "event_time-1" in run.explain_time().operators
        True
        """
        return self._execution.explain_time(key, timeout)

    def savepoint(self, path: str | Path, timeout: float = 60.0) -> int:
        """Keep the state of this moment in a folder of its own, and go on; returns the checkpoint's id.

        A savepoint shares no file with the checkpoints and is not removed with them. Start a job from it
        with `restore=`: the same program, a changed one, or the same with other settings.
        """
        _check_place("path", path)
        return self._execution.runtime.savepoint(path).result(timeout)

    def state(self, operator: str, timeout: float = 10.0) -> LiveState:
        """The tables of one operator, to be looked at while the job runs; `job.explain()` has its name.

        >>> import polars as pl, unistream as us
        >>> counts = us.scan_rate(1000).group_by(parity=pl.col("value") % 2).agg(n=pl.len())
        >>> with counts.changes().sink_batches(lambda frame: None).start() as run:
        ...     run.state("aggregate-1").tables().columns
        ['operator', 'table', 'kind', 'rows']
        """
        from unistream.api.state import LiveState

        return LiveState(self._execution.runtime, operator, timeout)

    @property
    def restarts(self) -> int:
        """How often the job failed and was started again."""
        return self._execution.restarts

    @property
    def error(self) -> BaseException | None:
        """What ended the job, when it failed."""
        return self._execution.error

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()
        if kind is None and isinstance(self.error, JobFailed):
            raise self.error

    def __repr__(self) -> str:
        now = self.progress
        return f"<Run {now.status}: {now.rows_in:,} rows in, {now.rows_out:,} out>"

    def _repr_html_(self) -> str:
        from unistream.api.html import progress_html

        return progress_html(self.progress)


def _check_place(name: str, place: object) -> None:
    """A folder or URL; an empty one, as of a variable that is not set, would be the working folder."""
    if place is None or (name == "restore" and isinstance(place, int)):
        return
    if not isinstance(place, (str, Path)) or not str(place).strip():
        hint = "write a folder or URL, as in checkpoint='ckpt/'"
        raise InvalidSettings(f"{name}={place!r} is no place for checkpoints", user_location(), hint)


def _stores() -> Callable[[str], StateStore]:
    """Tables in memory; the backend is made by the first operator that wants one."""

    @cache
    def backend() -> Callable[[str], StateStore]:
        from unistream.state.memory import MemoryBackend

        return MemoryBackend().store

    return lambda operator: backend()(operator)


def _check_sink(root: Write) -> None:
    schema = root.schema
    if schema.changes not in root.sink.accepts:
        what = "only adds rows" if schema.changes is Changes.APPEND else "updates its rows as more come in"
        raise InvalidQuery(
            f"The stream {what}, and sink {root.sink.name!r} cannot hold that",
            root.where,
            "emit final results (.window(...) with emit='close'), write what happens with .changes(), "
            "or take the answer with .collect()",
        )
    root.sink.check(schema)
