"""Adds a CRC-32 to every page of a Parquet file while another writer streams it through.

Polars writes Parquet fast but without page checksums, and without them most damage on disk goes unnoticed.
A page header is a small Thrift struct in front of the page; the checksum is one more field in it, and the
footer's offsets and sizes grow by what was put in before them. Nothing else of the file changes.
"""

from __future__ import annotations

import io
import struct
import zlib
from bisect import bisect_left
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

MAGIC = b"PAR1"

_TRUE, _FALSE, _I8, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _STRUCT = 1, 2, 3, 5, 6, 7, 8, 9, 10, 12

# Field numbers of parquet.thrift.
_PAGE_SIZE, _PAGE_CRC, _DATA_PAGE, _DATA_PAGE_V2 = 3, 4, 5, 8
_OFFSETS_PAGES, _PLACE_OFFSET, _PLACE_SIZE = 1, 1, 2
_FILE_ROWS, _FILE_ROW_GROUPS = 3, 4
_GROUP_COLUMNS, _GROUP_BYTES, _GROUP_OFFSET, _GROUP_COMPRESSED = 1, 2, 5, 6
_CHUNK_OFFSET, _CHUNK_META, _CHUNK_OFFSETS, _CHUNK_OFFSETS_SIZE, _CHUNK_INDEX = 2, 3, 4, 5, 6
_META_BYTES, _META_COMPRESSED, _META_DATA, _META_INDEX, _META_DICTIONARY, _META_BLOOM = 6, 7, 9, 10, 11, 14

# What follows the magic bytes, in any number: pages, behind each column chunk its description, behind all
# of them statistics and places of the pages, at last the footer.
_PAGE, _COLUMN, _INDEX, _OFFSETS, _FOOTER = "page", "column", "index", "offsets", "footer"

Field = tuple[int, int, bytes]
"""Number, Thrift type and encoded value of one field of a struct."""

Changes = dict[int, Callable[[bytes], bytes]]
"""What to make of the encoded values of some fields."""


class ChecksumFile(io.RawIOBase):
    """A write-only file: takes a Parquet file without page checksums, writes the same one with them.

    When the footer has arrived, `finish` is called with the target (to make it durable), the target is
    closed and `complete` is true. `rows` is known then; `values` counts those of the data pages so far.
    An exception of the target or of `check`, which is asked before each write, is kept in `error`:
    writers that call this file from native code do not pass it on.
    """

    def __init__(
        self,
        target: BinaryIO,
        finish: Callable[[BinaryIO], None] = lambda target: None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._target = target
        self._finish = finish
        self._check = check
        self._buffer = bytearray()
        self._page: tuple[list[Field], int, int] | None = None  # header, its bytes, bytes of the page
        self._taken = 0  # bytes of the original that were handed on
        self._parts: list[int] = []  # where each changed part begins in the original
        self._grown: list[int] = [0]  # bytes put in before each part, and after the last
        self.values = 0
        self.rows = 0
        self.complete = False
        self.error: BaseException | None = None

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        """Take the next bytes; whole pages go on to the target at once."""
        try:
            self._check()
            self._take(data)
        except BaseException as error:
            self.error = error
            raise
        return len(data)

    def close(self) -> None:
        """Close the target; a file whose footer has not arrived stays without one."""
        if not self.closed:
            super().close()
            self._target.close()

    def _take(self, data: bytes) -> None:
        if self._page is not None and not self._buffer and len(data) == self._page[2]:
            self._write_page(data)  # the usual case, without a copy
            return
        self._buffer += data
        if self._taken == 0 and len(self._buffer) >= len(MAGIC):
            self._hand_on(len(MAGIC))
        while self._taken and self._next_part():
            pass
        if self._buffer.endswith(MAGIC):
            self._try_footer()

    def _next_part(self) -> bool:
        """Hand on one part; false when it has not arrived in full or is the footer."""
        if self._page is not None:
            return self._next_page(self._page[2])
        try:
            kind = _kind(self._buffer)
            if kind is _FOOTER:
                return False
            fields, end = _read_struct(self._buffer, 0)
        except IndexError:
            return False
        if kind is _PAGE:
            self._page = (fields, end, _integer(_numbers(fields)[_PAGE_SIZE]))
            del self._buffer[:end]
            return True
        if kind is _COLUMN:
            fields = self._column(fields)
        elif kind is _OFFSETS:
            fields = _replaced(fields, {_OFFSETS_PAGES: lambda value: _each(value, self._page_location)})
        del self._buffer[:end]
        self._hand_on_as(_write_struct(fields), end)
        return True

    def _next_page(self, size: int) -> bool:
        if len(self._buffer) < size:
            return False
        self._write_page(bytes(self._buffer[:size]))
        del self._buffer[:size]
        return True

    def _write_page(self, page: bytes) -> None:
        assert self._page is not None
        header, end, size = self._page
        self._page = None
        known = _numbers(header)
        if _PAGE_CRC not in known:
            (crc,) = struct.unpack("<i", struct.pack("<I", zlib.crc32(page)))
            header = sorted([*header, (_PAGE_CRC, _I32, _varint(_zigzag(crc)))])
        self._hand_on_as(_write_struct(header), end)
        self._target.write(page)
        self._taken += size
        inner = known.get(_DATA_PAGE) or known.get(_DATA_PAGE_V2)
        if inner is not None:
            self.values += _integer(_read_struct(inner, 0)[0][0][2])

    def _hand_on(self, count: int) -> None:
        self._target.write(bytes(self._buffer[:count]))
        del self._buffer[:count]
        self._taken += count

    def _hand_on_as(self, written: bytes, replaced: int) -> None:
        """Write `written` for the next `replaced` bytes of the original."""
        self._target.write(written)
        self._parts.append(self._taken)
        self._grown.append(self._grown[-1] + len(written) - replaced)
        self._taken += replaced

    def _try_footer(self) -> None:
        """Write the footer and finish, if it is here to its end."""
        try:
            if _kind(self._buffer) is not _FOOTER:
                return
            fields, end = _read_struct(self._buffer, 0)
        except IndexError:
            return
        if end != len(self._buffer) - 8:
            return
        new = _write_struct(
            _replaced(fields, {_FILE_ROW_GROUPS: lambda value: _each(value, self._row_group)})
        )
        self._target.write(new + struct.pack("<I", len(new)) + MAGIC)
        self.rows = _integer(_numbers(fields)[_FILE_ROWS])
        self._finish(self._target)
        self._target.close()
        self.complete = True

    def _moved(self, offset: int) -> int:
        """Where what began at `offset` begins now."""
        return offset + self._grown[bisect_left(self._parts, offset)]

    def _shift(self, value: bytes) -> bytes:
        offset = _integer(value)
        return _added(value, self._moved(offset) - offset)

    def _stretch(self, start: int, size: int) -> Callable[[bytes], bytes]:
        """What adds to a size the growth of everything between `start` and `start + size`."""
        growth = self._moved(start + size) - self._moved(start) - size
        return lambda value: _added(value, growth)

    def _page_location(self, fields: list[Field]) -> list[Field]:
        known = _numbers(fields)
        stretch = self._stretch(_integer(known[_PLACE_OFFSET]), _integer(known[_PLACE_SIZE]))
        return _replaced(fields, {_PLACE_OFFSET: self._shift, _PLACE_SIZE: stretch})

    def _row_group(self, fields: list[Field]) -> list[Field]:
        growth = 0
        for chunk in _structs(_numbers(fields)[_GROUP_COLUMNS]):
            start, size = _chunk_span(_read_struct(_numbers(chunk)[_CHUNK_META], 0)[0])
            growth += self._moved(start + size) - self._moved(start) - size
        changes: Changes = {
            _GROUP_COLUMNS: lambda value: _each(value, self._chunk),
            **dict.fromkeys((_GROUP_BYTES, _GROUP_COMPRESSED), lambda value: _added(value, growth)),
            _GROUP_OFFSET: self._shift,
        }
        return _replaced(fields, changes)

    def _chunk(self, fields: list[Field]) -> list[Field]:
        known = _numbers(fields)
        changes: Changes = dict.fromkeys((_CHUNK_OFFSET, _CHUNK_OFFSETS, _CHUNK_INDEX), self._shift)
        changes[_CHUNK_META] = lambda value: _write_struct(self._column(_read_struct(value, 0)[0]))
        if _CHUNK_OFFSETS in known:
            start, size = _integer(known[_CHUNK_OFFSETS]), _integer(known[_CHUNK_OFFSETS_SIZE])
            changes[_CHUNK_OFFSETS_SIZE] = self._stretch(start, size)
        return _replaced(fields, changes)

    def _column(self, fields: list[Field]) -> list[Field]:
        changes: Changes = dict.fromkeys(
            (_META_DATA, _META_INDEX, _META_DICTIONARY, _META_BLOOM), self._shift
        )
        changes |= dict.fromkeys((_META_BYTES, _META_COMPRESSED), self._stretch(*_chunk_span(fields)))
        return _replaced(fields, changes)


def _chunk_span(column: list[Field]) -> tuple[int, int]:
    """Where the pages of a column chunk begin, and their bytes."""
    known = _numbers(column)
    offsets = (_integer(known[number]) for number in (_META_DATA, _META_DICTIONARY) if number in known)
    return min(offset for offset in offsets if offset > 0), _integer(known[_META_COMPRESSED])


def _kind(data: bytes | bytearray) -> str:
    """What begins here, by the types of the first fields of each kind of struct."""
    if data[0] & 0x0F == _LIST:
        return _OFFSETS if data[1] & 0x0F == _STRUCT else _INDEX
    _, position = _read_varint(data, 1)
    if data[position] & 0x0F == _I32:
        return _PAGE
    return _FOOTER if data[position + 1] & 0x0F == _STRUCT else _COLUMN


def _added(value: bytes, amount: int) -> bytes:
    return _varint(_zigzag(_integer(value) + amount))


def _numbers(fields: list[Field]) -> dict[int, bytes]:
    return {number: value for number, _, value in fields}


def _replaced(fields: list[Field], changes: Changes) -> list[Field]:
    return [(n, kind, changes[n](value) if n in changes else value) for n, kind, value in fields]


def _structs(encoded: bytes) -> Iterator[list[Field]]:
    """The structs of an encoded list."""
    count, position = _list_head(encoded, 0)
    for _ in range(count):
        fields, position = _read_struct(encoded, position)
        yield fields


def _each(encoded: bytes, change: Callable[[list[Field]], list[Field]]) -> bytes:
    """A list of structs with `change` made to each."""
    _, position = _list_head(encoded, 0)
    return b"".join((encoded[:position], *(_write_struct(change(fields)) for fields in _structs(encoded))))


# Thrift's compact protocol, as far as Parquet needs it: values stay encoded, only structs are opened.


def _read_struct(data: bytes | bytearray, position: int) -> tuple[list[Field], int]:
    fields, number = [], 0
    while (head := data[position]) != 0:
        position += 1
        if head >> 4:
            number += head >> 4
        else:
            raw, position = _read_varint(data, position)
            number = _unzigzag(raw)
        end = _skip(data, position, head & 0x0F)
        if end > len(data):
            raise IndexError
        fields.append((number, head & 0x0F, bytes(data[position:end])))
        position = end
    return fields, position + 1


def _write_struct(fields: list[Field]) -> bytes:
    parts, last = [], 0
    for number, kind, value in fields:
        delta = number - last
        parts.append(
            bytes([delta << 4 | kind]) if 0 < delta < 16 else bytes([kind]) + _varint(_zigzag(number))
        )
        parts.append(value)
        last = number
    return b"".join((*parts, b"\0"))


def _skip(data: bytes | bytearray, position: int, kind: int) -> int:
    """Where the value of type `kind` that begins at `position` ends."""
    if kind in (_TRUE, _FALSE):
        return position
    if kind == _I8:
        return position + 1
    if kind <= _I64:
        return _read_varint(data, position)[1]
    if kind == _DOUBLE:
        return position + 8
    if kind == _BINARY:
        length, position = _read_varint(data, position)
        return position + length
    if kind in (_LIST, _SET):
        return _skip_list(data, position)
    if kind == _STRUCT:
        while (head := data[position]) != 0:
            position += 1
            if not head >> 4:
                position = _read_varint(data, position)[1]
            position = _skip(data, position, head & 0x0F)
        return position + 1
    raise ValueError(f"unknown Thrift type {kind} in Parquet metadata")


def _skip_list(data: bytes | bytearray, position: int) -> int:
    kind = data[position] & 0x0F
    count, position = _list_head(data, position)
    if kind in (_TRUE, _FALSE):  # in lists a boolean takes a byte
        return position + count
    for _ in range(count):
        position = _skip(data, position, kind)
    return position


def _list_head(data: bytes | bytearray, position: int) -> tuple[int, int]:
    """How many elements a list has and where the first begins."""
    count = data[position] >> 4
    return _read_varint(data, position + 1) if count == 15 else (count, position + 1)


def _read_varint(data: bytes | bytearray, position: int) -> tuple[int, int]:
    result = shift = 0
    while True:
        byte = data[position]
        position += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, position
        shift += 7


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _zigzag(value: int) -> int:
    return value << 1 if value >= 0 else (-value << 1) - 1


def _unzigzag(value: int) -> int:
    return value >> 1 if not value & 1 else -((value + 1) >> 1)


def _integer(encoded: bytes) -> int:
    return _unzigzag(_read_varint(encoded, 0)[0])
