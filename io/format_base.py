"""What a line format is: whole lines of bytes to a frame and back, with every unreadable row told apart."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import polars as pl

from unistream.errors import DataError, InvalidSettings
from unistream.io.base import REJECTED_SCHEMA
from unistream.io.byte_counts import count_byte
from unistream.location import user_location
from unistream.of_columns import columns_of

RAW_LIMIT = 1024
"""Characters of an unreadable row that are kept."""

UNREADABLE_SCHEMA = pl.Schema({"line": pl.Int64, "reason": pl.String, "raw": pl.String})
"""Columns of `Decoded.rejected`."""

POLICIES = ("fail", "skip", "collect")
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Decoded:
    """Rows of some lines: `frame` has the good ones in order, `rejected` the others (`UNREADABLE_SCHEMA`).

    `rows` counts both; blank lines are no rows. `lines` is how many lines there were, blank ones among
    them, where reading tells so without counting.
    """

    frame: pl.DataFrame
    rejected: pl.DataFrame | None
    rows: int
    lines: int | None = None

    def moved(self, lines: int) -> Decoded:
        """The same with so many lines before them."""
        if self.rejected is None:
            return self
        return replace(self, rejected=self.rejected.with_columns(pl.col("line") + lines))


class Format(ABC):
    """How rows are written as lines. Frozen, pickles, and is used from any thread."""

    name: ClassVar[str]

    @property
    @abstractmethod
    def columns(self) -> pl.Schema:
        """Columns and types of the frames that `decode` gives."""

    @property
    def quote(self) -> bytes | None:
        """The sign without which no row reaches over a newline; None where there is no such sign."""
        return None

    @abstractmethod
    def decode(self, data: bytes, *, first_line: int = 1, unquoted: bool = False) -> Decoded:
        """The rows of whole lines; the last newline may be missing at the end of a file.

        Never raises for what the bytes hold: a row that does not fit comes back in `rejected`, with its
        line number counted from `first_line`. A byte order mark is dropped when `first_line` is 1.
        `unquoted` says that the bytes are known to be without `quote`, which saves looking again.
        """

    @abstractmethod
    def encode(self, frame: pl.DataFrame) -> bytes:
        """The rows as whole lines, each with its newline."""

    @abstractmethod
    def project(self, names: Sequence[str]) -> Format:
        """The same format giving only these columns; values of the others are not checked."""

    def header(self) -> bytes:
        """What stands before the first row of a file."""
        return b""

    def records_end(self, data: bytes | bytearray | memoryview) -> int:
        """Length of the longest beginning of `data` that holds whole rows only; 0 when there is none."""
        return bytes(data).rfind(b"\n") + 1


def in_columns(frame: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
    """The frame with these columns in this order."""
    if frame.columns == list(names):
        return frame
    return columns_of(frame, names)


def count_lines(data: bytes) -> int:
    """Newlines, and a last line without one."""
    return count_byte(data, 10) + (bool(data) and not data.endswith(b"\n"))


def raw_text(line: bytes) -> str:
    """An unreadable row as it is kept: cut at `RAW_LIMIT`, bytes that are not UTF-8 replaced."""
    return line[: 4 * RAW_LIMIT].decode("utf-8", "replace")[:RAW_LIMIT].rstrip("\r\n")


def unreadable(rows: Sequence[tuple[int, str, bytes]]) -> pl.DataFrame | None:
    """Line number, reason and bytes of rejected rows as a frame in line order; None for no rows."""
    if not rows:
        return None
    ordered = sorted(rows, key=lambda row: row[0])
    texts = [(line, reason, raw_text(raw)) for line, reason, raw in ordered]
    return pl.DataFrame(texts, schema=UNREADABLE_SCHEMA, orient="row")


def joined(parts: Sequence[Decoded], columns: pl.Schema) -> Decoded:
    """Several decoded pieces, in order, as one."""
    if len(parts) == 1:
        return parts[0]
    frames = [part.frame for part in parts if part.frame.height]
    rejected = [part.rejected for part in parts if part.rejected is not None]
    return Decoded(
        pl.concat(frames) if frames else pl.DataFrame(schema=columns),
        pl.concat(rejected) if rejected else None,
        sum(part.rows for part in parts),
    )


def checked_policy(on_error: str) -> str:
    """The policy itself when it exists, else `InvalidSettings` with the nearest name."""
    if on_error not in POLICIES:
        raise InvalidSettings.from_unknown("on_error policy", on_error, POLICIES, user_location())
    return on_error


def rejected_rows(decoded: Decoded, on_error: str, source: str, split: str) -> pl.DataFrame | None:
    """What a source does with `decoded.rejected` under its policy, as rows of `REJECTED_SCHEMA`.

    "collect" gives the rows, "skip" gives None (they count as scanned rows), "fail" raises `DataError`
    with file or connection, line and reason of the first one.
    """
    if decoded.rejected is None or on_error == "skip":
        return None
    if on_error == "fail":
        line, reason, raw = decoded.rejected.row(0)
        raise DataError(
            f"{split}, line {line}: {reason}\n  {raw[:200]}",
            hint='fix the data, or pass on_error="collect" (see .rejected()) or "skip" to go on without it',
        )
    return decoded.rejected.select(
        source=pl.lit(source),
        split=pl.lit(split),
        position=pl.col("line"),
        reason=pl.col("reason"),
        raw=pl.col("raw"),
    ).cast(REJECTED_SCHEMA)
