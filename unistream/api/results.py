"""What a stream gives directly: frames, rows as they come, a plan as text."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import polars as pl

from unistream.api.job import Job
from unistream.config import Settings
from unistream.errors import InvalidQuery
from unistream.expressions.changelog import fold_changes
from unistream.expressions.schema import Changes
from unistream.io.memory import MemorySink
from unistream.plan.nodes import Write

if TYPE_CHECKING:
    from unistream.api.stream import Stream


def collect(stream: Stream, until: str, settings: Settings | None, where: str | None) -> pl.DataFrame:
    """All rows as one frame."""
    if not stream.bounded and until == "end":
        raise InvalidQuery(
            "collect() of an unbounded stream would never end",
            where,
            'use collect(until="available"), head(n), batches(), or start a sink',
        )
    sink = MemorySink()
    Job((Write(input=stream._node, sink=sink, where=where),)).run(until=until, settings=settings)  # type: ignore[arg-type]
    return fold_changes(sink.result(), stream._node.schema)


def batches(stream: Stream, until: str, settings: Settings | None) -> Iterator[pl.DataFrame]:
    """Frames as they come, ticked by whoever asks for the next one; updates as rows with their `op`."""
    stream, sink = as_rows(stream), MemorySink()
    settings = (settings or Settings.load()).override(whole_query=False)
    runtime = Job((Write(input=stream._node, sink=sink),)).runtime(until=until, settings=settings)  # type: ignore[arg-type]
    try:
        runtime.open()
        more = True
        while more:
            more = runtime.step()
            yield from sink.take()
    finally:
        runtime.close()


def head(stream: Stream, n: int) -> pl.DataFrame:
    """The first `n` rows that arrive; of a bounded stream that updates, rows of its final table."""
    if stream.bounded and _updates(stream):
        return collect(stream, "end", None, None).head(max(n, 0))
    stream = as_rows(stream)
    taken: list[pl.DataFrame] = []
    rows = 0
    if n > 0:
        for frame in stream.batches():
            taken.append(frame)
            rows += frame.height
            if rows >= n:
                break
    empty = pl.DataFrame(schema=stream.schema)
    return pl.concat([empty, *taken]).head(n)


def as_rows(stream: Stream) -> Stream:
    """The stream itself, or its changelog as rows when it updates."""
    return stream.changes() if _updates(stream) else stream


def _updates(stream: Stream) -> bool:
    return stream._node.schema.changes is not Changes.APPEND


def explain(stream: Stream, format: str, settings: Settings | None) -> str:
    """The plan that `collect` would run."""
    return Job((Write(input=stream._node, sink=MemorySink()),)).explain(format, settings)


def show(stream: Stream, n: int, seconds: float | None) -> None:
    """First rows of a bounded stream; a live view of an unbounded one."""
    if stream.bounded:
        from unistream.api.display import display_frame

        display_frame(head(stream, n), sys.stdout)
        return
    from unistream.api.display import live_view

    live_view(stream, n, seconds)
