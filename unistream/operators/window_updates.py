"""Aligned windows that give results before they close, or correct them after: a row per key and window."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from unistream.elements import MAX_TIME, MIN_TIME, Batch
from unistream.expressions.schema import CHANGE, Change, StreamSchema
from unistream.of_columns import beside, stacked
from unistream.operators.base import Context, OpenWindows, Operator, Output
from unistream.operators.late_sorter import LateSorter
from unistream.operators.time_axis import TimeAxis
from unistream.operators.time_grid import Ticks
from unistream.operators.window_layout import END, PANE, START
from unistream.operators.window_sequence import SEQUENCE, Listed
from unistream.operators.window_spec import result_frame, same_key, windows_of_key
from unistream.state.backend import RowIds

if TYPE_CHECKING:
    from unistream.operators.window_aggregate import AlignedWindowSpec

_GIVEN, _CHANGED = "__given", "__changed"
"""Whether a result was handed on, and whether it has changed since."""


class UpdatingWindowOperator(Operator):
    """Folds each batch into the windows its rows are in, and hands on those that changed when it is time.

    `emit="change"` hands them on with every batch, `every` by the clock, `"close"` when the watermark passes
    their end. After that, until the allowed lateness is over, a correction is handed on at once.
    """

    def __init__(self, spec: AlignedWindowSpec, rows: StreamSchema) -> None:
        self._by = list(spec.by)
        self._emit = spec.emit
        self._axis = TimeAxis.of(rows)
        self._layout = spec.layout(self._axis)
        self._lateness = self._axis.length(spec.lateness, "allowed lateness", spec.where)
        contents = spec.calculation.contents(
            rows.columns, spec.by, spec.where, overlapping=not self._layout.single
        )
        self._contents = Listed.unless_short(contents)
        self._columns = spec.schema([rows]).columns.names()
        self._row_columns = rows.columns
        self._late = LateSorter(self._axis, self._layout, self._lateness)
        self._group = [START, END, *self._by]
        self._seen = 0
        self._fired = MIN_TIME
        self._next_given: int | None = None
        self._next_end = MAX_TIME
        """No window ends earlier of those that have not closed yet."""

    def open(self, context: Context) -> None:
        self._context = context
        keys = {START: pl.Int64(), END: pl.Int64(), **{name: self._row_columns[name] for name in self._by}}
        flags = {_GIVEN: pl.Boolean(), _CHANGED: pl.Boolean()}
        values = pl.Schema({**self._contents.stored, **flags})
        self._table = context.state.keyed("windows", pl.Schema(keys), values)
        self._cell = context.state.cell("time")
        stored = self._cell.get()
        if stored is not None:
            self._late.advance(stored["watermark"])
            self._fired = stored["fired"]
        self._next_end = self._first_end(self._table.rows())
        self._seen = self._contents.last_sequence(self._table.read(self._table.rows())) + 1
        self._schedule()

    def process(self, batch: Batch, out: Output) -> None:
        frame, ticks = self._late.sort(batch.frame, self._context, out)
        if not frame.height:
            return
        touched = self._fold(frame, ticks)
        self._next_end = min(self._next_end, self._first_end(touched))
        self._seen += frame.height
        if self._emit.when == "change":
            self._give(touched, out)
            return
        ends = self._ends_of(touched)
        self._give(touched[ends <= self._fired], out)
        self._schedule()

    def _fold(self, frame: pl.DataFrame, ticks: pl.Series) -> RowIds:
        """Add rows to their windows; the windows that changed."""
        born = pl.int_range(self._seen, self._seen + frame.height, dtype=pl.Int64, eager=True)
        panes = self._layout.panes.floor(ticks).alias(PANE)
        parts = self._contents.fold(frame.with_columns(panes, born.alias(SEQUENCE)), [PANE, *self._by])
        distinct = parts.get_column(PANE).unique().sort().to_numpy()
        windows = self._layout.windows(distinct, self._late.open_until, MAX_TIME)
        copies = parts.join(windows, on=PANE, maintain_order="left").drop(PANE)
        fresh = copies if self._layout.single else self._contents.merge(copies, self._group)
        keys = fresh.select(self._group)
        rows, new = self._table.upsert(keys)
        if not new.all():
            old = rows[~new]
            older = beside(self._table.keys(old), self._table.read(old))
            both = stacked([older.select(fresh.columns), fresh])
            fresh = self._contents.merge(both, self._group)
            rows = self._table.find(fresh.select(self._group))
        self._table.write(rows, fresh.select(self._contents.stored.names()))
        self._table.column(_CHANGED)[rows] = True
        self._table.touch(rows)
        return rows

    def _ends_of(self, rows: RowIds) -> Ticks:
        return self._table.keys(rows).get_column(END).to_numpy()

    def _first_end(self, rows: RowIds) -> int:
        ends = self._ends_of(rows)
        return int(ends[ends > self._fired].min(initial=MAX_TIME))

    def _give(self, rows: RowIds, out: Output) -> None:
        """Hand on these windows as they are now."""
        given = self._table.column(_GIVEN).take(rows)
        for change, some in ((Change.INSERT, rows[~given]), (Change.UPDATE_AFTER, rows[given])):
            if len(some):
                parts = beside(self._table.keys(some), self._table.read(some))
                made = self._contents.finish(parts, self._group).sort(END, START, maintain_order=True)
                mark = pl.lit(change.value, pl.Int8).alias(CHANGE)
                out.emit(result_frame(made, self._axis, self._columns).with_columns(mark))
        self._table.column(_GIVEN)[rows] = True
        self._table.column(_CHANGED)[rows] = False
        self._table.touch(rows)

    def on_watermark(self, watermark: int, out: Output) -> None:
        reached = self._closing_all() if watermark == MAX_TIME else self._axis.tick(watermark)
        tick = max(self._late.watermark, reached)
        end = self._layout.last_end(tick)
        if end > self._fired:
            self._give(self._changed(end), out)
            self._fired = end
            self._next_end = self._first_end(self._table.rows())
        before = self._late.open_until
        self._late.advance(tick)
        if self._layout.last_end(self._late.open_until) > self._layout.last_end(before):
            rows = self._table.rows()
            self._table.delete(rows[self._ends_of(rows) <= self._late.open_until])
        self._context.metrics.set("open_windows", len(self._table))

    def _closing_all(self) -> int:
        """Where the last window ends: the end of the input is no later than that."""
        return int(self._ends_of(self._table.rows()).max(initial=MIN_TIME))

    def _changed(self, until: int = MAX_TIME) -> RowIds:
        rows = self._table.rows()
        changed: RowIds = rows[self._table.column(_CHANGED).take(rows)]
        if until != MAX_TIME:
            changed = changed[self._ends_of(changed) <= until]
        return changed

    def output_watermark(self, watermark: int) -> int:
        return self._axis.micros(self._axis.tick(watermark))

    def _schedule(self) -> None:
        if self._emit.when == "every" and self._next_given is None and len(self._table):
            self._next_given = self._context.clock.now() + self._emit.every

    def next_wakeup(self) -> int | None:
        return self._next_given

    def on_processing_time(self, now: int, out: Output) -> None:
        self._give(self._changed(), out)
        self._next_given = None

    def before_checkpoint(self) -> None:
        self._cell.set({"watermark": self._late.watermark, "fired": self._fired})

    def open_windows(self, key: pl.DataFrame) -> OpenWindows:
        rows = self._table.rows()
        parts = beside(self._table.keys(rows), self._table.read(rows))
        made = self._contents.finish(parts.filter(same_key(key)), self._group)
        return windows_of_key(made, self._axis, self._columns)

    def explain_time(self) -> dict[str, Any]:
        next_end = None if self._next_end == MAX_TIME else self._axis.micros(self._next_end)
        return {
            "watermark": self._axis.micros(self._late.watermark),
            "next_window_end": next_end,
            "open_windows": len(self._table),
            "next_given": self._next_given,
        }
