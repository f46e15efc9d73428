"""Aggregates that a type does not have, for Polars says so only sometimes: over groups it may give null."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from unistream.errors import InvalidQuery
from unistream.expressions import expression_tree as tree
from unistream.expressions.expression_tree import Node, UnknownExpression
from unistream.expressions.no_rows import no_rows
from unistream.expressions.refusal import POLARS_ERRORS

_Types = tuple[type[pl.DataType], ...]
_Absent = tuple[_Types, str]

_NAMES: _Types = (pl.Categorical, pl.Enum)
_NESTED: _Types = (pl.List, pl.Array, pl.Struct)
_TEXT: _Types = (pl.String, pl.Binary)
_NO_NUMBERS: _Types = (*_NAMES, *_NESTED, *_TEXT)

_CAST = "cast it to a number first, as in `pl.col('a').cast(pl.Float64)`"
_ADDED: _Absent = (
    (*_NAMES, pl.Date, pl.Time, pl.Datetime),
    "cast it first, as in `pl.col('a').cast(pl.Int64).sum()`",
)
_ORDERED: _Absent = (
    _NESTED,
    "go by a part of it, as in `pl.col('a').list.max().max()` or `pl.col('a').struct.field('x').max()`",
)
_TRUE: _Absent = _TEXT, "compare it first, as in `(pl.col('a') == 'yes').any()`"

_ABSENT: dict[tuple[str, ...], _Absent] = {
    ("Sum",): _ADDED,
    ("Min",): _ORDERED,
    ("Max",): _ORDERED,
    ("Boolean", "Any"): _TRUE,
    ("Boolean", "All"): _TRUE,
    ("Skew",): (_NO_NUMBERS, _CAST),
    ("Kurtosis",): (_NO_NUMBERS, _CAST),
    ("Quantile",): ((*_NO_NUMBERS, pl.Boolean), _CAST),
}
"""The types that have no such aggregate, beside those that Polars always refuses, and what to do instead."""


def check_aggregates(exprs: Sequence[pl.Expr], schema: pl.Schema, where: str | None) -> None:
    """Raise `InvalidQuery` for an aggregate of values that it does not exist for."""
    for expr in exprs:
        try:
            nodes = list(tree.nodes(tree.to_node(expr)))
        except UnknownExpression:  # holds a Python function that does not pickle
            continue
        for node in nodes:
            _check(node, schema, where)


def _check(node: Node, schema: pl.Schema, where: str | None) -> None:
    match tree.kind(node):
        case "Agg":
            name: tuple[str, ...] = (tree.aggregation(node)[0],)
        case "Function":
            name = tree.function_name(node)
        case _:
            return
    if name not in _ABSENT:
        return
    types, hint = _ABSENT[name]
    values = tree.children(node)[0]
    try:
        (dtype,) = no_rows(schema).select(tree.to_expr(values)).collect_schema().dtypes()
    except POLARS_ERRORS:  # elements of a list, which are no column
        return
    if isinstance(dtype, types):
        said = " ".join(str(tree.to_expr(node)).split())
        what = f"agg cannot work: there is no {name[-1].lower()} of {dtype}, as in `{said}`"
        raise InvalidQuery(what, where, hint)
