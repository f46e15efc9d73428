"""Rows that came when all their windows had closed."""

from __future__ import annotations

import polars as pl

from unistream.elements import MAX_TIME, MIN_TIME
from unistream.graph import LATE
from unistream.operators.base import Context, Output
from unistream.operators.time_axis import TimeAxis, least
from unistream.operators.window_layout import END, PANE, START, Layout
from unistream.operators.window_spec import late_rows


class LateSorter:
    """Tells late rows from those that still have an open window, and says what they missed."""

    def __init__(self, axis: TimeAxis, layout: Layout, lateness: int = 0) -> None:
        self._axis, self._layout, self._lateness = axis, layout, lateness
        self.horizon = self.watermark = self.open_until = MIN_TIME

    def advance(self, watermark: int) -> None:
        """Time stands at `watermark` (ticks); windows that end after `open_until` still take rows."""
        self.watermark = watermark
        self.open_until = MIN_TIME if watermark == MIN_TIME else watermark - self._lateness
        self.horizon = self._layout.horizon(self.open_until)

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
        if ticks.null_count():  # of rows without a time nobody knows
            return pl.DataFrame({START: ticks, END: ticks})
        panes = self._layout.panes.floor(ticks).alias(PANE)
        distinct = panes.drop_nulls().unique().sort().to_numpy()
        windows = self._layout.windows(distinct, MIN_TIME, MAX_TIME)
        bounds = windows.group_by(PANE).agg(pl.col(START).min(), pl.col(END).max())
        return panes.to_frame().join(bounds, on=PANE, how="left", maintain_order="left")
