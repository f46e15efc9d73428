"""Plain lines of text as one column."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import polars as pl

from unistream.errors import InvalidQuery
from unistream.io.format_base import BYTE_ORDER_MARK, Decoded, Format, unreadable


@dataclass(frozen=True)
class TextFormat(Format):
    """Each line as it is, without its newline (`\\n` or `\\r\\n`), in one text column.

    Every line is a row, also a blank one. Lines that are not UTF-8 are refused.

    >>> TextFormat().decode(b"to be\\nor not\\n").frame["line"].to_list()
    ['to be', 'or not']
    """

    column: str = "line"
    name: ClassVar[str] = "text"

    @property
    def columns(self) -> pl.Schema:
        return pl.Schema({self.column: pl.String()})

    def project(self, names: Sequence[str]) -> TextFormat:
        return self

    def encode(self, frame: pl.DataFrame) -> bytes:
        lines = frame[self.column]
        if lines.null_count() or lines.str.contains("\n", literal=True).any():
            raise InvalidQuery(
                f"Column {self.column!r} has nulls or newlines, which lines of text cannot hold",
                hint="fill the nulls and replace newlines first, or write NDJSON",
            )
        return "".join([line + "\n" for line in lines.to_list()]).encode()

    def decode(self, data: bytes, *, first_line: int = 1, unquoted: bool = False) -> Decoded:
        if first_line == 1:
            data = data.removeprefix(BYTE_ORDER_MARK)
        if not data:
            return Decoded(pl.DataFrame(schema=self.columns), None, 0)
        bad: list[tuple[int, str, bytes]] = []
        try:
            texts = data.decode("utf-8").removesuffix("\n").split("\n")
        except UnicodeDecodeError:
            texts, bad = _readable(data.removesuffix(b"\n").split(b"\n"), first_line)
        series = pl.Series(self.column, texts, pl.String).str.strip_suffix("\r")
        rows = len(texts) + len(bad)
        return Decoded(series.to_frame(), unreadable(bad), rows)


def _readable(lines: list[bytes], first_line: int) -> tuple[list[str], list[tuple[int, str, bytes]]]:
    """The lines that are UTF-8, and the others with their numbers."""
    texts, bad = [], []
    for number, line in enumerate(lines, first_line):
        try:
            texts.append(line.decode("utf-8"))
        except UnicodeDecodeError as error:
            bad.append((number, f"not valid UTF-8 at byte {error.start + 1}", line))
    return texts, bad
