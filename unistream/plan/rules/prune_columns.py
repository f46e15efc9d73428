"""Read and compute only the columns that somebody uses."""

from __future__ import annotations

from dataclasses import replace

import polars as pl

from unistream.operators.stateless import SelectStep
from unistream.plan.nodes import Apply, Node, Scan, SideOutput, Stateless, Union
from unistream.plan.tree import Roots, rewrite, walk

Needs = dict[int, frozenset[str]]


def prune_columns(roots: Roots) -> Roots:
    """Collect what each node must give, readers first, then narrow steps and scans."""
    needs: Needs = {}
    order = list(walk(roots))
    # Rows that leave an operator by the side leave whole.
    whole = {id(node.origin) for node in order if isinstance(node, SideOutput)}
    for node in reversed(order):
        wanted = None if id(node) in whole and isinstance(node, Apply) else needs.get(id(node))
        for child, needed in zip(node.inputs, _reads(node, wanted), strict=True):
            needs[id(child)] = needs.get(id(child), frozenset()) | needed
    before = iter(order)

    def narrow(node: Node) -> Node:
        # `rewrite` visits in the order of `walk`, so this is what the node was called when needs were taken.
        needed = needs.get(id(next(before)))
        return node if needed is None else _narrowed(node, needed)

    return rewrite(roots, narrow)


def _reads(node: Node, needed: frozenset[str] | None) -> list[frozenset[str]]:
    """The columns `node` needs of each input to give `needed`; None needs everything."""
    if needed is None:
        return [frozenset(child.schema.columns) for child in node.inputs]
    match node:
        case Stateless():
            step = node.step.pruned(needed)
            return [step.reads(node.input.schema.columns, needed)]
        case Union():
            return [needed] * len(node.parts)
        case Apply():
            return list(node.spec.reads([child.schema for child in node.over], needed))
        case SideOutput():
            return [frozenset()]
    return [frozenset(child.schema.columns) for child in node.inputs]


def _narrowed(node: Node, needed: frozenset[str]) -> Node:
    match node:
        case Stateless():
            step = node.step.pruned(needed)
            return node if step is node.step else node.replaced(step=step)
        case Scan() if "columns" in node.source.pushes:
            names = node.schema.columns
            wanted = tuple(name for name in names if name in needed) or _cheapest(names)
            return (
                node
                if len(wanted) == len(names)
                else node.replaced(request=replace(node.request, columns=wanted))
            )
        case Union():
            wanted = tuple(name for name in node.schema.columns if name in needed) or _cheapest(
                node.schema.columns
            )
            return node.replaced(parts=tuple(_exactly(part, wanted) for part in node.parts))
    return node


def _exactly(part: Node, wanted: tuple[str, ...]) -> Node:
    """The part with just these columns in this order, so that the parts of a union agree."""
    columns = part.schema.columns
    if tuple(columns) == wanted:
        return part
    made = pl.Schema({name: columns[name] for name in wanted})
    return Stateless(input=part, step=SelectStep(exprs=tuple(pl.col(name) for name in wanted), made=made))


def _cheapest(columns: pl.Schema) -> tuple[str, ...]:
    """One column to count rows by, when no column is needed: the first of fixed width."""
    fixed = [name for name, dtype in columns.items() if dtype.is_numeric() or dtype.is_temporal()]
    return tuple(fixed[:1] or list(columns)[:1])
