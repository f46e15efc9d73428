"""Polars schemas as JSON, and which changes of a schema stored state survives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from unistream.errors import StateError

_WIDTHS = ("Int8", "Int16", "Int32", "Int64", "Int128")
_UNSIGNED = ("UInt8", "UInt16", "UInt32", "UInt64")
_PLAIN: dict[str, type[pl.DataType]] = {
    name: getattr(pl, name)
    for name in (
        *_WIDTHS,
        *_UNSIGNED,
        *("Boolean", "Float32", "Float64", "String", "Binary", "Date", "Time", "Null", "Categorical"),
    )
}


def schema_to_json(schema: pl.Schema) -> list[list[Any]]:
    """Columns in order, as pairs of name and type."""
    return [[name, dtype_to_json(dtype)] for name, dtype in schema.items()]


def schema_from_json(data: Any) -> pl.Schema:
    """The inverse of `schema_to_json`."""
    return pl.Schema({name: dtype_from_json(dtype) for name, dtype in data})


def dtype_to_json(dtype: pl.DataType) -> Any:
    """A type as a word, or as an object with one word when it has parameters."""
    match dtype:
        case pl.Datetime():
            return {"Datetime": [dtype.time_unit, dtype.time_zone]}
        case pl.Duration():
            return {"Duration": dtype.time_unit}
        case pl.Decimal():
            return {"Decimal": [dtype.precision, dtype.scale]}
        case pl.Enum():
            return {"Enum": dtype.categories.to_list()}
        case pl.List():
            return {"List": dtype_to_json(_instance(dtype.inner))}
        case pl.Array():
            return {"Array": [dtype_to_json(_instance(dtype.inner)), dtype.size]}
        case pl.Struct():
            return {"Struct": [[field.name, dtype_to_json(_instance(field.dtype))] for field in dtype.fields]}
    name = dtype.base_type().__name__
    if name not in _PLAIN:
        raise StateError(f"Columns of type {dtype} cannot be kept in state", hint="cast them to a plain type")
    return name


def dtype_from_json(data: Any) -> pl.DataType:
    """The inverse of `dtype_to_json`."""
    match data:
        case str() if data in _PLAIN:
            return _PLAIN[data]()
        case {"Datetime": [unit, zone]}:
            return pl.Datetime(unit, zone)
        case {"Duration": unit}:
            return pl.Duration(unit)
        case {"Decimal": [precision, scale]}:
            return pl.Decimal(precision, scale)
        case {"Enum": categories}:
            return pl.Enum(categories)
        case {"List": inner}:
            return pl.List(dtype_from_json(inner))
        case {"Array": [inner, size]}:
            return pl.Array(dtype_from_json(inner), size)
        case {"Struct": fields}:
            return pl.Struct({name: dtype_from_json(dtype) for name, dtype in fields})
    raise StateError(
        f"Stored state has a column type this version does not know: {data!r}",
        hint="restore it with the version of unistream that wrote it, or a newer one",
    )


def widens(old: pl.DataType, new: pl.DataType) -> bool:
    """Whether every value of the old type is exactly a value of the new one."""
    if old == new or old == pl.Null:
        return True
    if isinstance(old, pl.Decimal) and isinstance(new, pl.Decimal):
        return old.scale == new.scale and old.precision <= new.precision
    was, becomes = old.base_type().__name__, new.base_type().__name__
    if was == "Float32" and becomes == "Float64":
        return True
    for family in (_WIDTHS, _UNSIGNED):
        if was in family and becomes in family:
            return family.index(was) <= family.index(becomes)
    if was in _UNSIGNED and becomes in _WIDTHS:
        return _UNSIGNED.index(was) < _WIDTHS.index(becomes)
    return becomes == "Float64" and was in ("Int8", "Int16", "Int32", "UInt8", "UInt16", "UInt32")


def check_evolution(table: str, part: str, stored: pl.Schema, asked: pl.Schema, fixed: bool = False) -> bool:
    """Whether stored rows must be adapted to the schema asked for; raises when they cannot be.

    A column may be new (then null), gone, or wider. `fixed` schemas (keys) may only widen. Columns that an
    operator computes, named with two underscores, may not be new: nobody knows what earlier rows made them.
    """
    problems = [
        f"{name!r} was {stored[name]} and is now {dtype}"
        for name, dtype in asked.items()
        if name in stored and not widens(stored[name], dtype)
    ]
    problems += [
        f"{name!r} is new, and the rows it is made of are gone"
        for name in asked
        if name.startswith("__") and name not in stored and not fixed
    ]
    if fixed:
        problems += [f"{name!r} is new" for name in asked if name not in stored]
        problems += [f"{name!r} is gone" for name in stored if name not in asked]
    if problems:
        raise StateError(
            f"Stored {part} of state table {table!r} do not fit the program: {'; '.join(problems)}",
            hint="state may gain nullable columns, widen and drop columns; restore with the program that "
            "wrote it, or give the changed step a new name and say allow_dropped_state=True to begin it anew",
        )
    return list(stored.items()) != list(asked.items())


def adapted(frame: pl.DataFrame, schema: pl.Schema) -> pl.DataFrame:
    """The frame in another schema that `check_evolution` has let through."""
    if frame.schema == schema:
        return frame
    have = frame.schema
    return frame.select(
        pl.col(name).cast(dtype) if name in have else pl.lit(None, dtype=dtype).alias(name)
        for name, dtype in schema.items()
    )


def same_schema(left: Mapping[str, pl.DataType], right: Mapping[str, pl.DataType]) -> bool:
    """Whether names, order and types agree."""
    return list(left.items()) == list(right.items())


def _instance(dtype: Any) -> pl.DataType:
    return dtype if isinstance(dtype, pl.DataType) else dtype()
