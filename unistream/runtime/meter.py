"""Turns counters into progress: totals, recent rates, what is left."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import TypeVar

from unistream.clock import Clock
from unistream.elements import MAX_TIME, MIN_TIME
from unistream.graph import WholeQuery
from unistream.io.base import LazyWrite
from unistream.metrics import Metrics
from unistream.runtime.progress import Progress, SourceProgress
from unistream.runtime.task import OperatorTask, SinkTask, SourceTask, Task

T = TypeVar("T", bound=Task)

RATE_WINDOW = 5.0
"""Seconds over which rates are taken."""


class Meter:
    """Follows the tasks of one run. `ticked` is called by the tick, `progress` by anybody."""

    def __init__(self, clock: Clock, metrics: Metrics) -> None:
        self._clock = clock
        self._metrics = metrics
        self._started = clock.steady()
        self._ended: float | None = None
        self._ticks = 0
        self._tasks: list[Task] = []
        self._query: LazyWrite | None = None
        self._query_rows: tuple[int, int] | None = None
        self._most_done = 0.0
        self._samples: deque[tuple[float, int, int]] = deque([(self._started, 0, 0)])

    def follow(self, tasks: Iterable[Task]) -> None:
        """These tasks are counted; without any it is the query."""
        self._tasks = list(tasks)
        if self._tasks:
            self._query = None

    def follow_query(self, write: LazyWrite) -> None:
        """The job is one query; until its end all there is to see is what it has written."""
        self._query = write

    def query_ended(self, payload: WholeQuery, rows_out: int) -> None:
        """What it has read and filtered is known now, if its sources can tell."""
        counts = [source.count_rows() for source in payload.sources]
        rows_in = sum(count for count in counts if count is not None)
        if None not in counts:
            self._query_rows = (rows_in, rows_in - rows_out if payload.only_filters else 0)

    def ticked(self) -> None:
        """One more round."""
        self._ticks += 1

    def stopped(self) -> None:
        """The clock of the job stands from here on."""
        self._ended = self._clock.steady()

    def progress(self, status: str, checkpoint: tuple[int, int] | None = None) -> Progress:
        """The record of this moment."""
        now = self._clock.steady() if self._ended is None else self._ended
        sources = {str(task.vertex.id): self._source(task) for task in self._of(SourceTask)}
        rows_in = sum(source.rows for source in sources.values())
        bytes_in = sum(source.nbytes for source in sources.values())
        rows_out = sum(int(task.metrics.get("rows_out")) for task in self._of(SinkTask))
        if self._query is not None:
            rows_in = rows_out = self._query.progress()
        filtered = self._total("filtered")
        if self._query_rows is not None:
            rows_in, filtered = self._query_rows
        rows_rate, bytes_rate = self._rates(now, rows_in, bytes_in)
        ends = all(task.vertex.schema.bounded for task in self._of(SourceTask))
        done = self._share_done(list(sources.values())) if ends else None
        elapsed = now - self._started
        watermark = self._watermark()
        return Progress(
            status=status,
            seconds=elapsed,
            ticks=self._ticks,
            rows_in=rows_in,
            rows_out=rows_out,
            bytes_in=bytes_in,
            filtered=filtered,
            late=self._total("late"),
            rejected=self._total("rejected"),
            rows_per_second=rows_rate,
            bytes_per_second=bytes_rate,
            done=done,
            seconds_left=elapsed * (1 - done) / done if done else None,
            watermark=watermark,
            watermark_lag=None if watermark is None else (self._clock.now() - watermark) / 1e6,
            checkpoint=None if checkpoint is None else checkpoint[0],
            checkpoint_age=None if checkpoint is None else (self._clock.now() - checkpoint[1]) / 1e6,
            sources=sources,
            operators=self._operators(),
        )

    def _share_done(self, sources: list[SourceProgress]) -> float | None:
        """Never back, and 1 at last: counts are taken while a source reads, shares of files are rounded."""
        share = _share_done(sources)
        if share is None:
            return None
        over = all(source.ended for source in sources)
        self._most_done = 1.0 if over else max(self._most_done, share)
        return self._most_done

    def _of(self, kind: type[T]) -> list[T]:
        return [task for task in self._tasks if isinstance(task, kind)]

    def _total(self, name: str) -> int:
        return sum(int(task.metrics.get(name)) for task in self._tasks)

    def _source(self, task: SourceTask) -> SourceProgress:
        backlog, status, held = task.feed.backlog(), task.feed.status(), task.held
        return SourceProgress(
            rows=int(task.metrics.get("rows_in")),
            nbytes=int(task.metrics.get("bytes_in")),
            rejected=int(task.metrics.get("rejected")),
            backlog_rows=backlog.rows,
            backlog_bytes=backlog.nbytes,
            total_rows=backlog.total_rows,
            total_bytes=backlog.total_bytes,
            waiting_for=status.waiting_for if held is None else str(held),
            ended=task.ended,
        )

    def _rates(self, now: float, rows: int, nbytes: int) -> tuple[float, float]:
        self._samples.append((now, rows, nbytes))
        while len(self._samples) > 2 and now - self._samples[0][0] > RATE_WINDOW:
            self._samples.popleft()
        then, old_rows, old_bytes = self._samples[0]
        span = max(now - then, 1e-9)
        return (rows - old_rows) / span, (nbytes - old_bytes) / span

    def _watermark(self) -> int | None:
        marks = [task.watermark for task in self._of(SinkTask)]
        least = min(marks, default=MIN_TIME)
        return None if least in (MIN_TIME, MAX_TIME) else least

    def _operators(self) -> dict[str, dict[str, float]]:
        tasks = [task for task in self._tasks if isinstance(task, (OperatorTask, SinkTask))]
        prefix = {task.vertex.id: f"{task.vertex.id}." for task in tasks}
        return {
            name: {key.removeprefix(start): value for key, value in self._metrics.scoped(name).items()}
            for name, start in prefix.items()
        }


def _share_done(sources: Iterable[SourceProgress]) -> float | None:
    """By bytes where all sources know theirs, else by rows, else unknown."""
    known = list(sources)
    if not known:
        return None
    for unit in ("bytes", "rows"):
        totals = [getattr(source, f"total_{unit}") for source in known]
        ahead = [getattr(source, f"backlog_{unit}") for source in known]
        if None not in totals and None not in ahead:
            total = sum(totals)
            return 1.0 if total == 0 else min(1.0, max(0.0, 1 - sum(ahead) / total))
    return None
