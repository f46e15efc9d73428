"""Bytes of one connection, cut into whole lines in constant memory."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple

import numpy as np

from unistream.io.byte_counts import count_byte

KEPT_BYTES = 4096
"""Bytes kept of a line that is too long."""

FEW_BYTES = 4096
"""Of so few newlines are counted faster without NumPy."""


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
    if len(data) < FEW_BYTES:
        return data.count(b"\n")
    return count_byte(data, 10)


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
        self._limit = max_line_bytes
        self._records_end = records_end
        self._whole = b""  # whole rows, from `_at` on not yet taken
        self._at = 0
        self._tail = bytearray()  # the beginning of a row
        self._dropping = False

    def feed(self, data: bytes | bytearray, size: int | None = None) -> None:
        """More bytes of the connection: `data`, or its first `size` bytes."""
        end = len(data) if size is None else size
        begin = 0
        if self._dropping:
            begin = data.find(b"\n", 0, end) + 1
            if begin == 0:
                return
            self._dropping = False
        lines_end = data.rfind(b"\n", begin, end) + 1
        with memoryview(data) as view:
            if lines_end == 0:
                self._tail += view[begin:end]
                return
            # one copy of the bytes, the only one on their way to the parser
            self._whole = b"".join((self._whole[self._at :], self._tail, view[begin:lines_end]))
            self._at = 0
            self._tail = bytearray(view[lines_end:end])
        if self._records_end is not None:
            self._split_rows(self._records_end)

    def take(self, max_lines: int) -> Piece | None:
        """The next whole lines, about `max_lines` at most; None when there are none yet."""
        if self._at == len(self._whole):
            return self._too_long_tail() if len(self._tail) > self._limit else None
        data = self._whole[self._at :]
        good = self._within_limit(data)
        if good < len(data):
            good = self._rows_end(data[:good])
        if good == 0:
            end = data.index(b"\n") + 1
            self._took(end)
            return Piece(Kind.TOO_LONG, data[: min(end, KEPT_BYTES)])
        lines = count_lines(data[:good])
        if lines > max_lines:
            good = self._rows_end(data[: _end_of_line(data, max_lines)]) or good
            lines = count_lines(data[:good])
        self._took(good)
        return Piece(Kind.LINES, data[:good], lines)

    def has_lines(self) -> bool:
        """Whether `take` has something to give."""
        return self._at < len(self._whole) or len(self._tail) > self._limit

    def rest(self) -> bytes:
        """Bytes behind the last whole line."""
        return bytes(self._tail)

    def clear(self) -> None:
        """Forget the rest."""
        self._tail = bytearray()

    def _split_rows(self, records_end: Callable[[bytes], int]) -> None:
        """Keep whole rows apart from a row that goes on behind its newlines."""
        end = records_end(self._whole)
        if end < len(self._whole):
            self._tail = bytearray(self._whole[end:]) + self._tail
            self._whole = self._whole[:end]

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

    def _too_long_tail(self) -> Piece:
        """Give up the first line of an unfinished row; what follows its newline is looked at afresh."""
        tail, self._tail = self._tail, bytearray()
        end = tail.find(b"\n") + 1
        if end:
            self.feed(tail[end:])
        else:
            self._dropping = True
        return Piece(Kind.TOO_LONG, bytes(tail[: min(end or len(tail), KEPT_BYTES)]))

    def _took(self, count: int) -> None:
        self._at += count
        if self._at == len(self._whole):
            self._whole, self._at = b"", 0


def _end_of_line(data: bytes, number: int) -> int:
    """Where line `number` (from 1) ends."""
    return int(np.flatnonzero(np.frombuffer(data, np.uint8) == 10)[number - 1]) + 1
