"""A look at the bytes of CSV files while Polars reads them: what its reader passes over without a word."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from unistream.errors import DataError
from unistream.io.byte_counts import CACHED, count_byte
from unistream.io.byte_marks import Bytes, count, marks, within
from unistream.io.format_csv import CsvFormat
from unistream.one_query import Conditions, Reading, Unmet

LOOK_BYTES = 2 * CACHED
"""Bytes that are looked at together; no line within them is too long."""

AHEAD = 2
"""Bytes behind a quote that tell whether it ends a field."""

NEWLINE, RETURN = 10, 13

Places = npt.NDArray[np.intp]


def lined_up(format: CsvFormat, begins: bytes, path: str) -> CsvFormat:
    """The format with its columns in the order of the header a file begins with.

    Itself where there is none, or where something is wrong with it: that is told by others.
    """
    if not format.has_header:
        return format
    try:
        return format.for_header(begins.partition(b"\n")[0], path)
    except (DataError, pl.exceptions.PolarsError):
        return format


@dataclass(frozen=True, slots=True)
class Signs:
    """What to look for. Unless files are `quoted` there must be no quotes, which is quickly seen.

    Without `counted` separators are not counted: a reader of all columns finds surplus fields by itself.
    """

    separator: int
    quote: bytes | None
    quoted: bool
    longest_line: int
    counted: bool = True


class FileLook:
    """Goes over one file from its beginning; `separators` are those outside quotes."""

    def __init__(self, signs: Signs) -> None:
        self._signs = signs
        self._place = self._line_began = 0
        self._inside = False
        self._before = NEWLINE
        self.separators = 0

    def look(self, data: bytearray, size: int) -> None:
        """The next `size` bytes, and two more that show how a quote at their end goes on. Raises `Unmet`."""
        self._check_line(data, size)
        signs = self._signs
        if signs.quote is None or (not self._inside and data.find(signs.quote, 0, size) < 0):
            if signs.counted:
                self.separators += count_byte(memoryview(data)[:size], signs.separator)
        elif signs.quoted:
            self._look_at_quotes(np.frombuffer(data, np.uint8, size + AHEAD), size)
        else:
            raise Unmet("there are quotes", Reading.QUOTED)
        self._place += size
        self._before = data[size - 1]

    def end(self) -> None:
        """There is no more. Raises `Unmet`."""
        if self._inside:
            raise Unmet("a quote does not close", Reading.OWN)

    def _check_line(self, data: bytearray, size: int) -> None:
        ends = data.find(b"\n", 0, size)
        if self._place + (ends if ends >= 0 else size) - self._line_began > self._signs.longest_line:
            raise Unmet("a line is too long", Reading.OWN)
        if ends >= 0:
            self._line_began = self._place + data.rfind(b"\n", 0, size) + 1

    def _look_at_quotes(self, seen: Bytes, size: int) -> None:
        assert self._signs.quote is not None
        signs = seen[:size]
        quotes = np.flatnonzero(signs == self._signs.quote[0])
        first = int(self._inside)
        self._check_quotes(seen, quotes[first::2], quotes[1 - first :: 2])
        inside = within(marks(signs, self._signs.quote[0]), begun=self._inside)
        if (inside & marks(signs, NEWLINE)).any():
            raise Unmet("a newline stands within quotes", Reading.OWN)
        self.separators += count(~inside & marks(signs, self._signs.separator))
        self._inside = bool((first + len(quotes)) % 2)

    def _check_quotes(self, seen: Bytes, opens: Places, closes: Places) -> None:
        """Quotes stand around whole fields, or are doubled within."""
        before, after, second = seen[opens - 1], seen[closes + 1], seen[closes + 2]
        before[opens == 0] = self._before
        ended = (after == RETURN) & (second == NEWLINE)
        if not (self._is_edge(before).all() and (self._is_edge(after) | ended).all()):
            raise Unmet("a quote stands inside a field", Reading.OWN)

    def _is_edge(self, signs: Bytes) -> npt.NDArray[np.bool_]:
        assert self._signs.quote is not None
        between = (signs == self._signs.separator) | (signs == NEWLINE)
        found: npt.NDArray[np.bool_] = between | (signs == self._signs.quote[0])
        return found


class FilesLook:
    """Goes over all files on a thread of its own."""

    def __init__(self, format: CsvFormat, paths: Sequence[str], signs: Signs, conditions: Conditions) -> None:
        self._format = format
        self._paths = paths
        self._signs = signs
        self._conditions = conditions
        self._separators = 0
        self._error: Exception | None = None
        self._thread: threading.Thread | None = None

    @property
    def counted(self) -> bool:
        """Whether separators are counted."""
        return self._signs.counted

    def begin(self) -> None:
        """Headers at once, the rest while the query runs."""
        if self._format.has_header:
            for path in self._paths:
                self._check_header(path)
        self._thread = threading.Thread(target=self._look, name="unistream-look", daemon=True)
        self._thread.start()

    def separators(self) -> int:
        """How many there are; raises what was wrong."""
        assert self._thread is not None
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._separators

    def _check_header(self, path: str) -> None:
        with Path(path).open("rb") as file:
            header = file.readline()
        if lined_up(self._format, header, path).in_line != self._format.in_line:
            self._conditions.fail("a header has other columns", instead=Reading.OWN)

    def _look(self) -> None:
        try:
            for path in self._paths:
                self._look_at(path)
        except Exception as error:
            self._error = error
            if isinstance(error, Unmet):  # the query need not go on
                self._conditions.unmet = self._conditions.unmet or error

    def _look_at(self, path: str) -> None:
        found = FileLook(self._signs)
        data = bytearray(LOOK_BYTES + AHEAD)
        held = 0  # bytes that were read and not looked at yet, for what follows them was not known
        with Path(path).open("rb", buffering=0) as file:
            while not (self._conditions.over or self._conditions.unmet):
                read = file.readinto(memoryview(data)[held:])
                size = held + (read or 0)
                if not read:
                    data[size : size + AHEAD] = b"\n" * AHEAD
                looked = size - AHEAD if read else size
                if looked > 0:
                    found.look(data, looked)
                    data[:AHEAD] = data[looked : looked + AHEAD]
                    held = AHEAD
                elif read:
                    held = size
                if not read:
                    break
        found.end()
        self._separators += found.separators
