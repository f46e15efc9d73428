"""Growable columns addressed by row id: NumPy arrays for fixed-width types, a Polars heap for all others."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from unistream.errors import StateError
from unistream.state.array_space import IN_MEMORY, PIECE_BYTES, ArraySpace
from unistream.state.backend import RowIds
from unistream.state.detached import detached
from unistream.state.picked import Picked, PickedPlaces, PickedValues, values_at

ARRAY_TYPES: dict[Any, np.dtype[Any]] = {
    pl.Boolean: np.dtype(np.bool_),
    pl.Int8: np.dtype(np.int8),
    pl.Int16: np.dtype(np.int16),
    pl.Int32: np.dtype(np.int32),
    pl.Int64: np.dtype(np.int64),
    pl.UInt8: np.dtype(np.uint8),
    pl.UInt16: np.dtype(np.uint16),
    pl.UInt32: np.dtype(np.uint32),
    pl.UInt64: np.dtype(np.uint64),
    pl.Float32: np.dtype(np.float32),
    pl.Float64: np.dtype(np.float64),
    pl.Date: np.dtype(np.int32),
    pl.Datetime: np.dtype(np.int64),
    pl.Duration: np.dtype(np.int64),
    pl.Time: np.dtype(np.int64),
}
"""Types kept as NumPy arrays, with the type of their physical values."""

_PHYSICAL = frozenset(ARRAY_TYPES) - {pl.Date, pl.Datetime, pl.Duration, pl.Time}


class Column(ABC):
    """One column of a table; the table decides how many rows there is room for."""

    dtype: pl.DataType

    @abstractmethod
    def reserve(self, capacity: int) -> None:
        """Room for this many rows; new ones are null."""

    @abstractmethod
    def get(self, name: str, rows: RowIds) -> pl.Series:
        """Values of these rows, as a copy."""

    @abstractmethod
    def picked(self, name: str, rows: RowIds) -> Picked:
        """Values of these rows as they are now, of which the larger ones are copied when they are read."""

    @abstractmethod
    def put(self, rows: RowIds, values: pl.Series) -> None:
        """Replace the values of these distinct rows."""

    @abstractmethod
    def clear(self, rows: RowIds) -> None:
        """Make these rows null."""

    def equals(self, rows: RowIds, values: pl.Series) -> npt.NDArray[np.bool_]:
        """Whether these rows hold these values; null equals null and NaN equals NaN."""
        return self.get("", rows).eq_missing(values).to_numpy()

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Bytes held."""


def make_column(dtype: pl.DataType, capacity: int, space: ArraySpace = IN_MEMORY) -> Column:
    """An empty column for values of this type."""
    if dtype.base_type() is pl.Object:
        raise StateError(
            "Object columns cannot be kept in state: they have no form on disk",
            hint="store the parts as a struct, or encode the object as Binary",
        )
    if dtype.base_type() in ARRAY_TYPES:
        return ArrayColumn(dtype, capacity, space)
    return HeapColumn(dtype, capacity, space)


def physical(values: pl.Series, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Physical values as an array, nulls as zero."""
    if values.dtype not in _PHYSICAL:
        values = values.cast(pl.Int32 if values.dtype == pl.Date else pl.Int64)  # `to_physical` asks a query
    if values.null_count():
        values = values.fill_null(False) if values.dtype == pl.Boolean else values.fill_null(0)
    array = values.to_numpy()
    return array if array.dtype == dtype else array.astype(dtype)


def logical(name: str, array: npt.NDArray[Any], dtype: pl.DataType) -> pl.Series:
    """The inverse of `physical`."""
    series = pl.Series(name, array)
    return series if series.dtype == dtype else series.cast(dtype)


class ArrayColumn(Column):
    """A fixed-width column. Once somebody asked for `array`, its nulls are zeros for good."""

    def __init__(self, dtype: pl.DataType, capacity: int, space: ArraySpace) -> None:
        self.dtype = dtype
        self._space = space
        self._is_float = dtype.is_float()
        self._values = space.zeros(capacity, ARRAY_TYPES[dtype.base_type()])
        self._valid: npt.NDArray[np.bool_] | None = space.zeros(capacity, np.bool_)

    @property
    def array(self) -> npt.NDArray[Any]:
        """The live values by row id."""
        self._valid = None
        return self._values

    def reserve(self, capacity: int) -> None:
        self._values = self._space.grown(self._values, capacity)
        if self._valid is not None:
            self._valid = self._space.grown(self._valid, capacity)

    def get(self, name: str, rows: RowIds) -> pl.Series:
        series = logical(name, self._values.take(rows), self.dtype)
        if self._valid is None:
            return series
        valid = self._valid.take(rows)
        if valid.all():
            return series
        return pl.select(pl.when(pl.Series(valid)).then(series).alias(name)).to_series()

    def picked(self, name: str, rows: RowIds) -> Picked:
        return PickedValues(self.get(name, rows))

    def put(self, rows: RowIds, values: pl.Series) -> None:
        self._values[rows] = physical(values, self._values.dtype)
        if self._valid is not None:
            self._valid[rows] = True if values.null_count() == 0 else values.is_not_null().to_numpy()

    def equals(self, rows: RowIds, values: pl.Series) -> npt.NDArray[np.bool_]:
        if self._is_float or values.null_count():
            return super().equals(rows, values)
        result: npt.NDArray[np.bool_] = self._values.take(rows) == physical(values, self._values.dtype)
        if self._valid is not None:
            result &= self._valid.take(rows)
        return result

    def clear(self, rows: RowIds) -> None:
        self._values[rows] = 0
        if self._valid is not None:
            self._valid[rows] = False

    @property
    def nbytes(self) -> int:
        return int(self._values.nbytes + (0 if self._valid is None else self._valid.nbytes))


# Below this many values a heap is not worth compacting.
_SMALL_HEAP = 4096
_STEP_ROWS = 1 << 17


class HeapColumn(Column):
    """A column of any type: values are appended to a heap and each row remembers where its value lies.

    So a write costs what it writes, whatever the size of the column. The heap is a few Polars series of
    falling length, merged like the digits of a counter, and is compacted when half of it is garbage.
    Place 0 is the null that rows without a value point to.
    """

    def __init__(self, dtype: pl.DataType, capacity: int, space: ArraySpace) -> None:
        self.dtype = dtype
        self._space = space
        self._is_text = dtype in (pl.String, pl.Binary)
        self._place: npt.NDArray[np.uint32] = space.zeros(capacity, np.uint32)
        self._start()

    def _start(self) -> None:
        self._heap = [pl.Series("", [None], dtype=self.dtype)]
        self._sizes = [0]
        self._length = 1
        self._garbage = 0

    def reserve(self, capacity: int) -> None:
        self._place = self._space.grown(self._place, capacity)

    def get(self, name: str, rows: RowIds) -> pl.Series:
        return values_at(self._heap, self._place.take(rows)).alias(name)

    def picked(self, name: str, rows: RowIds) -> Picked:
        share = len(rows) / self._length
        return PickedPlaces(name, tuple(self._heap), self._place.take(rows), int(share * sum(self._sizes)))

    def equals(self, rows: RowIds, values: pl.Series) -> npt.NDArray[np.bool_]:
        stored = self.get("", rows)
        if self._is_text and not stored.null_count() and not values.null_count():
            return (stored == values).to_numpy()
        return stored.eq_missing(values).to_numpy()

    def put(self, rows: RowIds, values: pl.Series) -> None:
        if not len(rows):
            return
        self._forget(rows)  # and compact before: what is replaced need not be copied, which may be all
        self._place[rows] = np.arange(self._length, self._length + len(rows), dtype=np.uint32)
        self._append(detached(values))

    def clear(self, rows: RowIds) -> None:
        self._forget(rows)
        self._place[rows] = 0

    @property
    def nbytes(self) -> int:
        return int(self._place.nbytes) + sum(self._sizes)

    def _forget(self, rows: RowIds) -> None:
        """These rows are about to get other values, or none."""
        self._garbage += int(np.count_nonzero(self._place.take(rows)))
        if self._garbage >= _SMALL_HEAP and 2 * self._garbage >= self._length:
            self._place[rows] = 0
            self._compact()

    def _append(self, values: pl.Series) -> None:
        """Put values behind the others, and copy the last parts into one while that is cheap."""
        self._length += len(values)
        parts, count, nbytes = [values.alias("")], len(values), int(values.estimated_size())
        while len(self._heap) > 1 and 2 * count >= len(self._heap[-1]):
            if self._sizes[-1] + nbytes > PIECE_BYTES:
                break
            count, nbytes = count + len(self._heap[-1]), nbytes + self._sizes.pop()
            parts.append(self._heap.pop())
        whole = parts[0] if len(parts) == 1 else pl.concat(parts[::-1], rechunk=True)
        self._sizes.append(int(whole.estimated_size()))
        self._heap.append(self._space.settled(whole))

    def _compact(self) -> None:
        old, rows = self._heap, np.flatnonzero(self._place)
        self._start()
        for start in range(0, len(rows), _STEP_ROWS):
            part = rows[start : start + _STEP_ROWS]
            values = detached(values_at(old, self._place.take(part)))
            self._place[part] = np.arange(self._length, self._length + len(part), dtype=np.uint32)
            self._append(values)
