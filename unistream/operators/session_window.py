"""Sessions: rows of a key with less than a gap between one and the next, in whatever order they come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import polars as pl

from unistream.elements import MAX_TIME, MIN_TIME, Batch
from unistream.errors import InvalidQuery
from unistream.expressions.schema import Changes, StreamSchema
from unistream.graph import LATE
from unistream.of_columns import columns_of, stacked
from unistream.operators.base import Context, OpenWindows, Operator, Output
from unistream.operators.row_order import in_order_of
from unistream.operators.session_intervals import Codes, Sessions, sessions_of
from unistream.operators.session_lateness import late_marks
from unistream.operators.session_runs import SessionRuns
from unistream.operators.session_table import BORN, Found, SessionTable
from unistream.operators.time_axis import TimeAxis, least
from unistream.operators.time_grid import Ticks
from unistream.operators.window_contents import Aggregation
from unistream.operators.window_layout import END, START
from unistream.operators.window_sequence import Listed
from unistream.operators.window_spec import WindowSpec, late_rows, result_frame, windows_of_key
from unistream.operators.windows import Session
from unistream.state.gather import taken
from unistream.state.key_codes import key_codes

FOLD_ROWS = 131_072

SESSION = "__session"


@dataclass(frozen=True, eq=False, kw_only=True)
class SessionWindowSpec(WindowSpec):
    """Sessions of each key; a row exactly a gap behind the last one begins a new session."""

    name: ClassVar[str] = "session"
    window: Session

    def schema(self, inputs: Sequence[StreamSchema]) -> StreamSchema:
        found = super().schema(inputs)
        axis = TimeAxis.of(inputs[0])
        axis.length(self.window.gap, "gap", self.where)
        axis.length(self.lateness, "allowed lateness", self.where)
        if found.changes is not Changes.APPEND and not isinstance(self.calculation, Aggregation):
            raise InvalidQuery(
                "Windows give updates of aggregates, one row per key and window, and of nothing else",
                self.where,
                "leave out emit= and allowed_lateness=, or use .agg(...)",
            )
        return found

    def build(self, inputs: Sequence[StreamSchema]) -> Operator:
        from unistream.operators.session_updates import UpdatingSessionOperator

        final = self.emit.when == "close" and not self.lateness
        return SessionWindowOperator(self, inputs[0]) if final else UpdatingSessionOperator(self, inputs[0])


class SessionWindowOperator(Operator):
    """Keeps rows until a session may have ended, then joins them with the open sessions of their keys."""

    _flags: ClassVar[tuple[str, ...]] = ()
    """What the table keeps of a session besides its contents."""

    def __init__(self, spec: SessionWindowSpec, rows: StreamSchema) -> None:
        self._by = list(spec.by)
        self._axis = TimeAxis.of(rows)
        self._gap = self._axis.length(spec.window.gap, "gap", spec.where)
        self._contents = Listed.unless_short(spec.calculation.contents(rows.columns, spec.by, spec.where))
        self._lateness = self._axis.length(spec.lateness, "allowed lateness", spec.where)
        self._runs = SessionRuns.of(self._contents, self._by, rows, self._gap)
        self._columns = spec.schema([rows]).columns.names()
        self._rows_schema = rows.columns
        self._kept_schema = spec.kept_columns(rows, self._axis)
        self._kept_names = self._kept_schema.names()
        self._watermark = MIN_TIME
        self._seen = 0

    def open(self, context: Context) -> None:
        self._context = context
        state = context.state
        keys = pl.Schema({name: self._rows_schema[name] for name in self._by})
        columns = self._runs.columns if self._runs is not None else ()
        self._table = SessionTable(state, keys, self._contents, self._gap, columns, self._flags)
        self._seen = self._table.last_sequence() + 1
        self._rows = state.log("rows", self._kept_schema)
        lows = [least(self._axis.ticks(frame)) for frame in self._rows.frames(0)]
        self._low = min((low for low in lows if low is not None), default=MAX_TIME)
        self._cell = state.cell("time")
        stored = self._cell.get()
        if stored is not None:
            self._watermark = stored["watermark"]

    @property
    def _horizon(self) -> int:
        """Sessions that end at this tick or before are forgotten."""
        return horizon_of(self._watermark, self._lateness)

    def process(self, batch: Batch, out: Output) -> None:
        frame = self._in_time(batch.frame, out)
        low = least(self._axis.ticks(frame))
        if low is None:
            return
        self._rows.append(0, columns_of(frame, self._kept_names))
        self._low = min(self._low, low)
        if len(self._rows) >= FOLD_ROWS:
            self._fold()

    def _in_time(self, frame: pl.DataFrame, out: Output) -> pl.DataFrame:
        """The rows that have a time and are not late."""
        ticks = self._axis.ticks(frame)
        if ticks.null_count():
            frame, ticks = self._without_unknown(frame, ticks, out)
        low = least(ticks)
        if low is not None and self._horizon != MIN_TIME and low <= self._horizon - self._gap:
            frame = self._without_late(frame, ticks, out)
        return frame

    def _without_unknown(
        self, frame: pl.DataFrame, ticks: pl.Series, out: Output
    ) -> tuple[pl.DataFrame, pl.Series]:
        unknown = ticks.is_null()
        bounds = pl.DataFrame({START: ticks, END: ticks}).filter(unknown)
        self._emit_late(frame.filter(unknown), bounds, "no event time", out)
        return frame.filter(~unknown), ticks.filter(~unknown)

    def _without_late(self, frame: pl.DataFrame, ticks: pl.Series, out: Output) -> pl.DataFrame:
        """Give the rows whose session has ended, and that touch no open one, to `late`; return the others."""
        self._fold()
        keys, codes = key_codes(frame, self._by)
        found = self._table.find(keys)
        opened = np.full(keys.height, MAX_TIME)
        np.minimum.at(opened, found.codes, found.frame.get_column(START).to_numpy())
        late = pl.Series(late_marks(codes, ticks.to_numpy(), self._gap, self._horizon, opened))
        if not late.any():
            return frame
        missed = ticks.filter(late)
        bounds = pl.DataFrame({START: missed, END: missed + self._gap})
        self._emit_late(frame.filter(late), bounds, "all its windows have closed", out)
        return frame.filter(~late)

    def on_watermark(self, watermark: int, out: Output) -> None:
        tick = self._reached(watermark)
        row_may_close = tick != MIN_TIME and self._low <= tick - self._gap
        if row_may_close or self._table.next_end() <= tick:
            self._fold()
            closed = self._table.take_closed(tick)
            if closed is not None:
                made = self._contents.finish(closed, [START, END, *self._by])
                out.emit(result_frame(made, self._axis, self._columns))
        self._watermark = tick
        self._context.metrics.set("open_sessions", len(self._table))

    def _reached(self, watermark: int) -> int:
        """Where time stands at this watermark; at the end of the input, where the last session ends."""
        if watermark == MAX_TIME:
            self._fold()
            return max(self._watermark, self._table.last_end())
        return max(self._watermark, self._axis.tick(watermark))

    def output_watermark(self, watermark: int) -> int:
        return self._axis.micros(self._axis.tick(watermark))

    def _fold(self) -> None:
        """Join the rows that are kept with the open sessions of their keys."""
        frames = list(self._rows.frames(0))
        if not frames:
            return
        rows = stacked(frames)
        starts, born = self._axis.ticks(rows).to_numpy(), np.arange(self._seen, self._seen + rows.height)
        if self._runs is not None:
            left = self._runs.fold(self._table, rows, starts, self._seen)
            if len(left):
                self._join(rows[left], starts[left], born[left])
        else:
            self._join(rows, starts, born)
        self._rows.drop([0])
        self._low = MAX_TIME
        self._seen += len(born)

    def _join(self, rows: pl.DataFrame, starts: Ticks, born: Codes) -> None:
        """Put rows together with all open sessions of their keys."""
        keys, codes = key_codes(rows, self._by)
        found = self._table.find(keys)
        opened = [found.frame.get_column(name).to_numpy() for name in (START, END, BORN)]
        sessions = sessions_of(
            np.concatenate([codes, found.codes]),
            np.concatenate([starts, opened[0]]),
            np.concatenate([starts + self._gap, opened[1]]),
            np.concatenate([born, opened[2]]),
        )
        numbered = rows.with_columns(pl.Series(SESSION, sessions.of[: rows.height]), pl.Series(BORN, born))
        parts = self._parts(
            numbered, found.frame.with_columns(pl.Series(SESSION, sessions.of[rows.height :]))
        )
        self._table.put(keys, found, sessions, self._flagged(keys, found, sessions, parts))

    def _flagged(
        self, keys: pl.DataFrame, found: Found, sessions: Sessions, parts: pl.DataFrame
    ) -> pl.DataFrame:
        """The parts of new sessions with the flags they get."""
        return parts

    def _parts(self, rows: pl.DataFrame, opened: pl.DataFrame) -> pl.DataFrame:
        """One part for each session, in their order: that of its rows, merged with what was open of it."""
        parts = self._contents.fold(_together(rows), [SESSION])
        if opened.height:
            older = opened.sort(BORN).select(parts.columns)
            parts = self._contents.merge(_together(stacked([older, parts])), [SESSION])
        # Of the best rows those come first that are better, whatever their session.
        return parts if parts.get_column(SESSION).is_sorted() else parts.sort(SESSION)

    def _emit_late(self, rows: pl.DataFrame, bounds: pl.DataFrame, reason: str, out: Output) -> None:
        self._context.metrics.add("late", rows.height)
        out.emit_to(LATE, late_rows(rows, self._axis, self._watermark, bounds, reason))

    def before_checkpoint(self) -> None:
        self._cell.set({"watermark": self._watermark})

    def open_windows(self, key: pl.DataFrame) -> OpenWindows:
        self._fold()
        made = self._contents.finish(self._table.of_key(key), [START, END, *self._by])
        return windows_of_key(made, self._axis, self._columns)

    def explain_time(self) -> dict[str, Any]:
        unfolded = MAX_TIME if self._low == MAX_TIME else self._low + self._gap
        next_end = min(self._table.next_end(), unfolded)  # no session ends earlier
        return {
            "watermark": self._axis.micros(self._watermark),
            "next_window_end": None if next_end == MAX_TIME else self._axis.micros(next_end),
            "open_sessions": len(self._table),
        }


def horizon_of(watermark: int, lateness: int) -> int:
    """The tick up to which sessions are forgotten; the beginning of time stays what it is."""
    return MIN_TIME if watermark == MIN_TIME else max(watermark - lateness, MIN_TIME)


def _together(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows by session, each in the order they came: grouping what lies together is twice as fast."""
    order = in_order_of(rows.get_column(SESSION).to_numpy())
    return taken(rows, order).with_columns(pl.col(SESSION).set_sorted())
