"""Grids on the time axis: where windows and panes begin, in ticks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right

import numpy as np
import numpy.typing as npt
import polars as pl

from unistream.elements import MAX_TIME, MIN_TIME
from unistream.operators.clock_changes import clock_changes
from unistream.operators.time_axis import TimeAxis, greatest, least
from unistream.operators.windows import Span

Ticks = npt.NDArray[np.int64]

_DAY = 86_400_000_000
_FIRST_MONDAY = 4 * _DAY
_QUARTER_HOUR = 15 * 60_000_000
"""Time zones differ by whole quarters of an hour, since 1979 all of them."""

_HALF_DAY = _DAY // 2
"""No day is cut shorter where clocks are set."""

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


class ZoneGrid(Grid):
    """Pieces of one width by the clock of a time zone.

    Between two times when the clock is set they are as regular as those of a `FixedGrid`. Where it is set
    forward over the beginning of a piece, that begins when it is set; else the piece at hand goes on until
    the clock, as it is now, shows the next beginning.
    """

    def __init__(self, width: int, offset: int, zone: str, axis: TimeAxis) -> None:
        """`width` and `offset` are in ticks: the grid is laid, then moved."""
        moments, ahead = (axis.all_ticks(pl.Series(micros)) for micros in clock_changes(zone))
        self._ahead: list[int] = ahead.to_list()
        # The stretches between two changes of the clock.
        self._begins: list[int] = [MIN_TIME, *(moments + offset)]
        self._ends = [*self._begins[1:], MAX_TIME]
        self._grids = [FixedGrid(width, offset - each) for each in self._ahead]
        self._width = width
        # Of each the boundary that rules at its beginning, and the first that is not before its end.
        self._heads, self._nexts = [MIN_TIME], [MAX_TIME]
        for at in range(1, len(self._begins)):
            self._heads.append(self._head(at))
        for at in range(len(self._begins) - 1, 0, -1):
            self._nexts.insert(0, self._first(at))
        self._anchors: Ticks = np.array([grid.anchor for grid in self._grids])
        self._edges: Ticks = np.array([self._begins, self._heads, self._ends, self._nexts])

    def _head(self, at: int) -> int:
        begin = self._begins[at]
        # What the clock had not shown before it was set over it, it never will.
        set_over = max(0, self._ahead[at] - self._ahead[at - 1])
        if begin - self._grids[at].floor_one(begin) <= set_over:
            return begin
        return self._floor_in(at - 1, begin - 1)

    def _first(self, at: int) -> int:
        begin, grid = self._begins[at], self._grids[at]
        found = begin if self._heads[at] == begin else grid.next_one(begin)
        return found if found < self._ends[at] else self._nexts[0]

    def _stretch(self, tick: int) -> int:
        return bisect_right(self._begins, tick) - 1

    def _floor_in(self, at: int, tick: int) -> int:
        start = self._grids[at].floor_one(tick)
        return start if start >= self._begins[at] else self._heads[at]

    def floor_one(self, tick: int) -> int:
        return tick if tick in (MIN_TIME, MAX_TIME) else self._floor_in(self._stretch(tick), tick)

    def next_one(self, start: int) -> int:
        at = self._stretch(start)
        found = self._grids[at].next_one(start)
        return found if found < self._ends[at] else self._nexts[at]

    def floor(self, ticks: pl.Series) -> pl.Series:
        low, high = least(ticks), greatest(ticks)
        if low is None or high is None:
            return ticks
        at = self._stretch(low)
        if high < self._ends[at] and self._grids[at].floor_one(low) >= self._begins[at]:
            return self._grids[at].floor(ticks)
        numbers = ticks.to_numpy()
        stretches, starts = self._regular(numbers)
        begins, heads, _, _ = self._edges
        before = np.flatnonzero(starts < begins[stretches])
        starts[before] = heads[stretches[before]]
        return pl.Series(ticks.name, starts)

    def next(self, starts: pl.Series) -> pl.Series:
        low, high = least(starts), greatest(starts)
        if low is None or high is None:
            return starts
        at = self._stretch(low)
        if self._grids[at].next_one(high) < self._ends[at]:
            return self._grids[at].floor(starts) + self._width
        stretches, found = self._regular(starts.to_numpy())
        found += self._width
        _, _, ends, nexts = self._edges
        beyond = np.flatnonzero(found >= ends[stretches])
        found[beyond] = nexts[stretches[beyond]]
        return pl.Series(starts.name, found)

    def _regular(self, ticks: Ticks) -> tuple[Ticks, Ticks]:
        """The stretch of each tick, and where its piece would begin if all time were like that."""
        stretches = np.searchsorted(self._edges[0], ticks, side="right") - 1
        anchors = self._anchors[stretches]
        starts = ticks - anchors
        starts //= self._width
        starts *= self._width
        starts += anchors
        return stretches, starts

    def edges(self, low: int, high: int) -> Ticks:
        start, stop = self.floor_one(low), self.next_one(high)
        found: list[Ticks] = []
        for at in range(self._stretch(start), self._stretch(stop) + 1):
            begin = self._nexts[at - 1] if found else start
            until = min(self._ends[at], stop + 1)
            found += [np.array([begin]), np.arange(self._grids[at].next_one(begin), until, self._width)]
        return np.unique(np.concatenate(found))


class CalendarGrid(Grid):
    """Pieces that begin where `dt.truncate` says: months, and days of a time zone.

    Truncating every row would take a hundred nanoseconds each; instead the boundaries around the rows are
    found by truncating moments a little closer together than boundaries can be, and rows are looked up.
    """

    def __init__(self, span: Span, offset: int, zone: str | None, axis: TimeAxis) -> None:
        self._span = span
        self._offset = offset
        self._axis = axis
        self._type = pl.Datetime("us", zone or "UTC")
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
        if (self._axis.micros(high) - self._axis.micros(low)) // _HALF_DAY > max(_MANY, len(ticks)):  # type: ignore[arg-type]
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
            if max(last, near[1]) - min(first, near[0]) < _MANY * _HALF_DAY:
                first, last = min(first, near[0]), max(last, near[1])
        ahead = 2 * self._span.at_most + _HALF_DAY
        samples = np.append(np.arange(first, last + ahead, _HALF_DAY, dtype=np.int64), last + ahead)
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
    width = axis.length(span.micros, "window", where)
    moved = axis.length(offset, "offset", where)
    if span.micros and zone is not None:
        return ZoneGrid(width, moved, zone, axis)
    return CalendarGrid(span, offset, zone, axis)
