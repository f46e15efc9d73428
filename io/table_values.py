"""Columns as a database's client takes them."""

from __future__ import annotations

import polars as pl

from unistream.errors import DataError


def as_microseconds(name: str) -> pl.Expr:
    """A duration as a whole number."""
    return pl.col(name).dt.total_microseconds()


def without_nanoseconds(name: str) -> pl.Expr:
    """A time of day as a client takes it that would round it, up to 24:00.

    >>> pl.DataFrame({"t": [1500]}).cast(pl.Time).select(without_nanoseconds("t")).item().microsecond
    1
    """
    return (pl.col(name).to_physical() // 1000 * 1000).cast(pl.Time)


def has_nanoseconds(kind: pl.DataType) -> bool:
    """Whether values of this type can be finer than a microsecond.

    >>> has_nanoseconds(pl.Time()), has_nanoseconds(pl.Datetime("us"))
    (True, False)
    """
    return isinstance(kind, pl.Time) or (
        isinstance(kind, (pl.Datetime, pl.Duration)) and kind.time_unit == "ns"
    )


def check_whole_microseconds(keys: pl.Series) -> None:
    """Raise `DataError` for a key finer than what a table keeps of it: two of them would be one there."""
    finer = keys.filter(keys.to_physical() % 1000 != 0)
    if finer.len():
        rounded = f'pl.col("{keys.name}").cast(pl.{keys.dtype.base_type()}("us"))'
        if isinstance(keys.dtype, pl.Time):
            rounded = f'(pl.col("{keys.name}").cast(pl.Int64) // 1000 * 1000).cast(pl.Time)'
        raise DataError(
            f"Key column {keys.name!r} holds {finer.head(1).dt.to_string().item()}, "
            "finer than the microseconds that the table keeps",
            hint=f"round it before it becomes a key: {rounded}",
        )


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
