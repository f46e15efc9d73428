"""Segment files: frames as blocks in one immutable file, each with its own checksum.

Layout, little-endian. File: 8 bytes magic, u32 version, u32 crc32 of those 12. Then blocks: u32 magic,
u32 crc32 of the payload, u64 payload length, u32 rows, u32 crc32 of these 20; then the payload, an
uncompressed Arrow IPC stream. A reader is told where a block lies and which checksum it has, so a file
that is damaged, cut, extended or swapped for another is refused.
"""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import polars as pl

from unistream.errors import ConnectorError, StateError
from unistream.state.picked import picked_frame

VERSION = 1
BLOCK_ROWS = 65_536
BLOCK_BYTES = 1 << 20
"""About the most of a block: it is gathered, encoded, written and read as one."""
_MAGIC = b"UNISEGMT"
_BLOCK_MAGIC = 0x4B4C4255
_FILE_HEADER = struct.Struct("<8sI")
_BLOCK_HEADER = struct.Struct("<IIQI")
_CRC = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Block:
    """Where a frame lies in its file, and its checksum."""

    offset: int
    length: int
    crc: int
    rows: int

    def to_json(self) -> list[int]:
        """Four numbers."""
        return [self.offset, self.length, self.crc, self.rows]


def cut_into_blocks(frame: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """Parts of a frame small enough for one block each; nothing for an empty frame."""
    each = rows_per_block(frame.height, int(frame.estimated_size()))
    if frame.height <= each:
        yield from [frame] if frame.height else []
    else:
        rows = picked_frame(frame)
        yield from (rows.read(start, start + each) for start in range(0, rows.height, each))


def rows_per_block(rows: int, nbytes: int) -> int:
    """How many of so many rows that take so many bytes make a block."""
    return max(1, min(BLOCK_ROWS, BLOCK_BYTES * rows // max(nbytes, 1)))


def encode(frame: pl.DataFrame) -> tuple[bytes, Block]:
    """A block as bytes, placed at offset 0."""
    size = _BLOCK_HEADER.size + _CRC.size
    buffer = io.BytesIO()
    buffer.write(bytes(size))
    # A copy of the handle, not of the data: Polars locks the one it writes from while it waits for the
    # interpreter, and whoever asks the same one for its height meanwhile has that, and waits for the lock.
    # The older layout holds text end to end; the newer one would write all of it with each block of a frame.
    frame.clone().write_ipc_stream(buffer, compression="uncompressed", compat_level=pl.CompatLevel.oldest())
    with buffer.getbuffer() as written:
        length, crc = len(written), zlib.crc32(written[size:])
        header = _BLOCK_HEADER.pack(_BLOCK_MAGIC, crc, length - size, frame.height)
        written[:size] = header + _CRC.pack(zlib.crc32(header))
    return buffer.getvalue(), Block(0, length, crc, frame.height)


def decode(data: bytes, block: Block, source: object) -> pl.DataFrame:
    """The frame in these bytes, after checking them."""
    size = _BLOCK_HEADER.size + _CRC.size
    if len(data) != block.length or block.length < size:
        raise _damaged(source, f"the block at {block.offset} is cut short")
    header = data[: _BLOCK_HEADER.size]
    if _CRC.unpack(data[_BLOCK_HEADER.size : size])[0] != zlib.crc32(header):
        raise _damaged(source, f"the header of the block at {block.offset} is damaged")
    magic, crc, length, rows = _BLOCK_HEADER.unpack(header)
    payload = memoryview(data)[size:]
    if (magic, crc, length, rows) != (_BLOCK_MAGIC, block.crc, len(payload), block.rows):
        raise _damaged(source, f"the block at {block.offset} is not the one that was written")
    if zlib.crc32(payload) != crc:
        raise _damaged(source, f"the block at {block.offset} is damaged")
    return pl.read_ipc_stream(io.BytesIO(payload))


def write_segment(path: Path, frames: Iterable[pl.DataFrame]) -> tuple[list[Block], int]:
    """Write a new file and make it durable; its blocks in order and its length."""
    try:
        return _write(path, frames)
    except OSError as error:
        raise cannot_write(path, error) from error


def cannot_write(path: Path, error: OSError) -> ConnectorError:
    """The disk is full or failing; later may be better."""
    return ConnectorError(
        f"State cannot be written to {path}: {error}", hint="free space on that disk", retry_after=1.0
    )


def _write(path: Path, frames: Iterable[pl.DataFrame]) -> tuple[list[Block], int]:
    unfinished = path.with_suffix(".tmp")
    blocks: list[Block] = []
    with unfinished.open("wb") as file:
        header = _FILE_HEADER.pack(_MAGIC, VERSION)
        file.write(header + _CRC.pack(zlib.crc32(header)))
        for frame in frames:
            offset = file.tell()
            data, block = encode(frame)
            file.write(data)
            blocks.append(Block(offset, block.length, block.crc, block.rows))
        length = file.tell()
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
    return blocks, length


def read_segment(path: Path, blocks: Sequence[Block], length: int) -> list[pl.DataFrame]:
    """These blocks of a file that should have this many bytes."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size != length:
                raise _damaged(path, f"it has {size} bytes instead of {length}")
            _check_file_header(path, file.read(_FILE_HEADER.size + _CRC.size))
            return [_read_block(file, block, path) for block in blocks]
    except OSError as error:
        raise StateError(f"State file {path} cannot be read: {error}", hint=_HINT) from error


def _read_block(file: BinaryIO, block: Block, path: Path) -> pl.DataFrame:
    file.seek(block.offset)
    return decode(file.read(block.length), block, path)


def _check_file_header(path: Path, header: bytes) -> None:
    size = _FILE_HEADER.size
    if len(header) < size + _CRC.size or _CRC.unpack(header[size:])[0] != zlib.crc32(header[:size]):
        raise _damaged(path, "its header is damaged")
    magic, version = _FILE_HEADER.unpack(header[:size])
    if magic != _MAGIC:
        raise _damaged(path, "it is not a segment file")
    if version != VERSION:
        raise StateError(
            f"State file {path} has format {version}; this version reads {VERSION}",
            hint="restore it with the version of unistream that wrote it, or a newer one",
        )


_HINT = "restore an older checkpoint, or put the file back from a copy"


def _damaged(source: object, what: str) -> StateError:
    return StateError(f"State file {source} is damaged: {what}", hint=_HINT)
