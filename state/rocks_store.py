"""Frames as blobs in a RocksDB that lasts as long as the process: the space for cold state."""

from __future__ import annotations

import shutil
import weakref
from collections import deque
from pathlib import Path
from typing import cast

import polars as pl
from rocksdict import BlockBasedOptions, Cache, DBCompressionType, Options, Rdict, WriteBatch, WriteOptions

from unistream.errors import ConnectorError, StateError
from unistream.state.segments import Block, cut_into_blocks, decode, encode

# Spilled frames are read once or twice, in large pieces: the page cache of the system serves them better
# than a large cache of blocks, which would count against the memory that spilling is to save.
CACHE_BYTES = 32 << 20
WRITE_BUFFER_BYTES = 16 << 20
SMALLEST_BLOB = 4096


class RocksStore:
    """Blobs by number, each read by `get` and checked: iterators of RocksDB end at damage in silence.

    What lies here is never needed after a crash, so there is no log and no sync.
    """

    def __init__(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self._folder = folder
        self._database = Rdict(str(folder), _options())
        unlogged = WriteOptions()
        unlogged.disable_wal = True  # type: ignore[method-assign, assignment]  # the stub is wrong
        self._database.set_write_options(unlogged)
        self._next = 0
        self._forgotten: deque[int] = deque()

    def put(self, frame: pl.DataFrame) -> RocksFrame:
        """Write a frame; it goes when the result is no longer used."""
        self._sweep()
        pieces: list[tuple[int, Block]] = []
        for part in cut_into_blocks(frame):
            data, block = encode(part)
            try:
                self._database[_key(self._next)] = data
            except Exception as error:  # RocksDB reports a full disk as a bare Exception
                raise ConnectorError(
                    f"State cannot be spilled to {self._folder}: {error}", hint="free space on that disk"
                ) from error
            pieces.append((self._next, block))
            self._next += 1
        stored = RocksFrame(self, frame.height, tuple(pieces))
        weakref.finalize(stored, self._forgotten.extend, [number for number, _ in pieces])
        return stored

    def get(self, number: int, block: Block) -> pl.DataFrame:
        """Read a block and check it against what was written."""
        try:
            data = self._database[_key(number)]
        except Exception as error:  # RocksDB reports damage as a bare Exception
            raise StateError(
                f"Spilled state in {self._folder} cannot be read: {error}",
                hint="the disk is failing or the folder was changed; restart from the last checkpoint",
            ) from error
        return decode(cast(bytes, data), block, self._folder)

    def close(self) -> None:
        """Close and remove the folder; may be called again."""
        self._database.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _sweep(self) -> None:
        """Delete the blobs nobody uses; finalizers run anywhere and only leave a note."""
        if self._forgotten:
            batch = WriteBatch(raw_mode=True)
            while self._forgotten:
                batch.delete(_key(self._forgotten.popleft()))
            self._database.write(batch)


class RocksFrame:
    """A spilled frame."""

    def __init__(self, store: RocksStore, height: int, pieces: tuple[tuple[int, Block], ...]) -> None:
        self._store = store
        self._pieces = pieces
        self.height = height

    def read(self) -> pl.DataFrame:
        """The frame."""
        return pl.concat([self._store.get(number, block) for number, block in self._pieces])


def _key(number: int) -> bytes:
    return number.to_bytes(8, "big")


def _options() -> Options:
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_compression_type(DBCompressionType.none())
    options.set_write_buffer_size(WRITE_BUFFER_BYTES)
    options.set_max_write_buffer_number(2)
    options.set_enable_blob_files(True)
    options.set_enable_blob_gc(True)
    options.set_min_blob_size(SMALLEST_BLOB)
    table = BlockBasedOptions()
    table.set_block_cache(Cache(CACHE_BYTES))
    table.set_bloom_filter(10, False)
    options.set_block_based_table_factory(table)
    return options
