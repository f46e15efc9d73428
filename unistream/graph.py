"""The seam between plan and runtime: a graph of vertices that says what runs, not when or where."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, NewType

if TYPE_CHECKING:
    import polars as pl

    from unistream.expressions.schema import StreamSchema
    from unistream.io.base import Request, Sink, Source
    from unistream.one_query import Conditions, Unmet
    from unistream.operators.base import OperatorSpec

VertexId = NewType("VertexId", str)
"""Name of the step, numbered from the sources: stable while the program does not change there."""

MAIN = ""
"""Tag of an operator's main output."""

REJECTED = "rejected"
"""Tag of the output of rows that could not be read or cannot be."""

LATE = "late"
"""Tag of an operator's output of rows that came when time had passed them by."""


class Kind(Enum):
    """What drives a vertex."""

    SOURCE = "source"
    OPERATOR = "operator"
    SINK = "sink"
    QUERY = "query"


@dataclass(frozen=True, slots=True)
class Edge:
    """Rows of output `tag` of vertex `origin`."""

    origin: VertexId
    tag: str = MAIN


@dataclass(frozen=True, slots=True, eq=False)
class Input:
    """A source to be read and what is asked of it."""

    source: Source
    request: Request


@dataclass(frozen=True, slots=True, eq=False)
class WholeQuery:
    """A bounded plan from scan to sink as one Polars query.

    `instead` runs when the `conditions` turn out not to hold. `only_filters` says that a row that comes in
    and does not come out was filtered.
    """

    query: pl.LazyFrame
    sink: Sink
    conditions: Conditions
    instead: Callable[[Unmet], JobGraph]
    sources: tuple[Source, ...] = ()
    only_filters: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Vertex:
    """One thing to run. `inputs` are in port order; `schema` is that of its main output."""

    id: VertexId
    kind: Kind
    payload: Input | OperatorSpec | Sink | WholeQuery
    schema: StreamSchema
    inputs: tuple[Edge, ...] = ()
    input_schemas: tuple[StreamSchema, ...] = ()
    details: Mapping[str, str] = field(default_factory=dict)
    where: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class JobGraph:
    """Vertices in an order in which every input comes before its reader."""

    vertices: tuple[Vertex, ...]

    def __iter__(self) -> Iterator[Vertex]:
        return iter(self.vertices)

    def of_kind(self, kind: Kind) -> tuple[Vertex, ...]:
        """The vertices of one kind, in order."""
        return tuple(vertex for vertex in self.vertices if vertex.kind is kind)

    @property
    def bounded(self) -> bool:
        """Whether the job ends by itself."""
        sources = [v.payload.source for v in self.vertices if isinstance(v.payload, Input)]
        return all(source.bounded for source in sources)
