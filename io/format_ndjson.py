"""One JSON object per line, read by Polars' parser; lines it refuses are judged one by one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import polars as pl

from unistream.errors import InvalidQuery
from unistream.io.format_base import BYTE_ORDER_MARK, Decoded, Format, count_lines, joined, unreadable
from unistream.io.format_json_rules import JsonRules, json_wire_type, too_deep
from unistream.io.format_json_small import SMALL_BYTES, SmallJson
from unistream.io.format_types import as_written, converted, misfits

PIECE_BYTES = 128 << 10
"""A chunk that fails is cut into pieces of this size; only pieces that fail again are looked at by line."""

_SURROGATE_PAIR = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


class _Refused(Exception):
    """The chunk as a whole cannot be read on the fast path."""


@dataclass(frozen=True)
class NdjsonFormat(Format):
    """One JSON object per line.

    What is accepted: objects with the columns of `schema` as keys, in any order. A missing key is null,
    other keys are ignored (but must be valid JSON), blank lines are skipped, `\\r\\n` ends a line too.
    Whole numbers must be JSON integers in the range of the type (`1.0`, `"1"` and `true` are refused);
    floats take any finite number; booleans `true` and `false`; text takes strings, and numbers, booleans
    and nested values as the text they print as. Times are ISO 8601 text (`T` or a blank between date and
    time, fraction optional, offsets are converted to UTC, text without one is UTC, digits beyond the
    column's unit are cut) or whole numbers since the epoch in the column's unit; durations are whole
    numbers of the unit; decimals are numbers or text with no more digits than the scale, and exact beyond
    15 digits only as text. Lists and structs are checked to the last value. Of a key that occurs twice the
    first value counts; in objects of more than 32 keys it may be any of its values.

    What is refused, each line by itself: broken or cut JSON, two values on one line, anything but an
    object, NaN and Infinity, numbers beyond 64-bit floats, whole numbers beyond 128 bits (with a fraction
    or an exponent they are floats), NUL and other control characters, invalid UTF-8, lone surrogates, nesting
    deeper than 256, a byte order mark other than at the first line.

    >>> format = NdjsonFormat(pl.Schema({"user": pl.String, "amount": pl.Int64}))
    >>> decoded = format.decode(b'{"user": "ada", "amount": 3}\\n{"user": "bob", "amount": "x"}\\n')
    >>> decoded.frame.rows(), decoded.rejected["reason"].to_list()
    ([('ada', 3)], ["column 'amount': 'x' is text, not a whole number"])
    """

    schema: pl.Schema
    name: ClassVar[str] = "ndjson"

    def __post_init__(self) -> None:
        object.__setattr__(self, "schema", pl.Schema(self.schema))
        if not self.schema:
            raise InvalidQuery(
                "An NDJSON format needs at least one column", hint="name the keys to read in schema="
            )
        _ = self._wire

    def __hash__(self) -> int:
        return hash((type(self), tuple(self.schema.items())))

    def __getstate__(self) -> dict[str, object]:
        return {"schema": self.schema}

    @property
    def columns(self) -> pl.Schema:
        return self.schema

    @cached_property
    def _wire(self) -> pl.Schema:
        return pl.Schema({name: json_wire_type(dtype, name) for name, dtype in self.schema.items()})

    @cached_property
    def _as_it_comes(self) -> bool:
        return self._wire == self.schema

    @cached_property
    def _small(self) -> SmallJson | None:
        return SmallJson.of(self._wire)

    @cached_property
    def _rules(self) -> JsonRules:
        return JsonRules(self._wire, self.schema)

    def project(self, names: Sequence[str]) -> NdjsonFormat:
        keep = [name for name in self.schema if name in set(names)] or list(self.schema)[:1]
        projected = NdjsonFormat(pl.Schema({name: self.schema[name] for name in keep}))
        # Few lines are read faster when it is known what else they hold, which its own columns do not tell.
        projected.__dict__["_small"] = SmallJson.of(projected._wire, self._wire)
        return projected

    def encode(self, frame: pl.DataFrame) -> bytes:
        return ndjson_bytes(frame)

    def decode(self, data: bytes, *, first_line: int = 1, unquoted: bool = False) -> Decoded:
        if first_line == 1:
            data = data.removeprefix(BYTE_ORDER_MARK)
        try:
            return self._fast(data, first_line)
        except _Refused:
            pieces = _pieces(data)
        parts = []
        for piece in pieces:
            parts.append(self._piece(piece, first_line, try_fast=len(pieces) > 1))
            first_line += count_lines(piece)
        return joined(parts, self.schema)

    def _piece(self, piece: bytes, first_line: int, try_fast: bool) -> Decoded:
        if try_fast:
            try:
                return self._fast(piece, first_line)
            except _Refused:
                pass
        return self._line_by_line(piece, first_line)

    def _fast(self, data: bytes, first_line: int) -> Decoded:
        """The chunk in one call of the parser; its line numbers matter only if values do not convert."""
        frame = self._few(data)
        if frame is None:
            if _hides_surrogates(data) or too_deep(data):
                raise _Refused
            frame = self._parse(data)
        if self._rules.has_nested and not self._rules.all_fit(data):
            raise _Refused
        if self._as_it_comes:
            return Decoded(frame, None, frame.height)
        return self._converted(frame, data, None, [], first_line)

    def _few(self, data: bytes) -> pl.DataFrame | None:
        small = self._small if len(data) < SMALL_BYTES else None
        return None if small is None else small.frame(data)

    def _parse(self, data: bytes) -> pl.DataFrame:
        try:
            query = pl.scan_ndjson(data, schema=self._wire)
            return query.collect(engine="in-memory", optimizations=pl.QueryOptFlags.none())
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
            raise _Refused from error

    def _line_by_line(self, data: bytes, first_line: int) -> Decoded:
        """Judge each line, then parse the good ones together.

        The quick judgement only finds candidates; a line is rejected by the exact one alone. Should the
        parser still refuse what was judged good, lines are judged exactly, and at last by the parser.
        """
        lines = data.split(b"\n")
        rows = [index for index, line in enumerate(lines) if line.strip(b" \t\r")]
        for judge in (self._rules.quick_reason, self._rules.reason):
            verdicts = [(index, judge(lines[index])) for index in rows]
            good = [index for index, reason in verdicts if reason is None]
            bad = [(first_line + index, reason, lines[index]) for index, reason in verdicts if reason]
            try:
                frame = self._parse(b"\n".join([lines[index] for index in good]))
            except _Refused:
                continue
            return self._converted(frame, data, good, bad, first_line)
        good, refused = self._halved([lines[index] for index in good], good)
        bad += [(first_line + index, "not valid JSON", lines[index]) for index in refused]
        frame = self._parse(b"\n".join([lines[index] for index in good]))
        return self._converted(frame, data, good, bad, first_line)

    def _halved(self, lines: list[bytes], indexes: list[int]) -> tuple[list[int], list[int]]:
        """Which lines the parser takes and which it refuses, by halving."""
        try:
            self._parse(b"\n".join(lines))
        except _Refused:
            if len(lines) == 1:
                return [], indexes
            half = len(lines) // 2
            good, bad = self._halved(lines[:half], indexes[:half])
            more_good, more_bad = self._halved(lines[half:], indexes[half:])
            return good + more_good, bad + more_bad
        return indexes, []

    def _converted(
        self,
        wire: pl.DataFrame,
        data: bytes,
        row_lines: list[int] | None,
        bad: list[tuple[int, str, bytes]],
        first_line: int,
    ) -> Decoded:
        """Wire columns as the schema's types; rows with a value that does not fit join the rejected ones."""
        rows = wire.height + len(bad)
        frame = converted(wire, self.schema)
        reasons = misfits(wire, frame)
        if reasons is not None:
            texts = data.split(b"\n")
            if row_lines is None:
                row_lines = [index for index, line in enumerate(texts) if line.strip(b" \t\r")]
            misfit = reasons.is_not_null().arg_true().to_list()
            bad = bad + [(first_line + row_lines[row], reasons[row], texts[row_lines[row]]) for row in misfit]
            frame = frame.filter(reasons.is_null())
        return Decoded(frame, unreadable(bad), rows)


def ndjson_bytes(frame: pl.DataFrame) -> bytes:
    """Rows as one JSON object a line; durations as numbers, NaN and infinity, which JSON lacks, as null."""
    return as_written(frame).write_ndjson().encode()


def _pieces(data: bytes) -> list[bytes]:
    """The data cut at newlines into pieces of about `PIECE_BYTES`."""
    pieces, start = [], 0
    while len(data) - start > PIECE_BYTES:
        end = data.find(b"\n", start + PIECE_BYTES) + 1
        if end == 0:
            break
        pieces.append(data[start:end])
        start = end
    if start < len(data) or not pieces:
        pieces.append(data[start:])
    return pieces


def _hides_surrogates(data: bytes) -> bool:
    """Whether a `\\ud800` without its other half occurs; the parser would read it as NUL."""
    if b"\\" not in data or (b"\\ud" not in data and b"\\uD" not in data):
        return False
    without_backslashes = data.replace(b"\\\\", b"  ")
    return _SURROGATE.search(_SURROGATE_PAIR.sub(b"", without_backslashes)) is not None
