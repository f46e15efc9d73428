"""Bytes of one connection, cut into whole lines in constant memory."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple

import numpy as np

KEPT_BYTES = 4096
"""Bytes kept of a line that is too long."""


class Kind(IntEnum):
    """What a piece is; the values are stored and never change."""

    LINES = 0
    TOO_LONG = 1
    TORN = 2


class Piece(NamedTuple):
    """Whole lines, or the beginning of a single line that cannot be read."""

    kind: Kind
    data: bytes
    lines: int = 1

    @classmethod
    def of(cls, kind: Kind, data: bytes) -> Piece:
        """The piece with its lines counted."""
        return cls(kind, data, count_lines(data) if kind is Kind.LINES else 1)


def count_lines(data: bytes) -> int:
    """Newlines in the data."""
    if len(data) < 4096:
        return data.count(b"\n")
    return int(np.count_nonzero(np.frombuffer(data, np.uint8) == 10))  # a sixth of the time of `count`


class LineBuffer:
    """Takes bytes as they come and gives back the longest run of whole lines.

    A line longer than `max_line_bytes` comes as one `TOO_LONG` piece with its beginning; the rest of it
    is dropped as it comes. `records_end` (of a `Format`) tells where the last whole row ends, for formats
    whose rows can hold newlines. Memory stays below the bytes fed since the last `take` plus one line.

    >>> buffer = LineBuffer(max_line_bytes=5)
    >>> buffer.feed(b"ab\\ncd\\ntoo long\\ne")
    >>> buffer.take(100).data, buffer.take(100).kind.name, buffer.take(100), buffer.rest()
    (b'ab\\ncd\\n', 'TOO_LONG', None, b'e')
    """

    def __init__(self, max_line_bytes: int, records_end: Callable[[bytes], int] | None = None) -> None:
        self._bytes = bytearray()
        self._limit = max_line_bytes
        self._records_end = records_end
        self._lines_end = 0  # behind the last newline
        self._open_until = 0  # so far `records_end` found an unfinished row
        self._dropping = False

    def feed(self, data: bytes) -> None:
        """More bytes of the connection."""
        if self._dropping:
            newline = data.find(b"\n")
            if newline < 0:
                return
            self._dropping = False
            data = data[newline + 1 :]
        newline = data.rfind(b"\n")
        if newline >= 0:
            self._lines_end = len(self._bytes) + newline + 1
        self._bytes += data

    def take(self, max_lines: int) -> Piece | None:
        """The next whole lines, about `max_lines` at most; None when there are none yet."""
        end = self._whole_rows()
        if end == 0:
            return self._too_long() if len(self._bytes) > self._limit else None
        data = bytes(memoryview(self._bytes)[:end])
        good = self._within_limit(data)
        if good < end:
            good = self._rows_end(data[:good])
        if good == 0:
            return self._too_long()
        lines = count_lines(data[:good])
        if lines > max_lines:
            good = self._rows_end(data[: _end_of_line(data, max_lines)]) or good
            lines = count_lines(data[:good])
        self._drop(good)
        return Piece(Kind.LINES, data[:good], lines)

    def has_lines(self) -> bool:
        """Whether `take` has something to give."""
        return len(self._bytes) > self._limit or self._whole_rows() > 0

    def rest(self) -> bytes:
        """Bytes behind the last whole line."""
        return bytes(self._bytes)

    def clear(self) -> None:
        """Forget the rest."""
        self._drop(len(self._bytes))

    def _whole_rows(self) -> int:
        if self._records_end is None:
            return self._lines_end
        if self._lines_end == self._open_until:
            return 0
        end = self._records_end(bytes(memoryview(self._bytes)[: self._lines_end]))
        if end == 0:
            self._open_until = self._lines_end
        return end

    def _rows_end(self, lines: bytes) -> int:
        return len(lines) if self._records_end is None else self._records_end(lines)

    def _within_limit(self, data: bytes) -> int:
        """Where the lines before the first one that is too long end; looks at a few bytes per limit."""
        at = 0
        while len(data) - at > self._limit + 1:
            newline = data.rfind(b"\n", at, at + self._limit + 1)
            if newline < 0:
                return at
            at = newline + 1
        return len(data)

    def _too_long(self) -> Piece:
        """Gives up the first line; what follows its newline is looked at afresh."""
        end = self._bytes.find(b"\n") + 1
        self._dropping = end == 0
        end = end or len(self._bytes)
        beginning = bytes(self._bytes[: min(end, KEPT_BYTES)])
        self._drop(end)
        return Piece(Kind.TOO_LONG, beginning)

    def _drop(self, count: int) -> None:
        del self._bytes[:count]
        self._lines_end = max(0, self._lines_end - count)
        self._open_until = 0


def _end_of_line(data: bytes, number: int) -> int:
    """Where line `number` (from 1) ends."""
    return int(np.flatnonzero(np.frombuffer(data, np.uint8) == 10)[number - 1]) + 1
