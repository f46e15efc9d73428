"""Rows as separated values, read by Polars' parser; what it lets pass is found by counting separators."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

import polars as pl

from unistream.errors import DataError, InvalidQuery, InvalidSettings, nearest
from unistream.io.format_base import BYTE_ORDER_MARK, Decoded, Format, count_lines, joined, unreadable
from unistream.io.format_csv_rules import CsvRules
from unistream.io.format_types import as_written, convert, converted, misfits, wire_type

PIECE_BYTES = 128 << 10
"""A chunk that fails is cut into pieces of this size; only pieces that fail again are looked at closely."""


class _Refused(Exception):
    """The chunk as a whole cannot be read on the fast path."""


@dataclass(frozen=True)
class CsvFormat(Format):
    """Separated values, as RFC 4180 has them: quotes around a field, doubled inside, newlines within quotes.

    What is accepted: rows with exactly the columns of `schema`, in its order (a source over files takes the
    order from the header when `has_header`, and then ignores further columns). An empty field is null, `""`
    is the empty text; `null_values` are null too. Whole numbers in the type's range, with a sign, leading
    zeros and blanks before them; floats also `1e3`, `.5`, `nan` and `inf`; `true` and `false` in any case;
    times as ISO 8601 or epoch numbers, durations and decimals as in `NdjsonFormat`. Blank lines are skipped,
    except in a file of one column, where they are a null. Both `\\n` and `\\r\\n` end a row.

    What is refused, each row by itself: too few or too many fields, values that do not fit, quotes that do
    not close or stand inside a field, and invalid UTF-8. After a quote that does not close reading goes on
    at the next line.

    >>> format = CsvFormat(pl.Schema({"user": pl.String, "amount": pl.Int64}))
    >>> decoded = format.decode(b"ada,3\\nbob,x\\neve\\n")
    >>> decoded.frame.rows(), decoded.rejected["reason"].to_list()
    ([('ada', 3)], ["column 'amount': 'x' is not Int64", '1 field instead of 2'])
    """

    schema: pl.Schema
    separator: str = ","
    quote_char: str | None = '"'
    has_header: bool = True
    null_values: tuple[str, ...] = ()
    file_columns: tuple[str, ...] | None = None
    """The columns that stand in each line, when these are others than those of `schema`."""
    name: ClassVar[str] = "csv"

    def __post_init__(self) -> None:
        object.__setattr__(self, "schema", pl.Schema(self.schema))
        null_values = (self.null_values,) if isinstance(self.null_values, str) else tuple(self.null_values)
        object.__setattr__(self, "null_values", null_values)
        if not self.schema:
            raise InvalidQuery("A CSV format needs at least one column", hint="name the columns in schema=")
        for what, value in (("separator", self.separator), ("quote_char", self.quote_char)):
            if value is not None and (len(value.encode()) != 1 or value in "\r\n"):
                raise InvalidSettings(f"{what} must be one ASCII character, not {value!r}")
        if self.separator == self.quote_char:
            raise InvalidSettings(
                "separator and quote_char must differ", hint="quote_char=None reads without quotes"
            )
        _ = self.wire

    def __hash__(self) -> int:
        options = (self.separator, self.quote_char, self.has_header, self.null_values, self.file_columns)
        return hash((tuple(self.schema.items()), options))

    def __getstate__(self) -> dict[str, object]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @property
    def columns(self) -> pl.Schema:
        return self.schema

    @cached_property
    def in_line(self) -> tuple[str, ...]:
        """The columns that stand in each line."""
        return self.file_columns or tuple(self.schema)

    @cached_property
    def wire(self) -> pl.Schema:
        """What the parser is asked for, in the order of the line."""
        wire = {name: pl.String() for name in self.in_line}
        return pl.Schema(wire | {name: wire_type(dtype, name) for name, dtype in self.schema.items()})

    @cached_property
    def _reads_all(self) -> bool:
        return self.in_line == tuple(self.schema)

    @cached_property
    def _rules(self) -> CsvRules:
        return CsvRules(self.separator, self.quote_char, len(self.in_line))

    def project(self, names: Sequence[str]) -> CsvFormat:
        keep = [name for name in self.schema if name in set(names)] or list(self.schema)[:1]
        return replace(
            self, schema=pl.Schema({name: self.schema[name] for name in keep}), file_columns=self.in_line
        )

    def header_fields(self, line: bytes) -> list[str]:
        """The column names in a header line."""
        line = line.removeprefix(BYTE_ORDER_MARK)
        read = pl.read_csv(
            line, separator=self.separator, quote_char=self.quote_char, has_header=False, infer_schema=False
        )
        return ["" if name is None else name for name in read.row(0)]

    def for_header(self, line: bytes, where: str) -> CsvFormat:
        """The same format for a file with this header line; `DataError` when it lacks columns."""
        way_out = 'move the file away; on_error="collect" leaves such files out, unless they are followed'
        try:
            names = self.header_fields(line)
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
            problem = f"{where}, line 1: the header cannot be read: {str(error).partition(chr(10))[0]}"
            raise DataError(problem, hint=f"check separator= and quote_char=, or {way_out}") from error
        missing = [name for name in self.schema if name not in names]
        if missing or len(set(names)) != len(names):
            what = f"has no column {missing[0]!r}" if missing else "names a column twice"
            near = nearest(missing[0], names) if missing else None
            hint = f"did you mean {near!r}?" if near else f"check separator= and has_header=, or {way_out}"
            raise DataError(f"{where}, line 1: the header {what}. Columns: {names}", hint=hint)
        return replace(self, file_columns=tuple(names))

    def header(self) -> bytes:
        if not self.has_header:
            return b""
        return csv_bytes(pl.DataFrame(schema=self.schema), self.separator, self.quote_char, header=True)

    def encode(self, frame: pl.DataFrame) -> bytes:
        return csv_bytes(frame, self.separator, self.quote_char)

    def records_end(self, data: bytes | bytearray | memoryview) -> int:
        return self._rules.records_end(bytes(data))

    @property
    def quote(self) -> bytes | None:
        return self._rules.quote

    def decode(self, data: bytes, *, first_line: int = 1, unquoted: bool = False) -> Decoded:
        if first_line == 1:
            data = data.removeprefix(BYTE_ORDER_MARK)
        try:
            return self._fast(data, unquoted)
        except _Refused:
            pieces = self._rules.pieces(data, PIECE_BYTES)
        parts = []
        for piece in pieces:
            parts.append(self._piece(piece, first_line, try_fast=len(pieces) > 1))
            first_line += count_lines(piece)
        return joined(parts, self.schema)

    def _piece(self, piece: bytes, first_line: int, try_fast: bool) -> Decoded:
        if try_fast:
            try:
                return self._fast(piece)
            except _Refused:
                pass
        return self._record_by_record(piece, first_line)

    def _fast(self, data: bytes, unquoted: bool = False) -> Decoded:
        """The chunk in one call of the parser, when every row has all its fields and every value fits."""
        if data.startswith(BYTE_ORDER_MARK):  # the parser would drop it
            raise _Refused
        unquoted = unquoted or self._rules.unquoted(data)
        if not unquoted and not self._rules.well_quoted(data):
            raise _Refused
        wire = self._parse(data, self.wire, unquoted)
        ends_filled = not wire[self.in_line[-1]].null_count()
        if not self._rules.whole(data, unquoted, wire.height, ends_filled, self._reads_all):
            raise _Refused
        frame = self.typed(wire)
        if frame is None:
            raise _Refused
        # Without quotes every newline ends a row, that of a blank line too.
        return Decoded(frame, None, wire.height, wire.height if unquoted else None)

    def typed(self, wire: pl.DataFrame) -> pl.DataFrame | None:
        """What the parser read as columns of their types; None when a value does not fit."""
        frame = converted(wire, self.schema)
        for name, dtype in self.schema.items():
            if self.wire[name] != dtype and frame[name].null_count() != wire[name].null_count():
                return None
            if dtype.is_float() and (frame[name].max() == math.inf or frame[name].min() == -math.inf):
                return None
        return frame

    def _parse(self, data: bytes, wire: pl.Schema, unquoted: bool = False) -> pl.DataFrame:
        try:
            query = pl.scan_csv(
                data,
                schema=wire,
                has_header=False,
                separator=self.separator,
                quote_char=None if unquoted else self.quote_char,  # a little faster
                null_values=list(self.null_values) or None,
            )
            if self._reads_all:  # without the optimizer, which has nothing to do: 0.1 ms
                return query.collect(engine="streaming", optimizations=pl.QueryOptFlags.none())
            # The last column too: it tells whether fields are missing.
            needed = dict.fromkeys([*self.schema, self.in_line[-1]])
            return query.select(list(needed)).collect(engine="streaming")
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
            raise _Refused from error

    def _record_by_record(self, data: bytes, first_line: int) -> Decoded:
        """Rows with the right number of fields as text, then each column by itself."""
        good, bad = self._rules.records(data, first_line)
        try:
            wire = self._texts(good)
        except _Refused:
            good, refused = _utf8_only(good)
            bad += refused
            wire = self._texts(good)
        frame = pl.DataFrame({name: _typed(wire[name], dtype) for name, dtype in self.schema.items()})
        rows = wire.height + len(bad)
        reasons = misfits(_blank_as_null(wire, self.schema), frame)
        if reasons is not None:
            misfit = reasons.is_not_null().arg_true().to_list()
            bad += [(good[row][0], reasons[row], good[row][1]) for row in misfit]
            frame = frame.filter(reasons.is_null())
        return Decoded(frame, unreadable(bad), rows)

    def _texts(self, records: list[tuple[int, bytes]]) -> pl.DataFrame:
        """The records' fields; an empty one goes first, where the parser would drop a byte order mark."""
        empty = self.separator.encode() * (len(self.in_line) - 1) + b"\n"
        data = b"".join([empty, *[raw for _, raw in records]])
        return self._parse(data, pl.Schema(dict.fromkeys(self.wire, pl.String()))).slice(1)


def csv_bytes(frame: pl.DataFrame, separator: str, quote_char: str | None, *, header: bool = False) -> bytes:
    """Rows as separated values, durations as numbers; without a quote character no field is quoted."""
    text = as_written(frame).write_csv(
        include_header=header,
        separator=separator,
        quote_char=quote_char or '"',
        quote_style="necessary" if quote_char else "never",
    )
    return text.encode()


def _utf8_only(
    records: list[tuple[int, bytes]],
) -> tuple[list[tuple[int, bytes]], list[tuple[int, str, bytes]]]:
    """The records that are UTF-8, and the others with the reason."""
    good, bad = [], []
    for line, raw in records:
        try:
            raw.decode("utf-8")
            good.append((line, raw))
        except UnicodeDecodeError as error:
            bad.append((line, f"not valid UTF-8 at byte {error.start + 1}", raw))
    return good, bad


def _blank_as_null(wire: pl.DataFrame, schema: pl.Schema) -> pl.DataFrame:
    """Empty and blank numbers are null, as the parser has them; text stays as it is."""
    numbers = [name for name, dtype in schema.items() if dtype.is_integer() or dtype.is_float()]
    booleans = [name for name, dtype in schema.items() if dtype == pl.Boolean]
    trimmed = pl.col(numbers).str.strip_chars_start(" \t")
    return wire.with_columns(trimmed).with_columns(pl.col(numbers + booleans).replace("", None))


def _typed(text: pl.Series, dtype: pl.DataType) -> pl.Series:
    """A column of text as the fast parser reads it; null where it would refuse."""
    if dtype == pl.Boolean:
        folded = text.str.to_lowercase()
        return (folded == "true").set(~folded.is_in(["true", "false"]), None)
    if dtype.is_integer():
        return text.str.strip_chars_start(" \t").cast(dtype, strict=False)
    if dtype.is_float():
        trimmed = text.str.strip_chars_start(" \t")
        values = trimmed.cast(dtype, strict=False)
        return values.set(values.is_infinite() & ~trimmed.str.contains("(?i)inf"), None)
    return convert(text, dtype)
