"""Line files within one query: by our own reader, or plain CSV by Polars' with a look at its bytes."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from unistream.errors import DataError
from unistream.io.base import Chunk, Request
from unistream.io.byte_counts import CACHED, count_byte
from unistream.io.compressed_bytes import COMPRESSED
from unistream.io.format_csv import CsvFormat
from unistream.one_query import Conditions, RowWatch, Terms

if TYPE_CHECKING:
    from unistream.io.line_files import LineFileSource

ROWS_AT_ONCE = 100_000
ROW = "__row"
"""The number of a row, by which a watch puts pieces in order."""

LOOK_BYTES = CACHED
"""Bytes that are looked at together; no line within them is too long."""


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


class PlainCsv:
    """CSV files without quotes, compression or surprises in their headers, as Polars reads them.

    It fills missing fields with nulls and, where it leaves columns out, passes over surplus ones. So the last
    column is read too, of which no value may be null, and separators are counted in the bytes. Whatever is
    wrong makes the query void: the source's own reader then says what it is, or reads it.
    """

    def __init__(self, format: CsvFormat, paths: Sequence[str], max_line_bytes: int) -> None:
        self._paths = list(paths)
        self._max_line_bytes = max_line_bytes
        self.possible = (
            bool(paths)
            and max_line_bytes >= LOOK_BYTES
            and ROW not in format.schema
            and not any(path.endswith(COMPRESSED) for path in paths)
        )
        self._format = _as_in(paths[0], format) if self.possible and format.has_header else format

    def query(self, columns: Sequence[str], terms: Terms) -> pl.LazyFrame:
        """These columns of all rows."""
        conditions, watch = terms.conditions, None if terms.watch is None else terms.watch()
        reading = _Reading(self._format, columns, watch, conditions)
        scan = pl.scan_csv(
            self._paths,
            glob=False,
            schema=self._format.wire,
            has_header=self._format.has_header,
            separator=self._format.separator,
            quote_char=None,  # there are none, and the parser is faster when it need not look for them
            null_values=list(self._format.null_values) or None,
            row_index_name=ROW if watch is not None else None,
        )
        look = _Look(self._format, self._paths, self._max_line_bytes, conditions)
        conditions.reads_leniently = True
        conditions.before(look.begin)
        conditions.after(partial(self._compare, reading, look, conditions))
        if watch is not None:
            conditions.after(watch.finish)
        return scan.select([*([ROW] if watch is not None else []), *reading.needed]).map_batches(
            reading.typed,
            predicate_pushdown=False,
            projection_pushdown=False,
            slice_pushdown=False,
            validate_output_schema=False,
            schema=reading.schema,
            streamable=True,
        )

    def _compare(self, reading: _Reading, look: _Look, conditions: Conditions) -> None:
        """Whether there are as many separators as that many rows have."""
        headers = len(self._paths) if self._format.has_header else 0
        if look.separators() != (reading.rows() + headers) * (len(self._format.in_line) - 1):
            conditions.fail("rows have other numbers of fields", other_reader=True)


def _as_in(path: str, format: CsvFormat) -> CsvFormat:
    """The format with the columns in the order of this header; what is wrong with it is told by others."""
    with Path(path).open("rb") as file:
        line = file.readline()
    try:
        return format.for_header(line, path)
    except (DataError, pl.exceptions.PolarsError):
        return format


class _Reading:
    """Pieces that the parser read, made columns of their types on its threads."""

    def __init__(
        self, format: CsvFormat, columns: Sequence[str], watch: RowWatch | None, conditions: Conditions
    ) -> None:
        watched = [] if watch is None else [watch.column]
        self._last = format.in_line[-1]
        self._format = format.project([*columns, *watched])
        self._columns = list(columns)
        self._watch = watch
        self._conditions = conditions
        self._lock = threading.Lock()
        self._rows = 0
        self.needed = list(dict.fromkeys([*self._format.schema, self._last]))
        self.schema = pl.Schema({name: format.schema[name] for name in columns})

    def rows(self) -> int:
        """How many rows there were."""
        return self._rows

    def typed(self, wire: pl.DataFrame) -> pl.DataFrame:
        """One piece."""
        if self._conditions.unmet is not None:
            raise self._conditions.unmet
        if wire[self._last].null_count():
            self._conditions.fail(f"fields may be missing where {self._last} is null", other_reader=True)
        frame = self._format.typed(wire)
        if frame is None:
            self._conditions.fail("a value does not fit", other_reader=True)
        if self._watch is not None and wire.height:
            self._watch.see(int(wire.item(0, ROW)), frame)
        with self._lock:
            self._rows += wire.height
        return frame.select(self._columns)


class _Look:
    """Goes over the bytes of the files while the query reads them: quotes, long lines, separators."""

    def __init__(
        self, format: CsvFormat, paths: Sequence[str], max_line_bytes: int, conditions: Conditions
    ) -> None:
        self._format = format
        self._separator = ord(format.separator)
        self._paths = paths
        self._longest = max_line_bytes
        self._conditions = conditions
        self._separators = 0
        self._error: Exception | None = None
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Headers at once, the rest on a thread of its own."""
        if self._format.has_header:
            for path in self._paths:
                if _as_in(path, self._format).in_line != self._format.in_line:
                    self._conditions.fail("a header has other columns", other_reader=True)
        self._thread = threading.Thread(target=self._look, name="unistream-look", daemon=True)
        self._thread.start()

    def separators(self) -> int:
        """How many there are; raises what was wrong."""
        assert self._thread is not None
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._separators

    def _look(self) -> None:
        try:
            for path in self._paths:
                self._look_at(path)
        except Exception as error:
            self._error = error

    def _look_at(self, path: str) -> None:
        quote, buffer = self._format.quote, bytearray(LOOK_BYTES)
        view = memoryview(buffer)
        line_began = place = 0
        with Path(path).open("rb", buffering=0) as file:
            while (found := file.readinto(buffer)) and not (self._conditions.over or self._conditions.unmet):
                if quote is not None and buffer.find(quote, 0, found) >= 0:
                    self._conditions.fail("there are quotes", other_reader=True)
                line_ends = buffer.find(b"\n", 0, found)
                if (place + line_ends if line_ends >= 0 else place + found) - line_began > self._longest:
                    self._conditions.fail("a line is too long", other_reader=True)
                if line_ends >= 0:
                    line_began = place + buffer.rfind(b"\n", 0, found) + 1
                self._separators += count_byte(view[:found], self._separator)
                place += found
