"""The keys of a group: columns that are there, and others computed first, which may take their names."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import polars as pl

from unistream.api import steps
from unistream.api.inputs import before_step
from unistream.api.names import is_plain
from unistream.errors import InvalidQuery
from unistream.plan.nodes import Node, Stateless

if TYPE_CHECKING:
    from unistream.api.stream import Stream
    from unistream.operators.base import OperatorSpec


@dataclass(frozen=True, slots=True)
class Keys:
    """What rows are put together by: `rows` have all keys as columns.

    A key that is `computed` under the name of a column of `origin` stands in `rows` in its place. What reads
    that column means the column, as in Polars: it is given rows that have both, see `seen_by`.
    """

    rows: Node
    names: tuple[str, ...]
    origin: Node
    computed: tuple[pl.Expr, ...] = ()
    where: str | None = None

    @classmethod
    def plain(cls, node: Node, names: tuple[str, ...]) -> Keys:
        """Columns as they are."""
        return cls(node, names, node)

    @classmethod
    def of(cls, node: Node, exprs: Sequence[pl.Expr], where: str | None) -> Keys:
        """From expanded expressions over one row at a time."""
        names = tuple(expr.meta.output_name() for expr in exprs)
        computed = tuple(expr for expr in exprs if not is_plain(expr))
        return cls(_with_columns(node, computed, where), names, node, computed, where)

    @property
    def columns(self) -> pl.Schema:
        """What expressions over a group may read."""
        return pl.Schema({**self.rows.schema.columns, **self.origin.schema.columns})

    @property
    def _replaced(self) -> list[str]:
        """The columns of `origin` that have a key in their place."""
        names = [expr.meta.output_name() for expr in self.computed]
        return [name for name in names if name in self.origin.schema.columns]

    def seen_by(self, reads: Collection[str]) -> KeyedRows:
        """The rows for a step that reads these columns, which stay beside keys of their names."""
        hidden = {name: self._free(name) for name in self._replaced if name in reads}
        if not hidden:
            return KeyedRows(self.rows, self.names)
        computed = [_under(expr, hidden) for expr in self.computed]
        rows = _with_columns(self.origin, computed, self.where)
        names = {key: name for name, key in hidden.items()}
        return KeyedRows(rows, tuple(hidden.get(name, name) for name in self.names), names)

    def _free(self, name: str) -> str:
        key = f"__key_{name}"
        while key in self.columns:
            key = f"_{key}"
        return key

    def in_full(self, step: str, where: str | None) -> KeyedRows:
        """The rows for a function that is handed all of their columns."""
        if self._replaced:
            name = self._replaced[0]
            hint = f"name the key otherwise, as in `group_by({name}_key=...)`"
            message = (
                f"{step} hands on whole rows, and key {name!r} would stand in place of the column {name!r}"
            )
            raise InvalidQuery(message, where, hint)
        return KeyedRows(self.rows, self.names)


@dataclass(frozen=True, slots=True)
class KeyedRows:
    """Rows with their keys as columns `by`; `names` has the names of those that stand under another."""

    node: Node
    by: tuple[str, ...]
    names: Mapping[str, str] = field(default_factory=dict)

    def given(self, spec: OperatorSpec) -> Stream:
        """What an operator makes of them."""
        from unistream.api.stream import Stream

        return self.named(Stream(self.node)._apply(spec))

    def named(self, result: Stream) -> Stream:
        """A result with keys under their names, also in rows that have both the column and the key."""
        if not self.names:
            return result
        hidden = {name: key for key, name in self.names.items()}
        columns = dict.fromkeys(self.names.get(name, name) for name in result.columns)
        return result.select(pl.col(hidden.get(name, name)).alias(name) for name in columns)


def _under(expr: pl.Expr, names: Mapping[str, str]) -> pl.Expr:
    name = expr.meta.output_name()
    return expr.alias(names[name]) if name in names else expr


def _with_columns(node: Node, exprs: Sequence[pl.Expr], where: str | None) -> Node:
    if not exprs:
        return node
    step = steps.with_columns(node.schema, exprs, {}, where)
    return Stateless(input=before_step(step, node), step=step, where=where)
