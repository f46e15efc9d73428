"""What a JSON line must be to become a row: the exact rules, for the few lines the fast parser refuses."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import msgspec
import numpy as np
import polars as pl
from polars.datatypes import DataType

from unistream.errors import InvalidQuery
from unistream.io.format_types import wire_type

NEWLINE = 10

MAX_DEPTH = 256
"""Deepest nesting of objects and lists in one line."""

_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_ESCAPED = re.compile(r'["\\\x00-\x1f]')
_FLOAT32_MAX = 3.4028235677973366e38
"""Numbers from here on become infinity as 32-bit floats."""
_KINDS = {
    str: "text",
    bool: "a boolean",
    int: "a whole number",
    float: "a number",
    list: "a list",
    dict: "an object",
}


class _Broken(Exception):
    """A line is no JSON by our rules; the message says why."""


def json_wire_type(dtype: DataType, column: str, nested: bool = False) -> DataType:
    """The type the JSON parser is asked for."""
    if isinstance(dtype, pl.List):
        return pl.List(json_wire_type(dtype.inner, column, nested=True))  # type: ignore[arg-type]
    if isinstance(dtype, pl.Struct):
        fields = {field.name: json_wire_type(field.dtype, column, nested=True) for field in dtype.fields}  # type: ignore[arg-type]
        return pl.Struct(fields)
    wire = wire_type(dtype, column)
    if nested and wire == pl.String and dtype != pl.String:
        raise InvalidQuery(
            f"Column {column!r}: {dtype} inside a list or struct cannot be read from JSON",
            hint="read it as pl.String there and convert it in the query",
        )
    return wire


class JsonRules:
    """Judges single lines against the types the parser is asked for, nested ones against their own."""

    def __init__(self, wire: pl.Schema, schema: pl.Schema) -> None:
        nested_only = {name: dtype for name, dtype in schema.items() if dtype.is_nested()}
        self._wire = dict(wire) | nested_only
        self.has_nested = bool(nested_only)
        self._plain = _plainly_named(self._wire)
        self._nested = msgspec.json.Decoder(_struct(nested_only if self._plain else {}, nested=True))
        self._quick = msgspec.json.Decoder(_struct(self._wire if self._plain else {}, nested=False))

    def all_fit(self, data: bytes) -> bool:
        """Whether every nested value in these lines is of its type; the parser is lenient about those."""
        if not self._plain:
            return not any(self.reason(line) for line in data.split(b"\n") if line.strip(b" \t\r"))
        try:
            self._nested.decode_lines(data)
        except (msgspec.MsgspecError, RecursionError):
            return False
        return True

    def quick_reason(self, line: bytes) -> str | None:
        """None for lines that look right at little cost, the exact verdict for the others."""
        if not self._plain:
            return self.reason(line)
        try:
            self._quick.decode(line)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
            return self.reason(line)
        suspicious = b"\\u" in line or (len(line) > 2 * MAX_DEPTH and self.deeper_than_allowed(line))
        return self.reason(line) if suspicious else None

    def reason(self, line: bytes) -> str | None:
        """Why this line is no row; None when it is one."""
        if self.deeper_than_allowed(line):
            return f"nested deeper than {MAX_DEPTH}"
        try:
            value = _parsed(line)
        except _Broken as error:
            return str(error)
        if not isinstance(value, dict):
            return f"a JSON object is expected, not {_kind(value)}"
        for name, dtype in self._wire.items():
            wrong = None if dtype == pl.String else _misfit(value.get(name), dtype)
            if wrong is not None:
                return f"column {name!r}: {wrong}"
        return None

    @staticmethod
    def deeper_than_allowed(line: bytes) -> bool:
        """Whether objects and lists nest deeper than `MAX_DEPTH`."""
        if line.count(b"{") + line.count(b"[") <= MAX_DEPTH:
            return False
        signs = np.frombuffer(_STRING.sub(b"", line), np.uint8)
        opened = np.cumsum((signs == ord("{")) | (signs == ord("[")))
        closed = np.cumsum((signs == ord("}")) | (signs == ord("]")))
        return bool((opened - closed).max(initial=0) > MAX_DEPTH)


def _plainly_named(wire: Mapping[str, Any]) -> bool:
    """Whether no name, also of fields, has a sign that is escaped in JSON: records have no such fields."""
    for name, dtype in wire.items():
        while isinstance(dtype, pl.List):
            dtype = dtype.inner
        inside = dtype.to_schema() if isinstance(dtype, pl.Struct) else {}
        if _ESCAPED.search(name) or not _plainly_named(inside):
            return False
    return True


def _struct(wire: dict[str, DataType], nested: bool) -> type[msgspec.Struct]:
    """A record type that checks these columns; text columns take anything at the top level."""
    fields: list[tuple[str, Any, Any]] = []
    for index, dtype in enumerate(wire.values()):
        if dtype == pl.String and not nested:
            fields.append((f"c{index}", msgspec.Raw, msgspec.Raw(b"")))
        else:
            fields.append((f"c{index}", _annotation(dtype), None))
    rename = {f"c{index}": name for index, name in enumerate(wire)}
    return msgspec.defstruct("Row", fields, rename=rename, gc=False)


def _annotation(dtype: DataType) -> Any:
    if isinstance(dtype, pl.List):
        return list[_annotation(dtype.inner)] | None  # type: ignore[misc, arg-type]
    if isinstance(dtype, pl.Struct):
        return _struct({field.name: field.dtype for field in dtype.fields}, nested=True) | None  # type: ignore[misc]
    return _scalar_annotation(dtype) | None


def _scalar_annotation(dtype: DataType) -> Any:
    if dtype == pl.UInt64:  # its upper end is beyond what a constraint can say; the exact rules know it
        return Annotated[int, msgspec.Meta(ge=0)]
    if dtype.is_integer():
        low, high = _integer_range(dtype)
        return Annotated[int, msgspec.Meta(ge=low, le=high)]
    if dtype == pl.Float32:
        return Annotated[float, msgspec.Meta(gt=-_FLOAT32_MAX, lt=_FLOAT32_MAX)]
    return {pl.Float64: float, pl.Boolean: bool, pl.String: str}[dtype.base_type()]


def _integer_range(dtype: DataType) -> tuple[int, int]:
    bits = int(str(dtype).lstrip("UInt"))
    return (0, 2**bits - 1) if dtype.is_unsigned_integer() else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def _parsed(line: bytes) -> Any:
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _Broken(f"not valid UTF-8 at byte {error.start + 1}") from None
    try:
        value = json.loads(
            text,
            object_pairs_hook=_first_wins,
            parse_constant=_no_constant,
            parse_float=_finite,
            parse_int=_whole,
        )
    except json.JSONDecodeError as error:
        raise _Broken(f"not valid JSON: {error.msg} at character {error.pos + 1}") from None
    except RecursionError:
        raise _Broken(f"nested deeper than {MAX_DEPTH}") from None
    if "\\u" in text:
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise _Broken("not valid JSON: half of a surrogate pair") from None
    return value


def _first_wins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return dict(reversed(pairs))


def _no_constant(name: str) -> Any:
    raise _Broken(f"not valid JSON: {name} is not a JSON value")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise _Broken(f"number {text[:40]} is out of range")
    return value


def _whole(text: str) -> int:
    if len(text) > 40 or not -(2**127) <= int(text) < 2**128:
        raise _Broken(f"number {text[:40]} is out of range")
    return int(text)


def _kind(value: Any) -> str:
    return "null" if value is None else _KINDS[type(value)]


def _misfit(value: Any, dtype: DataType) -> str | None:
    """Why a parsed value is not of this type; None when it is, or is null."""
    if value is None:
        return None
    if isinstance(dtype, pl.List):
        inner: Any = dtype.inner
        if not isinstance(value, list):
            return _no(value, "a list")
        return _first(lambda item: _misfit(item, inner), value)
    if isinstance(dtype, pl.Struct):
        if not isinstance(value, dict):
            return _no(value, "an object")
        kinds: dict[str, Any] = {field.name: field.dtype for field in dtype.fields}
        return _first(lambda name: _misfit(value.get(name), kinds[name]), list(kinds))
    return _misfit_scalar(value, dtype)


def _first(judge: Callable[[Any], str | None], items: list[Any]) -> str | None:
    return next((wrong for item in items if (wrong := judge(item)) is not None), None)


def _misfit_scalar(value: Any, dtype: DataType) -> str | None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if dtype == pl.Boolean:
        return None if isinstance(value, bool) else _no(value, "a boolean")
    if dtype.is_float():
        if not number:
            return _no(value, "a number")
        return _beyond(value, dtype) if dtype == pl.Float32 and abs(value) >= _FLOAT32_MAX else None
    if dtype == pl.String:
        return None if isinstance(value, str) else _no(value, "text")
    if not number or isinstance(value, float):
        return _no(value, "a whole number")
    low, high = _integer_range(dtype)
    return None if low <= value <= high else _beyond(value, dtype)


def _beyond(value: Any, dtype: DataType) -> str:
    return f"{value} is out of the range of {dtype}"


def _no(value: Any, wanted: str) -> str:
    shown = repr(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return f"{shown[:60]} is {_kind(value)}, not {wanted}"


def too_deep(data: bytes) -> bool:
    """Whether a line nests deeper than allowed; only lines long enough to do so are looked at."""
    is_newline = np.frombuffer(data, np.uint8) == NEWLINE
    blocks = is_newline[: len(data) // MAX_DEPTH * MAX_DEPTH].reshape(-1, MAX_DEPTH)
    if blocks.any(axis=1).all():  # a newline in each block: no line is as long as two
        return False
    ends = np.append(np.flatnonzero(is_newline), len(data))
    starts = np.concatenate([[0], ends[:-1] + 1])
    long = np.flatnonzero(ends - starts > 2 * MAX_DEPTH)
    return any(
        JsonRules.deeper_than_allowed(data[start:end])
        for start, end in zip(starts[long].tolist(), ends[long].tolist(), strict=True)
    )
