"""How aligned windows are made of panes: the pieces of time that rows are folded into once."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import numpy as np
import polars as pl

from unistream.elements import MAX_TIME, MIN_TIME
from unistream.errors import InvalidQuery
from unistream.operators.time_axis import TimeAxis
from unistream.operators.time_grid import FixedGrid, Grid, Ticks, make_grid
from unistream.operators.windows import AlignedWindow, Cumulating, Sliding, Span, Tumbling

_DAY = 86_400_000_000

PANE, START, END = "__pane", "__start", "__end"
"""Columns in which panes and windows travel inside an operator, in ticks."""

PANES = pl.Schema({PANE: pl.Int64, START: pl.Int64, END: pl.Int64})


class Layout(ABC):
    """The windows over an axis. All times are ticks."""

    panes: Grid
    single = False
    """Whether every pane is one whole window."""
    overlap = 1
    """In how many windows a pane is, at most or a few more."""

    @abstractmethod
    def last_end(self, tick: int) -> int:
        """The greatest end of a window that is not after `tick`."""

    @abstractmethod
    def horizon(self, tick: int) -> int:
        """The least event time with a window that ends after `tick`: what is earlier has none left."""

    @abstractmethod
    def windows(self, panes: Ticks, after: int, until: int) -> pl.DataFrame:
        """Which windows ending after `after` and not after `until` each pane is part of (schema `PANES`)."""

    def pairs(self, panes: Ticks, starts: Ticks, ends: Ticks) -> pl.DataFrame:
        """The same for windows given by their bounds, ascending; panes are distinct and ascending."""
        first = np.searchsorted(panes, starts, side="left")
        counts = np.searchsorted(panes, ends, side="left") - first
        at = consecutive(first, counts)
        columns = {PANE: panes[at], START: np.repeat(starts, counts), END: np.repeat(ends, counts)}
        return pl.DataFrame(columns, schema=PANES)


def consecutive(first: Ticks, counts: Ticks) -> Ticks:
    """For each pair the numbers from `first` on, `counts` of them, one pair behind the other."""
    before = np.cumsum(counts) - counts
    offsets: Ticks = np.repeat(first - before, counts)
    return offsets + np.arange(len(offsets), dtype=np.int64)


class TumblingLayout(Layout):
    """A pane is a window."""

    single = True

    def __init__(self, grid: Grid) -> None:
        self.panes = grid

    def last_end(self, tick: int) -> int:
        return self.panes.floor_one(tick)

    def horizon(self, tick: int) -> int:
        return self.panes.floor_one(tick)

    def windows(self, panes: Ticks, after: int, until: int) -> pl.DataFrame:
        starts = pl.Series(panes)
        found = pl.DataFrame({PANE: starts, START: starts, END: self.panes.next(starts)}, schema=PANES)
        return found.filter(pl.col(END).is_between(after, until, closed="right"))


class SlidingLayout(Layout):
    """Windows and panes of fixed widths: everything by arithmetic."""

    def __init__(self, size: int, every: int, anchor: int) -> None:
        self.size, self._every = size, every
        self.overlap = -(-size // every)
        self._anchor = anchor % every
        self._pane = math.gcd(size, every)
        self.panes = FixedGrid(self._pane, anchor)

    def last_end(self, tick: int) -> int:
        if tick in (MIN_TIME, MAX_TIME):
            return tick
        first = self._anchor + self.size
        return (tick - first) // self._every * self._every + first

    def horizon(self, tick: int) -> int:
        if tick in (MIN_TIME, MAX_TIME):
            return tick
        return self.last_end(tick) - self.size + self._every

    def windows(self, panes: Ticks, after: int, until: int) -> pl.DataFrame:
        if not len(panes):
            return pl.DataFrame(schema=PANES)
        # Bounds far from all panes say nothing more, and the ends of time would overflow.
        after = max(after, int(panes[0]) - 2 * self.size)
        until = min(until, int(panes[-1]) + 2 * self.size)
        first_end = self._anchor + self.size
        first = -((first_end - self._pane - panes) // self._every)
        first = np.maximum(first, (after - first_end) // self._every + 1)
        last = np.minimum((panes - self._anchor) // self._every, (until - first_end) // self._every)
        counts = np.maximum(last - first + 1, 0)
        starts = consecutive(first, counts) * self._every + self._anchor
        columns = {PANE: np.repeat(panes, counts), START: starts, END: starts + self.size}
        return pl.DataFrame(columns, schema=PANES)

    def starts(self, panes: pl.Expr) -> pl.Expr:
        """Where all windows begin that each pane is part of, as a list."""
        first = -((self._anchor + self.size - self._pane - panes) // self._every)
        last = (panes - self._anchor) // self._every
        starts = [edge * self._every + self._anchor for edge in (first, last + 1)]
        return pl.int_ranges(starts[0], starts[1], self._every)


class CalendarSlidingLayout(Layout):
    """Windows whose lengths the calendar decides."""

    def __init__(self, starts: Grid, panes: Grid, window: Sliding, zone: str | None, axis: TimeAxis) -> None:
        self.panes = panes
        self._starts = starts
        size, every = window.size, window.every
        self._size, self._offset = size, f"{window.offset}us"
        self._back = f"{-window.offset}us"
        self._type = pl.Datetime("us", zone or "UTC")
        self._axis = axis
        self._longest = axis.tick(size.at_most) + 1
        self.overlap = -(-size.at_most // every.at_most) + 1
        self._around: tuple[int, int, int] | None = None

    def _bounds(self, low: int, high: int) -> tuple[Ticks, Ticks]:
        """Starts and ends of all windows that could touch the ticks from `low` to `high`."""
        starts = self._starts.edges(low - 2 * self._longest, high)
        moments = self._axis.all_micros(pl.Series(starts)).cast(self._type)
        # A moved grid is laid as if it were not and then moved: so ends fall on beginnings, whatever the
        # clocks in the time zone did between.
        moments = moments.dt.offset_by(self._back).dt.offset_by(self._size.text).dt.offset_by(self._offset)
        ends = self.panes.floor(self._axis.all_ticks(moments.cast(pl.Int64)))
        return starts, ends.to_numpy()

    def _near(self, tick: int) -> tuple[int, int, int]:
        """Last end up to the tick, the next end, and the start of the window that has that end."""
        if self._around is None or not self._around[0] <= tick < self._around[1]:
            starts, ends = self._bounds(tick, tick + self._longest)
            at = int(np.searchsorted(ends, tick, side="right"))
            self._around = int(ends[at - 1]), int(ends[at]), int(starts[at])
        return self._around

    def last_end(self, tick: int) -> int:
        return tick if tick in (MIN_TIME, MAX_TIME) else self._near(tick)[0]

    def horizon(self, tick: int) -> int:
        return tick if tick in (MIN_TIME, MAX_TIME) else self._near(tick)[2]

    def windows(self, panes: Ticks, after: int, until: int) -> pl.DataFrame:
        if not len(panes):
            return pl.DataFrame(schema=PANES)
        starts, ends = self._bounds(int(panes[0]), int(panes[-1]))
        wanted = (ends > after) & (ends <= until)
        return self.pairs(panes, starts[wanted], ends[wanted])


class CumulatingLayout(Layout):
    """Windows that begin with a base window and end at each of its panes."""

    def __init__(self, base: Grid, panes: Grid, overlap: int) -> None:
        self.panes = panes
        self._base = base
        self.overlap = overlap

    def last_end(self, tick: int) -> int:
        return self.panes.floor_one(tick)

    def horizon(self, tick: int) -> int:
        return self._base.floor_one(tick)

    def windows(self, panes: Ticks, after: int, until: int) -> pl.DataFrame:
        if not len(panes):
            return pl.DataFrame(schema=PANES)
        starts = self._base.floor(pl.Series(panes))
        stops = self._base.next(starts).to_numpy()
        # The boundaries within each base window that rows fell into, and no others: rows may be far apart.
        bases, first = np.unique(starts.to_numpy(), return_index=True)
        ends = [
            self.panes.edges(int(base), int(stops[at]))[1:] for base, at in zip(bases, first, strict=True)
        ]
        found = [part[part <= stops[at]] for part, at in zip(ends, first, strict=True)]
        begins = np.repeat(bases, [len(part) for part in found])
        all_ends = np.concatenate(found)
        wanted = (all_ends > after) & (all_ends <= until)
        return self.pairs(panes, begins[wanted], all_ends[wanted])


def make_layout(window: AlignedWindow, axis: TimeAxis) -> Layout:
    """The layout of a window over this axis; raises `InvalidQuery` for windows that cannot be laid."""
    zone = window.time_zone or axis.zone
    if axis.unit == "d" and zone not in (None, "UTC"):
        raise InvalidQuery(
            f"Event time column {axis.column!r} holds whole days, which no time zone divides",
            window.where,
            "leave time_zone out, or cast the column to pl.Datetime('us')",
        )

    def grid(span: Span) -> Grid:
        return make_grid(span, window.offset, zone, axis, window.where)

    match window:
        case Tumbling():
            return TumblingLayout(grid(window.size))
        case Sliding():
            return _sliding(window, grid(window.every), zone, axis)
        case Cumulating():
            _check_steps(window)
            base = grid(window.size)
            overlap = -(-window.size.at_most // window.step.at_most)
            return CumulatingLayout(base, _step_grid(window, base, zone, axis), overlap)
    raise InvalidQuery(f"A {window.kind} window lies on no grid", window.where)


def _sliding(window: Sliding, starts: Grid, zone: str | None, axis: TimeAxis) -> Layout:
    size, every = window.size, window.every
    if every.at_most > size.at_most:
        hint = "take every <= size; leave rows out with filter"
        raise InvalidQuery(f"Windows of {size.text} every {every.text} leave out rows", window.where, hint)
    if isinstance(starts, FixedGrid) and size.fixed is not None and (zone in (None, "UTC") or not size.days):
        return SlidingLayout(axis.length(size.fixed, "size", window.where), starts.width, starts.anchor)
    pane = make_grid(_common(size, every), window.offset, zone, axis, window.where)
    return CalendarSlidingLayout(starts, pane, window, zone, axis)


def _common(size: Span, every: Span) -> Span:
    """The longest span whose grid has all boundaries of both."""
    if size.months and every.months:
        return Span(months=math.gcd(size.months, every.months))
    if size.micros or every.micros:
        return Span(micros=math.gcd(size.micros or _DAY, every.micros or _DAY))
    if size.weekly and every.weekly:
        return Span(days=math.gcd(size.days, every.days), weekly=True)
    same_kind = not (size.months or every.months or size.weekly or every.weekly)
    return Span(days=math.gcd(size.days, every.days) if same_kind else 1)


def _step_grid(window: Cumulating, base: Grid, zone: str | None, axis: TimeAxis) -> Grid:
    fixed = window.step.fixed
    if isinstance(base, FixedGrid) and fixed is not None:
        return FixedGrid(axis.length(fixed, "step", window.where), base.anchor)
    return make_grid(window.step, window.offset, zone, axis, window.where)


def _check_steps(window: Cumulating) -> None:
    size, step = window.size, window.step
    if size.months:
        fits = size.months % step.months == 0 if step.months else _DAY % (step.fixed or 1) == 0
    else:
        whole, part = size.fixed, step.fixed
        fits = whole is not None and part is not None and whole % part == 0
        if fits and size.days and part is not None:
            fits = size.weekly == step.weekly or part <= _DAY
    if not fits:
        raise InvalidQuery(
            f"Steps of {step.text} do not divide a window of {size.text}",
            window.where,
            'take a step that fits a whole number of times, as in cumulating("1d", step="1h")',
        )
