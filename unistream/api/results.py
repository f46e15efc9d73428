"""What a stream gives directly: frames, rows as they come, a plan as text."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import polars as pl

from unistream.config import Settings
from unistream.errors import InvalidQuery
from unistream.expressions.schema import Changes
from unistream.location import user_location
from unistream.plan.nodes import Node, Write

if TYPE_CHECKING:
    from unistream.api.job import Job
    from unistream.api.stream import Stream
    from unistream.io.base import Sink


class Results:
    """The part of a stream that answers whoever asks."""

    __slots__ = ()
    _node: Node

    if TYPE_CHECKING:

        def sink(self, sink: Sink) -> Job: ...
        def changes(self) -> Stream: ...

    def collect(self, *, until: str = "end", settings: Settings | None = None) -> pl.DataFrame:
        """Run to the end and return all rows as one Polars frame.

        `until="available"` takes what an unbounded source has now.

        >>> import unistream as us
        >>> us.from_frame({"a": [1]}).collect().rows()
        [(1,)]
        """
        from unistream.expressions.changelog import fold_changes
        from unistream.io.memory import MemorySink

        if not self._node.schema.bounded and until == "end":
            raise InvalidQuery(
                "collect() of an unbounded stream would never end",
                user_location(),
                'use collect(until="available"), head(n), batches(), or start a sink',
            )
        sink = MemorySink()
        self.sink(sink).run(until=until, settings=settings)  # type: ignore[arg-type]
        return fold_changes(sink.result(), self._node.schema)

    def head(self, n: int = 5) -> pl.DataFrame:
        """The first `n` rows that arrive; stops reading as soon as it has them.

        Of a bounded stream that updates, rows of its final table.

        >>> import unistream as us
        >>> us.from_frame({"a": range(1000)}).head(2).rows()
        [(0,), (1,)]
        """
        stream = self._in_rows()
        if stream._node is not self._node and self._node.schema.bounded:
            return self.collect().head(max(n, 0))
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

    def batches(self, *, until: str = "end", settings: Settings | None = None) -> Iterator[pl.DataFrame]:
        """Rows as they come, frame by frame; leaving the loop stops the sources.

        A stream that updates gives its changes, as `changes` does.

        >>> import unistream as us
        >>> [frame.height for frame in us.from_frame({"a": [1, 2, 3]}).batches()]
        [3]
        """
        from unistream.io.memory import MemorySink

        sink = MemorySink()
        # Whoever asks for the next frame lets the job take one step.
        settings = (settings or Settings.load()).override(whole_query=False)
        runtime = self._in_rows().sink(sink).runtime(until=until, settings=settings)  # type: ignore[arg-type]
        try:
            runtime.open()
            more = True
            while more:
                more = runtime.step()
                yield from sink.take()
        finally:
            runtime.close()

    def show(self, n: int = 10, *, seconds: float | None = None) -> None:
        """Print the first rows of a bounded stream; watch the last rows of an unbounded one live.

        A live view ends after `seconds` or with an interrupt.
        """
        from unistream.api.display import display_frame, live_view

        if self._node.schema.bounded:
            display_frame(self.head(n), sys.stdout)
        else:
            live_view(self._in_rows(), n, seconds)

    def explain(self, format: str = "text", settings: Settings | None = None) -> str:
        """What would run: plan, chains, what each source reads; as "text", "mermaid" or "json".

        >>> import unistream as us
        >>> print(us.from_frame({"a": [1]}).select("a").explain())  # doctest: +ELLIPSIS
        Logical plan
        ...
        """
        from unistream.api.job import Job
        from unistream.io.memory import MemorySink

        return Job((Write(input=self._node, sink=MemorySink()),)).explain(format, settings)

    def _in_rows(self) -> Stream:
        """The stream itself, or its changelog as rows when it updates."""
        from unistream.api.stream import Stream

        return Stream(self._node) if self._node.schema.changes is Changes.APPEND else self.changes()
