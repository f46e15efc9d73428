"""A stream taken off its sources: the rows they gave, and the stream run over them in any way."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import replace

import polars as pl

from unistream.api.stream import Stream
from unistream.durations import microseconds
from unistream.errors import InvalidQuery
from unistream.io.base import REJECTED_SCHEMA, Chunk, Exhausted, Request, Source
from unistream.location import user_location
from unistream.plan.nodes import Apply, Node, Scan
from unistream.plan.origins import origins
from unistream.plan.tree import rewrite, walk
from unistream.testing.clock import VirtualClock
from unistream.testing.schedules import Delay, Schedule, SourceRows
from unistream.testing.ways import run_as_query

_POLL_ROWS = 100_000


class Experiment:
    """The plan of a stream, with the rows of its sources read once."""

    def __init__(self, stream: Stream, max_rows: int) -> None:
        self._node = stream._node
        self.key = stream._node.schema.key
        scans = [node for node in walk([self._node]) if isinstance(node, Scan)]
        self._sources: dict[Hashable, Source] = {_identity(scan.source): scan.source for scan in scans}
        if not all(source.bounded for source in self._sources.values()):
            hint = "put us.from_frame(...) or a ListSource in the place of its unbounded sources"
            raise InvalidQuery("verify runs a stream many times and needs it bounded", user_location(), hint)
        self.rows = [self._read(source, max_rows) for source in self._sources.values()]

    @property
    def names(self) -> list[str]:
        """The sources, each with its number where several have one name."""
        return [f"{source.name}-{number}" for number, source in enumerate(self._sources.values(), 1)]

    def over(self, rows: Sequence[SourceRows], schedule: Schedule) -> Stream:
        """The stream over these rows arriving in this way."""
        made = dict(zip(self._sources, schedule.sources(rows), strict=True))

        def change(node: Node) -> Node:
            return node.replaced(source=made[_identity(node.source)]) if isinstance(node, Scan) else node

        return Stream(rewrite([self._node], change)[0])

    def batch(self, rows: Sequence[SourceRows]) -> tuple[pl.DataFrame, bool]:
        """The result to compare with, and whether it is that of one Polars query; else of one tick."""
        return run_as_query(self.over(rows, Schedule(0, "whole")))

    def _read(self, source: Source, max_rows: int) -> SourceRows:
        chunks = _chunks(source, max_rows)
        splits = dict.fromkeys([chunk.split for chunk in chunks] or ["0"])
        empty = pl.DataFrame(schema=source.schema())
        rows = {
            split: pl.concat([empty, *(chunk.frame for chunk in chunks if chunk.split == split)])
            for split in splits
        }
        none = pl.DataFrame(schema=REJECTED_SCHEMA)
        rejected = {
            split: pl.concat(
                [none, *(c.rejected for c in chunks if c.split == split and c.rejected is not None)]
            )
            for split in splits
        }
        return SourceRows(rows, rejected, self._delay(source))

    def _delay(self, source: Source) -> Delay | None:
        """How far its rows may be out of order: the least delay of the steps that take time from them.

        None when these take it from different columns, or from one that is made on the way.
        """
        delays = [
            None if column is None else Delay(replace(time, column=column), _micros(node.spec.delay))
            for node in walk([self._node])
            if isinstance(node, Apply)
            and hasattr(node.spec, "delay")
            and (time := node.schema.event_time) is not None
            for scan, column in origins(node.over[0], time.column)
            if _identity(scan.source) == _identity(source)
        ]
        known = [delay for delay in delays if delay is not None]
        if len(known) < len(delays) or len({delay.time for delay in known}) != 1:
            return None
        return min(known, key=lambda delay: delay.micros)


def _micros(delay: object) -> int:
    return delay if isinstance(delay, int) else microseconds(delay)  # type: ignore[arg-type]


def _identity(source: Source) -> Hashable:
    return (type(source), source.identity())


def _chunks(source: Source, max_rows: int) -> list[Chunk]:
    reader = source.open({}, Request(clock=VirtualClock()))
    chunks: list[Chunk] = []
    rows = 0
    try:
        while not isinstance(polled := reader.poll(_POLL_ROWS), Exhausted):
            if isinstance(polled, Chunk):
                chunks.append(polled)
                rows += polled.frame.height
            if rows > max_rows:
                hint = "verify over a part of the data, or raise max_rows"
                raise InvalidQuery(f"{source.name} has more than {max_rows:,} rows", user_location(), hint)
    finally:
        reader.close()
    return chunks


def sorted_within(rows: SourceRows, late: Iterable[str]) -> SourceRows:
    """The rows with these splits sorted by event time."""
    if rows.delay is None:
        return rows
    column = rows.delay.time.column
    late = set(late)
    splits = {
        name: frame.sort(column, maintain_order=True) if name in late else frame
        for name, frame in rows.splits.items()
    }
    return replace(rows, splits=splits)
