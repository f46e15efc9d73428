"""Line files within one query, read by the source's own reader."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import polars as pl

from unistream.io.base import Chunk, Request
from unistream.one_query import RowWatch, Terms

if TYPE_CHECKING:
    from unistream.io.line_files import LineFileSource

ROWS_AT_ONCE = 100_000


class OwnReading:
    """What Polars asks of a source within a query, answered by the source's own reader."""

    def __init__(self, source: LineFileSource, terms: Terms) -> None:
        self._source = source
        self._watch = terms.watch
        self._watches: list[RowWatch] = []
        if terms.watch is not None:
            terms.conditions.after(self._finish)

    def __call__(
        self, columns: list[str] | None, predicate: pl.Expr | None, rows: int | None, at_once: int | None
    ) -> Iterator[pl.DataFrame]:
        watch = None if self._watch is None else self._watch()
        wanted = list(self._source.schema()) if columns is None else columns
        read = wanted if watch is None else list(dict.fromkeys([*wanted, watch.column]))
        reader = self._source.open({}, Request(columns=tuple(read)))
        first = 0
        try:
            while (rows is None or rows > 0) and isinstance(
                chunk := reader.poll(at_once or ROWS_AT_ONCE), Chunk
            ):
                frame = chunk.frame if rows is None else chunk.frame.head(rows)
                rows = None if rows is None else rows - frame.height
                if not frame.height:
                    continue
                if watch is not None:
                    watch.see(first, frame)
                    first += frame.height
                frame = frame.select(wanted)
                yield frame if predicate is None else frame.filter(predicate)
        finally:
            reader.close()
        if watch is not None:
            self._watches.append(watch)

    def _finish(self) -> None:
        for watch in self._watches:
            watch.finish()
