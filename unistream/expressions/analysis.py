"""What an expression reads, gives and promises, known before the first row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import polars as pl

from unistream.errors import InvalidQuery
from unistream.expressions import expression_tree as tree
from unistream.expressions.aggregate_types import check_aggregates
from unistream.expressions.expansion import expand as expand
from unistream.expressions.expansion import predicate as predicate
from unistream.expressions.expression_tree import Node, UnknownExpression
from unistream.expressions.no_rows import no_rows
from unistream.expressions.refusal import POLARS_ERRORS, refusal
from unistream.expressions.row_wise import NotRowWise as NotRowWise
from unistream.expressions.row_wise import is_constant as is_constant
from unistream.expressions.row_wise import is_row_wise as is_row_wise
from unistream.expressions.row_wise import why_not_row_wise as why_not_row_wise

Verb = Literal["select", "with_columns", "filter", "agg"]

_ONE = "__one_group"

_TYPE_ERRORS = (
    pl.exceptions.ColumnNotFoundError,
    pl.exceptions.DuplicateError,
    pl.exceptions.InvalidOperationError,
    pl.exceptions.SchemaError,
    pl.exceptions.SchemaFieldNotFoundError,
    pl.exceptions.StructFieldNotFoundError,
)
"""What running on no rows proves wrong for any rows; other errors may come from there being none."""


def output_schema(
    kind: Verb,
    exprs: Sequence[pl.Expr],
    schema: pl.Schema,
    step: str | None = None,
    where: str | None = None,
    keys: Sequence[pl.Expr | str] = (),
) -> pl.Schema:
    """Names and types of the frame that a verb over `schema` gives; raises `InvalidQuery`.

    `exprs` come from `expand` (or `predicate`, for a filter). What Polars finds out only when it runs is
    found by running on no rows, unless that would call a Python function of the user's.

    >>> output_schema("select", [(pl.col("a") / 2).alias("half")], pl.Schema({"a": pl.Int64}))
    Schema([('half', Float64)])
    """
    step = step or kind
    frame = _apply(kind, exprs, no_rows(schema), keys)
    try:
        resolved = frame.collect_schema()
    except POLARS_ERRORS as error:
        raise refusal(error, schema, step, where) from error
    if kind == "agg":
        check_aggregates(exprs, schema, where)
    if not any(_calls_python(expr) for expr in exprs):
        try:
            resolved = frame.collect(engine="in-memory").schema
        except _TYPE_ERRORS as error:
            raise refusal(error, schema, step, where) from error
        except POLARS_ERRORS as error:
            if "cannot compare" in str(error):
                raise refusal(error, schema, step, where) from error
            # such as `.get(0)`: nothing there, which says nothing about rows to come
    for name, dtype in resolved.items():
        if dtype in (pl.Unknown, pl.Object):
            hint = "say it, as in `map_elements(fn, return_dtype=pl.Int64)` or with `.cast(...)`"
            raise InvalidQuery(f"The type of {name!r} in {step} is not known ({dtype})", where, hint)
    return resolved


def columns_read(expr: pl.Expr) -> frozenset[str]:
    """The columns `expr` needs; selectors must have been expanded.

    >>> sorted(columns_read(pl.col("a").filter(pl.col("b") > 0).sum().over("k")))
    ['a', 'b', 'k']
    """
    try:
        return tree.columns_named(tree.to_node(expr))
    except UnknownExpression:  # holds a Python function that does not pickle
        return frozenset(expr.meta.root_names())


def substitute(expr: pl.Expr, mapping: Mapping[str, pl.Expr], schema: pl.Schema | None = None) -> pl.Expr:
    """`expr` with the columns in `mapping` replaced by what they are computed from.

    For pushing a filter through a projection: exact when `expr` and the replacements are row-wise. `schema`
    is that of the projection's input; give it, as it keeps the types of replacements built from bare numbers.
    Raises `UnknownExpression` when `expr` cannot be read.

    >>> str(substitute(pl.col("b") > 3, {"b": pl.col("a") + 1}, pl.Schema({"a": pl.Int64})))
    '[([(col("a")) + (dyn int: 1)].strict_cast(Int64).alias("b")) > (dyn int: 3)]'
    """
    used = {name: value for name, value in mapping.items() if name in columns_read(expr)}
    if not used:
        return expr
    replacements = {name: _pinned(name, value, schema) for name, value in used.items()}
    if not is_row_wise(expr) and any(is_constant(value) for value in used.values()):
        raise UnknownExpression("a constant may replace a column in row-wise expressions only")

    def change(node: Node) -> Node | None:
        if tree.kind(node) == "Selector":
            raise UnknownExpression("selectors must be expanded first")
        if replacements and tree.depends_on_type_of_column(node):
            raise UnknownExpression("a type that follows a column cannot be moved")
        return replacements.get(tree.body(node)) if tree.kind(node) == "Column" else None

    return tree.to_expr(tree.transform(tree.to_node(expr), change))


def _apply(
    kind: Verb, exprs: Sequence[pl.Expr], frame: pl.LazyFrame, keys: Sequence[pl.Expr | str]
) -> pl.LazyFrame:
    match kind:
        case "select":
            return frame.select(exprs)
        case "with_columns":
            return frame.with_columns(exprs)
        case "filter":
            return frame.filter(*exprs)
        case "agg":
            if keys:
                return frame.group_by(keys).agg(exprs)
            return frame.group_by(pl.lit(0).alias(_ONE)).agg(exprs).drop(_ONE)


def _calls_python(expr: pl.Expr) -> bool:
    try:
        return tree.calls_python(tree.to_node(expr))
    except UnknownExpression:
        return True


def _pinned(name: str, value: pl.Expr, schema: pl.Schema | None) -> Node:
    """The replacement, named as the column was and held to the type it had there."""
    if schema is not None or is_constant(value):
        (dtype,) = no_rows(schema or pl.Schema()).select(value).collect_schema().dtypes()
        value = value.cast(dtype)
    return tree.to_node(value.alias(name))
