"""One line file on its way from bytes to rows: header, place, rows, rejected lines."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from unistream.io.compressed_bytes import KEPT_BEFORE
from unistream.io.format_base import (
    BYTE_ORDER_MARK,
    Decoded,
    count_lines,
    in_columns,
    joined,
    rejected_rows,
    unreadable,
)
from unistream.io.formats import CsvFormat, Format
from unistream.io.line_cutter import Cut, LineCutter

UNIT_BYTES = 6 << 20
"""Most bytes read and decoded at once: each call of the parser has its price, and memory grows with them."""


@dataclass(frozen=True)
class LineOptions:
    """How the lines of a source's files are read."""

    source: str
    format: Format
    on_error: str
    max_line_bytes: int
    columns: tuple[str, ...] | None = None

    @property
    def wanted(self) -> Format:
        """The format that gives only the columns that are asked for."""
        return self.format if self.columns is None else self.format.project(self.columns)

    def select(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The columns that are asked for, in their order."""
        return frame if self.columns is None else in_columns(frame, self.columns)


@dataclass(frozen=True)
class Rows:
    """What came of some bytes."""

    frame: pl.DataFrame
    rejected: pl.DataFrame | None
    rows: int
    nbytes: int


@dataclass(frozen=True)
class Lines:
    """Whole lines as they were cut, and lines that were given up."""

    format: Format
    cuts: Sequence[Cut]
    nbytes: int


@dataclass(frozen=True)
class Read:
    """What came of some lines: parts that count their lines from 0, each with how many it has."""

    parts: Sequence[tuple[Decoded, int]]
    nbytes: int


class LineSplit:
    """Reads one file that is fed to it, from its beginning or from a position.

    A position is `{"offset", "line"}`, with `"header"` (names in the header of a CSV file), `"dropping"`
    (inside a line that is too long) and `"before"` (checksum of the bytes before the offset) where they
    apply. Offsets count decompressed bytes. They move as lines are cut, `"line"` as rows are `numbered`:
    most readers tell how many lines they have read, and nobody else needs to count them.
    """

    def __init__(self, options: LineOptions, split: str, position: dict[str, Any] | None = None) -> None:
        position = position or {}
        self.split = split
        self.offset: int = position.get("offset", 0)
        self.line: int = position.get("line", 1)
        self._options = options
        self._format = options.wanted
        self._header: Sequence[str] | None = position.get("header")
        if self._header is not None:
            self._format = replace(self._csv, file_columns=tuple(self._header))
        dropping = bool(position.get("dropping"))
        self._cutter = LineCutter(
            self._format.records_end, options.max_line_bytes, dropping, self._format.quote
        )
        self._before = b""
        self.finished = False

    @property
    def _csv(self) -> CsvFormat:
        assert isinstance(self._format, CsvFormat)
        return self._format

    @property
    def held(self) -> int:
        """Bytes fed that do not make a whole row yet."""
        return self._cutter.held

    @property
    def position(self) -> dict[str, Any]:
        """Where reading goes on behind the rows given so far."""
        place: dict[str, Any] = {"offset": self.offset, "line": self.line}
        if self._header is not None:
            place["header"] = list(self._header)
        if self._cutter.dropping:
            place["dropping"] = True
        if self._before:
            place["before"] = checksum(self._before)
        return place

    def feed(self, data: bytes) -> None:
        """More bytes of the file."""
        self._cutter.feed(data)

    def finish(self) -> None:
        """The file ends here."""
        self.finished = True
        self._cutter.finish()

    def take(self) -> Rows | None:
        """The rows of everything that was fed; None when there is no whole line.

        Raises `DataError` for an unreadable row when the policy is to fail.
        """
        lines = self.cut()
        return None if lines is None else self.numbered(self.decoded(lines))

    def cut(self) -> Lines | None:
        """The lines of all that was fed, which moves the place behind them; None when none is whole."""
        if self.offset == 0:
            mark = self._cutter.drop_prefix(BYTE_ORDER_MARK)
            if mark is None:
                return None
            self.offset = mark
        if self._needs_header() and not self._read_header():
            return None
        cuts: list[Cut] = []
        while (cut := self._cutter.next()) is not None:
            cuts.append(cut)
            self._pass(cut)
        nbytes = sum(cut.nbytes for cut in cuts)
        return Lines(self._format, cuts, nbytes) if nbytes else None

    def decoded(self, lines: Lines) -> Read:
        """The rows of some lines; from any thread, and of later lines before earlier ones."""
        return Read([self._read(cut, lines.format) for cut in lines.cuts], lines.nbytes)

    def numbered(self, read: Read) -> Rows:
        """The rows with the numbers of their lines, which counts these: in their order."""
        parts: list[Decoded] = []
        for decoded, lines in read.parts:
            parts.append(decoded.moved(self.line))
            self.line += lines
        decoded = joined(parts, self._format.columns)
        rejected = rejected_rows(decoded, self._options.on_error, self._options.source, self.split)
        return Rows(self._options.select(decoded.frame), rejected, decoded.rows, read.nbytes)

    def _read(self, cut: Cut, format: Format) -> tuple[Decoded, int]:
        """A cut with its lines counted from 0, and how many they are."""
        if cut.too_long is not None:
            return self._too_long(cut, cut.too_long), cut.lines
        if not cut.data:
            return Decoded(pl.DataFrame(schema=format.columns), None, 0), cut.lines
        decoded = format.decode(cut.data, first_line=0, unquoted=cut.unquoted)
        return decoded, count_lines(cut.data) if decoded.lines is None else decoded.lines

    def empty(self) -> pl.DataFrame:
        """No rows, with the columns that are asked for."""
        return self._options.select(pl.DataFrame(schema=self._format.columns))

    def _needs_header(self) -> bool:
        return isinstance(self._format, CsvFormat) and self._format.has_header and self._header is None

    def _read_header(self) -> bool:
        cut = self._cutter.first_record()
        if cut is None:
            return False
        self._format = self._csv.for_header(cut.data, self.split)
        self._header = self._format.file_columns
        self._cutter.records_end = self._format.records_end
        self._pass(cut)
        self.line += cut.lines
        return True

    def _pass(self, cut: Cut) -> None:
        self.offset += cut.nbytes
        self._before = (self._before + cut.data[-KEPT_BEFORE:])[-KEPT_BEFORE:] if cut.data else b""

    def _too_long(self, cut: Cut, beginning: bytes) -> Decoded:
        limit = self._options.max_line_bytes
        reason = f"line longer than {limit} bytes"
        if cut.lines and cut.nbytes <= limit + 1:
            reason = f"a quote that does not close within {limit} bytes"
        rejected = unreadable([(0, reason, beginning)])
        return Decoded(pl.DataFrame(schema=self._format.columns), rejected, 1)


def checksum(data: bytes) -> list[int]:
    """Length and CRC-32 of some bytes, as a position keeps them."""
    return [len(data), zlib.crc32(data)]
