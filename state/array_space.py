"""Where the columns of keyed tables lie: in memory, or beyond a budget in mapped files."""

from __future__ import annotations

import itertools
import mmap
import os
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import polars as pl

from unistream.state.segments import cannot_write

PIECE_BYTES = 32 << 20
"""Parts of a column larger than this are not copied into one."""

# Smaller arrays stay in memory whatever the budget says: a file each would cost more.
SMALL_BYTES = 1 << 20
# Pages of mapped files that may be resident before all are given back to the system.
_RESIDENT_BYTES = 64 << 20
_UNMAPPABLE = (pl.Int128, pl.UInt128, pl.Categorical, pl.Enum, pl.Null, pl.Object)


class ArraySpace:
    """Everything in memory."""

    bounded = False
    """Whether copies of whole tables must be avoided."""

    def zeros(self, count: int, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """A new array. Its pages cost no memory until they are written."""
        return np.zeros(count, dtype=dtype)

    def grown(self, array: npt.NDArray[Any], count: int) -> npt.NDArray[Any]:
        """The array with zeros behind it."""
        result = self.zeros(count, array.dtype)
        result[: len(array)] = array
        return result

    def settled(self, values: pl.Series) -> pl.Series:
        """The same values, where they shall lie from now on."""
        return values

    def used(self) -> None:
        """A batch has read or written rows."""


IN_MEMORY = ArraySpace()


class MappedSpace(ArraySpace):
    """In memory up to a limit, then in mapped files that have no name and go with the process.

    Row ids and arrays stay valid wherever they lie; the system brings in the pages that are used.
    """

    def __init__(self, limit: int, folder: Path) -> None:
        self.limit = limit
        self.in_memory = 0
        self._folder = folder
        self._numbers = itertools.count()
        self._maps: weakref.WeakSet[mmap.mmap] = weakref.WeakSet()
        self._resident_before = 0

    @property
    def bounded(self) -> bool:  # type: ignore[override]
        """True once something had to be mapped."""
        return bool(self._maps)

    def zeros(self, count: int, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        nbytes = count * np.dtype(dtype).itemsize
        if self._has_room(nbytes):
            array = np.zeros(count, dtype=dtype)
            self._count(array, nbytes)
            return array
        return np.frombuffer(self._mapped(lambda path: _reserve(path, nbytes)), dtype=dtype)

    def grown(self, array: npt.NDArray[Any], count: int) -> npt.NDArray[Any]:
        result = self.zeros(count, array.dtype)
        step = PIECE_BYTES // array.itemsize
        for start in range(0, len(array), step):
            part = array[start : start + step]
            result[start : start + len(part)] = part
            self.used()
        return result

    def settled(self, values: pl.Series) -> pl.Series:
        nbytes = int(values.estimated_size())
        if self._has_room(nbytes) or not _mappable(values.dtype):
            self._count(values, nbytes)
            return values
        return _read_mapped(
            self._mapped(lambda path: values.to_frame("").write_ipc(path, compression="uncompressed"))
        )

    def used(self) -> None:
        if self._maps and _resident_file_bytes() - self._resident_before > _RESIDENT_BYTES:
            for mapped in list(self._maps):
                mapped.madvise(mmap.MADV_DONTNEED)

    def _has_room(self, nbytes: int) -> bool:
        return nbytes < SMALL_BYTES or self.in_memory + nbytes <= self.limit

    def _count(self, holder: object, nbytes: int) -> None:
        self.in_memory += nbytes
        weakref.finalize(holder, self._release, nbytes)

    def _release(self, nbytes: int) -> None:
        self.in_memory -= nbytes

    def _mapped(self, write: Callable[[Path], None]) -> mmap.mmap:
        """A file with this content, mapped; it is gone when nobody uses it."""
        path = self._folder / f"{next(self._numbers)}.mapped"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            write(path)
            with path.open("r+b") as file:
                mapped = mmap.mmap(file.fileno(), 0)
        except OSError as error:
            raise cannot_write(path, error) from error
        finally:
            path.unlink(missing_ok=True)
        if not self._maps:
            self._resident_before = _resident_file_bytes()
        self._maps.add(mapped)
        return mapped


def _reserve(path: Path, nbytes: int) -> None:
    """A file of zeros. A full disk must be an error here, not a signal at some later write."""
    with path.open("xb") as file:
        os.posix_fallocate(file.fileno(), 0, nbytes)


def _read_mapped(mapped: mmap.mmap) -> pl.Series:
    import pyarrow as pa

    table = pa.ipc.open_file(pa.py_buffer(mapped)).read_all()
    return cast(pl.DataFrame, pl.from_arrow(table)).to_series()


def _mappable(dtype: pl.DataType) -> bool:
    """Whether Arrow has the type in the same layout, so that nothing is copied into memory."""
    if isinstance(dtype, (pl.List, pl.Array)):
        return _mappable(cast(pl.DataType, dtype.inner))
    if isinstance(dtype, pl.Struct):
        return all(_mappable(cast(pl.DataType, field.dtype)) for field in dtype.fields)
    return dtype.base_type() not in _UNMAPPABLE


def _resident_file_bytes() -> int:
    """Bytes of files that are mapped into this process and in memory; 0 where that cannot be known."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[2]) * mmap.PAGESIZE
    except OSError:
        return 0
