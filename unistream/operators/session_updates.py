"""Sessions that give results before they close, or correct them after: rows come and go by key and bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import polars as pl

from unistream.elements import MAX_TIME, Batch
from unistream.expressions.schema import CHANGE, Change, StreamSchema
from unistream.of_columns import beside, columns_of, stacked
from unistream.operators.base import Context, Output
from unistream.operators.session_intervals import Sessions
from unistream.operators.session_lateness import Marks
from unistream.operators.session_table import Found
from unistream.operators.session_window import SessionWindowOperator
from unistream.operators.time_grid import Ticks
from unistream.operators.window_layout import END, START
from unistream.operators.window_spec import result_frame
from unistream.state.backend import KeyedTable, RowIds

if TYPE_CHECKING:
    from unistream.operators.session_window import SessionWindowSpec

_GIVEN, _CHANGED = "__given", "__changed"
"""Whether a session was handed on as it is bounded now, and whether it has changed since."""


class UpdatingSessionOperator(SessionWindowOperator):
    """Folds each batch at once, and hands on the sessions that changed when it is time.

    A session that grows or meets another has other bounds, so what was handed on of it is taken back. That
    waits for what takes its place: until then it is kept beside the sessions. Closed sessions stay until
    the allowed lateness is over; what changes of them is corrected at once.
    """

    _flags: ClassVar[tuple[str, ...]] = (_GIVEN, _CHANGED)

    def __init__(self, spec: SessionWindowSpec, rows: StreamSchema) -> None:
        super().__init__(spec, rows)
        self._runs = None  # each session is looked at as a whole
        self._emit_when, self._every = spec.emit.when, spec.emit.every
        self._group = [START, END, *self._by]
        self._next_given: int | None = None
        self._next_end = MAX_TIME
        """No session that is yet to be given at its close ends earlier."""

    def open(self, context: Context) -> None:
        super().open(context)
        bounds = {START: pl.Int64(), END: pl.Int64()}
        keys = {name: self._rows_schema[name] for name in self._by}
        self._gone = context.state.keyed("gone", pl.Schema({**bounds, **keys}), self._contents.stored)
        for table in self._table.tables:
            for name in self._flags:  # a column that was seen as an array is zero, not null, in new rows
                table.column(name)
        self._next_end = self._first_end()
        self._schedule()

    def process(self, batch: Batch, out: Output) -> None:
        super().process(batch, out)
        self._fold()
        match self._emit_when:
            case "change":
                self._give(MAX_TIME, out)
            case "close":
                self._give(self._watermark, out)
            case _:
                self._schedule()
        self._next_end = self._first_end()

    def _flagged(
        self, keys: pl.DataFrame, found: Found, sessions: Sessions, parts: pl.DataFrame
    ) -> pl.DataFrame:
        """A session with the bounds of an open one is that one; others that were given are taken back."""
        old = found.frame
        of = sessions.of[len(sessions.of) - old.height :]
        starts, ends = old.get_column(START).to_numpy(), old.get_column(END).to_numpy()
        same = (sessions.starts[of] == starts) & (sessions.ends[of] == ends)
        was_given = old.get_column(_GIVEN).to_numpy()
        self._take_back(keys, found, was_given & ~same)
        given = np.zeros(parts.height, dtype=np.bool_)
        given[of[same]] = was_given[same]
        changed = np.ones(parts.height, dtype=np.bool_)
        alone = np.bincount(sessions.of, minlength=parts.height) == 1
        untouched = same & alone[of]
        changed[of[untouched]] = old.get_column(_CHANGED).to_numpy()[untouched]
        return parts.with_columns(pl.Series(_GIVEN, given), pl.Series(_CHANGED, changed))

    def _take_back(self, keys: pl.DataFrame, found: Found, which: Marks) -> None:
        """Keep these open sessions as they were handed on: that is over."""
        if not which.any():
            return
        was = found.frame.filter(pl.Series(which))
        bounds = columns_of(was, [START, END])
        named = pl.concat([bounds, keys[found.codes[which]]], how="horizontal") if self._by else bounds
        rows, _ = self._gone.upsert(named)
        self._gone.write(rows, columns_of(was, self._contents.stored.names()))

    def _give(self, until: int, out: Output) -> None:
        """Hand on what changed of the sessions that end at this tick or before."""
        gone = self._ended(self._gone, until)
        if len(gone):
            parts = beside(self._gone.keys(gone), self._gone.read(gone))
            self._emit(parts, Change.DELETE, out)
            self._gone.delete(gone)
        found = [(table, self._changed(table, until)) for table in self._table.tables]
        frames = [self._table.frame(table, rows) for table, rows in found if len(rows)]
        for table, rows in found:
            table.column(_GIVEN)[rows] = True
            table.column(_CHANGED)[rows] = False
            table.touch(rows)
        if frames:
            frame = stacked(frames)
            self._emit(frame.filter(~pl.col(_GIVEN)), Change.INSERT, out)
            self._emit(frame.filter(_GIVEN), Change.UPDATE_AFTER, out)

    def _emit(self, parts: pl.DataFrame, change: Change, out: Output) -> None:
        if not parts.height:
            return
        made = self._contents.finish(parts, self._group).sort(END, START, maintain_order=True)
        mark = pl.lit(change.value, pl.Int8).alias(CHANGE)
        out.emit(result_frame(made, self._axis, self._columns).with_columns(mark))

    def _changed(self, table: KeyedTable, until: int) -> RowIds:
        rows = self._ended(table, until)
        changed: RowIds = rows[table.column(_CHANGED).take(rows)]
        return changed

    def _ended(self, table: KeyedTable, until: int) -> RowIds:
        rows = table.rows()
        return rows if until == MAX_TIME else rows[self._ends_of(table, rows) <= until]

    def _ends_of(self, table: KeyedTable, rows: RowIds) -> Ticks:
        """Where these rows end, which is a key of those that are gone."""
        if table is self._gone:
            return table.keys(rows).get_column(END).to_numpy()
        ends: Ticks = table.column(END).take(rows)
        return ends

    def _first_end(self) -> int:
        """No session ends earlier of those that have something to be handed on."""
        waiting = [(table, self._changed(table, MAX_TIME)) for table in self._table.tables]
        waiting.append((self._gone, self._gone.rows()))
        return min(int(self._ends_of(table, rows).min(initial=MAX_TIME)) for table, rows in waiting)

    def on_watermark(self, watermark: int, out: Output) -> None:
        self._watermark = self._reached(watermark)
        if self._next_end <= self._watermark:
            self._give(self._watermark, out)
            self._next_end = self._first_end()
        if self._table.next_end() <= self._horizon:
            self._table.take_closed(self._horizon)
        self._context.metrics.set("open_sessions", len(self._table))

    def _schedule(self) -> None:
        if self._emit_when == "every" and self._next_given is None and len(self._table):
            self._next_given = self._context.clock.now() + self._every

    def next_wakeup(self) -> int | None:
        return self._next_given

    def on_processing_time(self, now: int, out: Output) -> None:
        self._give(MAX_TIME, out)
        self._next_end = self._first_end()
        self._next_given = None

    def explain_time(self) -> dict[str, Any]:
        next_end = None if self._next_end == MAX_TIME else self._axis.micros(self._next_end)
        return {**super().explain_time(), "next_window_end": next_end, "next_given": self._next_given}
