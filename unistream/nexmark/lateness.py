"""How late results are: from when an event was due to when what came of it reached the sink."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from unistream.clock import Clock
from unistream.expressions.schema import Changes
from unistream.io.base import Sink, Writer, WriterContext
from unistream.runtime.task import SourceTask, Task

WINDOWED = frozenset({"q5", "q6", "q7", "q8", "q11", "q12"})
"""Results wait for windows to close: how late they are is a matter of the query, so it is not measured."""

WARM_UP = 2.0
"""Seconds at the beginning that do not count, or a quarter of the run where that is less."""


@dataclass(eq=False)
class Counter(Writer):
    """Counts rows and knows when the last came; keeps nothing."""

    clock: Clock
    rows: int = 0
    last: int = 0

    def write(self, frame: pl.DataFrame) -> None:
        self.rows += frame.height
        self.last = self.clock.now()


@dataclass(frozen=True, eq=False)
class CountingSink(Sink):
    """Takes every kind of stream."""

    counter: Counter
    name = "counting"

    @property
    def accepts(self) -> frozenset[Changes]:
        return frozenset(Changes)

    def open(self, context: WriterContext) -> Writer:
        return self.counter


@dataclass
class Lateness:
    """Follows a job that reads from the generator at `rate` events a second, the first due at `start`.

    The number of an event says when it was due, so no column has to travel with the rows. An event counts
    as answered when every source has passed it and rows of that tick have reached the sink; events of ticks
    without a result are left out.
    """

    start: int
    rate: float
    _reached: int = 0
    _answered: list[tuple[int, int, int]] = field(default_factory=list)

    def ticked(self, tasks: Iterable[Task], answered_at: int | None) -> None:
        """After each tick: when its last rows reached the sink, None when there were none."""
        sources = [task for task in tasks if isinstance(task, SourceTask)]
        reached = min(_next_event(task) for task in sources)
        if answered_at is not None and reached > self._reached:
            self._answered.append((self._reached, reached, answered_at))
        self._reached = max(self._reached, reached)

    def percentiles(self) -> tuple[float, float] | None:
        """p50 and p99 in milliseconds; None when nothing was answered."""
        warm = min(int(WARM_UP * self.rate), self._reached // 4)
        late = [at - self._due(max(first, warm), stop) for first, stop, at in self._answered if stop > warm]
        if not late:
            return None
        p50, p99 = np.percentile(np.concatenate(late), [50, 99]) / 1000
        return float(p50), float(p99)

    def _due(self, first: int, stop: int) -> np.ndarray:
        return self.start + np.arange(first, stop) * (1_000_000 / self.rate)


def _next_event(task: SourceTask) -> int:
    return min((int(position["next"]) for position in task.positions.values()), default=0)
