"""Tumbling, sliding and cumulating windows that give their results once, when they close."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import polars as pl

from unistream.elements import MAX_TIME, MIN_TIME, Batch
from unistream.expressions.schema import StreamSchema
from unistream.graph import LATE
from unistream.operators.base import Context, Operator, Output
from unistream.operators.pane_merger import PaneMerger
from unistream.operators.pane_store import PaneStore
from unistream.operators.time_axis import TimeAxis, least
from unistream.operators.window_contents import Contents
from unistream.operators.window_layout import END, PANE, START, Layout, make_layout
from unistream.operators.window_spec import WindowSpec, late_rows, result_frame
from unistream.operators.windows import AlignedWindow


@dataclass(frozen=True, eq=False, kw_only=True)
class AlignedWindowSpec(WindowSpec):
    """Windows on a grid of time, the same for all keys."""

    name: ClassVar[str] = "window"
    window: AlignedWindow

    def schema(self, inputs: Sequence[StreamSchema]) -> StreamSchema:
        found = super().schema(inputs)
        make_layout(self.window, TimeAxis.of(inputs[0]))  # refuses what cannot be laid
        return found

    def build(self, inputs: Sequence[StreamSchema]) -> Operator:
        return ClosingWindowOperator(self, inputs[0])


class LateSorter:
    """Tells late rows from those that still have an open window, and says what they missed."""

    def __init__(self, axis: TimeAxis, layout: Layout) -> None:
        self._axis, self._layout = axis, layout
        self.horizon = MIN_TIME
        self.watermark = MIN_TIME

    def advance(self, watermark: int, lateness: int) -> None:
        """Time stands at `watermark` (ticks); windows take rows for `lateness` ticks longer."""
        self.watermark = watermark
        open_until = watermark if watermark in (MIN_TIME, MAX_TIME) else watermark - lateness
        self.horizon = self._layout.horizon(open_until)

    def sort(self, frame: pl.DataFrame, context: Context, out: Output) -> tuple[pl.DataFrame, pl.Series]:
        """The rows that are in time, with their ticks; the others leave by the side."""
        ticks = self._axis.ticks(frame)
        low = least(ticks)
        if ticks.null_count() == 0 and (low is None or low >= self.horizon):
            return frame, ticks
        in_time = (ticks >= self.horizon).fill_null(False)
        late, late_ticks = frame.filter(~in_time), ticks.filter(~in_time)
        context.metrics.add("late", late.height)
        unknown = late_ticks.is_null()
        for rows, times, reason in (
            (late.filter(unknown), late_ticks.filter(unknown), "no event time"),
            (late.filter(~unknown), late_ticks.filter(~unknown), "all its windows have closed"),
        ):
            if rows.height:
                bounds = self._missed(times)
                out.emit_to(LATE, late_rows(rows, self._axis, self.watermark, bounds, reason))
        return frame.filter(in_time), ticks.filter(in_time)

    def _missed(self, ticks: pl.Series) -> pl.DataFrame:
        """From the beginning of the first window each tick is in to the end of the last."""
        panes = self._layout.panes.floor(ticks).alias(PANE)
        distinct = panes.drop_nulls().unique().sort().to_numpy()
        windows = self._layout.windows(distinct, MIN_TIME, MAX_TIME)
        bounds = windows.group_by(PANE).agg(pl.col(START).min(), pl.col(END).max())
        return panes.to_frame().join(bounds, on=PANE, how="left", maintain_order="left")


class ClosingWindowOperator(Operator):
    """Folds rows into panes and makes a result of each window when the watermark passes its end."""

    def __init__(self, spec: AlignedWindowSpec, rows: StreamSchema) -> None:
        self._spec, self._schema = spec, rows
        self._axis = TimeAxis.of(rows)
        self._layout = make_layout(spec.window, self._axis)
        self._contents: Contents = spec.calculation.contents(rows.columns, spec.by, spec.where)
        self._columns = spec.schema([rows]).columns.names()
        self._late = LateSorter(self._axis, self._layout)
        self._fired = MIN_TIME

    def open(self, context: Context) -> None:
        self._context = context
        kept = self._spec.kept_columns(self._schema, self._axis)
        self._store = PaneStore(context.state, self._layout, self._contents, self._axis, kept, self._spec.by)
        self._merger = PaneMerger(self._contents, self._spec.by)
        self._cell = context.state.cell("time")
        stored = self._cell.get()
        if stored is not None:
            self._late.advance(stored["watermark"], 0)
            self._fired = stored["fired"]

    def process(self, batch: Batch, out: Output) -> None:
        frame, ticks = self._late.sort(batch.frame, self._context, out)
        if frame.height:
            self._store.add(frame, ticks)

    def on_watermark(self, watermark: int, out: Output) -> None:
        tick = self._axis.tick(watermark)
        end = self._layout.last_end(tick)
        if end > self._fired:
            lowest = self._store.lowest()
            if lowest is not None and lowest < end:
                self._store.fold()
                self._merger.touched(self._store.changes())
                self._fire(end, out)
            self._fired = end
        self._late.advance(tick, 0)
        self._context.metrics.set("rows_kept", len(self._store))

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
        made = self._contents.finish(parts, [START, END, *self._spec.by])
        made = made.sort(END, START, maintain_order=True)
        out.emit(result_frame(made, self._axis, self._columns))

    def before_checkpoint(self) -> None:
        self._cell.set({"watermark": self._late.watermark, "fired": self._fired})

    def explain_time(self) -> dict[str, Any]:
        lowest = self._store.lowest()
        waiting = None
        if lowest is not None:
            first = self._layout.panes.floor(pl.Series([max(lowest, self._late.horizon)]))
            found = least(self._layout.windows(first.to_numpy(), self._fired, MAX_TIME).get_column(END))
            waiting = None if found is None else self._axis.micros(found)
        watermark = self._axis.micros(self._late.watermark)
        return {"watermark": watermark, "next_window_end": waiting, "rows_kept": len(self._store)}
