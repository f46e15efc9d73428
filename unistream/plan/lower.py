"""From the optimized plan to the graph that runs: fused chains, stable ids, whole queries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import polars as pl

from unistream.config import Settings
from unistream.errors import InvalidQuery
from unistream.expressions.schema import CHANGE, Change, Changes
from unistream.graph import Edge, Input, JobGraph, Kind, Vertex, VertexId, WholeQuery
from unistream.one_query import Conditions, Reading, Unmet
from unistream.operators.base import OperatorSpec
from unistream.operators.stateless import FilterStep, SelectStep, WithColumnsStep
from unistream.operators.stateless_chain import StatelessChain
from unistream.operators.union import UnionSpec
from unistream.plan.as_query import AsQuery
from unistream.plan.nodes import Apply, Node, Scan, SideOutput, Stateless, Union, Write, tag_of
from unistream.plan.origins import time_columns
from unistream.plan.own_output import check_no_circle
from unistream.plan.promises import promise
from unistream.plan.tree import Roots, readers, walk

QUERY_NODES = 100
"""Nodes of the largest plan that is handed to Polars as one query. Its optimizer takes 0.1 s for 100 steps,
1 s for 200 and 15 s for 300; a chain of steps run one after the other takes 0.04 s."""


def lower(roots: Roots, settings: Settings) -> JobGraph:
    """The graph of an optimized plan whose roots are sinks."""
    check_no_circle(roots)
    if settings.whole_query and len(roots) == 1 and _nodes_as_query(roots) <= QUERY_NODES:
        root = roots[0]
        if isinstance(root, Write) and root.sink.writes_queries:
            graph = _one_query(root, settings)
            if graph is not None:
                return graph
    return _Lowering(roots).graph()


def _one_query(root: Write, settings: Settings, reading: Reading = Reading.PLAIN) -> JobGraph | None:
    """The plan as one query, with what runs instead when its rows turn out not to be for one."""
    conditions = Conditions()
    query = AsQuery(settings, conditions, reading).of(root.input)
    if query is None:
        return None

    def instead(unmet: Unmet) -> JobGraph:
        again = None if unmet.instead is None else _one_query(root, settings, unmet.instead)
        return again or _Lowering((root,)).graph()

    return JobGraph((_query_vertex(root, query, conditions, instead),))


def _nodes_as_query(roots: Roots) -> int:
    """How many nodes Polars would see: one that is read twice stands there twice."""
    nodes: dict[int, int] = {}
    for node in walk(roots):
        nodes[id(node)] = 1 + sum(nodes[id(child)] for child in node.inputs)
    return sum(nodes[id(root)] for root in roots)


def _query_vertex(
    root: Write, query: pl.LazyFrame, conditions: Conditions, instead: Callable[[Unmet], JobGraph]
) -> Vertex:
    if root.schema.changes is not Changes.APPEND:
        query = query.with_columns(pl.lit(Change.INSERT.value, pl.Int8).alias(CHANGE))
    details = {"runs as": "one Polars streaming query"}
    if conditions:
        details["or else"] = "ticks, from the beginning, when it meets rows that one query is not for"
    return Vertex(
        id=VertexId(f"{root.sink.name}-1"),
        kind=Kind.QUERY,
        payload=WholeQuery(
            query,
            root.sink,
            conditions,
            instead,
            sources=tuple(node.source for node in walk([root]) if isinstance(node, Scan)),
            only_filters=_only_filters(root),
        ),
        schema=root.schema,
        details={**details, **root.sink.describe(), "delivery": promise(root)},
        where=root.where,
    )


def _only_filters(root: Write) -> bool:
    """Whether each row that comes in comes out once, unless a filter kept it."""
    return max(readers([root]).values()) == 1 and all(_keeps_or_filters(node) for node in walk([root]))


def _keeps_or_filters(node: Node) -> bool:
    if isinstance(node, Stateless):
        return isinstance(node.step, (SelectStep, WithColumnsStep, FilterStep))
    return isinstance(node, (Scan, Union, Write))


class _Lowering:
    """Builds vertices in the order of the plan; a chain becomes a vertex when its last step is reached."""

    def __init__(self, roots: Roots) -> None:
        self._roots = roots
        self._readers = readers(roots)
        self._times = time_columns(roots)
        self._numbers: Counter[str] = Counter()
        self._labels = {node.label for node in walk(roots)}
        self._ids: dict[int, VertexId] = {}
        self._vertices: list[Vertex] = []
        self._chained = {
            id(node.input)
            for node in walk(roots)
            if isinstance(node, Stateless)
            and isinstance(node.input, Stateless)
            and self._readers[id(node.input)] == 1
        }

    def graph(self) -> JobGraph:
        for node in walk(self._roots):
            if isinstance(node, SideOutput) or id(node) in self._chained:
                continue
            self._add(node)
        return JobGraph(tuple(self._vertices))

    def _add(self, node: Node) -> None:
        match node:
            case Scan():
                request = replace(node.request, time_column=self._times.get(id(node)))
                self._vertex(
                    node, Kind.SOURCE, node.source.name, Input(node.source, request), (), _scan_details(node)
                )
            case Stateless():
                chain = [node]
                while id(chain[-1].input) in self._chained and isinstance(chain[-1].input, Stateless):
                    chain.append(chain[-1].input)
                spec = StatelessChain(steps=tuple(link.step for link in reversed(chain)), where=node.where)
                self._operator(node, spec, (chain[-1].input,))
            case Union():
                self._operator(node, UnionSpec(result=node.schema, where=node.where), node.parts)
            case Apply():
                self._operator(node, node.spec, node.over)
            case Write():
                details = {**node.sink.describe(), "delivery": promise(node)}
                self._vertex(node, Kind.SINK, node.sink.name, node.sink, (node.input,), details)

    def _operator(self, node: Node, spec: OperatorSpec, inputs: Sequence[Node]) -> None:
        self._vertex(node, Kind.OPERATOR, spec.name, spec, inputs, spec.describe())

    def _vertex(
        self,
        node: Node,
        kind: Kind,
        name: str,
        payload: Input | OperatorSpec | object,
        inputs: Sequence[Node],
        details: Mapping[str, str],
    ) -> None:
        edges = []
        for child in inputs:
            origin, tag = tag_of(child)
            edges.append(Edge(self._ids[id(origin)], tag))
        self._ids[id(node)] = self._name(node, name)
        self._vertices.append(
            Vertex(
                id=self._ids[id(node)],
                kind=kind,
                payload=payload,  # type: ignore[arg-type]
                schema=node.schema,
                inputs=tuple(edges),
                input_schemas=tuple(child.schema for child in inputs),
                details=details,
                where=node.where,
            )
        )

    def _name(self, node: Node, name: str) -> VertexId:
        if node.label is not None:
            if node.label in self._ids.values():
                hint = "their state and counters are found by it: choose another name for one of them"
                raise InvalidQuery(f"Two steps are named {node.label!r}", node.where, hint)
            return VertexId(node.label)
        self._numbers[name] += 1
        numbered = VertexId(f"{name}-{self._numbers[name]}")
        return self._name(node, name) if numbered in self._labels else numbered


def _scan_details(node: Scan) -> dict[str, str]:
    details = dict(node.source.describe())
    every = node.source.schema()
    if node.request.columns is not None:
        details["columns"] = f"{len(node.request.columns)} of {len(every)}: {', '.join(node.request.columns)}"
    if node.request.predicate is not None:
        details["filter"] = " ".join(str(node.request.predicate).split())
    return details
