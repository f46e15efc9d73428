"""Where CSV rows begin and end, and which of them have all their fields."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from unistream.io.byte_counts import count_byte
from unistream.io.byte_marks import Bytes, Marks, chosen, count, last, marks, within

NEWLINE, RETURN = 10, 13

FEW = 64
"""Quotes that are looked at one by one; more of them are looked at together, which takes all bytes apart."""

Places = npt.NDArray[np.intp]


class CsvRules:
    """Finds rows in bytes that begin at a row, by separator and quote."""

    def __init__(self, separator: str, quote_char: str | None, fields: int) -> None:
        self._separator = ord(separator)
        self.quote = None if quote_char is None else quote_char.encode()
        self._fields = fields
        self._record, self._beginning = _record_patterns(separator.encode(), self.quote)

    def unquoted(self, data: bytes) -> bool:
        """Whether no quote stands in the data."""
        return self.quote is None or self.quote not in data

    def well_quoted(self, data: bytes) -> bool:
        """Whether quotes stand around whole fields only; the parser reads, or even panics over, others."""
        return self._well_quoted(np.frombuffer(data, np.uint8), self._quotes(data))

    def whole(self, data: bytes, unquoted: bool, rows: int, ends_filled: bool, all_read: bool) -> bool:
        """Whether these well-quoted bytes are `rows` rows with all their fields.

        The parser fills missing fields with nulls silently, so that none are missing where no row ends in a
        null (`ends_filled`). For surplus ones it raises if it reads all columns; else separators are counted.
        """
        if ends_filled and all_read:
            return True
        if unquoted and ends_filled:
            return count_byte(data, self._separator) == rows * (self._fields - 1)
        if not unquoted and (ends_filled or all_read):
            quotes = self._quotes(data)
            if len(quotes) <= FEW:
                return self._whole_but_for(data, quotes, rows)
        signs = np.frombuffer(data, np.uint8)
        separators, newlines = marks(signs, self._separator), marks(signs, NEWLINE)
        if not unquoted:
            outside = self._outside(signs)
            separators &= outside
            newlines &= outside
        if count(separators) != rows * (self._fields - 1):
            return False
        if count(newlines) + (not data.endswith(b"\n")) != rows:
            return False
        if ends_filled or all_read:
            return True
        ends = chosen(signs, separators | newlines)  # fields may be missing in one row, too many in another
        return bool((ends[self._fields - 1 :: self._fields] == NEWLINE).all())

    def _whole_but_for(self, data: bytes, quotes: Places, rows: int) -> bool:
        """As `whole`, for a few quotes: what stands between them is counted by itself."""
        within_quotes = [data[begin:end] for begin, end in zip(quotes[0::2], quotes[1::2], strict=True)]

        def outside(value: int) -> int:
            return count_byte(data, value) - sum(part.count(value) for part in within_quotes)

        if outside(self._separator) != rows * (self._fields - 1):
            return False
        return outside(NEWLINE) + (not data.endswith(b"\n")) == rows

    def _quotes(self, data: bytes) -> Places:
        """Where quotes are."""
        assert self.quote is not None
        places: list[int] = []
        at = data.find(self.quote)
        while at >= 0 and len(places) < FEW:
            places.append(at)
            at = data.find(self.quote, at + 1)
        if at < 0:
            return np.array(places, dtype=np.intp)
        return np.flatnonzero(np.frombuffer(data, np.uint8) == self.quote[0])

    def _outside(self, signs: Bytes) -> Marks:
        """Which bytes are not within quotes, by counting quotes."""
        assert self.quote is not None
        return ~within(marks(signs, self.quote[0]))

    def _well_quoted(self, signs: Bytes, quotes: Places) -> bool:
        """Whether quotes open at the beginning of a field, close at its end, or are doubled in between."""
        assert self.quote is not None
        if len(quotes) % 2:
            return False
        opens, closes = quotes[0::2], quotes[1::2]
        before = signs[opens - 1]
        before[opens == 0] = NEWLINE
        good = (before == self._separator) | (before == NEWLINE) | (before == self.quote[0])
        if not good.all():
            return False
        after, second = (signs.take(closes + step, mode="clip") for step in (1, 2))
        after[closes == len(signs) - 1] = NEWLINE
        good = (after == self._separator) | (after == NEWLINE) | (after == self.quote[0])
        return bool((good | ((after == RETURN) & (second == NEWLINE))).all())

    def records_end(self, data: bytes) -> int:
        """Length of the longest beginning that holds whole rows only, whatever may follow."""
        if self.unquoted(data):
            return data.rfind(b"\n") + 1
        signs, quotes = np.frombuffer(data, np.uint8), self._quotes(data)
        if len(quotes) <= FEW:
            end = _last_line_end(data, quotes.tolist()) + 1
        else:
            end = last(marks(signs, NEWLINE) & self._outside(signs)) + 1
        if end and self._well_quoted(signs[:end], quotes[quotes < end]):
            return end
        return self._scanned_end(data)

    def _scanned_end(self, data: bytes) -> int:
        """`records_end` for bytes with misplaced quotes: row by row, passing over lines that are no row."""
        place = 0
        while place < len(data):
            found = self._record.match(data, place)
            if found is None and self._beginning.fullmatch(data, place):
                return place  # it may still become a row when more bytes come
            end = found.end() if found else data.find(b"\n", place) + 1
            if end == 0:
                return place
            place = end
        return place

    def pieces(self, data: bytes, size: int) -> list[bytes]:
        """The data cut at rows into pieces of about `size` bytes."""
        pieces, start = [], 0
        while len(data) - start > size:
            end = self.records_end(data[start : start + size])
            if end == 0:
                break
            pieces.append(data[start : start + end])
            start += end
        if start < len(data) or not pieces:
            pieces.append(data[start:])
        return pieces

    def records(
        self, data: bytes, first_line: int
    ) -> tuple[list[tuple[int, bytes]], list[tuple[int, str, bytes]]]:
        """Rows with all their fields as (line, bytes with a newline), and the others with the reason."""
        good: list[tuple[int, bytes]] = []
        bad: list[tuple[int, str, bytes]] = []
        for line, raw, is_row in self._numbered(data, first_line):
            fields = self._count_fields(raw)
            if not is_row:
                bad.append((line, "a quote that does not close, or stands inside a field", raw))
            elif fields == self._fields:
                good.append((line, raw))
            elif raw.strip(b"\r\n"):
                bad.append((line, f"{fields} field{'s' * (fields != 1)} instead of {self._fields}", raw))
        return good, bad

    def _numbered(self, data: bytes, line: int) -> Iterator[tuple[int, bytes, bool]]:
        """Each row with the number of its line; a line that begins no row is given by itself, as none."""
        if self.unquoted(data):
            for number, raw in enumerate(data.removesuffix(b"\n").split(b"\n") if data else (), line):
                yield number, raw + b"\n", True
            return
        data += b"" if data.endswith(b"\n") else b"\n"
        place = 0
        while place < len(data):
            found = self._record.match(data, place)
            end = found.end() if found else data.index(b"\n", place) + 1
            raw = data[place:end]
            yield line, raw, found is not None
            line += raw.count(b"\n")
            place = end

    def _count_fields(self, raw: bytes) -> int:
        separator = bytes([self._separator])
        if self.quote is None or self.quote not in raw:
            return raw.count(separator) + 1
        parts = raw.split(self.quote)
        return sum(part.count(separator) for part in parts[0::2]) + 1


def _last_line_end(data: bytes, quotes: list[int]) -> int:
    """The last newline that is not within quotes, -1 when there is none; the last quote may be open."""
    edges = [*quotes, len(data)] if len(quotes) % 2 else quotes
    end = len(data)
    for begins, ends in zip(edges[-2::-2], edges[::-2], strict=True):
        at = data.rfind(b"\n", ends, end)
        if at >= 0:
            return at
        end = begins
    return data.rfind(b"\n", 0, end)


def _record_patterns(separator: bytes, quote: bytes | None) -> tuple[re.Pattern[bytes], re.Pattern[bytes]]:
    """One row with its newline, and what may be the beginning of one; quotes only around whole fields."""
    if quote is None:
        return re.compile(rb"[^\n]*+\n"), re.compile(rb"[^\n]*+")
    s, q = re.escape(separator), re.escape(quote)
    opened = rb"%b(?:[^%b]++|%b%b)*+" % (q, q, q, q)
    field = rb"(?:%b%b|[^%b%b\n]*+)" % (opened, q, q, s)
    row = rb"%b(?:%b%b)*+\r?\n" % (field, s, field)
    beginning = rb"(?:%b%b)*+(?:%b\r?|%b)" % (field, s, field, opened)
    return re.compile(row), re.compile(beginning)
