"""Move filters towards the source, and into it where it can use them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import polars as pl

from unistream.expressions import expression_tree as tree
from unistream.expressions.analysis import columns_read, substitute
from unistream.operators.stateless import FilterStep, SelectStep, WithColumnsStep, plain_columns
from unistream.plan.nodes import Node, Scan, Stateless, Union
from unistream.plan.tree import Roots, readers, rewrite, walk

_TOTAL = frozenset({"Column", "Literal", "Alias", "BinaryExpr", "Ternary", "Boolean", "FillNull"})
"""Nodes, and first names of functions, that give a value for every row."""


def push_filters(roots: Roots) -> Roots:
    """Apply until nothing moves; a node with several readers stays as it is for the others."""
    while True:
        edges = readers(roots)
        # In the order in which `rewrite` visits: by then what a node reads may be a new object.
        others = iter([any(edges[id(child)] > 1 for child in node.inputs) for node in walk(roots)])
        moved = False

        def step(node: Node, others: Iterator[bool] = others) -> Node:
            nonlocal moved
            if next(others) or not isinstance(node, Stateless) or not isinstance(node.step, FilterStep):
                return node
            better = _pushed(node, node.step)
            moved = moved or better is not None
            return better or node

        roots = rewrite(roots, step)
        if not moved:
            return roots


def _pushed(node: Stateless, step: FilterStep) -> Node | None:
    below = node.input
    match below:
        case Scan() if "predicate" in below.source.pushes and not step.constant:
            old = below.request.predicate
            if old is not None and not _cannot_fail(step.predicate):
                return None  # the filter before may keep away the rows on which this one fails
            both = step.predicate if old is None else old & step.predicate
            return below.replaced(request=replace(below.request, predicate=both))
        case Union():
            parts = tuple(Stateless(input=part, step=step, where=node.where) for part in below.parts)
            return below.replaced(parts=parts)
        case Stateless(step=SelectStep() | WithColumnsStep() as inner):
            predicate = _through(step.predicate, inner)
            if predicate is None:
                return None
            lower = Stateless(input=below.input, step=replace(step, predicate=predicate), where=node.where)
            return below.replaced(input=lower)
    return None


def _cannot_fail(predicate: pl.Expr) -> bool:
    """Whether it has a value for every row: comparisons, logic and the like, but no strict cast."""
    try:
        nodes = list(tree.nodes(tree.to_node(predicate)))
    except tree.UnknownExpression:
        return False
    return all(
        tree.kind(node) in _TOTAL or (tree.kind(node) == "Function" and tree.function_name(node)[0] in _TOTAL)
        for node in nodes
    )


def _through(predicate: pl.Expr, inner: SelectStep | WithColumnsStep) -> pl.Expr | None:
    """The predicate over the input of `inner`, or None when it needs a column that `inner` computes.

    None also for one that cannot be taken apart, such as a function that gives "the type of this column".
    """
    origin = plain_columns(inner.exprs)
    computed = set(inner.made) - set(origin)
    reads = columns_read(predicate)
    if reads & computed:
        return None
    renamed = {name: pl.col(origin[name]) for name in reads if origin.get(name, name) != name}
    try:
        return substitute(predicate, renamed)
    except tree.UnknownExpression:
        return None
