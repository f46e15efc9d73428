"""From key columns to row ids: exact for one fixed-width key, hashed and verified for all others."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import polars as pl

from unistream.of_columns import frame_of
from unistream.state.array_space import ArraySpace
from unistream.state.backend import RowIds
from unistream.state.columns import Column, make_column
from unistream.state.distinct import distinct, numbered
from unistream.state.gather import taken
from unistream.state.hash_index import HashIndex, Tags
from unistream.state.key_codes import Codes, key_codes
from unistream.state.number_index import NumberIndex
from unistream.state.picked import Picked, PickedValues
from unistream.state.tags import all_numbers, is_exact, mixed, tags_of, untagged

Mask = npt.NDArray[np.bool_]
NewRows = Callable[[int], RowIds]
"""Makes so many row ids."""


class KeyIndex(ABC):
    """Keeps keys by row id and finds them again. Frames have the key columns in order, in their types."""

    _index: HashIndex | NumberIndex

    def __init__(self, schema: pl.Schema, capacity: int, space: ArraySpace) -> None:
        self._space = space
        self._tags: Tags = space.zeros(capacity, np.uint64)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return int(self._tags.nbytes) + self._index.nbytes

    def reserve(self, capacity: int) -> None:
        """Room for this many rows."""
        self._tags = self._space.grown(self._tags, capacity)

    def expect(self, rows: int) -> None:
        """So many keys will be inserted."""
        self._index.expect(rows, self._tags)

    @abstractmethod
    def find(self, keys: pl.DataFrame) -> RowIds:
        """Row id of each key, -1 where there is none."""

    @abstractmethod
    def insert(self, keys: pl.DataFrame, rows: RowIds) -> None:
        """Keep distinct keys that are missing under these row ids."""

    def place(self, keys: pl.DataFrame, new_rows: NewRows) -> tuple[RowIds, Mask]:
        """Row id of each key, which may repeat, made where there is none; and which were made."""
        rows = self.find(keys)
        made = rows < 0
        missing = np.flatnonzero(made)
        if len(missing):
            new, codes = self._codes(keys if len(missing) == len(rows) else taken(keys, missing))
            ids = new_rows(new.height)
            self.insert(new, ids)
            rows[missing] = ids if codes is None else ids.take(codes)
        return rows, made

    def _codes(self, keys: pl.DataFrame) -> tuple[pl.DataFrame, Codes | None]:
        """The distinct keys, and which of them each is; None for keys that are distinct."""
        return key_codes(keys, keys.columns)

    @abstractmethod
    def remove(self, rows: RowIds) -> None:
        """Forget the keys of these rows."""

    @abstractmethod
    def frame(self, rows: RowIds) -> pl.DataFrame:
        """The key columns of these rows."""

    @abstractmethod
    def picked(self, rows: RowIds) -> list[Picked]:
        """The key columns of these rows as they are now, see `Column.picked`."""


def make_key_index(schema: pl.Schema, capacity: int, space: ArraySpace) -> KeyIndex:
    """The fastest index for keys of these types."""
    index = ExactIndex if is_exact(schema) else HashedIndex
    return index(schema, capacity, space)


class ExactIndex(KeyIndex):
    """One key of at most 64 bits: the tag is the key, and nothing else is stored.

    Null has no tag; its row is remembered beside the index.
    """

    def __init__(self, schema: pl.Schema, capacity: int, space: ArraySpace) -> None:
        super().__init__(schema, capacity, space)
        self._index = NumberIndex(space)
        ((self._name, self._dtype),) = schema.items()
        self._null_row = -1

    def find(self, keys: pl.DataFrame) -> RowIds:
        column = keys.to_series()
        found = self._index.find(tags_of(column), self._tags)
        if column.null_count():
            found[column.is_null().to_numpy()] = self._null_row
        return found

    def insert(self, keys: pl.DataFrame, rows: RowIds) -> None:
        column = keys.to_series()
        tags = tags_of(column)
        self._tags[rows] = tags
        if column.null_count():
            null = column.is_null().to_numpy()
            self._null_row = int(rows[null][0])
            tags, rows = tags[~null], rows[~null]
        self._index.insert(tags, rows, self._tags)

    def place(self, keys: pl.DataFrame, new_rows: NewRows) -> tuple[RowIds, Mask]:
        column = keys.to_series()
        if column.null_count():
            return super().place(keys, new_rows)
        tags = tags_of(column)
        rows = self._index.find(tags, self._tags)
        made = rows < 0
        missing = np.flatnonzero(made)
        if len(missing):
            numbers, codes = numbered(tags.take(missing).view(np.int64))
            ids = new_rows(len(numbers))
            self._tags[ids] = numbers.view(np.uint64)
            self._index.insert(numbers.view(np.uint64), ids, self._tags)
            rows[missing] = ids.take(codes)
        return rows, made

    def remove(self, rows: RowIds) -> None:
        if self._null_row >= 0:
            is_null = rows == self._null_row
            if is_null.any():
                self._null_row = -1
                rows = rows[~is_null]
        self._index.remove(self._tags.take(rows), rows)

    def frame(self, rows: RowIds) -> pl.DataFrame:
        series = untagged(self._name, self._tags.take(rows), self._dtype)
        if self._null_row >= 0:
            null = rows == self._null_row
            if null.any():
                return pl.select(pl.when(pl.Series(~null)).then(series).alias(self._name))
        return series.to_frame()

    def picked(self, rows: RowIds) -> list[Picked]:
        return [PickedValues(self.frame(rows).to_series())]


class HashedIndex(KeyIndex):
    """Any keys: a hash that holds for this process only as tag, the key columns beside it for comparing."""

    def __init__(self, schema: pl.Schema, capacity: int, space: ArraySpace) -> None:
        super().__init__(schema, capacity, space)
        self._index: HashIndex = HashIndex(space)
        self._numbers = all_numbers(schema)
        self._columns: dict[str, Column] = {
            name: make_column(dtype, capacity, space) for name, dtype in schema.items()
        }

    @property
    def nbytes(self) -> int:
        return super().nbytes + sum(column.nbytes for column in self._columns.values())

    def reserve(self, capacity: int) -> None:
        super().reserve(capacity)
        for column in self._columns.values():
            column.reserve(capacity)

    def find(self, keys: pl.DataFrame) -> RowIds:
        tags = self._hash(keys)
        found = self._index.find(tags, self._tags)
        seen = np.flatnonzero(found >= 0)
        wrong = seen[~self._equal(found[seen], keys, seen)]
        if len(wrong):
            found[wrong] = self._index.find_same(
                tags[wrong], self._tags, lambda rows, positions: self._equal(rows, keys, wrong[positions])
            )
        return found

    def insert(self, keys: pl.DataFrame, rows: RowIds) -> None:
        tags = self._hash(keys)
        self._tags[rows] = tags
        for name, column in self._columns.items():
            column.put(rows, keys.get_column(name))
        self._index.insert(tags, rows, self._tags)

    def remove(self, rows: RowIds) -> None:
        self._index.remove(self._tags.take(rows), rows)
        for column in self._columns.values():
            column.clear(rows)

    def frame(self, rows: RowIds) -> pl.DataFrame:
        return frame_of([column.get(name, rows) for name, column in self._columns.items()])

    def picked(self, rows: RowIds) -> list[Picked]:
        return [column.picked(name, rows) for name, column in self._columns.items()]

    def _codes(self, keys: pl.DataFrame) -> tuple[pl.DataFrame, Codes | None]:
        tags = self._hash(keys)
        if len(distinct(tags.view(np.int64))) == len(tags):
            return keys, None
        return key_codes(keys, keys.columns)

    def _hash(self, keys: pl.DataFrame) -> Tags:
        """Rebuilt with every restore, so it may change between versions."""
        if self._numbers:  # Polars would hash them on threads that are busy with reading
            return mixed([tags_of(column) for column in keys.get_columns()])
        return keys.hash_rows().to_numpy()

    def _equal(
        self, rows: RowIds, keys: pl.DataFrame, positions: npt.NDArray[np.intp]
    ) -> npt.NDArray[np.bool_]:
        """Whether each row has the key at its position of the batch."""
        asked = keys if len(positions) == keys.height else keys[positions]
        equal: npt.NDArray[np.bool_] = np.ones(len(rows), dtype=np.bool_)
        for name, column in self._columns.items():
            equal &= column.equals(rows, asked.get_column(name))
        return equal
