"""What the order of the rows of a group leaves open in what an expression gives over them."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

import polars as pl

from unistream.expressions import expression_tree as tree
from unistream.expressions.expression_tree import Node, UnknownExpression
from unistream.expressions.row_wise import is_row_wise, keeps_rows


class Shape(Enum):
    """What an expression gives over the rows of a group."""

    VALUE = "one value, the same in any order"
    SEQUENCE = "values in an order of their own"
    ROWS = "one value per row, in order of the rows"
    SOME = "values of some rows, in order of these"
    UNKNOWN = "something that may depend on the order"


_AGGREGATES = frozenset(["Sum", "Mean", "Min", "Max", "Median", "Var", "Std", "NUnique", "Count", "Quantile"])
_FUNCTIONS = frozenset(
    [
        *[("Quantile",), ("Skew",), ("Kurtosis",), ("Entropy",), ("ApproxNUnique",), ("NullCount",)],
        *[("Product",), ("Boolean", "Any"), ("Boolean", "All"), ("Boolean", "HasNulls")],
        *[("Bitwise", "And"), ("Bitwise", "Or"), ("Bitwise", "Xor")],
    ]
)
_DROPS = frozenset([("DropNulls",), ("DropNans",)])
_FIXED = (Shape.VALUE, Shape.SEQUENCE)


def asks_for_order(exprs: Sequence[pl.Expr]) -> bool:
    """Whether any of these aggregates may give something else when rows come in another order.

    >>> asks_for_order([pl.col("a").sum(), pl.col("a").filter(pl.col("b") > 0).median()])
    False
    >>> asks_for_order([pl.col("a").first()]), asks_for_order([pl.col("a").filter(pl.col("b") > 0)])
    (True, True)
    """
    return any(shape_of(expr) not in _FIXED for expr in exprs)


def shape_of(expr: pl.Expr) -> Shape:
    """What `expr` gives over the rows of a group; what cannot be read is unknown.

    >>> shape_of(pl.col("a").filter(pl.col("a") == pl.col("a").max())).name
    'SOME'
    """
    try:
        return _shape(tree.to_node(expr))
    except UnknownExpression:
        return Shape.UNKNOWN


def _shape(node: Node) -> Shape:
    kind = tree.kind(node)
    if kind == "Len":
        return Shape.VALUE
    if kind == "Column":
        return Shape.ROWS
    inputs = [_shape(child) for child in tree.children(node)]
    match kind:
        case "Agg":
            return _aggregated(tree.aggregation(node)[0], inputs[0])
        case "Function" if tree.function_name(node) in _FUNCTIONS:
            over_any = inputs[0] is not Shape.UNKNOWN and set(inputs[1:]) <= {Shape.VALUE}
            return Shape.VALUE if over_any else Shape.UNKNOWN
        case "Function" if tree.function_name(node) in _DROPS:
            return Shape.SOME if inputs[0] is Shape.ROWS else inputs[0]
        case "Filter":
            return Shape.SOME if inputs == [Shape.ROWS, Shape.ROWS] else Shape.UNKNOWN
        case "Sort":
            return Shape.UNKNOWN if inputs[0] is Shape.UNKNOWN else Shape.SEQUENCE
        case "Slice":
            fixed = inputs[0] in _FIXED and set(inputs[1:]) <= {Shape.VALUE}
            return Shape.SEQUENCE if fixed else Shape.UNKNOWN
    return _combined(inputs) if keeps_rows(node) else Shape.UNKNOWN


def _aggregated(name: str, inside: Shape) -> Shape:
    if name in _AGGREGATES:
        return Shape.UNKNOWN if inside is Shape.UNKNOWN else Shape.VALUE
    if name in ("First", "Last", "FirstNonNull", "LastNonNull"):
        return Shape.VALUE if inside in _FIXED else Shape.UNKNOWN
    return Shape.UNKNOWN


def _combined(inputs: Sequence[Shape]) -> Shape:
    """Value by value: those of some rows go with single values only, as others would have other partners."""
    several = [shape for shape in inputs if shape is not Shape.VALUE]
    if all(shape is Shape.ROWS for shape in several):
        return Shape.ROWS if several else Shape.VALUE
    return several[0] if len(several) == 1 else Shape.UNKNOWN


def in_order_of(keys: Sequence[str], expr: pl.Expr) -> pl.Expr:
    """The aggregate, with its values in order of these columns where it is a list of values of rows.

    >>> rows = pl.DataFrame({"k": ["b", "a", "c"], "v": [1, 2, 0]})
    >>> rows.select(in_order_of(["k"], pl.col("v").filter(pl.col("v") > 0)).implode()).item().to_list()
    [2, 1]
    """
    shape = shape_of(expr)
    if not keys or shape not in (Shape.ROWS, Shape.SOME):
        return expr
    node = tree.without_alias(tree.to_node(expr))
    by = [pl.col(key) for key in keys]
    if shape is Shape.SOME:
        if tree.kind(node) != "Filter":
            return expr
        condition = tree.to_expr(tree.children(node)[1])
        by = [key.filter(condition) for key in by]
    return tree.to_expr(node).sort_by(by).alias(expr.meta.output_name())


def best_of(exprs: Sequence[pl.Expr]) -> tuple[pl.Expr, pl.Expr] | None:
    """A value and its greatest or least, when these aggregates look only at rows where both are equal.

    They are lists of values of such rows, or that extreme itself: other rows may be left out first, except
    where all values are null.

    >>> price = pl.col("price")
    >>> value, most = best_of([pl.col("id").filter(price == price.max()), price.max().alias("most")])
    >>> print(value, most)
    col("price") col("price").max()
    """
    try:
        found = [_best_of(tree.without_alias(tree.to_node(expr))) for expr in exprs]
    except UnknownExpression:
        return None
    if not found or any(one is None or one != found[0] for one in found):
        return None
    extreme = tree.to_expr(found[0])
    return tree.to_expr(tree.aggregation(found[0])[1]), extreme


def _best_of(node: Node) -> Node | None:
    """The extreme that a list of the best, or the node itself, is of."""
    if tree.kind(node) != "Filter":
        return node if _is_extreme(node) else None
    values, condition = tree.children(node)
    if tree.kind(condition) != "BinaryExpr" or tree.body(condition)["op"] != "Eq":
        return None
    left, right = tree.children(condition)
    value, extreme = (left, right) if _is_extreme(right) else (right, left)
    same = _is_extreme(extreme) and tree.aggregation(extreme)[1] == value
    return extreme if same and is_row_wise(tree.to_expr(values)) else None


def _is_extreme(node: Node) -> bool:
    if tree.kind(node) != "Agg":
        return False
    name, value, options = tree.aggregation(node)
    return name in ("Min", "Max") and not options["propagate_nans"] and is_row_wise(tree.to_expr(value))
