"""Rows as Python holds them, dicts or tuples, as frames of one schema."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from unistream.errors import DataError
from unistream.location import user_location

ACCEPTED = (
    "a Polars or pandas frame, an Arrow table, a dict of columns, a list of dicts or (with schema=) of tuples"
)


def rows_to_frame(
    rows: Sequence[Any], schema: pl.Schema | None, first_row: int = 0, what: str = "the data"
) -> pl.DataFrame:
    """Dicts or tuples, all of one kind, as a frame; a value that does not fit is named with its row.

    Dicts may lack columns, which are then null. Without a schema the types come from all the rows.
    """
    if not rows:
        return pl.DataFrame(schema=schema or {})
    _refuse_mixture(rows, first_row, what)
    if isinstance(rows[0], Mapping):
        return _from_dicts(rows, schema, first_row, what)
    names = list(schema) if schema is not None else list(getattr(rows[0], "_fields", ()))
    if not isinstance(rows[0], Sequence) or isinstance(rows[0], (str, bytes)) or not names:
        hint = (
            "pass schema= to name the columns of tuples" if isinstance(rows[0], tuple) else f"pass {ACCEPTED}"
        )
        raise DataError(
            f"Row {first_row} of {what} is {type(rows[0]).__name__}, not a dict", user_location(), hint
        )
    try:
        columns = list(zip(*rows, strict=True))
        if len(columns) != len(names):
            raise ValueError
    except (TypeError, ValueError):
        raise _uneven(rows, names, first_row, what) from None
    return pl.DataFrame(
        [
            column(name, values, schema.get(name) if schema is not None else None, what, first_row)
            for name, values in zip(names, columns, strict=True)
        ]
    )


def _from_dicts(
    rows: Sequence[Mapping[str, Any]], schema: pl.Schema | None, first_row: int, what: str
) -> pl.DataFrame:
    if schema is None:
        names = list(dict.fromkeys(key for row in rows for key in row))
    else:
        names = list(schema)
        if not set().union(*rows) <= schema.keys():  # walks the rows in C
            raise _unknown_key(rows, schema, first_row, what)
    return pl.DataFrame(
        [
            column(
                name,
                [row.get(name) for row in rows],
                None if schema is None else schema[name],
                what,
                first_row,
            )
            for name in names
        ]
    )


def column(
    name: str, values: Sequence[Any], dtype: pl.DataType | None, what: str, first_row: int = 0
) -> pl.Series:
    """One column of exactly this type; the error names the row, the column, the type and the value's type.

    Without a type the one that holds all the values: whole and broken numbers together are floats. Fields
    of nested dicts that a given type lacks are left out.
    """
    if not isinstance(name, str):
        raise DataError(f"Column name {name!r} of {what} is {type(name).__name__}, not text", user_location())
    try:
        return pl.Series(name, values, dtype=dtype or _common_type(values), strict=True)
    except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError) as error:
        index = _first_misfit(values, dtype)
        wanted = dtype if dtype is not None else _kind_of_first(values)
        raise DataError(
            f"Row {first_row + index} of {what}: column {name!r} is {wanted} "
            f"but the value is a {type(values[index]).__name__}: {_shortened(values[index])}",
            user_location(),
            "change the type in schema=, or convert the value",
        ) from error


def conform(frame: pl.DataFrame, schema: pl.Schema, what: str) -> pl.DataFrame:
    """The same rows with exactly the columns of `schema`, in its order; refuses what would lose something."""
    if frame.schema == schema:
        return frame
    missing = [name for name in schema if name not in frame.columns]
    unknown = [name for name in frame.columns if name not in schema]
    if missing or unknown:
        raise DataError(
            f"Columns of {what} do not match the schema: missing {missing}, not expected {unknown}",
            user_location(),
            f"the schema has {list(schema)}",
        )
    casts = []
    for name, wanted in schema.items():
        given = frame.schema[name]
        if given != wanted and not _widens(given, wanted):
            raise DataError(
                f"Column {name!r} of {what} is {given}, not {wanted}", user_location(), "cast it first"
            )
        casts.append(pl.col(name).cast(wanted))
    return frame.select(casts)


def _widens(given: pl.DataType, wanted: pl.DataType) -> bool:
    """Whether every value of `given` is a value of `wanted`."""
    if given == pl.Null or (wanted == pl.String and given in (pl.Categorical, pl.Enum)):
        return True
    if given in (pl.Categorical, pl.String) and wanted == pl.Categorical:
        return True
    if not (given.is_numeric() and wanted.is_numeric()):
        return False
    both = [pl.DataFrame(schema={"x": given}), pl.DataFrame(schema={"x": wanted})]
    return pl.concat(both, how="vertical_relaxed").schema["x"] == wanted


def _common_type(values: Sequence[Any]) -> pl.DataType | None:
    """The type of columns that Polars would read by their first value; None leaves it to Polars."""
    kinds = set(map(type, values)) - {type(None)}
    if kinds == {int, float}:
        return pl.Float64()
    if kinds & {dict, list, tuple}:
        rows = [{"x": value} for value in values]
        nested = pl.DataFrame(rows, infer_schema_length=None)  # looks at the fields of every value
        return nested.schema["x"]
    return None


def _first_misfit(values: Sequence[Any], dtype: pl.DataType | None) -> int:
    """Index of the first value that breaks the column, by halving; called only for the error message."""
    if dtype is None:
        kind = type(next(value for value in values if value is not None))
        return next((i for i, v in enumerate(values) if v is not None and type(v) is not kind), 0)
    low, high = 0, len(values)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            pl.Series(values[low:middle], dtype=dtype, strict=True)
            low = middle
        except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError):
            high = middle
    return low


def _kind_of_first(values: Sequence[Any]) -> str:
    return type(next(value for value in values if value is not None)).__name__


def _unknown_key(
    rows: Sequence[Mapping[str, Any]], schema: pl.Schema, first_row: int, what: str
) -> DataError:
    index, row = next((i, row) for i, row in enumerate(rows) if not row.keys() <= schema.keys())
    unknown = sorted(str(key) for key in row.keys() - schema.keys())
    return DataError(
        f"Row {first_row + index} of {what} has columns {unknown} that are not in the schema",
        user_location(),
        f"the schema has {list(schema)}",
    )


def _refuse_mixture(rows: Sequence[Any], first_row: int, what: str) -> None:
    """All rows must be dicts or all tuples: a dict among tuples would be read as the list of its keys."""
    dicts = isinstance(rows[0], Mapping)
    odd = {
        kind for kind in set(map(type, rows)) if issubclass(kind, Mapping) != dicts or issubclass(kind, str)
    }
    if odd:
        index = next(i for i, row in enumerate(rows) if type(row) in odd)
        raise DataError(
            f"Row {first_row + index} of {what} is {type(rows[index]).__name__}, "
            f"but {'dicts' if dicts else 'tuples'} are expected here",
            user_location(),
            f"pass {ACCEPTED}",
        )


def _uneven(rows: Sequence[Any], names: list[str], first_row: int, what: str) -> DataError:
    for index, row in enumerate(rows):
        if not isinstance(row, Sequence):
            return DataError(
                f"Row {first_row + index} of {what} is {type(row).__name__}, not a tuple", user_location()
            )
        if len(row) != len(names):
            problem = f"has {len(row)} values for {len(names)} columns {names}"
            return DataError(f"Row {first_row + index} of {what} {problem}", user_location())
    return DataError(f"The rows of {what} do not have {len(names)} columns {names}", user_location())


def _shortened(value: object, characters: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= characters else text[:characters] + "…"
