"""Expressions of arithmetic and comparisons, computed column by column, without a query.

A query costs more than what it computes where rows are few, and waits for the threads of Polars wherever
these are busy with the next lines of a file.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from unistream.expressions import expression_tree as tree
from unistream.expressions.expression_tree import Node, UnknownExpression

Compute = Callable[[pl.DataFrame], pl.Series]

MOST_LISTED = 8
"""Values of `is_in` that are compared one by one."""

_COMPARED = (pl.Int64, pl.Float64, pl.String, pl.Boolean, pl.Datetime, pl.Date)
_EXACT = 2**53
"""Whole numbers up to here are floats without being rounded."""

_COMPARE: Mapping[str, Any] = {
    "Eq": operator.eq,
    "NotEq": operator.ne,
    "Lt": operator.lt,
    "LtEq": operator.le,
    "Gt": operator.gt,
    "GtEq": operator.ge,
}
_TURNED = {
    "Eq": "Eq",
    "NotEq": "NotEq",
    "Lt": "Gt",
    "LtEq": "GtEq",
    "Gt": "Lt",
    "GtEq": "LtEq",
    "Plus": "Plus",
    "Multiply": "Multiply",
}
"""What says the same with its sides exchanged."""
_LOGIC: Mapping[str, Any] = {"And": operator.and_, "Or": operator.or_}
_CALCULATE: Mapping[str, Any] = {
    "Plus": operator.add,
    "Minus": operator.sub,
    "Multiply": operator.mul,
}


@dataclass(frozen=True, slots=True)
class _Part:
    dtype: pl.DataType
    compute: Compute


class _NotDirect(Exception):
    """Something else than what is known here to be the same for series as in a query."""


def direct(expr: pl.Expr, schema: Mapping[str, pl.DataType]) -> Compute | None:
    """What gives the value of an expression for frames with these columns, or None where only a query can.

    >>> taxed = direct((pl.col("price") * 1.19).alias("gross"), {"price": pl.Float64()})
    >>> taxed(pl.DataFrame({"price": [100.0, None]})).to_list()
    [119.0, None]
    >>> direct(pl.col("price").mean(), {"price": pl.Float64()}) is None
    True
    """
    try:
        name = expr.meta.output_name()
        compute = _part(tree.without_alias(tree.to_node(expr)), schema).compute
    except (_NotDirect, UnknownExpression, pl.exceptions.PolarsError):
        return None
    return lambda frame: compute(frame).alias(name)


def _part(node: Node, schema: Mapping[str, pl.DataType]) -> _Part:
    match tree.kind(node):
        case "Column" if tree.body(node) in schema:
            name = tree.body(node)
            return _Part(schema[name], lambda frame: frame.get_column(name))
        case "BinaryExpr":
            left, right = tree.children(node)
            return _binary(tree.body(node)["op"], left, right, schema)
        case "Function" if tree.function_name(node) == ("Boolean", "IsIn"):
            value, listed = tree.children(node)
            return _listed(value, listed, schema)
    raise _NotDirect


def _binary(op: str, left: Node, right: Node, schema: Mapping[str, pl.DataType]) -> _Part:
    if tree.is_scalar_literal(left):
        if op not in _TURNED:
            raise _NotDirect
        op, left, right = _TURNED[op], right, left
    first = _part(left, schema)
    if tree.is_scalar_literal(right):
        return _with_constant(op, first, _constant(right))
    return _applied(op, first, _part(right, schema))


def _with_constant(op: str, part: _Part, value: Any) -> _Part:
    if op in _CALCULATE and part.dtype == pl.Int64 and isinstance(value, float):
        whole = part.compute
        part = _Part(pl.Float64(), lambda frame: whole(frame).cast(pl.Float64))
    if not _has_type_of(value, part.dtype):
        raise _NotDirect
    constant = pl.Series([value], dtype=part.dtype)  # of a bare number each call would find out the type
    beside = _Part(part.dtype, lambda frame: constant)
    if op == "Modulus" and part.dtype == pl.Int64 and value > 0:
        return _both(operator.mod, part, beside, part.dtype)
    return _applied(op, part, beside)


def _applied(op: str, first: _Part, second: _Part) -> _Part:
    if first.dtype != second.dtype:
        raise _NotDirect
    kind = first.dtype.base_type()
    if op in _LOGIC and kind is pl.Boolean:
        return _both(_LOGIC[op], first, second, first.dtype)
    if op in _COMPARE and kind in _COMPARED:
        return _both(_COMPARE[op], first, second, pl.Boolean())
    if op in _CALCULATE and kind in (pl.Int64, pl.Float64):
        return _both(_CALCULATE[op], first, second, first.dtype)
    raise _NotDirect


def _both(apply: Any, first: _Part, second: _Part, dtype: pl.DataType) -> _Part:
    return _Part(dtype, lambda frame: apply(first.compute(frame), second.compute(frame)))


def _has_type_of(value: Any, dtype: pl.DataType) -> bool:
    """Whether a query would take the constant as one of this type, as it is."""
    if isinstance(value, str):
        return dtype == pl.String
    if isinstance(value, int):
        return (dtype == pl.Int64 and -(2**63) <= value < 2**63) or (
            dtype == pl.Float64 and abs(value) <= _EXACT
        )
    return dtype == pl.Float64 and isinstance(value, float) and math.isfinite(value)


def _constant(node: Node) -> Any:
    """A number without a type of its own, or text."""
    (sort, value) = next(iter(tree.body(node).items()))
    if sort == "Dyn" and tree.kind(value) in ("Int", "Float"):
        return tree.body(value)
    if sort == "Scalar" and tree.kind(value) == "String":
        return tree.body(value)
    raise _NotDirect


def _listed(value: Node, listed: Node, schema: Mapping[str, pl.DataType]) -> _Part:
    """Equal to one of a few texts."""
    part = _part(value, schema)
    if part.dtype != pl.String or not tree.is_scalar_literal(listed):
        raise _NotDirect
    values = pl.select(tree.to_expr(listed)).item()
    if not isinstance(values, pl.Series) or values.dtype != pl.String or values.null_count():
        raise _NotDirect
    if not 0 < len(values) <= MOST_LISTED:
        raise _NotDirect
    first, *others = [values[at : at + 1] for at in range(len(values))]

    def compute(frame: pl.DataFrame) -> pl.Series:
        series = part.compute(frame)
        found: pl.Series = series == first
        for other in others:
            found |= series == other
        return found

    return _Part(pl.Boolean(), compute)
