"""A few lines of JSON, read without Polars: setting its parser up takes longer than reading a hundred."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import msgspec
import polars as pl

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

    def __init__(self, wire: pl.Schema) -> None:
        self._wire = wire
        self._keys = [f'"{name}"' for name in wire]
        self._fields = [f"f{number}" for number in range(len(wire))]
        line = msgspec.defstruct(
            "Line",
            [
                (
                    field,
                    _TYPES[dtype.base_type()] | None | msgspec.UnsetType,
                    msgspec.field(default=msgspec.UNSET, name=name),
                )
                for field, (name, dtype) in zip(self._fields, wire.items(), strict=True)
            ],
            gc=False,
        )
        self._line = msgspec.json.Decoder(line)

    @classmethod
    def of(cls, wire: pl.Schema) -> SmallJson | None:
        """None for columns of other types than numbers, Booleans and text, and for names that are escaped."""
        plain = all(dtype.base_type() in _TYPES for dtype in wire.values())
        unescaped = all(json.dumps(name, ensure_ascii=False) == f'"{name}"' for name in wire)
        return cls(wire) if plain and unescaped else None

    def frame(self, data: bytes) -> pl.DataFrame | None:
        """The rows of these lines; None for lines that are not beyond doubt."""
        try:
            text = data.decode()
            if "\\" in text or _LONG in data.translate(_DIGITS):
                return None
            lines = [line for line in text.split("\n") if line.strip(" \t\r")]
            rows = list(map(self._line.decode, lines))
        except (UnicodeDecodeError, msgspec.DecodeError, RecursionError):
            return None
        if not rows:
            return None
        values = list(zip(*map(msgspec.structs.astuple, rows), strict=True))
        missing = [column.count(msgspec.UNSET) for column in values]
        known = len(rows) * len(values) - sum(missing)
        only_known = text.count('":') == known and not any(blank in text for blank in _BEFORE_COLON)
        if not only_known and not self._harmless(text, len(lines), missing):
            return None
        try:
            columns = {
                name: pl.Series(name, _with_nulls(column) if gaps else column, dtype)
                for (name, dtype), column, gaps in zip(self._wire.items(), values, missing, strict=True)
            }
        except (OverflowError, TypeError):  # more than 64 bits
            return None
        return pl.DataFrame(columns)

    def _harmless(self, text: str, rows: int, missing: Sequence[int]) -> bool:
        """Of lines with other keys than those that were read, or with blanks behind keys."""
        if _HUGE.search(text):
            return False
        # A key that stands in the text more often than in rows occurs twice in one, or as a value.
        given = (rows - gaps for gaps in missing)
        return all(text.count(key) == count for key, count in zip(self._keys, given, strict=True))


def _with_nulls(values: Iterable[Any]) -> list[Any]:
    return [None if value is msgspec.UNSET else value for value in values]
