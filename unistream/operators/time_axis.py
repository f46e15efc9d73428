"""Event time as whole ticks: the smallest unit of the column it comes from, so that nothing is rounded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import polars as pl

from unistream.durations import spelled
from unistream.elements import MAX_TIME, MIN_TIME
from unistream.errors import InvalidQuery
from unistream.expressions.schema import StreamSchema

_PER_DAY = 86_400_000_000
_UNITS = {"s": (1_000_000, 1), "ms": (1_000, 1), "us": (1, 1), "ns": (1, 1_000)}
"""Microseconds per tick, and ticks per microsecond; one of them is 1."""


@dataclass(frozen=True, slots=True)
class TimeAxis:
    """The event time of a stream in ticks (Int64), and the way to and from microseconds and the column."""

    column: str
    dtype: pl.DataType
    unit: str
    offset: int = 0

    @classmethod
    def of(cls, schema: StreamSchema) -> TimeAxis:
        """The axis of a stream that has event time."""
        time = schema.event_time
        if time is None:
            raise InvalidQuery("The stream has no event time", hint="assign it with with_event_time first")
        dtype = schema.columns[time.column]
        return cls(time.column, dtype, unit_of(dtype, time.unit), time.offset)

    def ticks(self, frame: pl.DataFrame) -> pl.Series:
        """The event time of each row; null where it is unknown."""
        ticks = frame.get_column(self.column)
        if ticks.dtype != pl.Int64:
            ticks = ticks.cast(pl.Int64, strict=False)  # `to_physical` would set up a query
        return ticks + self.offset if self.offset else ticks

    @property
    def tick_of_rows(self) -> pl.Expr:
        """The same as part of a query."""
        ticks = pl.col(self.column).cast(pl.Int64)
        return ticks + self.offset if self.offset else ticks

    def values(self, ticks: pl.Expr) -> pl.Expr:
        """Ticks as values of the column's type; ticks that it cannot hold become null."""
        if self.dtype == pl.Date:
            return ticks.cast(pl.Int32, strict=False).cast(pl.Date)
        return ticks.cast(self.dtype, strict=False)

    @property
    def zone(self) -> str | None:
        """The time zone of the column."""
        return self.dtype.time_zone if isinstance(self.dtype, pl.Datetime) else None

    def micros(self, tick: int) -> int:
        """A tick in microseconds, rounded down; the ends of time stay what they are."""
        if tick in (MIN_TIME, MAX_TIME):
            return tick
        per_tick, per_micro = self._scale
        return max(MIN_TIME, min(MAX_TIME, tick * per_tick // per_micro))

    def tick(self, micros: int) -> int:
        """The last tick at or before a moment in microseconds; the ends of time stay what they are."""
        if micros in (MIN_TIME, MAX_TIME):
            return micros
        per_tick, per_micro = self._scale
        return max(MIN_TIME, min(MAX_TIME, micros * per_micro // per_tick))

    def after(self, tick: int) -> int:
        """The least moment in microseconds that lies behind a tick."""
        return max(self.micros(tick + 1), self.micros(tick) + 1)

    def all_micros(self, ticks: pl.Series) -> pl.Series:
        """Many ticks in microseconds."""
        per_tick, per_micro = self._scale
        return ticks * per_tick if per_micro == 1 else ticks // per_micro

    def all_ticks(self, micros: pl.Series) -> pl.Series:
        """Many moments in ticks, rounded down."""
        per_tick, per_micro = self._scale
        return micros * per_micro if per_tick == 1 else micros // per_tick

    def length(self, micros: int, what: str, where: str | None) -> int:
        """A duration in ticks; refused when it is no whole number of them."""
        per_tick, per_micro = self._scale
        ticks, rest = divmod(micros * per_micro, per_tick)
        if rest:
            raise InvalidQuery(
                f"The {what} {spelled(micros)} is no whole number of the {spelled(per_tick)} that event time"
                f" column {self.column!r} counts in",
                where,
                f"take a multiple of {spelled(per_tick)}, or cast the column to pl.Datetime('us')",
            )
        return ticks

    @property
    def _scale(self) -> tuple[int, int]:
        return (_PER_DAY, 1) if self.unit == "d" else _UNITS[self.unit]


def least(ticks: pl.Series) -> int | None:
    """The least of some ticks; None when there are none."""
    return cast("int | None", ticks.min())


def greatest(ticks: pl.Series) -> int | None:
    """The greatest of some ticks; None when there are none."""
    return cast("int | None", ticks.max())


def unit_of(dtype: pl.DataType, unit: str) -> str:
    """What a tick of this column is: "d s ms us ns"; `unit` is that of a column of integers."""
    if dtype == pl.Date:
        return "d"
    return dtype.time_unit if isinstance(dtype, pl.Datetime) else unit
