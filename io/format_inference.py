"""Types of the columns of a line file, from its first rows."""

from __future__ import annotations

import json
from typing import Any

import polars as pl

from unistream.errors import DataError
from unistream.io.format_base import BYTE_ORDER_MARK
from unistream.io.format_types import convert
from unistream.location import user_location

ORDERED_KEYS = 32
"""Most keys of an object of which the parser keeps the order; that of more is another in each run."""

MISSING = "pass schema=, a mapping of column to Polars type"


def infer_ndjson(data: bytes, where: str, max_rows: int) -> pl.Schema:
    """Types that the first `max_rows` lines fit; numbers with and without a fraction are floats.

    Text stays text, also where it looks like a time: say so in a schema, or convert it in the query.
    """
    lines = [line for line in data.removeprefix(BYTE_ORDER_MARK).split(b"\n") if line.strip()][:max_rows]
    try:
        frame = pl.read_ndjson(b"\n".join(lines), infer_schema_length=None)
    except pl.exceptions.PolarsError as error:
        problem = f"{where}: types cannot be inferred from the first rows: {error}"
        raise DataError(problem, user_location(), MISSING) from error
    inferred: Any = pl.Struct(frame.schema)
    if _is_shuffled(inferred):
        inferred = _in_order(inferred, [json.loads(line) for line in lines])
    schema = {name: _settled(dtype) for name, dtype in inferred.to_schema().items()}
    if not schema:
        raise DataError(f"{where}: no rows to infer types from", user_location(), MISSING)
    return pl.Schema(schema)


def _is_shuffled(dtype: Any) -> bool:
    """Whether an object has too many keys for their order to be kept."""
    if isinstance(dtype, pl.List):
        return _is_shuffled(dtype.inner)
    if not isinstance(dtype, pl.Struct):
        return False
    return len(dtype.fields) > ORDERED_KEYS or any(_is_shuffled(field.dtype) for field in dtype.fields)


def _in_order(dtype: Any, values: list[Any]) -> Any:
    """The same type with the fields of objects in the order in which they first occur."""
    if isinstance(dtype, pl.List):
        return pl.List(_in_order(dtype.inner, [item for value in values if value for item in value]))
    if not isinstance(dtype, pl.Struct):
        return dtype
    rows = [value for value in values if isinstance(value, dict)]
    fields = dtype.to_schema()
    names = [name for name in dict.fromkeys(name for row in rows for name in row) if name in fields]
    return pl.Struct({name: _in_order(fields[name], [row.get(name) for row in rows]) for name in names})


def _settled(dtype: pl.DataType) -> pl.DataType:
    """Null columns, of which nothing is known, are text."""
    if isinstance(dtype, pl.List):
        return pl.List(_settled(dtype.inner))  # type: ignore[arg-type]
    if isinstance(dtype, pl.Struct):
        return pl.Struct({field.name: _settled(field.dtype) for field in dtype.fields})  # type: ignore[arg-type]
    return pl.String() if dtype == pl.Null else dtype


def infer_csv(texts: pl.DataFrame) -> pl.Schema:
    """Types that these rows, read as text, fit: whole numbers, floats, booleans, dates, times, else text.

    Numbers with leading zeros and columns without any value stay text.
    """
    return pl.Schema({column.name: _type_of(column) for column in texts.iter_columns()})


def _type_of(texts: pl.Series) -> pl.DataType:
    known = texts.drop_nulls()
    known = known.filter(known != "")
    if known.is_empty() or known.str.contains(r"^\s*[+-]?0\d").any():
        return pl.String()
    if known.str.to_lowercase().is_in(["true", "false"]).all():
        return pl.Boolean()
    numbers: list[pl.DataType] = [pl.Int64(), pl.Float64()]
    for dtype in numbers:
        if not known.cast(dtype, strict=False).has_nulls():
            return dtype
    times: list[pl.DataType] = [pl.Date(), pl.Datetime("us")]
    for dtype in times:
        if not convert(known, dtype).has_nulls():
            return dtype
    return pl.String()
