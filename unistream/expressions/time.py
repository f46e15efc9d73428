"""Event time as one number: microseconds since the epoch, whatever type the column has."""

from __future__ import annotations

import polars as pl

from unistream.expressions.schema import EventTime

_PER_DAY = 86_400_000_000
_INTEGER_UNITS = {"s": (1_000_000, 1), "ms": (1_000, 1), "us": (1, 1), "ns": (1, 1_000)}
"""Multiplier and divisor that take a count of each unit to microseconds."""


def microseconds_of(time: EventTime, columns: pl.Schema) -> pl.Expr:
    """The event time of each row in microseconds, rounded down; null where the column is null.

    >>> schema = pl.Schema({"ts": pl.Datetime("ns")})
    >>> frame = pl.DataFrame({"ts": [-1]}).cast(schema)
    >>> frame.select(microseconds_of(EventTime("ts"), schema)).item()
    -1
    """
    dtype = columns[time.column]
    count = pl.col(time.column).to_physical().cast(pl.Int64)
    if time.offset:
        count = count + time.offset
    if dtype == pl.Date:
        return count * _PER_DAY
    multiplier, divisor = _INTEGER_UNITS[dtype.time_unit if isinstance(dtype, pl.Datetime) else time.unit]
    return count // divisor if divisor > 1 else count * multiplier
