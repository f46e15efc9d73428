"""What a step takes in: the stream before it, made fit for the step or refused at the user's line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from unistream.errors import InvalidQuery
from unistream.expressions.schema import Changes
from unistream.operators.changelog import Retractions
from unistream.plan.nodes import Apply, Node

if TYPE_CHECKING:
    from unistream.api.stream import Stream
    from unistream.operators.base import OperatorSpec
    from unistream.operators.stateless import RowStep


def accepted(spec: OperatorSpec, node: Node) -> Node:
    """The input as the operator can take it: upserts become retractions, other updates are refused."""
    if not spec.accepts_updates:
        refuse_updates(spec.name, node, spec.where)
    return in_full(node, spec.where) if spec.needs_retractions else node


def refuse_updates(step: str, node: Node, where: str | None) -> None:
    """For steps that take rows which are only added."""
    if node.schema.changes is not Changes.APPEND:
        hint = "take .changes() for the changes as rows, or emit windows with emit='close'"
        raise InvalidQuery(f"{step} takes rows that are only added; this stream updates", where, hint)


def in_full(node: Node, where: str | None) -> Node:
    """The rows with every row that is replaced taken back before, instead of replaced by its key."""
    if node.schema.changes is not Changes.UPSERT:
        return node
    return Apply(spec=Retractions(where=where), over=(node,), where=where)


def before_step(step: RowStep, node: Node) -> Node:
    """The input of a stateless step: behind one that drops the key nobody could tell what is replaced."""
    changes = node.schema.changes
    if step.verb == "map_batches":
        refuse_updates(step.verb, node, step.where)
    if changes is Changes.UPSERT and (step.verb == "explode" or not step.derive(node.schema).key):
        return in_full(node, step.where)
    return node


def same_columns(first: Stream, other: Any, where: str | None) -> None:
    """Refuse what cannot be a part of a union with the first."""
    if not isinstance(other, type(first)):
        raise InvalidQuery(
            f"union takes streams, not {type(other).__name__}", where, "wrap frames in us.from_frame"
        )
    if list(first.schema.items()) == list(other.schema.items()):
        return
    for name, dtype in first.schema.items():
        if name not in other.schema:
            raise InvalidQuery.from_missing_column(name, other.schema, "a part of union", where)
        if other.schema[name] != dtype:
            hint = f"cast one of them, as in `.cast({{{name!r}: pl.{dtype}}})`"
            raise InvalidQuery(
                f"Column {name!r} is {dtype} here and {other.schema[name]} there in union", where, hint
            )
    extra = [name for name in other.schema if name not in first.schema]
    if extra:
        raise InvalidQuery(
            f"A part of union has the further columns {extra}", where, "select the same columns in both"
        )
    hint = f"select them in one order: `.select({first.columns})`"
    raise InvalidQuery("The columns of the parts of union come in another order", where, hint)
