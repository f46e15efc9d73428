"""The plan as text, as a Mermaid drawing and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape

from unistream.errors import InvalidQuery
from unistream.expressions.schema import Changes, StreamSchema
from unistream.graph import MAIN, JobGraph, Vertex
from unistream.location import user_location
from unistream.plan.nodes import Apply, Node, Scan, SideOutput, Stateless, Union, Write

FORMATS = ("text", "mermaid", "json")


def explain(roots: Sequence[Node], graph: JobGraph, format: str = "text") -> str:
    """The optimized logical plan and the graph that would run."""
    if format == "text":
        return f"Logical plan\n{_logical(roots)}\n\nPhysical plan\n{_physical(graph)}"
    if format == "mermaid":
        return _mermaid(graph)
    if format == "json":
        vertices = [_as_json(vertex) for vertex in graph]
        return json.dumps({"logical": _logical(roots).splitlines(), "physical": vertices}, indent=2)
    hint = f"one of {', '.join(FORMATS)}"
    raise InvalidQuery(f"explain has no format {format!r}", user_location(), hint)


def _logical(roots: Sequence[Node]) -> str:
    lines: list[str] = []
    seen: dict[int, int] = {}

    def visit(node: Node, depth: int) -> None:
        indent = "  " * depth
        if id(node) in seen and node.inputs:
            lines.append(f"{indent}(shared: line {seen[id(node)]})")
            return
        seen[id(node)] = len(lines) + 1
        lines.extend(indent + line for line in _describe(node))
        for child in node.inputs:
            visit(child, depth + 1)

    for root in roots:
        visit(root, 1)
    return "\n".join(lines)


def _describe(node: Node) -> list[str]:
    match node:
        case Scan():
            extra = [f"  {key}: {value}" for key, value in _scan_extra(node).items()]
            return [f"scan {node.source.name}", *extra]
        case Stateless():
            return [node.step.describe()]
        case Union():
            return [f"union of {len(node.parts)}"]
        case Apply():
            return [node.spec.name, *(f"  {key}: {value}" for key, value in node.spec.describe().items())]
        case SideOutput():
            return [f"side output {node.tag!r}"]
        case Write():
            return [
                f"sink {node.sink.name}",
                *(f"  {key}: {value}" for key, value in node.sink.describe().items()),
            ]
    return [type(node).__name__.lower()]


def _scan_extra(node: Scan) -> Mapping[str, str]:
    extra = dict(node.source.describe())
    if node.request.columns is not None:
        extra["columns"] = ", ".join(node.request.columns)
    if node.request.predicate is not None:
        extra["filter"] = " ".join(str(node.request.predicate).split())
    return extra


def _physical(graph: JobGraph) -> str:
    lines: list[str] = []
    for vertex in graph:
        origins = ", ".join(_edge(edge.origin, edge.tag) for edge in vertex.inputs)
        lines.append(f"  {vertex.id} [{vertex.kind.value}]" + (f" <- {origins}" if origins else ""))
        lines.extend(f"      {key}: {value}" for key, value in vertex.details.items())
        lines.append(f"      rows: {_edge_kind(vertex.schema)}")
    return "\n".join(lines)


def _edge(origin: str, tag: str) -> str:
    return origin if tag == MAIN else f"{origin}.{tag}"


def _edge_kind(schema: StreamSchema) -> str:
    kind = "bounded" if schema.bounded else "unbounded"
    mode = schema.changes.value
    if schema.changes is Changes.UPSERT:
        mode += f" by {', '.join(schema.key)}"
    time = f", event time {schema.event_time.column}" if schema.event_time else ""
    return f"{kind}, {mode}{time}"


def _mermaid(graph: JobGraph) -> str:
    lines = ["flowchart LR"]
    names = {vertex.id: f"v{n}" for n, vertex in enumerate(graph)}
    for vertex in graph:
        text = "<br/>".join(escape(part) for part in (vertex.id, *vertex.details.values()))
        lines.append(f'  {names[vertex.id]}["{text}"]')
    for vertex in graph:
        for edge in vertex.inputs:
            arrow = "-->" if edge.tag == MAIN else f'-->|"{escape(edge.tag)}"|'
            lines.append(f"  {names[edge.origin]} {arrow} {names[vertex.id]}")
    return "\n".join(lines)


def _as_json(vertex: Vertex) -> dict[str, object]:
    return {
        "id": vertex.id,
        "kind": vertex.kind.value,
        "inputs": [{"vertex": edge.origin, "output": edge.tag or "main"} for edge in vertex.inputs],
        "details": dict(vertex.details),
        "columns": {name: str(dtype) for name, dtype in vertex.schema.columns.items()},
        "changes": vertex.schema.changes.value,
        "bounded": vertex.schema.bounded,
        "where": vertex.where,
    }
