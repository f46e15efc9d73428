"""How much memory the characters of text keep, asked through Arrow's C interface.

pyarrow tells the same; to load it takes 25 MB, which jobs that read lines of text do not need otherwise.
The structures are those of the Arrow C data and stream interfaces, which do not change.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Any

import polars as pl

VIEWS = (b"vu", b"vz")
"""Formats of text and bytes whose characters lie in buffers of their own."""

BEFORE_CHARACTERS = 2
"""Buffers of such an array: nulls and views, those with characters, and the sizes of these."""


class _Schema(ctypes.Structure):
    format: bytes
    n_children: int
    children: Any
    release: Any


class _Array(ctypes.Structure):
    n_buffers: int
    n_children: int
    buffers: Any
    children: Any
    release: Any


class _Stream(ctypes.Structure):
    get_schema: Any
    get_next: Any


_Release = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_Schema._fields_ = [
    ("format", ctypes.c_char_p),
    ("name", ctypes.c_char_p),
    ("metadata", ctypes.c_void_p),
    ("flags", ctypes.c_int64),
    ("n_children", ctypes.c_int64),
    ("children", ctypes.POINTER(ctypes.POINTER(_Schema))),
    ("dictionary", ctypes.c_void_p),
    ("release", _Release),
    ("private_data", ctypes.c_void_p),
]
_Array._fields_ = [
    ("length", ctypes.c_int64),
    ("null_count", ctypes.c_int64),
    ("offset", ctypes.c_int64),
    ("n_buffers", ctypes.c_int64),
    ("n_children", ctypes.c_int64),
    ("buffers", ctypes.POINTER(ctypes.c_void_p)),
    ("children", ctypes.POINTER(ctypes.POINTER(_Array))),
    ("dictionary", ctypes.c_void_p),
    ("release", _Release),
    ("private_data", ctypes.c_void_p),
]
_Stream._fields_ = [
    ("get_schema", ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(_Schema))),
    ("get_next", ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(_Array))),
]

_pointer_in = ctypes.pythonapi.PyCapsule_GetPointer
_pointer_in.restype, _pointer_in.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]


def held_bytes(values: pl.Series) -> int:
    """Bytes of all text that stays in memory because of these values; what is short lies elsewhere.

    >>> texts = pl.Series([str(number) * 20 for number in range(10)])
    >>> held_bytes(texts), held_bytes(texts.head(1))
    (200, 200)
    """
    capsule = values.__arrow_c_stream__()  # has to live as long as the pointer
    pointer = _pointer_in(capsule, b"arrow_array_stream")
    stream, schema = _Stream.from_address(pointer), _Schema()
    found: dict[int, int] = {}
    _check(stream.get_schema(pointer, schema))
    try:
        while _next(stream, pointer, array := _Array()):
            found.update(_text_buffers(schema, array))
            array.release(ctypes.addressof(array))
    finally:
        schema.release(ctypes.addressof(schema))
    return sum(found.values())


def _next(stream: _Stream, pointer: int, array: _Array) -> bool:
    _check(stream.get_next(pointer, array))
    return bool(array.release)


def _check(code: int) -> None:
    if code:
        raise OSError(code, "Arrow could not hand out a column")


def _text_buffers(schema: _Schema, array: _Array) -> Iterator[tuple[int, int]]:
    """Where the buffers with characters lie, and how long they are."""
    if schema.format in VIEWS:
        count = array.n_buffers - BEFORE_CHARACTERS - 1
        sizes = (ctypes.c_int64 * count).from_address(array.buffers[array.n_buffers - 1]) if count else ()
        yield from ((array.buffers[BEFORE_CHARACTERS + place], size) for place, size in enumerate(sizes))
    for place in range(array.n_children):
        yield from _text_buffers(schema.children[place].contents, array.children[place].contents)
