"""Rows of a table as they were at one moment, to be copied out slice by slice whenever there is time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

from unistream.of_columns import frame_of

Places = npt.NDArray[np.uint32]


class Picked(Protocol):
    """Values of some rows of a column. What is written to the column later does not change them."""

    @property
    def nbytes(self) -> int:
        """About how many bytes they take as a series of their own."""

    def part(self, start: int, stop: int) -> pl.Series:
        """The values from one of the rows up to another, or the end."""


@dataclass(frozen=True, slots=True)
class PickedValues:
    """Values that were copied."""

    values: pl.Series

    @property
    def nbytes(self) -> int:
        """Exactly."""
        return int(self.values.estimated_size())

    def part(self, start: int, stop: int) -> pl.Series:
        """Without copying."""
        return self.values[start:stop]


@dataclass(frozen=True, slots=True)
class PickedPlaces:
    """Values of a heap. Its parts never change, so where the values lie is enough to copy them later."""

    name: str
    parts: Sequence[pl.Series]
    places: Places
    nbytes: int

    def part(self, start: int, stop: int) -> pl.Series:
        """As a copy."""
        return values_at(self.parts, self.places[start:stop]).alias(self.name)


@dataclass(frozen=True, slots=True)
class PickedRows:
    """Some rows of a table."""

    columns: Sequence[Picked]
    height: int

    @property
    def nbytes(self) -> int:
        """About how many bytes they take as a frame."""
        return sum(column.nbytes for column in self.columns)

    def slice(self, start: int, stop: int) -> PickedSlice:
        """The rows from one up to another or the end, still to be read."""
        return PickedSlice(self, start, stop)

    def read(self, start: int, stop: int) -> pl.DataFrame:
        """The rows from one up to another, or the end."""
        return frame_of([column.part(start, stop) for column in self.columns])


@dataclass(frozen=True, slots=True)
class PickedSlice:
    """Neighbours among picked rows."""

    rows: PickedRows
    start: int
    stop: int

    def read(self) -> pl.DataFrame:
        """Keys and values."""
        return self.rows.read(self.start, self.stop)


def picked_frame(frame: pl.DataFrame) -> PickedRows:
    """All rows of a frame.

    A slice of lists still has all their values behind it, and encoding it would go through all of them: so
    slices of nested columns are copied.
    """
    every = np.arange(frame.height, dtype=np.uint32)
    columns: list[Picked] = [
        PickedPlaces(series.name, series.get_chunks(), every, int(series.estimated_size()))
        if series.dtype.is_nested()
        else PickedValues(series)
        for series in frame.get_columns()
    ]
    return PickedRows(columns, frame.height)


def values_at(parts: Sequence[pl.Series], places: Places) -> pl.Series:
    """What lies at these places of some series one behind the other."""
    # Indexing is the same as `gather`, which would set up a lazy query each time.
    if len(parts) == 1:
        return parts[0][pl.Series(places)]
    if parts[0].dtype.is_nested():
        return _nested_at(parts, places)
    return pl.concat(parts, rechunk=False)[pl.Series(places)]


def _nested_at(parts: Sequence[pl.Series], places: Places) -> pl.Series:
    """Part by part: of several at once Polars takes lists, and structs with lists, a hundred times slower."""
    if not len(places):
        return parts[0].clear()
    least, most, first = int(places.min()), int(places.max()), 0
    for part in parts:
        if first <= least and most < first + len(part):
            return part[pl.Series(places - np.uint32(first))]
        first += len(part)
    return _from_parts(parts, places)


def _from_parts(parts: Sequence[pl.Series], places: Places) -> pl.Series:
    """In the order of the places, then back in the order asked for."""
    bits = len(places).bit_length()
    packed = (places.astype(np.int64) << bits) | np.arange(len(places))
    packed.sort()
    order, places = packed & ((1 << bits) - 1), (packed >> bits).astype(np.uint32)
    taken, start, first = [], 0, 0
    for part in parts:
        stop = int(np.searchsorted(places, first + len(part)))
        if stop > start:
            taken.append(part[pl.Series(places[start:stop] - np.uint32(first))])
        start, first = stop, first + len(part)
    back = np.empty(len(order), dtype=np.uint32)
    back[order] = np.arange(len(order), dtype=np.uint32)
    return pl.concat(taken, rechunk=True)[pl.Series(back)]
