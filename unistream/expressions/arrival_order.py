"""What an aggregate's value owes to the order in which rows come."""

from __future__ import annotations

import polars as pl

from unistream.expressions import expression_tree as tree
from unistream.expressions.expression_tree import Node, UnknownExpression
from unistream.expressions.row_wise import is_row_wise, keeps_rows

_ORDERLESS = frozenset(["Sum", "Mean", "Min", "Max", "Var", "Std", "Count", "NUnique", "Median"])
_ORDERLESS_FUNCTIONS = frozenset(
    [
        *[("Quantile",), ("Skew",), ("Kurtosis",), ("NullCount",), ("Product",)],
        *[("Boolean", "Any"), ("Boolean", "All"), ("Boolean", "HasNulls")],
        *[("Bitwise", "And"), ("Bitwise", "Or"), ("Bitwise", "Xor")],
    ]
)
_ORDERED = frozenset(["First", "Last", "FirstNonNull", "LastNonNull", "Implode"])
_DROPS = (("DropNulls",), ("DropNans",))


def minds_order(expr: pl.Expr) -> bool:
    """Whether an aggregate may give another value when rows come in another order.

    The last bits of sums of floats do not count.

    >>> minds_order(pl.col("a").filter(pl.col("b") > 0).n_unique()), minds_order(pl.col("a").last())
    (False, True)
    """
    return not _is_known(expr, _ORDERLESS, rows=False)


def is_settled(expr: pl.Expr) -> bool:
    """Whether the order of rows leaves Polars no choice of the value.

    >>> is_settled(pl.col("a").last()), is_settled(pl.col("a").max_by("b"))
    (True, False)
    """
    return _is_known(expr, _ORDERLESS | _ORDERED, rows=True)


def _is_known(expr: pl.Expr, aggregates: frozenset[str], *, rows: bool) -> bool:
    try:
        node = tree.without_alias(tree.to_node(expr))
        return _is_one_value(node, aggregates) or (rows and _is_rows(node, aggregates))
    except UnknownExpression:
        return False


def _is_one_value(node: Node, aggregates: frozenset[str]) -> bool:
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
            return name in aggregates and _is_rows(inside, aggregates)
        case "Function" if tree.function_name(node) in _ORDERLESS_FUNCTIONS:
            return all(_is_rows(child, aggregates) for child in tree.children(node))
    return keeps_rows(node) and all(_is_one_value(child, aggregates) for child in tree.children(node))


def _is_rows(node: Node, aggregates: frozenset[str]) -> bool:
    """Whether the node has the same values whatever their order: of rows, and of such aggregates."""
    if is_row_wise(tree.to_expr(node)) or _is_one_value(node, aggregates):
        return True
    dropped = tree.kind(node) == "Function" and tree.function_name(node) in _DROPS
    if dropped or tree.kind(node) == "Filter" or keeps_rows(node):
        return all(_is_rows(child, aggregates) for child in tree.children(node))
    return False
