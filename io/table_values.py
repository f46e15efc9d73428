"""Columns as a database's client takes them."""

from __future__ import annotations

import polars as pl


def as_microseconds(name: str) -> pl.Expr:
    """A duration as a whole number."""
    return pl.col(name).dt.total_microseconds()


def as_json(name: str) -> pl.Expr:
    """A list or struct as JSON text; null stays null.

    >>> pl.DataFrame({"a": [[1, 2], None]}).select(as_json("a")).to_series().to_list()
    ['[1,2]', None]
    """
    whole = pl.struct(pl.col(name).alias("v")).struct.json_encode()
    inner = whole.str.slice(5, whole.str.len_chars() - 6)  # between {"v": and }
    return pl.when(pl.col(name).is_not_null()).then(inner).alias(name)


def as_text(name: str, kind: pl.DataType) -> pl.Expr:
    """A date, time or decimal as ISO text; moments with a zone in UTC.

    >>> at = pl.DataFrame({"t": ["2026-01-02 03:04:05"]}).select(pl.col("t").str.to_datetime())
    >>> at.select(as_text("t", at.schema["t"])).item()
    '2026-01-02 03:04:05.000000'
    """
    column = pl.col(name)
    if isinstance(kind, pl.Datetime):
        if kind.time_zone is None:
            return column.dt.strftime("%Y-%m-%d %H:%M:%S%.6f")
        return column.dt.convert_time_zone("UTC").dt.strftime("%Y-%m-%d %H:%M:%S%.6f+00:00")
    if isinstance(kind, pl.Date):
        return column.dt.strftime("%Y-%m-%d")
    if isinstance(kind, pl.Time):
        return column.dt.strftime("%H:%M:%S%.6f")
    return column.cast(pl.String)
