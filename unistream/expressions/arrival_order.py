"""Aggregates whose value follows from the rows of a group and their order: Polars has no choice."""

from __future__ import annotations

import polars as pl

from unistream.expressions import expression_tree as tree
from unistream.expressions.expression_tree import Node, UnknownExpression
from unistream.expressions.row_wise import is_row_wise, keeps_rows

_SETTLED = frozenset(
    [
        *["Sum", "Mean", "Min", "Max", "Var", "Std", "Count", "NUnique", "Median"],
        *["First", "Last", "FirstNonNull", "LastNonNull", "Implode"],
    ]
)
_SETTLED_FUNCTIONS = frozenset(
    [
        *[("Quantile",), ("Skew",), ("Kurtosis",), ("NullCount",), ("Product",)],
        *[("Boolean", "Any"), ("Boolean", "All"), ("Boolean", "HasNulls")],
        *[("Bitwise", "And"), ("Bitwise", "Or"), ("Bitwise", "Xor")],
    ]
)
_DROPS = (("DropNulls",), ("DropNans",))


def is_settled(expr: pl.Expr) -> bool:
    """Whether the order of rows leaves Polars no choice of the value.

    >>> is_settled(pl.col("a").last()), is_settled(pl.col("a").max_by("b"))
    (True, False)
    """
    try:
        node = tree.without_alias(tree.to_node(expr))
        return _is_one_value(node) or _is_rows(node)
    except UnknownExpression:
        return False


def _is_one_value(node: Node) -> bool:
    """Whether the node is made of these aggregates, of constants, and of what takes them value by value."""
    match tree.kind(node):
        case "Len":
            return True
        case "Literal":
            return tree.is_scalar_literal(node)
        case "Column" | "Selector" | "Field" | "Element":
            return False
        case "Agg":
            name, inside, _ = tree.aggregation(node)
            return name in _SETTLED and _is_rows(inside)
        case "Function" if tree.function_name(node) in _SETTLED_FUNCTIONS:
            return all(_is_rows(child) for child in tree.children(node))
    return keeps_rows(node) and all(_is_one_value(child) for child in tree.children(node))


def _is_rows(node: Node) -> bool:
    """Whether the node has the same values whatever their order: of rows, and of such aggregates."""
    if is_row_wise(tree.to_expr(node)) or _is_one_value(node):
        return True
    dropped = tree.kind(node) == "Function" and tree.function_name(node) in _DROPS
    if dropped or tree.kind(node) == "Filter" or keeps_rows(node):
        return all(_is_rows(child) for child in tree.children(node))
    return False
