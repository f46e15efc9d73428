"""Aggregates of aggregates of one column's values, such as the mean of its three largest."""

from __future__ import annotations

from unistream.expressions import expression_tree as tree
from unistream.expressions.expression_tree import Node

_CHAINED_AGGREGATES = frozenset(
    ["Sum", "Mean", "Min", "Max", "Median", "Var", "Std", "NUnique", "Count", "First", "Last"]
)
_CHAINED_FUNCTIONS = frozenset(
    [
        *[("Quantile",), ("Skew",), ("Kurtosis",), ("Entropy",), ("ApproxNUnique",), ("NullCount",)],
        *[("Mode",), ("TopK",), ("Unique",), ("Reverse",), ("DropNulls",), ("DropNans",), ("ArgSort",)],
        *[("StringExpr", "ConcatVertical"), ("Diff",), ("Shift",), ("CumSum",), ("CumMax",), ("CumMin",)],
        *[("ArgMin",), ("ArgMax",), ("CumCount",), ("Boolean", "IsSorted"), ("Boolean", "HasNulls")],
    ]
)
"""What may be applied to values kept in a list, one after the other, as it would be to a group's rows."""


def may_be_chained(node: Node) -> bool:
    """Whether it may be one step of several over the same values."""
    match tree.kind(node):
        case "Sort" | "Slice":
            return True
        case "Agg":
            return tree.aggregation(node)[0] in _CHAINED_AGGREGATES
        case "Function":
            name = tree.function_name(node)
            return name in _CHAINED_FUNCTIONS or name[:1] in _CHAINED_FUNCTIONS
    return False


def wants_floats(node: Node) -> bool:
    """Over list elements these do not turn integers into floats by themselves."""
    return tree.function_name(node)[0] in ("Skew", "Kurtosis", "Entropy")
