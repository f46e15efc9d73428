"""The tasks of a graph, made and connected."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from unistream.errors import UnistreamError
from unistream.graph import MAIN, Edge, Input, JobGraph, Kind, Vertex
from unistream.io.base import Reader, Replay, Sink, WriterContext
from unistream.metrics import Metrics
from unistream.operators.base import Context, OperatorSpec
from unistream.runtime.feed import Feed, InlineFeed, ThreadedFeed
from unistream.runtime.surroundings import Surroundings
from unistream.runtime.task import OperatorTask, SinkTask, SourceTask, Task
from unistream.state.backend import StateStore

if TYPE_CHECKING:
    from unistream.runtime.checkpoint import Checkpoints

OPENED = (Kind.SINK, Kind.OPERATOR, Kind.SOURCE)
"""The order in which tasks are made; a tick goes the other way."""


class Assembly:
    """Makes tasks into `tasks`, and the state of operators that keep any into `stores`."""

    def __init__(
        self,
        graph: JobGraph,
        surroundings: Surroundings,
        checkpoints: Checkpoints | None,
        contexts: Mapping[str, WriterContext],
        metrics: Metrics,
        wake: threading.Event,
    ) -> None:
        self._graph = graph
        self._with = surroundings
        self._checkpoints = checkpoints
        self._contexts = contexts
        self._metrics = metrics
        self._wake = wake
        self.tasks: dict[str, Task] = {}
        self.stores: dict[str, StateStore] = {}

    def make(self) -> None:
        """Readers last: nothing is taken from the outside before there is a place for it."""
        vertices = [vertex for vertex in self._graph if vertex.kind in OPENED]
        for vertex in sorted(vertices, key=lambda vertex: OPENED.index(vertex.kind)):
            try:
                self.tasks[vertex.id] = self._task(vertex)
            except UnistreamError as error:
                error.located(vertex.where)
                raise
        # Filled one by one, so that those made before one that fails can be closed; run in the graph's order.
        made = dict(self.tasks)
        self.tasks.clear()
        self.tasks.update((vertex.id, made[vertex.id]) for vertex in vertices)
        for vertex in vertices:
            self._connect(vertex, self.tasks[vertex.id])

    def _task(self, vertex: Vertex) -> Task:
        metrics = self._metrics.scoped(vertex.id)
        payload = vertex.payload
        if isinstance(payload, Input):
            return self._source_task(vertex, payload, metrics)
        if isinstance(payload, Sink):
            return SinkTask(vertex, metrics, payload, payload.open(self._contexts[vertex.id]))
        if not isinstance(payload, OperatorSpec):
            raise TypeError(f"vertex {vertex.id} holds a {type(payload).__name__}")
        operator = payload.build(vertex.input_schemas)
        stores = self._with.store if self._checkpoints is None else self._checkpoints.store
        store = stores(vertex.id) if payload.stateful else None
        if store is not None:
            self.stores[vertex.id] = store
        journal = None if self._checkpoints is None or not self._replays() else self._checkpoints.journal
        around = (self._with.clock, metrics, self._with.settings, store, journal)
        operator.open(Context(vertex.id, *around, wake=self._wake.set))
        return OperatorTask(vertex, metrics, operator)

    def _replays(self) -> bool:
        """Whether all sources give the same rows again after a crash."""
        inputs = [vertex.payload for vertex in self._graph if isinstance(vertex.payload, Input)]
        return all(payload.source.replay is not Replay.NONE for payload in inputs)

    def _source_task(self, vertex: Vertex, payload: Input, metrics: Metrics) -> SourceTask:
        settings = self._with.settings
        positions = {} if self._checkpoints is None else self._checkpoints.positions(vertex.id)
        reader = payload.source.open(positions, replace(payload.request, clock=self._with.clock))
        feed = self._feed(vertex.id, reader)
        limits, replays = (settings.tick_rows, settings.tick_bytes), payload.source.replay is not Replay.NONE
        return SourceTask(vertex, metrics, feed, limits, positions, replays)

    def _feed(self, name: str, reader: Reader) -> Feed:
        if not self._with.threads:
            return InlineFeed(reader)
        return ThreadedFeed(name, reader, self._with.settings, self._with.clock, self._wake)

    def _connect(self, vertex: Vertex, task: Task) -> None:
        for port, edge in enumerate(vertex.inputs):
            origin = self.tasks[edge.origin]
            origin.out.connect(edge.tag, task, port)
            task.upstream.append(origin)
        if isinstance(task, OperatorTask):
            for source in self._sources_in_front(vertex):
                source.listen(task.operator)

    def _sources_in_front(self, vertex: Vertex) -> list[SourceTask]:
        """Sources whose splits can still be told apart in the rows this vertex gets."""
        found: list[SourceTask] = []
        seen: set[str] = set()
        edges: list[Edge] = [edge for edge in vertex.inputs if edge.tag == MAIN]
        while edges:
            origin = edges.pop().origin
            if origin in seen:
                continue
            seen.add(origin)
            task = self.tasks[origin]
            if isinstance(task, SourceTask):
                found.append(task)
            elif isinstance(task.vertex.payload, OperatorSpec) and task.vertex.payload.keeps_splits:
                edges.extend(edge for edge in task.vertex.inputs if edge.tag == MAIN)
        return found
