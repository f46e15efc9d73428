"""Columns of text to typed columns, by whole columns, telling which values do not fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import polars as pl
from polars.datatypes import DataType

from unistream.errors import InvalidQuery
from unistream.of_columns import frame_of

if TYPE_CHECKING:
    import pyarrow as pa  # takes 45 MB, so it is loaded where times are read

SIGNED = (pl.Int8, pl.Int16, pl.Int32, pl.Int64)
UNSIGNED = (pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64)
FLOATS = (pl.Float32, pl.Float64)
VIA_TEXT = (pl.Datetime, pl.Date, pl.Time, pl.Duration, pl.Decimal, pl.Categorical, pl.Enum)

_DATE = r"\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])"
_TIME = r"(?:[01]\d|2[0-3])(?::[0-5]\d(?::[0-5]\d(?:\.\d+)?)?)?"
_ZONE = r"(?:Z|[+-](?:[01]\d|2[0-3])(?::?[0-5]\d)?)"
_DATETIME_PARTS = rf"^({_DATE})(?:[T ]({_TIME})({_ZONE})?)?$"
_WHOLE_MINUTES_SINCE = 63_593_070
"""Seconds since 1970. In January 1972 the clocks of Liberia were the last to be set to whole minutes."""
_PER_SECOND = {"ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}

_INTEGER = r"^[+-]?\d+$"


def wire_type(dtype: DataType, column: str) -> DataType:
    """The type a parser is asked for: 64-bit numbers, booleans and text; the rest is converted here.

    Parsers are silently lenient about narrow types (overflow becomes null or infinity) and slow about
    times (3 microseconds a value against 0.02 for Arrow's cast), so they never see these.
    """
    if dtype in SIGNED:
        return pl.Int64()
    if dtype in UNSIGNED:
        return pl.UInt64()
    if dtype in FLOATS:
        return pl.Float64()
    if dtype == pl.Boolean:
        return pl.Boolean()
    if dtype == pl.String or isinstance(dtype, VIA_TEXT):
        return pl.String()
    raise InvalidQuery(
        f"Column {column!r}: {dtype} cannot be read from lines of text",
        hint="read it as pl.String and convert it in the query",
    )


def spelled_type(dtype: DataType) -> str:
    """A type's name in messages."""
    return str(dtype).replace("time_unit=", "").replace("time_zone=None", "").replace(", )", ")")


def convert(values: pl.Series, dtype: DataType) -> pl.Series:
    """Wire values as `dtype`; null where a value does not fit it."""
    if values.dtype == dtype:
        return values
    if values.dtype != pl.String:
        result = values.cast(dtype, strict=False)
        if dtype == pl.Float32 and result.is_infinite().any():
            return result.set(result.is_infinite() & values.is_finite(), None)
        return result
    if values.null_count() == len(values):
        return pl.Series(values.name, [None], dtype).new_from_index(0, len(values))
    return _from_text(dtype)(values)


def converted(wire: pl.DataFrame, schema: pl.Schema) -> pl.DataFrame:
    """Every wire column as its own type; null where a value does not fit."""
    if wire.schema == schema:
        return wire
    return frame_of([convert(wire[name], dtype).alias(name) for name, dtype in schema.items()])


def misfits(wire: pl.DataFrame, frame: pl.DataFrame) -> pl.Series | None:
    """Why each row does not fit (null where it does), or None when all rows do.

    A value does not fit when it was there and its conversion is null.
    """
    found: list[pl.Expr] = []
    for name, dtype in frame.schema.items():
        if wire.schema[name] == dtype or frame[name].null_count() == wire[name].null_count():
            continue
        lost = (frame[name].is_null() & wire[name].is_not_null()).alias(name)
        shown = pl.lit(wire[name].cast(pl.String).str.head(60).alias(name))
        label, kind = f"column {name!r}: ", f" is not {spelled_type(dtype)}"
        text = pl.concat_str(pl.lit(label + "'"), shown, pl.lit("'" + kind))
        found.append(pl.when(pl.lit(lost)).then(text))
    if not found:
        return None
    return wire.select(pl.coalesce(found).alias("reason")).to_series()


def as_written(frame: pl.DataFrame) -> pl.DataFrame:
    """Columns as text can hold them: durations in their unit, old moments of a time zone in UTC.

    Clocks were set to the second once, and what is written has hours and minutes only.
    """
    told = []
    for name, dtype in frame.schema.items():
        if isinstance(dtype, pl.Duration):
            told.append(pl.col(name).cast(pl.Int64))
        elif isinstance(dtype, pl.Datetime) and _is_old(frame[name], dtype):
            told.append(pl.col(name).dt.convert_time_zone("UTC"))
    return frame.with_columns(told) if told else frame


def _is_old(moments: pl.Series, dtype: pl.Datetime) -> bool:
    """Whether one of them may be of a time at which its zone was ahead by more than whole minutes."""
    if dtype.time_zone is None or dtype.time_zone == "UTC":
        return False
    since = _WHOLE_MINUTES_SINCE * _PER_SECOND[dtype.time_unit]
    return bool((moments.cast(pl.Int64) < since).any())


def _from_text(dtype: DataType) -> Callable[[pl.Series], pl.Series]:
    match dtype:
        case pl.Datetime():
            return lambda text: _datetimes(text, dtype)
        case pl.Date():
            return _dates
        case pl.Time():
            return _times
        case pl.Duration():
            return lambda text: _integers(text).cast(dtype)
        case pl.Decimal():
            return lambda text: _decimals(text, dtype)
        case _:
            return lambda text: text.cast(dtype, strict=False)


def _arrow_cast(text: pl.Series, target: pa.DataType) -> pl.Series:
    series = pl.from_arrow(text.to_arrow(compat_level=pl.CompatLevel.oldest()).cast(target))
    assert isinstance(series, pl.Series)
    return series.alias(text.name)


def _integers(text: pl.Series) -> pl.Series:
    return text.cast(pl.Int64, strict=False)


def _datetimes(text: pl.Series, dtype: pl.Datetime) -> pl.Series:
    import pyarrow as pa

    for target in (pa.timestamp(dtype.time_unit), pa.timestamp(dtype.time_unit, "UTC")):
        try:
            return _in_zone(_arrow_cast(text, target), dtype)
        except pa.ArrowInvalid:
            continue
    epoch = _integers(text)
    if epoch.null_count() < len(text):
        epoch = epoch.cast(pl.Datetime(dtype.time_unit))
    if epoch.null_count() == text.null_count():
        return _in_zone(epoch, dtype)
    return _in_zone(_mixed_datetimes(text, epoch, dtype), dtype)


def _in_zone(times: pl.Series, dtype: pl.Datetime) -> pl.Series:
    """UTC wall times as `dtype`."""
    if times.dtype == dtype:
        return times
    utc = times if times.dtype.time_zone else times.dt.replace_time_zone("UTC")  # type: ignore[attr-defined]
    return utc.dt.convert_time_zone(dtype.time_zone) if dtype.time_zone else utc.dt.replace_time_zone(None)


def _mixed_datetimes(text: pl.Series, epoch: pl.Series, dtype: pl.Datetime) -> pl.Series:
    """Each value in its own way: ISO 8601 with or without time, fraction and offset, or an epoch number."""
    group = pl.col(text.name).str.extract
    time = group(_DATETIME_PARTS, 2).fill_null("00")
    time = time + pl.when(time.str.len_bytes() == 2).then(pl.lit(":00")).otherwise(pl.lit(""))
    time = time + pl.when(time.str.len_bytes() == 5).then(pl.lit(":00")).otherwise(pl.lit(""))
    zone = group(_DATETIME_PARTS, 3).fill_null("Z").replace("Z", "+00:00")
    zone = zone + pl.when(zone.str.len_bytes() == 3).then(pl.lit(":00")).otherwise(pl.lit(""))
    uniform = (group(_DATETIME_PARTS, 1) + "T" + time + zone).str.to_datetime(
        "%Y-%m-%dT%H:%M:%S%.f%#z", strict=False, time_unit=dtype.time_unit
    )
    parsed = text.to_frame().select(uniform.dt.replace_time_zone(None)).to_series()
    return parsed if epoch.null_count() == len(text) else parsed.zip_with(parsed.is_not_null(), epoch)


def _dates(text: pl.Series) -> pl.Series:
    import pyarrow as pa

    try:
        return _arrow_cast(text, pa.date32())
    except pa.ArrowInvalid:
        fits = text.str.contains(f"^{_DATE}$")
        return text.set(~fits, None).str.to_date("%Y-%m-%d", strict=False)


def _times(text: pl.Series) -> pl.Series:
    group = pl.col(text.name)
    fits = group.str.contains(r"^(?:[01]\d|2[0-3]):[0-5]\d(?::[0-5]\d(?:\.\d+)?)?$")
    full = pl.when(group.str.len_bytes() == 5).then(group + ":00").otherwise(group)
    parsed = pl.when(fits).then(full).str.to_time("%H:%M:%S%.f", strict=False)
    return text.to_frame().select(parsed.alias(text.name)).to_series()


def _decimals(text: pl.Series, dtype: pl.Decimal) -> pl.Series:
    """Digits beyond the scale are refused, not rounded away."""
    fits = text.str.contains(rf"^[+-]?\d+(?:\.\d{{0,{dtype.scale}}}0*)?$")
    return text.set(~fits, None).cast(dtype, strict=False)
