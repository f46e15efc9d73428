"""Bytes of one file, cut into whole rows in bounded memory, with every byte accounted for."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

KEPT_BYTES = 4096
"""Bytes kept of a line that is too long."""


class Cut(NamedTuple):
    """Some bytes from the front: `data` holds whole rows, or `too_long` the beginning of a line given up.

    `nbytes` and `lines` say how far the place moves; a line that is given up counts where it ends.
    `unquoted` rows are known to be without quotes.
    """

    data: bytes
    nbytes: int
    lines: int = 0
    too_long: bytes | None = None
    unquoted: bool = False


class LineCutter:
    """Takes bytes as they are read and gives back the longest run of whole rows.

    `records_end` (of a `Format`) tells where the last whole row ends; without a `quote` in the bytes that is
    a newline. A line longer than `max_line_bytes`
    is given up: its beginning comes as `too_long`, the rest is dropped as it comes, and reading goes on at
    the next newline, however the bytes were cut. A row that spans several lines may be longer, as far as
    it lies in the bytes that were fed. Memory stays below what was fed plus `max_line_bytes`.
    `dropping` says that the place is inside such a line; it is part of a position.

    >>> cutter = LineCutter(lambda data: data.rfind(b"\\n") + 1, max_line_bytes=5)
    >>> cutter.feed(b"ab\\ncd\\ntoo long\\ne")
    >>> cutter.next().data, cutter.next().too_long, cutter.next()
    (b'ab\\ncd\\n', b'too lo', None)
    """

    def __init__(
        self,
        records_end: Callable[[bytes], int],
        max_line_bytes: int,
        dropping: bool = False,
        quote: bytes | None = None,
    ) -> None:
        self.records_end = records_end
        self._quote = quote
        self.dropping = dropping
        self._limit = max_line_bytes
        self._bytes = b""
        self._ended = False

    @property
    def held(self) -> int:
        """Bytes that were fed and not yet given back."""
        return len(self._bytes)

    def feed(self, data: bytes) -> None:
        """More bytes of the file."""
        self._bytes = self._bytes + data if self._bytes else data

    def finish(self) -> None:
        """No more bytes come: the last line is whole without a newline."""
        self._ended = True

    def next(self) -> Cut | None:
        """The next cut; None when more bytes are needed."""
        if not self._bytes:
            return None
        if self.dropping:
            return self._drop_line()
        unquoted = self._quote is not None and self._quote not in self._bytes
        if self._ended:
            end = len(self._bytes)
        else:
            end = self._bytes.rfind(b"\n") + 1 if unquoted else self.records_end(self._bytes)
        if end == 0:
            return self._give_up_line() if len(self._bytes) > self._limit else None
        short = self._short_lines(end)
        if short < end:
            if short == 0:
                return self._give_up_line()
            end = short  # no row reaches into a line that is too long
        return Cut(self._take(end), end, unquoted=unquoted)

    def drop_prefix(self, prefix: bytes) -> int | None:
        """Take this off the front if it is there; how many bytes that were, None when too few came."""
        if self._bytes.startswith(prefix):
            return len(self._take(len(prefix)))
        return None if prefix.startswith(self._bytes) and not self._ended else 0

    def first_record(self) -> Cut | None:
        """The first row alone, a header; None when more bytes are needed."""
        at = -1
        while (at := self._bytes.find(b"\n", at + 1)) >= 0:
            if self.records_end(self._bytes[: at + 1]) == at + 1:
                data = self._take(at + 1)
                return Cut(data, len(data), data.count(b"\n"))
        if not self._bytes or (not self._ended and len(self._bytes) <= self._limit):
            return None
        data = self._take(len(self._bytes))
        return Cut(data, len(data), 1)

    def _short_lines(self, end: int) -> int:
        """Where the lines before the first one that is too long end; looks at a few places only."""
        at = 0
        while end - at > self._limit:
            newline = self._bytes.rfind(b"\n", at, at + self._limit + 1)
            if newline < 0:
                return at
            at = newline + 1
        return end

    def _give_up_line(self) -> Cut:
        kept = min(KEPT_BYTES, self._limit + 1)  # as much as there is however the bytes came
        beginning = self._bytes[: min(kept, self._bytes.find(b"\n") + 1 or kept)]
        self.dropping = True
        dropped = self._drop_line()
        return dropped._replace(too_long=beginning)

    def _drop_line(self) -> Cut:
        newline = self._bytes.find(b"\n")
        self.dropping = newline < 0
        end = newline + 1 or len(self._bytes)
        self._take(end)
        return Cut(b"", end, int(not self.dropping))

    def _take(self, end: int) -> bytes:
        data, self._bytes = self._bytes[:end], self._bytes[end:]
        return data
