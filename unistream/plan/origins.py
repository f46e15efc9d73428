"""Which column of a source a column further on is."""

from __future__ import annotations

from collections.abc import Iterator

from unistream.operators.lookup import Lookup
from unistream.operators.stateless import (
    ExplodeStep,
    FilterStep,
    SelectStep,
    UnnestStep,
    WithColumnsStep,
    plain_columns,
)
from unistream.operators.watermarks import EventTimeSpec
from unistream.plan.nodes import Apply, Node, Scan, Stateless, Union
from unistream.plan.tree import Roots, walk


def column_of_scan(node: Node, column: str) -> tuple[Scan, str] | None:
    """The scan below, and which of its columns this one is; None when it is made on the way."""
    while isinstance(node, Stateless):
        found = _before(node, column)
        if found is None:
            return None
        node, column = node.input, found
    return (node, column) if isinstance(node, Scan) else None


def origins(node: Node, column: str) -> Iterator[tuple[Scan, str | None]]:
    """The scans whose splits can be told apart in the rows of a node, with what this column is there.

    None stands for one that is made on the way.
    """
    todo: list[tuple[Node, str | None]] = [(node, column)]
    seen: set[tuple[int, str | None]] = set()
    while todo:
        node, name = todo.pop()
        if (id(node), name) in seen:
            continue
        seen.add((id(node), name))
        match node:
            case Scan():
                yield node, name
            case Stateless():
                todo.append((node.input, None if name is None else _before(node, name)))
            case Union() | Apply(spec=EventTimeSpec()):
                todo.extend((child, name) for child in node.inputs)
            case Apply(spec=spec) if spec.keeps_splits:
                # A look-up adds columns and leaves the others; of what else there may be nothing is known.
                kept = name if isinstance(spec, Lookup) and name not in spec.adds else None
                todo.extend((child, kept) for child in node.inputs)


def time_columns(roots: Roots) -> dict[int, str]:
    """The column that becomes event time further on, by `id(scan)`, where all who assign time agree on it."""
    found: dict[int, set[str | None]] = {}
    for node in walk(roots):
        if isinstance(node, Apply) and isinstance(node.spec, EventTimeSpec):
            for scan, column in origins(node.over[0], node.spec.column):
                found.setdefault(id(scan), set()).add(column)
    agreed = {scan: names.pop() for scan, names in found.items() if len(names) == 1}
    return {scan: column for scan, column in agreed.items() if column is not None}


def _before(node: Stateless, column: str) -> str | None:
    """What the column is called below a step; None when the step makes it."""
    match node.step:
        case FilterStep():
            return column
        case SelectStep(exprs=exprs) | WithColumnsStep(exprs=exprs):
            plain = plain_columns(exprs)
            if column not in plain and column in {expr.meta.output_name() for expr in exprs}:
                return None
            return plain.get(column, column)
        case ExplodeStep(columns=columns) | UnnestStep(columns=columns):
            return column if column in node.input.schema.columns and column not in columns else None
    return None
