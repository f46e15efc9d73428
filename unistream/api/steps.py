"""What the user passed to a stateless verb, checked and turned into a step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import polars as pl

from unistream.api.names import is_plain, no_name
from unistream.errors import InvalidQuery
from unistream.expressions.analysis import expand, is_constant, output_schema, predicate, why_not_row_wise
from unistream.expressions.no_rows import no_rows
from unistream.expressions.schema import StreamSchema
from unistream.io.frames import as_schema
from unistream.operators.stateless import (
    ExplodeStep,
    FilterStep,
    MapBatchesStep,
    RowStep,
    SelectStep,
    UnnestStep,
    WithColumnsStep,
)


def select(
    schema: StreamSchema, exprs: Iterable[Any], named: Mapping[str, Any], where: str | None
) -> RowStep:
    """Exactly these columns."""
    parts = expand(exprs, named, schema.columns, "select", where)
    if not parts:
        raise InvalidQuery("select needs at least one column", where, 'as in `select("a", pl.col("b") * 2)`')
    _refuse_other_rows(parts, schema.columns, "select", where)
    if all(is_constant(expr) for expr in parts):
        hint = "add constants with with_columns, then select"
        raise InvalidQuery("select of constants alone says nothing of how many rows there are", where, hint)
    made = output_schema("select", parts, schema.columns, "select", where)
    return SelectStep(exprs=tuple(parts), made=made, where=where)


def with_columns(
    schema: StreamSchema, exprs: Iterable[Any], named: Mapping[str, Any], where: str | None
) -> RowStep:
    """All columns, some added or replaced."""
    parts = expand(exprs, named, schema.columns, "with_columns", where)
    _refuse_other_rows(parts, schema.columns, "with_columns", where)
    result = output_schema("with_columns", parts, schema.columns, "with_columns", where)
    made = pl.Schema({expr.meta.output_name(): result[expr.meta.output_name()] for expr in parts})
    return WithColumnsStep(exprs=tuple(parts), made=made, where=where)


def filter(  # noqa: A001  the verb's own name
    schema: StreamSchema, predicates: Iterable[Any], constraints: Mapping[str, Any], where: str | None
) -> RowStep:
    """The rows for which all predicates are true."""
    whole = predicate(predicates, constraints, schema.columns, "filter", where)
    _refuse_other_rows([whole], schema.columns, "filter", where)
    output_schema("filter", [whole], schema.columns, "filter", where)
    return FilterStep(predicate=whole, where=where)


def drop(schema: StreamSchema, columns: Iterable[Any], where: str | None) -> RowStep:
    """All columns but these."""
    gone = column_names(schema, columns, "drop", where)
    kept = [name for name in schema.columns if name not in gone]
    if not kept:
        raise InvalidQuery("drop would leave no column", where, "keep at least one, or use head(0)")
    return _plain(schema, {name: name for name in kept}, where)


def rename(schema: StreamSchema, mapping: Mapping[str, str], where: str | None) -> RowStep:
    """Some columns under other names."""
    if not isinstance(mapping, Mapping):
        raise InvalidQuery(
            "rename needs a mapping of old names to new ones", where, 'as in `rename({"a": "b"})`'
        )
    for old in mapping:
        _known(schema, old, "rename", where)
    new_names = [mapping.get(name, name) for name in schema.columns]
    twice = sorted({name for name in new_names if new_names.count(name) > 1})
    if twice:
        raise InvalidQuery(
            f"rename would give two columns the name {twice[0]!r}", where, "choose another name"
        )
    return _plain(schema, dict(zip(new_names, schema.columns, strict=True)), where)


def cast(schema: StreamSchema, dtypes: Any, where: str | None) -> RowStep:
    """Some columns, or all, with other types."""
    if isinstance(dtypes, Mapping):
        for name in dtypes:
            if isinstance(name, str):
                _known(schema, name, "cast", where)
    try:
        if isinstance(dtypes, Mapping):
            exprs = [_column(name).cast(dtype) for name, dtype in dtypes.items()]
        else:
            exprs = [pl.all().cast(dtypes)]
    except TypeError as error:
        hint = 'as in `cast({"a": pl.Int64})` or `cast(pl.String)`'
        raise InvalidQuery(f"cast needs Polars types, not {dtypes!r}", where, hint) from error
    return with_columns(schema, exprs, {}, where)


def explode(schema: StreamSchema, columns: Iterable[Any], where: str | None) -> RowStep:
    """One row for each item of list columns."""
    names = column_names(schema, columns, "explode", where)
    for name in names:
        if not isinstance(schema.columns[name], (pl.List, pl.Array)):
            hint = "explode takes list columns; split text first with .str.split(...)"
            raise InvalidQuery(
                f"Column {name!r} is {schema.columns[name]}, not a list, in explode", where, hint
            )
    result = no_rows(schema.columns).explode(names).collect_schema()
    made = pl.Schema({name: result[name] for name in names})
    return ExplodeStep(columns=names, made=made, where=where)


def unnest(schema: StreamSchema, columns: Iterable[Any], where: str | None) -> RowStep:
    """The fields of struct columns as columns of their own."""
    names = column_names(schema, columns, "unnest", where)
    fields = [name for name in schema.columns if name not in names]
    for name in names:
        dtype = schema.columns[name]
        if not isinstance(dtype, pl.Struct):
            raise InvalidQuery(
                f"Column {name!r} is {dtype}, not a struct, in unnest", where, "take a struct column"
            )
        fields += [field.name for field in dtype.fields]
    twice = sorted({name for name in fields if fields.count(name) > 1})
    if twice:
        hint = "rename the field or the column first"
        raise InvalidQuery(f"unnest would give two columns the name {twice[0]!r}", where, hint)
    made = no_rows(schema.columns).unnest(names).collect_schema()
    return UnnestStep(columns=names, made=made, where=where)


def map_batches(
    schema: StreamSchema, function: Callable[[pl.DataFrame], pl.DataFrame], made: Any, where: str | None
) -> RowStep:
    """A function over whole frames; without a schema it is asked once with an empty frame."""
    made = promised(function, schema.columns, made, "map_batches", where)
    return MapBatchesStep(function=function, made=made, where=where)


def promised(
    function: Callable[[pl.DataFrame], pl.DataFrame],
    columns: pl.Schema,
    made: Any,
    step: str,
    where: str | None,
) -> pl.Schema:
    """What a function over frames returns: as the user said, or as it does for a frame without rows."""
    if not callable(function):
        raise InvalidQuery(f"{step} needs a function, not {type(function).__name__}", where)
    if made is not None:
        return as_schema(made)
    hint = "pass schema= with the columns and types it returns"
    try:
        result = function(pl.DataFrame(schema=columns))
    except Exception as error:
        what = f"{type(error).__name__}: {error}"
        message = f"{step} asked the function with an empty frame and it raised {what}"
        raise InvalidQuery(message, where, hint) from error
    if not isinstance(result, pl.DataFrame):
        returned = f"{step}: the function returned {type(result).__name__}, not a frame"
        raise InvalidQuery(returned, where, "return a pl.DataFrame; for no rows return frame.clear()")
    return result.schema


def _plain(schema: StreamSchema, origin: Mapping[str, str], where: str | None) -> RowStep:
    exprs = tuple(pl.col(old).alias(new) for new, old in origin.items())
    made = pl.Schema({new: schema.columns[old] for new, old in origin.items()})
    return SelectStep(exprs=exprs, made=made, where=where)


def _column(name: Any) -> pl.Expr:
    return pl.col(name) if isinstance(name, (str, pl.DataType, type)) else name


def column_names(
    schema: StreamSchema, columns: Iterable[Any], step: str, where: str | None
) -> tuple[str, ...]:
    """The columns meant by names, lists of names and selectors."""
    exprs = expand(columns, {}, schema.columns, step, where)
    for expr in exprs:
        if not is_plain(expr):
            raise no_name(expr, step)
    names = tuple(expr.meta.output_name() for expr in exprs)
    if not names:
        raise InvalidQuery(f"{step} needs at least one column", where)
    return names


def _known(schema: StreamSchema, name: str, step: str, where: str | None) -> None:
    if name not in schema.columns:
        raise InvalidQuery.from_missing_column(name, schema.columns, step, where)


def _refuse_other_rows(exprs: Sequence[pl.Expr], columns: pl.Schema, step: str, where: str | None) -> None:
    """Rows come in slices: an expression over several rows would depend on how they were cut."""
    for expr in exprs:
        why = why_not_row_wise(expr, columns)
        if why is not None:
            raise InvalidQuery(f"{step} takes expressions over one row at a time, and {why}", where, why.hint)
