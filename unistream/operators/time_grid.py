"""Grids on the time axis: where windows and panes begin, in ticks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right

import numpy as np
import numpy.typing as npt
import polars as pl

from unistream.elements import MAX_TIME, MIN_TIME
from unistream.operators.time_axis import TimeAxis
from unistream.operators.windows import Span

Ticks = npt.NDArray[np.int64]

_DAY = 86_400_000_000
_FIRST_MONDAY = 4 * _DAY
_QUARTER_HOUR = 15 * 60_000_000
"""Time zones differ by whole quarters of an hour."""

_MANY = 100_000
"""So many looks at the calendar for one batch are more than looking it up row by row."""


class Grid(ABC):
    """Boundaries that cut the time axis into pieces without gaps. Every piece begins at a boundary."""

    @abstractmethod
    def floor(self, ticks: pl.Series) -> pl.Series:
        """The beginning of the piece each tick is in."""

    @abstractmethod
    def next(self, starts: pl.Series) -> pl.Series:
        """For beginnings of pieces: the beginning of the piece behind."""

    @abstractmethod
    def edges(self, low: int, high: int) -> Ticks:
        """All boundaries from the beginning of the piece `low` is in to the first one behind `high`."""

    def floor_one(self, tick: int) -> int:
        """The beginning of the piece a tick is in; the ends of time are their own."""
        if tick in (MIN_TIME, MAX_TIME):
            return tick
        return int(self.edges(tick, tick)[0])

    def next_one(self, start: int) -> int:
        """The first boundary behind a tick."""
        edges = self.edges(start, start)
        return int(edges[bisect_right(edges.tolist(), start)])


class FixedGrid(Grid):
    """Pieces of one width."""

    def __init__(self, width: int, anchor: int) -> None:
        self.width = width
        self.anchor = anchor % width

    def floor(self, ticks: pl.Series) -> pl.Series:
        numbers = ticks.to_numpy()  # NumPy divides by one number several times as fast as Polars
        pieces = (numbers - self.anchor if self.anchor else numbers) // self.width
        pieces *= self.width
        if self.anchor:
            pieces += self.anchor
        return pl.Series(ticks.name, pieces)

    def next(self, starts: pl.Series) -> pl.Series:
        return starts + self.width

    def edges(self, low: int, high: int) -> Ticks:
        first = self.floor_one(low)
        return np.arange(first, self.floor_one(high) + 2 * self.width, self.width, dtype=np.int64)

    def floor_one(self, tick: int) -> int:
        if tick in (MIN_TIME, MAX_TIME):
            return tick
        return (tick - self.anchor) // self.width * self.width + self.anchor

    def next_one(self, start: int) -> int:
        return self.floor_one(start) + self.width


class CalendarGrid(Grid):
    """Pieces that begin where `dt.truncate` says: months, and days and hours of a time zone.

    Truncating every row would take a hundred nanoseconds each; instead the boundaries around the rows are
    found by truncating moments a little closer together than boundaries can be, and rows are looked up.
    """

    def __init__(self, span: Span, offset: int, zone: str | None, axis: TimeAxis) -> None:
        self._span = span
        self._offset = offset
        self._axis = axis
        self._type = pl.Datetime("us", zone or "UTC")
        # A day is never cut shorter than half of it; pieces of hours may be, down to a quarter of an hour.
        self._step = _QUARTER_HOUR if span.micros else _DAY // 2
        self._known: Ticks = np.empty(0, dtype=np.int64)

    def _truncated(self, micros: pl.Series) -> pl.Series:
        """Beginnings of pieces in microseconds."""
        moments = micros.cast(self._type)
        if self._offset:
            moments = moments.dt.offset_by(f"{-self._offset}us")
        starts = moments.dt.truncate(self._span.text)
        if self._offset:
            starts = starts.dt.offset_by(f"{self._offset}us")
        return starts.cast(pl.Int64)

    def floor(self, ticks: pl.Series) -> pl.Series:
        low, high = ticks.min(), ticks.max()
        if low is None or high is None:
            return ticks
        if (self._axis.micros(high) - self._axis.micros(low)) // self._step > max(_MANY, len(ticks)):  # type: ignore[arg-type]
            return self._floor_each(ticks)
        edges = self.edges(low, high)  # type: ignore[arg-type]
        if len(edges) == 2:
            return pl.repeat(edges[0], len(ticks), dtype=pl.Int64, eager=True)
        places = pl.Series(edges).search_sorted(ticks, side="right") - 1
        return pl.Series(edges).gather(places)

    def _floor_each(self, ticks: pl.Series) -> pl.Series:
        return self._axis.all_ticks(self._truncated(self._axis.all_micros(ticks)))

    def next(self, starts: pl.Series) -> pl.Series:
        low, high = starts.min(), starts.max()
        if low is None or high is None:
            return starts
        edges = pl.Series(self.edges(low, high))  # type: ignore[arg-type]
        return edges.gather(edges.search_sorted(starts, side="right"))

    def edges(self, low: int, high: int) -> Ticks:
        known = self._known
        if not len(known) or low < known[0] or high >= known[-1]:
            known = self._known = self._look_up(low, high)
        first = int(np.searchsorted(known, low, side="right")) - 1
        last = int(np.searchsorted(known, high, side="right"))
        return known[first : last + 1]

    def _look_up(self, low: int, high: int) -> Ticks:
        """Boundaries around these ticks; what was known is kept while it is near."""
        first, last = self._axis.micros(low), self._axis.micros(high)
        if len(self._known):
            near = (self._axis.micros(int(self._known[0])), self._axis.micros(int(self._known[-1])))
            if max(last, near[1]) - min(first, near[0]) < _MANY * self._step:
                first, last = min(first, near[0]), max(last, near[1])
        ahead = 2 * self._span.at_most + self._step
        samples = np.append(np.arange(first, last + ahead, self._step, dtype=np.int64), last + ahead)
        starts = self._truncated(pl.Series(samples)).unique().sort()
        return self._axis.all_ticks(starts).to_numpy()


def make_grid(span: Span, offset: int, zone: str | None, axis: TimeAxis, where: str | None) -> Grid:
    """The grid of windows that begin every `span`, as Polars' `dt.truncate` lays it, moved by `offset`."""
    fixed = span.fixed
    in_utc = zone in (None, "UTC")
    if fixed is not None and (in_utc or (not span.days and _QUARTER_HOUR % fixed == 0)):
        anchor = offset + (_FIRST_MONDAY if span.weekly else 0)
        width = axis.length(fixed, "window", where)
        return FixedGrid(width, axis.length(anchor % fixed, "offset", where))
    axis.length(span.micros, "window", where)
    axis.length(offset, "offset", where)
    return CalendarGrid(span, offset, zone, axis)
