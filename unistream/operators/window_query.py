"""Windows over rows that are all there, as part of one Polars query."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import polars as pl

from unistream.elements import MAX_TIME, MIN_TIME
from unistream.expressions.order_shape import asks_for_order, best_of
from unistream.expressions.schema import StreamSchema
from unistream.operators.time_axis import TimeAxis
from unistream.operators.time_grid import FixedGrid, Grid
from unistream.operators.window_contents import Aggregation, BufferedContents, Contents, FoldedContents
from unistream.operators.window_layout import END, PANE, START, Layout, SlidingLayout
from unistream.operators.window_spec import WINDOW_END, WINDOW_START, WindowSpec

if TYPE_CHECKING:
    from unistream.operators.global_window import GlobalWindowSpec
    from unistream.operators.window_aggregate import AlignedWindowSpec, SameWindowSpec

MOST_PARTS = 32
"""Windows of one pane, at most, for which parts of panes are copied into each of them."""

MOST_ROWS = 10
"""The same for rows: Polars holds all copies at once, ticks those of the windows that close."""

_WINDOWS, _ALL, _BEST = "__windows", "__all", "__best"


def aligned_query(spec: AlignedWindowSpec, rows: pl.LazyFrame, schema: StreamSchema) -> pl.LazyFrame | None:
    """The results of tumbling, sliding and cumulating windows, or None when ticks are to find them."""
    axis = TimeAxis.of(schema)
    layout = spec.layout(axis)
    contents = _contents(spec, schema, overlapping=not layout.single)
    if contents is None:
        return None
    by, placed = list(spec.by), _placed(rows, axis, layout.panes)
    if layout.single:
        made = _aggregated(placed, [PANE, *by], contents).with_columns(
            pl.col(PANE).alias(START), _next(layout.panes).alias(END)
        )
        return _result(made, axis, spec, contents, [END])
    most = MOST_PARTS if isinstance(contents, FoldedContents) else MOST_ROWS
    if layout.overlap > most:
        return None
    group = [START, END, *by]
    if isinstance(contents, FoldedContents):
        parts = placed.group_by([PANE, *by]).agg(contents.parts.partial)
        merged = _copied(parts, layout).group_by(group).agg(contents.parts.merge)
        made = merged.select(*group, *contents.parts.finish)
    else:
        narrow = placed.select(PANE, *dict.fromkeys([*by, *sorted(spec.calculation.reads)]))
        made = _aggregated(_copied(narrow, layout), group, contents)
    return _result(made, axis, spec, contents, [END, START])


def same_window_query(spec: SameWindowSpec, rows: pl.LazyFrame, schema: StreamSchema) -> pl.LazyFrame | None:
    """The results of windows of windows, or None when ticks are to find them.

    Results of a window have no order of arrival that an aggregate could ask for: `spec.over` says what their
    lists are in order of.
    """
    contents = _contents(spec, schema)
    given, settled = spec.calculation, spec.over(schema)
    if contents is None or not isinstance(given, Aggregation) or not isinstance(settled, Aggregation):
        return None
    both = zip(given.exprs, settled.exprs, strict=True)
    if asks_for_order([one for one, other in both if one is other]):
        return None
    axis = TimeAxis.of(schema)
    # A union of one table says that its order counts for nothing: nobody need sort it.
    placed = _placed(pl.union([rows]), axis, FixedGrid(1, 0))
    made = _aggregated(placed, [PANE, *spec.group], contents).with_columns((pl.col(PANE) + 1).alias(END))
    return _result(made, axis, spec, contents, [END, WINDOW_START])


def global_window_query(
    spec: GlobalWindowSpec, rows: pl.LazyFrame, schema: StreamSchema
) -> pl.LazyFrame | None:
    """One row per key over all of its rows; None where results are given more than once and all stay."""
    contents = _contents(spec, schema)
    if contents is None or (spec.window.purge and spec.emit.when != "close"):
        return None
    by = list(spec.by) or [_ALL]
    marked = rows if spec.by else rows.with_columns(pl.lit(0, pl.Int8).alias(_ALL))
    bounds = [pl.lit(0, pl.Int64).alias(WINDOW_START), pl.len().cast(pl.Int64).alias(WINDOW_END)]
    made = _aggregated(marked, by, contents, bounds[1:])
    return made.with_columns(bounds[0]).select(*spec.by, WINDOW_START, WINDOW_END, *contents.result)


def _contents(spec: WindowSpec, schema: StreamSchema, *, overlapping: bool = False) -> Contents | None:
    """What computes the aggregates; None for other calculations, and where names clash."""
    if not isinstance(spec.calculation, Aggregation):
        return None
    contents = spec.over(schema).contents(schema.columns, spec.group, spec.where, overlapping=overlapping)
    taken = {WINDOW_START, WINDOW_END, *spec.group}
    return None if taken & set(contents.result) else contents


def _placed(rows: pl.LazyFrame, axis: TimeAxis, panes: Grid) -> pl.LazyFrame:
    """Rows that have a time, with their pane."""
    return rows.filter(pl.col(axis.column).is_not_null()).with_columns(
        _floor(panes, axis.tick_of_rows).alias(PANE)
    )


def _floor(grid: Grid, ticks: pl.Expr) -> pl.Expr:
    if isinstance(grid, FixedGrid):
        moved = ticks - grid.anchor if grid.anchor else ticks
        floored = moved // grid.width * grid.width if grid.width > 1 else moved
        return floored + grid.anchor if grid.anchor else floored
    return ticks.map_batches(grid.floor, return_dtype=pl.Int64(), is_elementwise=True)


def _next(grid: Grid) -> pl.Expr:
    if isinstance(grid, FixedGrid):
        return pl.col(PANE) + grid.width
    return pl.col(PANE).map_batches(grid.next, return_dtype=pl.Int64(), is_elementwise=True)


def _aggregated(
    rows: pl.LazyFrame, by: Sequence[str], contents: Contents, more: Sequence[pl.Expr] = ()
) -> pl.LazyFrame:
    """One row per group, computed as ticks compute it: within a group Polars keeps the order of rows."""
    if isinstance(contents, FoldedContents):
        made = rows.group_by(by).agg(*contents.parts.partial, *more)
        kept = [pl.col(expr.meta.output_name()) for expr in more]
        return made.select(*by, *contents.parts.finish, *kept)
    assert isinstance(contents, BufferedContents)
    best = None if more else best_of(contents.exprs)
    if best is not None:
        # Few rows are best: without the others, which make no difference, there is far less to group.
        value, extreme = best
        marked = rows.with_columns(extreme.over(by).alias(_BEST))
        rows = marked.filter((value == pl.col(_BEST)) | pl.col(_BEST).is_null())
    return rows.group_by(by).agg(*contents.exprs, *more)


def _copied(parts: pl.LazyFrame, layout: Layout) -> pl.LazyFrame:
    """Rows of panes, once for each window their pane is part of, which `START` and `END` tell."""
    if isinstance(layout, SlidingLayout):
        starts = parts.with_columns(layout.starts(pl.col(PANE)).alias(START)).drop(PANE)
        return starts.explode(START).with_columns((pl.col(START) + layout.size).alias(END))
    windows = pl.List(pl.Struct({START: pl.Int64(), END: pl.Int64()}))

    def found(panes: pl.Series) -> pl.Series:
        distinct = panes.unique().sort()
        pairs = layout.windows(distinct.to_numpy(), MIN_TIME, MAX_TIME)
        lists = pairs.group_by(PANE).agg(pl.struct(START, END).alias(_WINDOWS))
        placed = panes.alias(PANE).to_frame().join(lists, on=PANE, how="left", maintain_order="left")
        return placed.get_column(_WINDOWS)

    listed = pl.col(PANE).map_batches(found, return_dtype=windows, is_elementwise=True)
    with_lists = parts.with_columns(listed.alias(_WINDOWS)).drop(PANE)
    # Months that begin every 30 days leave out days of long ones.
    return with_lists.explode(_WINDOWS, empty_as_null=False, keep_nulls=False).unnest(_WINDOWS)


def _result(
    made: pl.LazyFrame, axis: TimeAxis, spec: WindowSpec, contents: Contents, order: Sequence[str]
) -> pl.LazyFrame:
    """Results in order of time, as the columns the user sees; a `window_start` that is there stays."""
    bounds = [axis.values(pl.col(END)).alias(WINDOW_END)]
    if WINDOW_START not in spec.group:
        bounds.append(axis.values(pl.col(START)).alias(WINDOW_START))
    columns = [*spec.by, WINDOW_START, WINDOW_END, *contents.result]
    return made.sort(order).with_columns(bounds).select(columns)
