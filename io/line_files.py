"""Line files as sources: CSV, NDJSON and plain text, also compressed, watched or followed."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import polars as pl
from polars.io.plugins import register_io_source

from unistream.clock import SystemClock
from unistream.durations import Duration, seconds
from unistream.errors import DataError, InvalidQuery, InvalidSettings
from unistream.io.base import Position, Reader, Request, Source
from unistream.io.compressed_bytes import COMPRESSED, open_bytes
from unistream.io.csv_query import CsvQuery
from unistream.io.format_base import checked_policy
from unistream.io.format_inference import infer_csv, infer_ndjson
from unistream.io.formats import CsvFormat, Format, NdjsonFormat, TextFormat
from unistream.io.frames import as_schema
from unistream.io.hive import WithFolderColumns, folder_columns
from unistream.io.line_cutter import LineCutter
from unistream.io.line_query import OwnReading
from unistream.io.line_reader import LineReader
from unistream.io.line_split import LineOptions
from unistream.io.listing import FileEntry, Listing, Paths
from unistream.io.tail import TailReader
from unistream.location import user_location
from unistream.one_query import Reading, Terms

MAX_LINE_BYTES = 1 << 20
INFERENCE_BYTES = 4 << 20
INFERENCE_ROWS = 1000
PARQUET = b"PAR1"
"""How a Parquet file begins."""


class LineFileSource(Source):
    """Rows of line files: a path, several, a glob or a folder; `.gz` and `.zst` are decompressed.

    Bounded by default: the files that are there when it is opened, in the order of their names.
    `watch=True` goes on with new files, each once, when they have stopped growing. `tail=True` follows
    files that grow, through rotation (by renaming or by truncation) and takes up new ones; a last line
    waits for its newline. `hive` reads `key=value` folders as typed columns (None: if every file lies in
    some; never when files are followed).

    A position is the byte and line behind the last whole row, so that after a crash exactly the remaining
    rows are read. A row that cannot be read fails the job, is skipped or collected, as `on_error` says; a
    line longer than `max_line_bytes` is such a row, and so is what is left of a file that cannot be read any
    further. Columns that a query does not use are not checked.
    """

    suffixes: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        paths: Paths,
        *,
        watch: bool = False,
        tail: bool = False,
        poll: Duration = "1s",
        hive: bool | None = None,
        on_error: str = "fail",
        max_line_bytes: int = MAX_LINE_BYTES,
    ) -> None:
        plain = tuple(self.suffixes)
        packed = tuple(suffix + end for suffix in plain for end in COMPRESSED)
        suffixes = () if not plain else plain if tail else plain + packed
        self.listing = Listing.of(paths, suffixes, False if tail else hive)
        self.watch, self.tail = watch, tail
        self.poll_seconds = seconds(poll, "poll")
        self.on_error = checked_policy(on_error)
        self.max_line_bytes = max_line_bytes
        if self.poll_seconds <= 0:
            raise InvalidSettings(f"poll must be more than zero, not {poll!r}", user_location())
        if max_line_bytes < 1:
            raise InvalidSettings(f"max_line_bytes must be from 1, not {max_line_bytes!r}", user_location())
        if watch and not tail:
            self.listing.check_watchable("tail=True follows a file that grows")
        self.format = self._make_format()

    def __setattr__(self, name: str, value: object) -> None:
        if "format" in self.__dict__ and not name.startswith("_"):
            raise AttributeError(f"{type(self).__name__} is frozen; make a new one to change {name!r}")
        super().__setattr__(name, value)

    @abstractmethod
    def _make_format(self) -> Format:
        """The format, with the schema inferred when none was given."""

    @property
    def bounded(self) -> bool:
        return not (self.watch or self.tail)

    def schema(self) -> pl.Schema:
        return pl.Schema({**self.format.columns, **self._folder_columns})

    @property
    def pushes(self) -> frozenset[str]:
        return frozenset({"columns"})

    def open(self, positions: Mapping[str, Position], request: Request) -> Reader:
        folders = self._folder_columns
        wanted = tuple(self.schema()) if request.columns is None else request.columns
        in_files = tuple(name for name in wanted if name not in folders) or tuple(self.format.columns)[:1]
        columns = None if request.columns is None else in_files
        options = LineOptions(self.name, self.format, self.on_error, self.max_line_bytes, columns)
        if self.tail:
            return TailReader(self.listing, options, positions, request.clock, self.poll_seconds)
        watch = (request.clock, self.poll_seconds) if self.watch else None
        reader = LineReader(self.listing, options, positions, watch)
        return WithFolderColumns(reader, folders, wanted, self.format.columns) if folders else reader

    def lazy(self, terms: Terms) -> pl.LazyFrame | None:
        """The rows as our own reader gives them, or, to begin with, plain CSV as that of Polars does.

        Polars' reader takes rows that ours refuses: such are found out beside it.
        """
        if not self.bounded:
            return None
        entries = self.listing.find()  # what is missing is told now, not from within the query
        columns = tuple(self.schema()) if terms.columns is None else terms.columns
        if terms.reading < Reading.OWN and isinstance(self.format, CsvFormat) and not self._folder_columns:
            plan = CsvQuery(self.format, [entry.path for entry in entries], self.max_line_bytes)
            if plan.possible:
                return plan.query(columns, terms)
        if self.on_error != "fail":
            return None
        query = register_io_source(OwnReading(self, terms), schema=self.schema())
        return query.select(columns)

    def takes(self, path: str) -> bool:
        return self.listing.takes(path)

    def size(self) -> int | None:
        entries = self.listing.find()
        packed = any(entry.path.endswith(COMPRESSED) for entry in entries)
        return None if packed else sum(entry.size for entry in entries)

    def describe(self) -> dict[str, str]:
        mode = "follow" if self.tail else "watch" if self.watch else "read once"
        return {
            "files": ", ".join(self.listing.patterns),
            "format": self.format.name,
            "mode": mode,
            "on_error": self.on_error,
        }

    @cached_property
    def _folder_columns(self) -> pl.Schema:
        """Columns that stand in the names of folders and not in the files."""
        if self.listing.hive is False:
            return pl.Schema()
        found = folder_columns(self.listing, self.listing.find(required=False))
        return pl.Schema({name: kind for name, kind in found.items() if name not in self.format.columns})

    @cached_property
    def _key(self) -> Hashable:
        return (
            type(self), self.listing, self.format, self.watch, self.tail, self.poll_seconds, self.on_error,
            self.max_line_bytes,
        )  # fmt: skip

    def identity(self) -> Hashable:
        return self._key

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LineFileSource) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def _beginnings(self) -> Iterator[tuple[bytes, str]]:
        """The first lines of each file that has any, and its path; of one that is written to, whole lines."""
        for entry in self.listing.find(required=self.bounded):
            growing = self._may_grow(entry)
            try:
                data = _first_bytes(entry.path)
            except DataError:  # cannot be decompressed
                if growing:
                    continue
                raise
            if data.startswith(PARQUET):
                raise InvalidQuery(
                    f"{entry.path} is a Parquet file, not lines of text",
                    user_location(),
                    "read it with us.scan_parquet(...)",
                )
            if growing or len(data) == INFERENCE_BYTES:
                data = data[: data.rfind(b"\n") + 1]
            if data.strip():
                yield data, entry.path

    def _may_grow(self, entry: FileEntry) -> bool:
        """Whether its last line may be torn. A watch takes a file as whole when it was left alone."""
        return self.tail or (self.watch and entry.age(SystemClock()) <= self.poll_seconds)

    def _no_rows_yet(self) -> InvalidQuery:
        return InvalidQuery(
            f"{', '.join(self.listing.patterns)}: no rows yet to infer a schema from",
            user_location(),
            "pass schema=, a mapping of column to Polars type",
        )


def _first_bytes(path: str) -> bytes:
    stream = open_bytes(path)
    try:
        return stream.read(INFERENCE_BYTES)
    finally:
        stream.close()


class NdjsonSource(LineFileSource):
    """Files with one JSON object a line; see `NdjsonFormat` for what is accepted.

    >>> import pathlib, tempfile
    >>> file = pathlib.Path(tempfile.mkdtemp(), "x.ndjson")
    >>> _ = file.write_text('{"a": 1}\\n{"a": 2.5, "b": "x"}\\n')
    >>> dict(NdjsonSource(file).schema())
    {'a': Float64, 'b': String}
    """

    name = "ndjson"
    suffixes = (".ndjson", ".jsonl", ".json")

    def __init__(self, paths: Paths, *, schema: Any = None, **options: Any) -> None:
        self._given = schema
        super().__init__(paths, **options)

    def _make_format(self) -> Format:
        if self._given is not None:
            return NdjsonFormat(as_schema(self._given))
        for data, path in self._beginnings():
            return NdjsonFormat(infer_ndjson(data, path, INFERENCE_ROWS))
        raise self._no_rows_yet()


class CsvSource(LineFileSource):
    """Files of separated values; see `CsvFormat` for what is accepted.

    With a header (of each file) columns are found by name, in any order; a file whose header lacks one is
    left out as one bad row. One that is followed (`tail`) fails under every policy. Empty fields are null
    whether or not `null_values` says so.

    >>> import pathlib, tempfile
    >>> file = pathlib.Path(tempfile.mkdtemp(), "x.csv")
    >>> _ = file.write_text("day,n\\n2024-01-01,1\\n2024-01-02,2\\n")
    >>> dict(CsvSource(file).schema())
    {'day': Date, 'n': Int64}
    """

    name = "csv"
    suffixes = (".csv", ".tsv")

    def __init__(
        self,
        paths: Paths,
        *,
        schema: Any = None,
        separator: str = ",",
        quote_char: str | None = '"',
        has_header: bool = True,
        null_values: str | Sequence[str] = (),
        **options: Any,
    ) -> None:
        self._given = schema
        nulls = (null_values,) if isinstance(null_values, str) else tuple(null_values)
        self._csv = {
            "separator": separator,
            "quote_char": quote_char,
            "has_header": has_header,
            "null_values": tuple(value for value in nulls if value),
        }
        super().__init__(paths, **options)

    def _make_format(self) -> Format:
        if self._given is not None:
            return CsvFormat(as_schema(self._given), **self._csv)  # type: ignore[arg-type]
        return self._inferred()

    def _inferred(self) -> CsvFormat:
        """The format with the columns of the first header and the types of the first rows.

        A file with a header alone says nothing of types: that its columns are text would hold for all the
        files that come. They are when no file has a row and no more come.
        """
        first: CsvFormat | None = None
        for data, _ in self._beginnings():
            texts, rows = self._as_text(data)
            first = first or texts
            frame = texts.decode(rows).frame.head(INFERENCE_ROWS)
            if not frame.is_empty():
                types = infer_csv(frame)
                known = {name: types.get(name, text) for name, text in first.schema.items()}
                return CsvFormat(pl.Schema(known), **self._csv)  # type: ignore[arg-type]
        if first is None or not self.bounded:
            raise self._no_rows_yet()
        return first

    def _as_text(self, data: bytes) -> tuple[CsvFormat, bytes]:
        """The format with all columns as text under the names of the header, and the rows behind it."""
        probe = CsvFormat(pl.Schema({"column_1": pl.String()}), **self._csv)  # type: ignore[arg-type]
        cutter = LineCutter(probe.records_end, INFERENCE_BYTES)
        cutter.feed(data)
        cutter.finish()
        first = cutter.first_record()
        names = probe.header_fields(first.data if first else data)
        rows = data[first.nbytes :] if first else b""
        if not probe.has_header:
            names, rows = [f"column_{index}" for index in range(1, len(names) + 1)], data
        return CsvFormat(pl.Schema(dict.fromkeys(names, pl.String())), **self._csv), rows  # type: ignore[arg-type]


class TextSource(LineFileSource):
    """Files of plain text, a row for each line.

    >>> import pathlib, tempfile
    >>> file = pathlib.Path(tempfile.mkdtemp(), "x.log")
    >>> _ = file.write_text("one\\ntwo\\n")
    >>> TextSource(file).open({}, Request()).poll(10).frame["line"].to_list()
    ['one', 'two']
    """

    name = "text"

    def __init__(self, paths: Paths, *, column: str = "line", **options: Any) -> None:
        self._column = column
        super().__init__(paths, **options)

    def _make_format(self) -> Format:
        return TextFormat(self._column)
