"""What all windows share: their spec's schema, the columns of late rows, and how results are named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import polars as pl

from unistream.durations import spelled
from unistream.errors import InvalidQuery
from unistream.expressions.schema import Changes, EventTime, StreamSchema
from unistream.graph import LATE
from unistream.operators.base import OpenWindows, OperatorSpec
from unistream.operators.time_axis import TimeAxis
from unistream.operators.window_contents import Aggregation, Calculation
from unistream.operators.window_layout import END, START
from unistream.operators.windows import Emit, Window

WINDOW_START, WINDOW_END = "window_start", "window_end"

LATE_REASON, LATE_WATERMARK = "late_reason", "late_watermark"
LATE_START, LATE_END = "late_window_start", "late_window_end"
"""What late rows say beside their own columns: why, where time stood, and which windows they missed."""


@dataclass(frozen=True, eq=False, kw_only=True)
class WindowSpec(OperatorSpec):
    """Rows put together by `window` (and by the columns `by`), and `calculation` made of each group.

    `lateness` (microseconds) is how long a window that has closed still takes rows and corrects itself.
    """

    name: ClassVar[str] = "window"
    window: Window
    by: tuple[str, ...]
    calculation: Calculation
    lateness: int = 0
    emit: Emit = field(default_factory=Emit)
    kept: str = ""
    """For `explain`: what is held of the rows of open windows."""

    def schema(self, inputs: Sequence[StreamSchema]) -> StreamSchema:
        rows = inputs[0]
        self._check(rows)
        time = self.time_columns(rows)
        made = self.calculation.result(rows.columns, self.by, self.where)
        self._check_names(made)
        columns = {name: rows.columns[name] for name in self.by} | time
        columns |= {name: dtype for name, dtype in made.items() if name not in columns}
        return StreamSchema(
            pl.Schema(columns),
            event_time=self.result_time(rows),
            changes=self.changes,
            key=self.result_key(),
            bounded=rows.bounded,
            side_outputs=self.late_schema(rows),
        )

    def _check(self, rows: StreamSchema) -> None:
        if rows.changes is not Changes.APPEND:
            hint = (
                "window the stream before the step that updates, or emit final results there (emit='close')"
            )
            raise InvalidQuery(
                f"A window takes rows that stay; these are an {rows.changes.value} stream", self.where, hint
            )
        taken = [name for name in (WINDOW_START, WINDOW_END) if name in self.by]
        if taken:
            hint = "call .window() without arguments for the windows the rows are from, or rename the column"
            raise InvalidQuery(
                f"Key {taken[0]!r} has the name of a column that the window makes", self.where, hint
            )
        if self.window.needs_time and rows.event_time is None:
            hint = (
                "call .with_event_time(column, delay=...) before, or .with_ingestion_time(name) for arrival"
            )
            raise InvalidQuery(f"A {self.window.kind} window needs event time", self.where, hint)

    def _check_names(self, made: pl.Schema) -> None:
        """Results may have no bounds of their own, other than rows that are put together by just those."""
        taken = [name for name in (WINDOW_START, WINDOW_END) if name in made]
        if not taken:
            return
        if isinstance(self.calculation, Aggregation):
            message = f"An aggregate is called {taken[0]!r}, as a column that the window makes"
            raise InvalidQuery(message, self.where, f"name it otherwise, as in `.alias('last_{taken[0]}')`")
        if WINDOW_START not in self.group:
            message = f"{self.calculation.text} brings a column {taken[0]!r}, which the window makes"
            hint = 'rename it first: `.rename({"window_start": "inner_start", "window_end": "inner_end"})`'
            raise InvalidQuery(message, self.where, hint)

    @property
    def group(self) -> tuple[str, ...]:
        """The columns that tell groups apart within a piece of time."""
        return self.by

    @property
    def changes(self) -> Changes:
        """Results are final when they are given once, at close, and nothing can be late to correct them."""
        final = self.emit.when == "close" and not self.lateness
        return Changes.APPEND if final else Changes.UPSERT

    def over(self, rows: StreamSchema) -> Calculation:
        """What is really computed of rows of this stream."""
        return self.calculation

    def time_columns(self, rows: StreamSchema) -> dict[str, pl.DataType]:
        """`window_start` and `window_end` with their type."""
        axis = TimeAxis.of(rows)
        return {WINDOW_START: axis.dtype, WINDOW_END: axis.dtype}

    def result_key(self) -> tuple[str, ...]:
        """What tells results apart."""
        return (*self.by, WINDOW_START, WINDOW_END)

    def result_time(self, rows: StreamSchema) -> EventTime | None:
        """A result happened at the last moment of its window."""
        assert rows.event_time is not None
        return EventTime(WINDOW_END, rows.event_time.unit, offset=-1)

    def late_schema(self, rows: StreamSchema) -> Mapping[str, pl.Schema]:
        """The side output of late rows."""
        dtype = TimeAxis.of(rows).dtype
        extra = {LATE_REASON: pl.String(), LATE_WATERMARK: dtype, LATE_START: dtype, LATE_END: dtype}
        return {LATE: pl.Schema({**rows.columns, **extra})}

    @property
    def keys(self) -> tuple[str, ...] | None:
        return self.by

    def reads(self, inputs: Sequence[StreamSchema], needed: frozenset[str]) -> Sequence[frozenset[str]]:
        time = inputs[0].event_time
        calculation = self.over(inputs[0])
        return [calculation.reads | frozenset(self.group) | frozenset([time.column] if time else [])]

    def describe(self) -> Mapping[str, str]:
        found = {"window": self.window.text}
        if self.by:
            found["by"] = ", ".join(self.by)
        found |= {"makes": self.calculation.text, "emits": self.emit.text}
        if self.kept:
            found["keeps"] = self.kept
        if self.lateness:
            found["allowed lateness"] = spelled(self.lateness)
        return found

    def kept_columns(self, rows: StreamSchema, axis: TimeAxis | None) -> pl.Schema:
        """What an operator keeps of rows that it has not folded yet."""
        wanted = {*self.group, *self.over(rows).reads, *([axis.column] if axis else [])}
        return pl.Schema({name: dtype for name, dtype in rows.columns.items() if name in wanted})


def result_frame(made: pl.DataFrame, axis: TimeAxis, columns: Sequence[str]) -> pl.DataFrame:
    """Results with bounds in ticks, as the columns the user sees.

    A `window_start` that is there stays: it is one that rows were put together by, see `_check_names`.
    """
    bounds = [axis.values(pl.col(END)).alias(WINDOW_END)]
    if WINDOW_START not in made.columns:
        bounds.append(axis.values(pl.col(START)).alias(WINDOW_START))
    return made.with_columns(bounds).select(columns)


def late_rows(
    frame: pl.DataFrame, axis: TimeAxis, watermark: int, bounds: pl.DataFrame, reason: str
) -> pl.DataFrame:
    """Late rows with what they missed; `bounds` has columns `START` and `END` for each row, in ticks."""
    return frame.with_columns(
        pl.lit(reason).alias(LATE_REASON),
        axis.values(pl.lit(watermark, pl.Int64)).alias(LATE_WATERMARK),
        bounds.select(axis.values(pl.col(START))).to_series().alias(LATE_START),
        bounds.select(axis.values(pl.col(END))).to_series().alias(LATE_END),
    )


def same_key(key: pl.DataFrame) -> pl.Expr:
    """Whether a row has the key in this one row; nulls are equal."""
    same = [pl.col(name).eq_missing(pl.lit(column)) for name, column in zip(key.columns, key, strict=True)]
    return pl.all_horizontal(same) if same else pl.lit(True)


def windows_of_key(made: pl.DataFrame, axis: TimeAxis, columns: Sequence[str]) -> OpenWindows:
    """What `finish` made of open windows, with bounds in ticks, in order of their ends."""
    ordered = made.sort(END, START)
    return OpenWindows(
        result_frame(ordered, axis, columns), [axis.micros(end) for end in ordered.get_column(END)]
    )
