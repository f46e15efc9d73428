"""Makes sure, while one query reads a source, that event time rejects none of its rows and passes none by."""

from __future__ import annotations

import threading

import polars as pl

from unistream.elements import MIN_TIME
from unistream.one_query import Conditions
from unistream.operators.time_axis import TimeAxis, greatest, least


class TimeOrder:
    """Rows in bounds, and none more than `delay` ticks behind an earlier one (any, when it is None).

    No watermark passes such a row, however the source is cut into splits and ticks: it lies `delay` behind
    the greatest time before it at most.
    """

    def __init__(
        self, axis: TimeAxis, bounds: tuple[int, int], delay: int | None, conditions: Conditions
    ) -> None:
        self._axis = axis
        self._lowest, self._highest = bounds
        self._delay = delay
        self._conditions = conditions
        self._lock = threading.Lock()
        self._pieces: list[tuple[int, int, int]] = []

    @property
    def column(self) -> str:
        """The column of event time."""
        return self._axis.column

    def see(self, first: int, rows: pl.DataFrame) -> None:
        """Some rows in order, the first of which has the number `first`; raises `Unmet`."""
        ticks = self._axis.ticks(rows)
        low, high = least(ticks), greatest(ticks)
        if ticks.null_count():
            self._conditions.fail(f"a row has no {self.column}")
        if low is None or high is None:
            return
        if low < self._lowest or high > self._highest:
            self._conditions.fail(f"a {self.column} is out of range")
        if self._delay is None:
            return
        if high - low > self._delay and not ticks.is_sorted():
            behind = greatest(ticks.cum_max() - ticks)
            if behind is not None and behind > self._delay:
                self._conditions.fail("a row is late")
        with self._lock:
            self._pieces.append((first, low, high))

    def finish(self) -> None:
        """All rows were seen: were the pieces in order too? Raises `Unmet`."""
        if self._delay is None:
            return
        before = MIN_TIME
        for _, low, high in sorted(self._pieces):
            if before != MIN_TIME and low < before - self._delay:
                self._conditions.fail("a row is late")
            before = max(before, high)
