"""Tumbling, sliding and cumulating windows that give their results once, when they close."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import polars as pl

from unistream.elements import MAX_TIME, MIN_TIME, Batch
from unistream.errors import InvalidQuery
from unistream.expressions.order_shape import asks_for_order, in_order_of
from unistream.expressions.schema import Changes, StreamSchema
from unistream.operators.base import Context, OpenWindows, Operator, Output
from unistream.operators.late_sorter import LateSorter
from unistream.operators.pane_merger import PaneMerger
from unistream.operators.pane_store import PaneStore
from unistream.operators.time_axis import TimeAxis, least
from unistream.operators.time_grid import FixedGrid
from unistream.operators.window_contents import Aggregation, Calculation, Contents
from unistream.operators.window_layout import END, PANE, START, Layout, TumblingLayout, make_layout
from unistream.operators.window_query import aligned_query, same_window_query
from unistream.operators.window_sequence import Sequenced
from unistream.operators.window_spec import (
    WINDOW_END,
    WINDOW_START,
    WindowSpec,
    result_frame,
    same_key,
    windows_of_key,
)
from unistream.operators.window_updates import UpdatingWindowOperator
from unistream.operators.windows import AlignedWindow, SameWindow


@dataclass(frozen=True, eq=False, kw_only=True)
class AlignedWindowSpec(WindowSpec):
    """Windows on a grid of time, the same for all keys."""

    name: ClassVar[str] = "window"
    window: AlignedWindow

    @property
    def by_time(self) -> bool:
        return True

    def schema(self, inputs: Sequence[StreamSchema]) -> StreamSchema:
        found = super().schema(inputs)
        axis = TimeAxis.of(inputs[0])
        make_layout(self.window, axis)  # refuses what cannot be laid
        axis.length(self.lateness, "allowed lateness", self.where)
        if found.changes is not Changes.APPEND and not isinstance(self.calculation, Aggregation):
            raise InvalidQuery(
                "Windows give updates of aggregates, one row per key and window, and of nothing else",
                self.where,
                "leave out emit= and allowed_lateness=, or use .agg(...)",
            )
        return found

    def layout(self, axis: TimeAxis) -> Layout:
        """Where the windows lie."""
        return make_layout(self.window, axis)

    def build(self, inputs: Sequence[StreamSchema]) -> Operator:
        final = self.emit.when == "close" and not self.lateness
        return ClosingWindowOperator(self, inputs[0]) if final else UpdatingWindowOperator(self, inputs[0])

    @property
    def by_order(self) -> bool:
        return not isinstance(self.calculation, Aggregation) or asks_for_order(self.calculation.exprs)

    def lazy(self, inputs: Sequence[pl.LazyFrame], schemas: Sequence[StreamSchema]) -> pl.LazyFrame | None:
        return aligned_query(self, inputs[0], schemas[0])


@dataclass(frozen=True, eq=False, kw_only=True)
class SameWindowSpec(WindowSpec):
    """Results of a window, put together by the window they are from."""

    name: ClassVar[str] = "window"
    window: SameWindow

    @property
    def by_time(self) -> bool:
        return True

    def schema(self, inputs: Sequence[StreamSchema]) -> StreamSchema:
        time = inputs[0].event_time
        if time is None or time.column != WINDOW_END or WINDOW_START not in inputs[0].columns:
            raise InvalidQuery(
                "window() without arguments takes results of a window, with window_start and window_end",
                self.where,
                'say which window, as in .window(us.tumbling("1m")), or keep both columns',
            )
        if self.changes is not Changes.APPEND:
            hint = "leave out emit= and allowed_lateness= here and say them where the window is made"
            raise InvalidQuery("Windows of windows give final results", self.where, hint)
        return super().schema(inputs)

    @property
    def group(self) -> tuple[str, ...]:
        return (*self.by, WINDOW_START)

    def over(self, rows: StreamSchema) -> Calculation:
        """Lists are in order of the keys of the results they are made of, which have no other order."""
        keys = [name for name in rows.key if name not in (WINDOW_START, WINDOW_END)]
        if not isinstance(self.calculation, Aggregation) or any(
            rows.columns[key].is_nested() for key in keys
        ):
            return self.calculation
        return Aggregation.of([in_order_of(keys, expr) for expr in self.calculation.exprs])

    def layout(self, axis: TimeAxis) -> Layout:
        """Event time is the last moment of each window, so that every moment is a window of its own."""
        return TumblingLayout(FixedGrid(1, 0))

    def build(self, inputs: Sequence[StreamSchema]) -> Operator:
        return ClosingWindowOperator(self, inputs[0])

    def lazy(self, inputs: Sequence[pl.LazyFrame], schemas: Sequence[StreamSchema]) -> pl.LazyFrame | None:
        return same_window_query(self, inputs[0], schemas[0])


class ClosingWindowOperator(Operator):
    """Folds rows into panes and makes a result of each window when the watermark passes its end."""

    def __init__(self, spec: AlignedWindowSpec | SameWindowSpec, rows: StreamSchema) -> None:
        self._spec, self._schema = spec, rows
        self._axis = TimeAxis.of(rows)
        self._layout = spec.layout(self._axis)
        contents = spec.over(rows).contents(
            rows.columns, spec.group, spec.where, overlapping=not self._layout.single
        )
        in_order = contents.one_row or self._layout.single
        self._contents: Contents = contents if in_order else Sequenced(contents)
        self._columns = spec.schema([rows]).columns.names()
        self._late = LateSorter(self._axis, self._layout)
        self._fired = MIN_TIME

    def open(self, context: Context) -> None:
        self._context = context
        kept, group = self._spec.kept_columns(self._schema, self._axis), self._spec.group
        self._store = PaneStore(
            context.state, self._layout, self._contents, self._axis, kept, self._spec.group
        )
        self._merger = PaneMerger(self._contents, group)
        self._cell = context.state.cell("time")
        stored = self._cell.get()
        if stored is not None:
            self._late.advance(stored["watermark"])
            self._fired = stored["fired"]

    def process(self, batch: Batch, out: Output) -> None:
        frame, ticks = self._late.sort(batch.frame, self._context, out)
        if frame.height:
            self._store.add(frame, ticks)

    def on_watermark(self, watermark: int, out: Output) -> None:
        reached = self._closing_all() if watermark == MAX_TIME else self._axis.tick(watermark)
        tick = max(self._late.watermark, reached)
        end = self._layout.last_end(tick)
        if end > self._fired:
            lowest = self._store.lowest()
            if lowest is not None and lowest < end:
                self._store.fold()
                self._merger.touched(self._store.changes())
                self._fire(end, out)
            self._fired = end
        self._late.advance(tick)
        self._context.metrics.set("rows_kept", len(self._store))

    def _closing_all(self) -> int:
        """Where the last of the windows that have rows ends: the end of the input is no later than that."""
        last = self._store.highest()
        if last is None:
            return MIN_TIME
        windows = self._layout.windows(np.array([last]), self._fired, MAX_TIME)
        return int(windows.get_column(END).to_numpy().max(initial=MIN_TIME))

    def output_watermark(self, watermark: int) -> int:
        # A window still to come ends after this tick, so its last moment is this tick or later.
        return self._axis.micros(self._axis.tick(watermark))

    def _fire(self, end: int, out: Output) -> None:
        if self._layout.single:
            parts = self._store.take(end)
            if parts is not None:
                self._emit(self._whole_panes(parts), out)
            return
        parts = self._store.look(self._layout.horizon(self._fired), end)
        if parts is not None:
            panes = parts.get_column(PANE).unique().sort().to_numpy()
            windows = self._layout.windows(panes, self._fired, end)
            for made in self._merger.merged(parts, windows):
                self._emit(made, out)
        self._store.drop(self._layout.horizon(end))

    def _whole_panes(self, parts: pl.DataFrame) -> pl.DataFrame:
        starts = parts.get_column(PANE)
        ends = self._layout.panes.next(starts)
        return parts.drop(PANE).with_columns(starts.alias(START), ends.alias(END))

    def _emit(self, parts: pl.DataFrame, out: Output) -> None:
        """Results of windows of which each group has one part."""
        made = self._contents.finish(parts, [START, END, *self._spec.group])
        made = made.sort(END, START, maintain_order=True)
        out.emit(result_frame(made, self._axis, self._columns))

    def before_checkpoint(self) -> None:
        self._cell.set({"watermark": self._late.watermark, "fired": self._fired})

    def open_windows(self, key: pl.DataFrame) -> OpenWindows:
        parts = self._store.of(same_key(key))
        if not parts.height:
            return OpenWindows(pl.DataFrame(), [])
        panes = parts.get_column(PANE).unique().sort().to_numpy()
        windows = self._layout.windows(panes, self._fired, MAX_TIME)
        copies = parts.join(windows, on=PANE, maintain_order="left").drop(PANE)
        group = [START, END, *self._spec.group]
        made = self._contents.finish(self._contents.merge(copies, group), group)
        return windows_of_key(made, self._axis, self._columns)

    def explain_time(self) -> dict[str, Any]:
        lowest = self._store.lowest()
        waiting = None
        if lowest is not None:
            first = self._layout.panes.floor(pl.Series([max(lowest, self._late.horizon)]))
            found = least(self._layout.windows(first.to_numpy(), self._fired, MAX_TIME).get_column(END))
            waiting = None if found is None else self._axis.micros(found)
        watermark = self._axis.micros(self._late.watermark)
        return {"watermark": watermark, "next_window_end": waiting, "rows_kept": len(self._store)}
