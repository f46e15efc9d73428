"""Joins by time as parts of one Polars query.

Keys alone would bring every row of a key together with every other one, however long the history is beside
the interval. So rows meet by piece of time as well, unless their key is in few rows of one side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import polars as pl

from unistream.expressions.schema import StreamSchema
from unistream.operators.join_layout import JOIN_TIME, LEFT, RIGHT, JoinSpec, PairAxis, PairTime
from unistream.operators.time_axis import TimeAxis
from unistream.operators.time_grid import FixedGrid, make_grid
from unistream.operators.window_layout import START, SlidingLayout, make_layout
from unistream.operators.window_spec import WINDOW_END, WINDOW_START
from unistream.operators.windows import AlignedWindow, Sliding, Tumbling

if TYPE_CHECKING:
    from polars._typing import JoinBuildSide

    from unistream.operators.interval_join import IntervalJoin
    from unistream.operators.window_join import WindowJoin

FEW = 4
"""A key in so many rows of one side has few partners there: nothing is gained by pieces of time."""

SPANS_PER_PIECE = 2
"""How often the interval fits into a piece. Rows are in two pieces more often when pieces are shorter."""

LEAST_PIECE = 100_000
"""Pieces are not shorter (microseconds)."""

LONGEST_SPAN = 10 * 365 * 86_400_000_000
"""An interval this long (microseconds) holds about all there is: then keys are enough."""

MOST_COPIES = 10
"""Rows are not copied into more windows: Polars holds all copies, ticks those of windows that close."""

_FARTHEST = 2**62
_NUMBERS = ("__left", "__right")
_PIECE, _ROWS = "__piece", "__rows"


def interval_query(
    spec: IntervalJoin, inputs: Sequence[pl.LazyFrame], schemas: Sequence[StreamSchema]
) -> pl.LazyFrame | None:
    """Rows with equal keys whose times are near each other, and rows without a partner."""
    axis = PairAxis(schemas)
    far = max(abs(axis.tick(spec.low)), abs(axis.tick(spec.high))) > _FARTHEST // 2
    if far or has_nested_key(spec, schemas):
        return None
    rows = numbered(spec, inputs)
    later = axis.tick_of_rows(RIGHT) - axis.tick_of_rows(LEFT)
    near = later.is_between(axis.tick(spec.low), axis.tick(spec.high))
    pairs = candidates(spec, rows, schemas, axis).filter(near)
    time = None if spec.left_only else PairTime(schemas)
    return outcome(spec, rows, pairs, schemas, spec.schema(schemas).columns, time)


def window_query(
    spec: WindowJoin, inputs: Sequence[pl.LazyFrame], schemas: Sequence[StreamSchema]
) -> pl.LazyFrame | None:
    """Rows with equal keys in the same window, and rows without a partner there."""
    axis = TimeAxis.of(schemas[LEFT])
    length = _length(spec.window, axis)
    if length is None or has_nested_key(spec, schemas):
        return None
    placed = [
        _in_windows(rows, spec.window, TimeAxis.of(schema))
        for rows, schema in zip(inputs, schemas, strict=True)
    ]
    by = [*spec.by, START]
    both = schemas[LEFT].columns if spec.left_only else spec.both(schemas)
    columns = {**both, START: pl.Int64()}
    if spec.predicate is None:
        coalesce = None if spec.left_only else True
        joined = placed[LEFT].join(placed[RIGHT], on=by, how=spec.how, coalesce=coalesce)
    else:
        rows = numbered(spec, placed)
        joined = outcome(spec, rows, rows[LEFT].join(rows[RIGHT], on=by), schemas, columns)
    start, end = axis.values(pl.col(START)), axis.values(pl.col(START) + length)
    joined = joined.with_columns(start.alias(WINDOW_START), end.alias(WINDOW_END))
    return joined.select(*both, WINDOW_START, WINDOW_END)


def _length(window: AlignedWindow, axis: TimeAxis) -> int | None:
    """How long (ticks) all windows are; None where they are not alike, and for too many copies of a row."""
    layout = make_layout(window, axis)
    if isinstance(window, Tumbling) and isinstance(layout.panes, FixedGrid):
        return layout.panes.width
    if isinstance(window, Sliding) and isinstance(layout, SlidingLayout) and window.size.fixed is not None:
        size, every = axis.length(window.size.fixed, "size", window.where), _starts(window, axis).width
        return size if size <= every * MOST_COPIES else None
    return None


def _starts(window: AlignedWindow, axis: TimeAxis) -> FixedGrid:
    """Where windows of one length begin."""
    span = window.every if isinstance(window, Sliding) else window.size
    grid = make_grid(span, window.offset, window.time_zone or axis.zone, axis, window.where)
    assert isinstance(grid, FixedGrid)
    return grid


def _in_windows(rows: pl.LazyFrame, window: AlignedWindow, axis: TimeAxis) -> pl.LazyFrame:
    """Each row once for every window it is in, which `START` tells."""
    length, grid = _length(window, axis), _starts(window, axis)
    ticks = pl.col(axis.column).cast(pl.Int64, strict=False) + axis.offset
    last = (ticks - grid.anchor) // grid.width * grid.width + grid.anchor
    if length == grid.width:
        return rows.with_columns(last.alias(START))
    first = ((ticks - length - grid.anchor) // grid.width + 1) * grid.width + grid.anchor
    starts = pl.int_ranges(first, last + 1, grid.width)
    return rows.with_columns(starts.alias(START)).explode(START)


def has_nested_key(spec: JoinSpec, schemas: Sequence[StreamSchema]) -> bool:
    """Whether a key is made of parts, whose nulls Polars and ticks may see differently."""
    return any(schemas[LEFT].columns[name].is_nested() for name in spec.by)


def numbered(spec: JoinSpec, inputs: Sequence[pl.LazyFrame]) -> list[pl.LazyFrame]:
    """The inputs, with a number for each row of sides of which it has to be known who found a partner.

    These are read twice and must have the same numbers both times.
    """
    return [
        rows.with_row_index(_NUMBERS[side]).cache() if spec.marks(side) else rows
        for side, rows in enumerate(inputs)
    ]


def outcome(
    spec: JoinSpec,
    rows: Sequence[pl.LazyFrame],
    pairs: pl.LazyFrame,
    schemas: Sequence[StreamSchema],
    columns: Mapping[str, pl.DataType],
    time: PairTime | None = None,
) -> pl.LazyFrame:
    """The result of a join: of its numbered rows, and of pairs that only the predicate has not seen yet."""
    if spec.predicate is not None:
        pairs = pairs.filter(spec.predicate)
    if spec.left_only:
        number = _NUMBERS[LEFT]
        return rows[LEFT].join(pairs.select(number), on=number, how=spec.how).select(list(columns))
    outer = [side for side in (LEFT, RIGHT) if spec.outer(side)]
    if outer:
        pairs = pairs.cache()
    parts = [(pairs if time is None else pairs.with_columns(time.later_of_pairs())).select(list(columns))]
    for side in outer:
        number = _NUMBERS[side]
        alone = rows[side].join(pairs.select(number), on=number, how="anti")
        if time is not None:
            alone = alone.with_columns(time.of_rows(side))
        there = {*schemas[side].columns, START if time is None else JOIN_TIME}
        parts.append(
            alone.select(
                pl.col(name) if name in there else pl.lit(None, dtype).alias(name)
                for name, dtype in columns.items()
            )
        )
    return pl.union(parts) if len(parts) > 1 else parts[0]


def candidates(
    spec: IntervalJoin, rows: Sequence[pl.LazyFrame], schemas: Sequence[StreamSchema], axis: PairAxis
) -> pl.LazyFrame:
    """Pairs with equal keys, among them all that are near; no key has far more of them than that."""
    by = list(spec.by)
    span = spec.high - spec.low
    if span >= LONGEST_SPAN or _time_of_keys(spec, schemas):
        return rows[LEFT].join(rows[RIGHT], on=by)
    # What comes first is referred to by what comes later, and there tends to be less of it.
    early = LEFT if spec.low + spec.high > 0 else RIGHT
    if 2 * abs(spec.low + spec.high) < span:
        return _by_piece(spec, rows, early, axis)
    # Read several times, which the optimizer does not see everywhere by itself.
    once = [side.cache() for side in rows]
    counted = once[early].group_by(by).agg(pl.len().alias(_ROWS))
    busy = counted.filter(pl.col(_ROWS) > FEW).select(by).cache()
    # An inner join with nothing reads nothing of the other side; a semi join would.
    few, many = list(once), [side.join(busy, on=by, build_side="force_right") for side in once]
    few[early] = once[early].join(busy, on=by, how="anti")
    # Polars would hold much of both sides to see which is shorter; the early one it holds already, to count
    # its keys. The part of busy keys comes first: mostly it is over at once, and rows wait for nobody.
    build: JoinBuildSide = "force_left" if early == LEFT else "force_right"
    in_few = few[LEFT].join(few[RIGHT], on=by, build_side=build)
    return pl.union([_by_piece(spec, many, early, axis), in_few])


def _time_of_keys(spec: IntervalJoin, schemas: Sequence[StreamSchema]) -> bool:
    """Whether rows with equal keys have equal times."""
    times = {schema.event_time.column for schema in schemas if schema.event_time is not None}
    return len(times) == 1 and times <= set(spec.by)


def _within(axis: PairAxis, ticks: pl.Expr) -> pl.Expr:
    """Nanoseconds reach the end of what numbers hold: what is out there shares a piece."""
    return ticks.clip(-_FARTHEST, _FARTHEST) if axis.per_micro > 1 else ticks


def _by_piece(spec: IntervalJoin, rows: Sequence[pl.LazyFrame], wide: int, axis: PairAxis) -> pl.LazyFrame:
    """Pairs with equal keys in pieces of time that rows of the side `wide` look into, one or two each."""
    low, high = axis.tick(spec.low), axis.tick(spec.high)
    width = max((high - low) * SPANS_PER_PIECE, axis.tick(LEAST_PIECE))
    bounds = (low, high) if wide == LEFT else (-high, -low)
    own, other = (_within(axis, axis.tick_of_rows(side)) for side in (wide, 1 - wide))
    first, last = (_within(axis, own + bound if bound else own) // width for bound in bounds)
    sides = list(rows)
    sides[1 - wide] = rows[1 - wide].with_columns((other // width).alias(_PIECE))
    once = rows[wide].cache()
    sides[wide] = pl.union(
        [
            once.with_columns(first.alias(_PIECE)),
            once.filter(first != last).with_columns(last.alias(_PIECE)),
        ]
    )
    return sides[LEFT].join(sides[RIGHT], on=[*spec.by, _PIECE]).drop(_PIECE)
