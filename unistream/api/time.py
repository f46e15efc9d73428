"""What the user said about time, checked and turned into operators."""

from __future__ import annotations

import polars as pl

from unistream.api.names import Name, name_of
from unistream.durations import Duration, microseconds
from unistream.errors import InvalidQuery, InvalidSettings
from unistream.expressions.schema import StreamSchema
from unistream.operators.ingestion_time import IngestionTimeSpec
from unistream.operators.watermarks import EventTimeSpec

_UNITS = ("s", "ms", "us", "ns")


def event_time(
    schema: StreamSchema,
    column: Name,
    delay: Duration,
    idle_after: Duration | None,
    unit: str | None,
    max_ahead: Duration | None,
    max_drift: Duration | None,
    where: str | None,
) -> EventTimeSpec:
    """The spec behind `with_event_time`."""
    column = name_of(column, "with_event_time")
    if column not in schema.columns:
        raise InvalidQuery.from_missing_column(column, schema.columns, "with_event_time", where)
    _check_type(column, schema.columns[column], where)
    if unit is None and schema.columns[column].is_integer():
        hint = f"say it: .with_event_time({column!r}, unit='ms'), or 's', 'us', 'ns'"
        raise InvalidQuery(f"Column {column!r} holds whole numbers: which unit do they count?", where, hint)
    if unit is not None and unit not in _UNITS:
        raise InvalidSettings.from_unknown("unit of time", unit, _UNITS, where)
    return EventTimeSpec(
        column=column,
        unit=unit or "us",
        delay=_not_negative(delay, "delay", where),
        idle_after=None if idle_after is None else _not_negative(idle_after, "idle_after", where),
        max_ahead=None if max_ahead is None else _not_negative(max_ahead, "max_ahead", where),
        max_drift=None if max_drift is None else _not_negative(max_drift, "max_drift", where),
        where=where,
    )


def ingestion_time(schema: StreamSchema, name: str, where: str | None) -> IngestionTimeSpec:
    """The spec behind `with_ingestion_time`."""
    if name in schema.columns:
        raise InvalidQuery(
            f"with_ingestion_time would replace column {name!r}", where, "choose another name, or drop it"
        )
    return IngestionTimeSpec(column=name, where=where)


def _check_type(column: str, dtype: pl.DataType, where: str | None) -> None:
    if isinstance(dtype, pl.Datetime) or dtype == pl.Date or dtype.is_integer():
        return
    if dtype == pl.String:
        hint = (
            f'parse it first: .with_columns(pl.col({column!r}).str.to_datetime("%Y-%m-%d %H:%M:%S"))'
            ", with the format of your text"
        )
    elif dtype.is_float():
        hint = f"make it whole first: .with_columns((pl.col({column!r}) * 1e6).cast(pl.Int64)), unit='us'"
    else:
        hint = "take a column of dates, of moments (pl.Datetime), or of integers with unit="
    raise InvalidQuery(f"Column {column!r} is {dtype}, which is no event time", where, hint)


def _not_negative(duration: Duration, what: str, where: str | None) -> int:
    found = microseconds(duration, what)
    if found < 0:
        hint = f'give a length of time from zero on, as in {what}="5s"'
        raise InvalidSettings(f"{what}={duration!r} is less than nothing", where, hint)
    return found
