"""Whether expressions have parts in common that are worth computing once."""

from __future__ import annotations

import json
from collections.abc import Iterable

import polars as pl

from unistream.expressions import expression_tree as tree
from unistream.expressions.expression_tree import Node, UnknownExpression


def share_work(exprs: Iterable[pl.Expr]) -> bool:
    """Whether a function of columns stands in them more than once.

    What is only compared or added is computed as quickly as it is found to be the same.

    >>> parts = pl.col("url").str.split("/")
    >>> share_work([parts.list.get(3), parts.list.get(4)])
    True
    >>> share_work([pl.col("a") + 1, (pl.col("a") + 1) * 2, pl.col("url").str.len_bytes()])
    False
    """
    seen: set[str] = set()
    try:
        for expr in exprs:
            for node in tree.nodes(tree.to_node(expr)):
                if tree.kind(node) != "Function":
                    continue
                spelled = _spelled(node)
                if spelled in seen:
                    return True
                seen.add(spelled)
    except (UnknownExpression, TypeError):  # it cannot be read, or spelled
        return False
    return False


def _spelled(node: Node) -> str:
    return json.dumps(node, sort_keys=True)
