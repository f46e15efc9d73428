"""A few lines of JSON, read without Polars: setting its parser up takes longer than reading a hundred."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import msgspec
import polars as pl

from unistream.io.format_json_rules import too_deep
from unistream.of_columns import frame_of

SMALL_BYTES = 32 << 10
"""From so many bytes on Polars is as fast, and leaves the interpreter to others meanwhile."""

_TYPES: dict[Any, Any] = {
    pl.Int64: Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)],
    pl.UInt64: Annotated[int, msgspec.Meta(ge=0)],
    pl.Float64: float,
    pl.Boolean: bool,
    pl.String: str,
}

_BEFORE_COLON = (" :", "\t:", "\r:")
_HUGE = re.compile(r"[eE]\+?[0-9]{3}")
_DIGITS = bytes.maketrans(b"123456789", b"000000000")
_LONG = b"0" * 39
"""Whole numbers of so many digits may be too wide for Polars' parser, and msgspec makes floats of them."""


class SmallJson:
    """Reads what is beyond doubt, and leaves all else to the parser that is there for everything.

    Values that are passed over are looked at less closely here: a number among them may be too large for
    64-bit floats, so no lines are taken that may have one. Nor are any with a backslash, by which a key may
    be spelled in several ways, or with a key that occurs twice.
    """

    def __init__(self, wire: pl.Schema, in_line: pl.Schema) -> None:
        places = {name: place for place, name in enumerate(in_line)}
        self._wanted = [(places[name], name, dtype) for name, dtype in wire.items()]
        self._keys = [f'"{name}"' for name in in_line]
        fields = [
            (f"f{place}", _TYPES[dtype.base_type()] | None, name)
            for place, (name, dtype) in enumerate(in_line.items())
        ]
        whole = [(field, kind, msgspec.field(name=name)) for field, kind, name in fields]
        line = [
            (field, kind | msgspec.UnsetType, msgspec.field(default=msgspec.UNSET, name=name))
            for field, kind, name in fields
        ]
        self._whole = msgspec.json.Decoder(msgspec.defstruct("Whole", whole, gc=False))
        self._line = msgspec.json.Decoder(msgspec.defstruct("Line", line, gc=False))

    @classmethod
    def of(cls, wire: pl.Schema, in_line: pl.Schema | None = None) -> SmallJson | None:
        """None for columns of other types than numbers, Booleans and text, and for names that are escaped.

        Lines of which some columns are wanted are read faster when it is known what else is `in_line`.
        """
        for read in (in_line, wire):
            if read is not None and all(_is_plain(name, dtype) for name, dtype in read.items()):
                return cls(wire, read)
        return None

    def frame(self, data: bytes) -> pl.DataFrame | None:
        """The rows of these lines; None for lines that are not beyond doubt."""
        try:
            text = data.decode()
            if "\\" in text or _LONG in data.translate(_DIGITS):
                return None
            rows = self._whole_rows(data)
            gaps = rows is None
            if rows is None:
                lines = [line for line in text.split("\n") if line.strip(" \t\r")]
                rows = list(map(self._line.decode, lines))
        except (UnicodeDecodeError, msgspec.DecodeError, RecursionError):
            return None
        if not rows:
            return None
        values = list(zip(*map(msgspec.structs.astuple, rows), strict=True))
        missing = [column.count(msgspec.UNSET) if gaps else 0 for column in values]
        known = len(rows) * len(values) - sum(missing)
        only_known = text.count('":') == known and not any(blank in text for blank in _BEFORE_COLON)
        if not only_known and (too_deep(data) or not self._harmless(text, len(rows), missing)):
            return None
        try:
            return frame_of(
                pl.Series(name, _with_nulls(values[place]) if missing[place] else values[place], dtype)
                for place, name, dtype in self._wanted
            )
        except (OverflowError, TypeError):  # more than 64 bits
            return None

    def _whole_rows(self, data: bytes) -> list[Any] | None:
        """One for each line, where all have all fields and no blanks around them: a third of the time.

        As the decoder takes no newline within a string, none is within a row that stands between braces.
        """
        lines = data.count(b"\n") + (not data.endswith(b"\n"))
        if not data.startswith(b"{") or data.count(b"}\n{") != lines - 1:
            return None
        try:
            rows = self._whole.decode_lines(data)
        except msgspec.ValidationError:
            return None
        return rows if len(rows) == lines else None

    def _harmless(self, text: str, rows: int, missing: Sequence[int]) -> bool:
        """Of lines with other keys than those that were read, or with blanks behind keys."""
        if _HUGE.search(text):
            return False
        # A key that stands in the text more often than in rows occurs twice in one, or as a value.
        given = (rows - gaps for gaps in missing)
        return all(text.count(key) == count for key, count in zip(self._keys, given, strict=True))


def _is_plain(name: str, dtype: pl.DataType) -> bool:
    return dtype.base_type() in _TYPES and json.dumps(name, ensure_ascii=False) == f'"{name}"'


def _with_nulls(values: Iterable[Any]) -> list[Any]:
    return [None if value is msgspec.UNSET else value for value in values]
