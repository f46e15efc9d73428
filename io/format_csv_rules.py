"""Where CSV rows begin and end, and which of them have all their fields."""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt

from unistream.io.format_base import BYTE_ORDER_MARK

NEWLINE, RETURN = 10, 13

Positions = npt.NDArray[np.int64]


class CsvRules:
    """Finds rows in bytes that begin at a row, by separator and quote."""

    def __init__(self, separator: str, quote_char: str | None, fields: int) -> None:
        self._separator = ord(separator)
        self._quote = None if quote_char is None else quote_char.encode()
        self._fields = fields
        self._record = _record_pattern(separator.encode(), self._quote)

    def whole(self, data: bytes, rows: int) -> bool:
        """Whether these bytes are `rows` well-formed rows with all their fields.

        The parser fills missing fields with nulls silently and raises for surplus ones, so the total number
        of separators tells.
        """
        signs = np.frombuffer(data, np.uint8)
        if self._quote is None or self._quote not in data:
            newlines = int(np.count_nonzero(signs == NEWLINE)) + _open_end(data)
            separators = int(np.count_nonzero(signs == self._separator))
            return newlines == rows and separators == rows * (self._fields - 1)
        opens, closes = self._quotes(signs)
        if len(opens) != len(closes) or not self._well_formed(signs, opens, closes):
            return False
        separators = _outside(np.flatnonzero(signs == self._separator), opens, closes)
        newlines = _outside(np.flatnonzero(signs == NEWLINE), opens, closes) + _open_end(data)
        return newlines == rows and separators == rows * (self._fields - 1)

    def _quotes(self, signs: npt.NDArray[np.uint8]) -> tuple[Positions, Positions]:
        assert self._quote is not None
        quotes = np.flatnonzero(signs == self._quote[0])
        return quotes[0::2], quotes[1::2]

    def _well_formed(self, signs: npt.NDArray[np.uint8], opens: Positions, closes: Positions) -> bool:
        """Whether quotes open at the beginning of a field, close at its end, or are doubled in between."""
        padded = np.concatenate([[NEWLINE], signs, [NEWLINE, NEWLINE]])
        before, after, second = padded[opens], padded[closes + 2], padded[closes + 3]
        doubled = opens[1:] == closes[:-1] + 1
        begins = (before == self._separator) | (before == NEWLINE)
        ends = (after == self._separator) | (after == NEWLINE) | ((after == RETURN) & (second == NEWLINE))
        begins[1:] |= doubled
        ends[:-1] |= doubled
        return bool(begins.all() and ends.all())

    def records_end(self, data: bytes) -> int:
        """Length of the longest beginning that holds whole rows only, whatever may follow."""
        if self._quote is None or self._quote not in data:
            return data.rfind(b"\n") + 1
        signs = np.frombuffer(data, np.uint8)
        opens, closes = self._quotes(signs)
        newlines = np.flatnonzero(signs == NEWLINE)
        outside = newlines[np.searchsorted(opens, newlines) == np.searchsorted(closes, newlines)]
        if len(outside):
            end = int(outside[-1]) + 1
            head_opens, head_closes = opens[opens < end], closes[closes < end]
            if self._well_formed(signs[:end], head_opens, head_closes):
                return end
        return self._scanned_end(data)

    def _scanned_end(self, data: bytes) -> int:
        """`records_end` for bytes with misplaced quotes: row by row, passing over lines that are no row."""
        place = 0
        while place < len(data):
            found = self._record.match(data, place)
            if found is None and self._unclosed(data, place):
                return place
            end = found.end() if found else data.find(b"\n", place) + 1
            if end == 0 or not data.endswith(b"\n", place, end):
                return place
            place = end
        return place

    def _unclosed(self, data: bytes, place: int) -> bool:
        """Whether the row at `place` might still become one when more bytes come."""
        return self._record.match(data[place:] + (self._quote or b"") + b"\n") is not None

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
        place, line = 0, first_line
        if data and not data.endswith(b"\n"):
            data += b"\n"
        while place < len(data):
            found = self._record.match(data, place)
            end = found.end() if found else data.index(b"\n", place) + 1
            raw = data[place:end]
            fields = self._count_fields(raw) if found else 0
            if raw.startswith(BYTE_ORDER_MARK):
                bad.append((line, "a byte order mark that is not at the beginning", raw))
            elif not found:
                bad.append((line, "a quote that does not close, or stands inside a field", raw))
            elif fields == self._fields:
                good.append((line, raw))
            elif raw.strip(b"\r\n"):
                bad.append((line, f"{fields} field{'s' * (fields != 1)} instead of {self._fields}", raw))
            line += raw.count(b"\n")
            place = end
        return good, bad

    def _count_fields(self, raw: bytes) -> int:
        separator = bytes([self._separator])
        if self._quote is None or self._quote not in raw:
            return raw.count(separator) + 1
        parts = raw.split(self._quote)
        return sum(part.count(separator) for part in parts[0::2]) + 1


def _open_end(data: bytes) -> int:
    """1 when the last line has no newline."""
    return int(bool(data) and not data.endswith(b"\n"))


def _outside(places: Positions, opens: Positions, closes: Positions) -> int:
    """How many places are not within quotes."""
    return int(np.count_nonzero(np.searchsorted(opens, places) == np.searchsorted(closes, places)))


def _record_pattern(separator: bytes, quote: bytes | None) -> re.Pattern[bytes]:
    """One row with its newline; quotes only around whole fields."""
    if quote is None:
        return re.compile(rb"[^\n]*+\n")
    s, q = re.escape(separator), re.escape(quote)
    field = rb"(?:%b(?:[^%b]++|%b%b)*+%b|[^%b%b\n]*+)" % (q, q, q, q, q, q, s)
    return re.compile(rb"%b(?:%b%b)*+\r?\n" % (field, s, field))
