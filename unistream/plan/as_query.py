"""A bounded plan as one Polars query, where every step has a form with the same rows."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl

from unistream.config import Settings
from unistream.expressions.analysis import columns_read
from unistream.expressions.schema import StreamSchema
from unistream.one_query import Conditions, Reading, RowWatch, Terms
from unistream.operators.watermarks import EventTimeSpec
from unistream.plan.nodes import Apply, Node, Scan, SideOutput, Stateless, Union
from unistream.plan.origins import column_of_scan
from unistream.plan.tree import walk

Watch = Callable[[], RowWatch]


class AsQuery:
    """Builds the query from the scans up; what must hold of their rows is added to the conditions."""

    def __init__(self, settings: Settings, conditions: Conditions, reading: Reading) -> None:
        self._settings = settings
        self._conditions = conditions
        self._reading = reading

    def of(self, node: Node, in_time: bool = False) -> pl.LazyFrame | None:
        """The rows of a node, or None. `in_time` says that a step above gives other rows if some are late."""
        if isinstance(node, SideOutput) or not node.schema.bounded:
            return None
        match node:
            case Scan():
                return self._scan(node)
            case Apply(spec=EventTimeSpec() as spec, over=(below,)):
                return self._timed(below, spec, in_time)
            case Apply(spec=spec) if spec.holds_rows(_schemas(node)) and not self._fits(node):
                return None
            case Apply(spec=spec) if spec.by_order and not _in_order(node.over[0]):
                return None
        in_time = in_time or (isinstance(node, Apply) and node.spec.by_time)
        queries = [self.of(child, in_time) for child in node.inputs]
        found = [query for query in queries if query is not None]
        if len(found) < len(queries):
            return None
        match node:
            case Stateless():
                return node.step.lazy(found[0])
            case Union():
                return pl.concat(found, how="vertical")
            case Apply():
                return node.spec.lazy(found, _schemas(node))
        return None

    def _scan(self, node: Scan, watch: Watch | None = None) -> pl.LazyFrame | None:
        columns, predicate = node.request.columns, node.request.predicate
        read = columns
        if columns is not None and predicate is not None:
            read = tuple(dict.fromkeys([*columns, *columns_read(predicate)]))
        query = node.source.lazy(Terms(read, watch, self._reading, self._conditions))
        if query is None or predicate is None:
            return query
        return query.filter(predicate) if columns is None else query.filter(predicate).select(columns)

    def _timed(self, below: Node, spec: EventTimeSpec, in_time: bool) -> pl.LazyFrame | None:
        """Rows with event time, where it is known ahead or watched that none is rejected, and none late."""
        found = column_of_scan(below, spec.column)
        if found is None:
            return None
        scan, column = found
        if not in_time:
            extremes = scan.source.extremes(column)
            if extremes is not None and spec.takes_all([below.schema], extremes):
                return self.of(below)
        watch = spec.order([below.schema], column, in_time, self._conditions)
        return None if watch is None else self._watched(below, watch)

    def _watched(self, node: Node, watch: Watch) -> pl.LazyFrame | None:
        if isinstance(node, Stateless):
            query = self._watched(node.input, watch)
            return None if query is None else node.step.lazy(query)
        return self._scan(node, watch) if isinstance(node, Scan) else None

    def _fits(self, node: Node) -> bool:
        """Whether memory is there for what ticks would forget as time passes."""
        sizes = [scan.source.size() for scan in walk([node]) if isinstance(scan, Scan)]
        known = [size for size in sizes if size is not None]
        return len(known) == len(sizes) and sum(known) <= self._settings.memory_budget_bytes


def _schemas(node: Node) -> list[StreamSchema]:
    return [child.schema for child in node.inputs]


def _in_order(node: Node) -> bool:
    """Whether rows come out of the query in the order in which the source has them."""
    match node:
        case Scan():
            return True
        case Stateless():
            return _in_order(node.input)
        case Apply(spec=EventTimeSpec()):
            return _in_order(node.over[0])
        case Apply():
            return node.spec.keeps_order and _in_order(node.over[0])
    return False
