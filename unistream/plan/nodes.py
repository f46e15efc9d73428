"""Nodes of the logical plan: frozen, shared between streams, compared by identity."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Self

from unistream.expressions.schema import Changes, StreamSchema
from unistream.graph import MAIN, REJECTED
from unistream.io.base import REJECTED_SCHEMA, Request, Sink, Source
from unistream.operators.base import OperatorSpec
from unistream.operators.stateless import RowStep


@dataclass(frozen=True, eq=False, kw_only=True)
class Node(ABC):
    """A table that may still be growing. `where` is the user's line, `label` a name the user gave."""

    where: str | None = None
    label: str | None = None

    @property
    @abstractmethod
    def inputs(self) -> tuple[Node, ...]:
        """The nodes it reads, in port order."""

    @abstractmethod
    def with_inputs(self, inputs: tuple[Node, ...]) -> Node:
        """The same node over other inputs."""

    @abstractmethod
    def _derive(self) -> StreamSchema: ...

    @cached_property
    def schema(self) -> StreamSchema:
        """What is known about its rows; derived once, inputs first, so that a plan may be deep."""
        ahead = _underived(self)
        while ahead:
            deeper = _underived(ahead[-1])
            if deeper:
                ahead.extend(deeper)
            else:
                _ = ahead.pop().schema
        return self._derive()

    def replaced(self, **changes: Any) -> Self:
        """A copy with some fields changed; what was derived is derived anew."""
        return replace(self, **changes)


@dataclass(frozen=True, eq=False, kw_only=True)
class Scan(Node):
    """Rows of a source."""

    source: Source
    request: Request = field(default_factory=Request)

    @property
    def inputs(self) -> tuple[Node, ...]:
        return ()

    def with_inputs(self, inputs: tuple[Node, ...]) -> Node:
        return self

    def _derive(self) -> StreamSchema:
        columns = self.source.schema()
        if self.request.columns is not None:
            columns = type(columns)({name: columns[name] for name in self.request.columns})
        return StreamSchema(columns, bounded=self.source.bounded, side_outputs={REJECTED: REJECTED_SCHEMA})


@dataclass(frozen=True, eq=False, kw_only=True)
class OneInput(Node):
    """A node over one other."""

    input: Node

    @property
    def inputs(self) -> tuple[Node, ...]:
        return (self.input,)

    def with_inputs(self, inputs: tuple[Node, ...]) -> Node:
        return self.replaced(input=inputs[0])


@dataclass(frozen=True, eq=False, kw_only=True)
class Stateless(OneInput):
    """A step that treats each row for itself."""

    step: RowStep

    def _derive(self) -> StreamSchema:
        return self.step.derive(self.input.schema)


@dataclass(frozen=True, eq=False, kw_only=True)
class Union(Node):
    """The rows of several streams with the same columns, in no particular order between them."""

    parts: tuple[Node, ...]

    @property
    def inputs(self) -> tuple[Node, ...]:
        return self.parts

    def with_inputs(self, inputs: tuple[Node, ...]) -> Node:
        return self.replaced(parts=inputs)

    def _derive(self) -> StreamSchema:
        schemas = [part.schema for part in self.parts]
        first = schemas[0]
        times = {schema.event_time for schema in schemas}
        appending = all(schema.changes is Changes.APPEND for schema in schemas)
        return StreamSchema(
            first.columns,
            event_time=first.event_time if len(times) == 1 else None,
            # Two tables with the same key are no longer one row per key together.
            changes=Changes.APPEND if appending else Changes.RETRACT,
            bounded=all(schema.bounded for schema in schemas),
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class Apply(Node):
    """Any operator, by its spec."""

    spec: OperatorSpec
    over: tuple[Node, ...]

    @property
    def inputs(self) -> tuple[Node, ...]:
        return self.over

    def with_inputs(self, inputs: tuple[Node, ...]) -> Node:
        return self.replaced(over=inputs)

    def _derive(self) -> StreamSchema:
        return self.spec.schema([node.schema for node in self.over])


@dataclass(frozen=True, eq=False, kw_only=True)
class SideOutput(Node):
    """A side output of a scan or an operator: rejected rows, late rows, a user's own tag."""

    origin: Node
    tag: str

    @property
    def inputs(self) -> tuple[Node, ...]:
        return (self.origin,)

    def with_inputs(self, inputs: tuple[Node, ...]) -> Node:
        return self.replaced(origin=inputs[0])

    def _derive(self) -> StreamSchema:
        origin = self.origin.schema
        return StreamSchema(origin.side_outputs[self.tag], bounded=origin.bounded)


@dataclass(frozen=True, eq=False, kw_only=True)
class Write(OneInput):
    """Rows handed to a sink; the root of a plan."""

    sink: Sink

    def _derive(self) -> StreamSchema:
        return self.input.schema


def _underived(node: Node) -> list[Node]:
    """Its inputs whose schema was not asked for yet."""
    return [child for child in node.inputs if "schema" not in child.__dict__]


def tag_of(node: Node) -> tuple[Node, str]:
    """The node that really produces the rows of `node`, and the output they leave it by."""
    return (node.origin, node.tag) if isinstance(node, SideOutput) else (node, MAIN)
