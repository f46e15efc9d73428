"""Rows by key, held as growable columns under stable row ids behind a vectorised index."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from unistream.errors import StateError
from unistream.of_columns import beside, frame_of
from unistream.state.array_space import IN_MEMORY, ArraySpace
from unistream.state.backend import KeyedTable, RowIds
from unistream.state.columns import ArrayColumn, make_column
from unistream.state.distinct import distinct
from unistream.state.key_index import make_key_index
from unistream.state.picked import PickedRows

SMALLEST = 64
MOST_ROWS = 2**31 - 1
LIVE = np.uint8(1)
STORED = np.uint8(2)


class HotTable(KeyedTable):
    """The production table. Reads and writes cost what the batch costs, whatever the size of the table."""

    def __init__(self, keys: pl.Schema, values: pl.Schema, space: ArraySpace = IN_MEMORY) -> None:
        if not keys:
            raise StateError(
                "A keyed table needs at least one key column", hint="use a Cell for a single value"
            )
        both = sorted(set(keys) & set(values))
        if both:
            raise StateError(f"Columns {both} are key and value of one table", hint="rename one of them")
        self.key_schema, self.value_schema = pl.Schema(keys), pl.Schema(values)
        self._space = space
        self._capacity = SMALLEST
        self._keys = make_key_index(self.key_schema, SMALLEST, space)
        self._columns = {
            name: make_column(dtype, SMALLEST, space) for name, dtype in self.value_schema.items()
        }
        self._state: npt.NDArray[np.uint8] = space.zeros(SMALLEST, np.uint8)
        self._dirty: npt.NDArray[np.bool_] = space.zeros(SMALLEST, np.bool_)
        self._top = 0
        self._free: npt.NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self._deleted: list[pl.DataFrame] = []
        self._deleted_count = 0

    def upsert(self, keys: pl.DataFrame) -> tuple[RowIds, npt.NDArray[np.bool_]]:
        keys = self._as_keys(keys)
        rows = self._keys.find(keys)
        new = rows < 0
        missing = np.flatnonzero(new)
        if len(missing):
            made = self._take_rows(len(missing))
            rows[missing] = made
            new_keys = keys if len(missing) == len(rows) else keys[missing]
            self._keys.insert(new_keys, made)
            if not np.array_equal(self._keys.find(new_keys), made):
                raise StateError("A key occurs twice in one upsert", hint="group the batch by key before")
        self._space.used()
        return rows, new

    def insert(self, keys: pl.DataFrame) -> RowIds:
        rows = self._take_rows(keys.height)
        self._keys.insert(self._as_keys(keys), rows)
        self._space.used()
        return rows

    def place(self, keys: pl.DataFrame) -> tuple[RowIds, npt.NDArray[np.bool_]]:
        found = self._keys.place(self._as_keys(keys), self._take_rows)
        self._space.used()
        return found

    def find(self, keys: pl.DataFrame) -> RowIds:
        rows = self._keys.find(self._as_keys(keys))
        self._space.used()
        return rows

    def column(self, name: str) -> npt.NDArray[Any]:
        column = self._columns[name]
        if not isinstance(column, ArrayColumn):
            raise StateError(
                f"Column {name!r} of type {column.dtype} has no array",
                hint="use read and write; arrays are for numbers, Booleans and times",
            )
        return column.array

    def touch(self, rows: RowIds) -> None:
        self._dirty[rows] = True

    def read(self, rows: RowIds) -> pl.DataFrame:
        return frame_of([column.get(name, rows) for name, column in self._columns.items()])

    def write(self, rows: RowIds, values: pl.DataFrame) -> None:
        for series in values.get_columns():
            column = self._columns[series.name]
            column.put(rows, series if series.dtype == column.dtype else series.cast(column.dtype))
        self._dirty[rows] = True
        self._space.used()

    def keys(self, rows: RowIds) -> pl.DataFrame:
        return self._keys.frame(rows)

    def delete(self, rows: RowIds) -> None:
        if not len(rows):
            return
        ascending = bool((rows[1:] > rows[:-1]).all())  # as most callers have them: no need to sort
        each_once = ascending or len(distinct(rows)) == len(rows)
        if not each_once or not self._state.take(rows).all():
            raise StateError("A row is deleted twice", hint="row ids are valid until their row is deleted")
        stored = rows[(self._state.take(rows) & STORED) != 0]
        if len(stored):
            self._deleted.append(self._keys.frame(stored))
            self._deleted_count += len(stored)
        self._keys.remove(rows)
        for column in self._columns.values():
            column.clear(rows)
        self._state[rows] = 0
        self._dirty[rows] = False
        self._free = np.concatenate([self._free, rows])

    def rows(self) -> RowIds:
        if not len(self._free):
            return np.arange(self._top, dtype=np.int64)
        return np.flatnonzero(self._state[: self._top])

    def scan(self) -> pl.DataFrame:
        return self.frame(self.rows())

    def __len__(self) -> int:
        return self._top - len(self._free)

    @property
    def nbytes(self) -> int:
        """Bytes held, index included; room that was never used counts although it costs no memory."""
        columns = sum(column.nbytes for column in self._columns.values())
        return self._keys.nbytes + columns + int(self._state.nbytes + self._dirty.nbytes)

    @property
    def changed(self) -> int:
        """How many rows the next checkpoint must write, deletions included."""
        return int(np.count_nonzero(self._dirty[: self._top])) + self._deleted_count

    def changed_rows(self, whole: bool) -> RowIds:
        """What the next checkpoint must write of the live rows: those that changed, or all."""
        return self.rows() if whole else np.flatnonzero(self._dirty[: self._top])

    def deleted_keys(self) -> pl.DataFrame:
        """Keys of stored rows that went since the last checkpoint; some may be back."""
        return pl.concat([pl.DataFrame(schema=self.key_schema), *self._deleted])

    def mark_stored(self, rows: RowIds) -> None:
        """A checkpoint has taken `changed_rows` and `deleted_keys`: collect anew."""
        self._state[rows] = LIVE | STORED
        self._dirty[: self._top] = False
        self._deleted, self._deleted_count = [], 0

    def frame(self, rows: RowIds) -> pl.DataFrame:
        """Keys and values of these rows, as a copy."""
        frame = beside(self.keys(rows), self.read(rows))
        self._space.used()
        return frame

    def picked(self, rows: RowIds) -> PickedRows:
        """Keys and values of these rows as they are now. Text, lists and structs are copied only when they
        are read, which may be later and on another thread."""
        values = [column.picked(name, rows) for name, column in self._columns.items()]
        return PickedRows([*self._keys.picked(rows), *values], len(rows))

    @property
    def bounded(self) -> bool:
        """Whether a copy of the whole table may not fit into memory."""
        return self._space.bounded

    def load(self, frame: pl.DataFrame, new: bool) -> None:
        """Put rows that count as stored; `new` promises that none of their keys is there already."""
        keys = frame.select(self.key_schema.names())
        rows = self.insert(keys) if new else self.upsert(keys)[0]
        self.write(rows, frame.select(self.value_schema.names()))
        self._state[rows] = LIVE | STORED
        self._dirty[rows] = False

    def unload(self, keys: pl.DataFrame) -> None:
        """Forget keys that are stored as deleted."""
        rows = self.find(keys)
        rows = rows[rows >= 0]
        self._state[rows] = LIVE
        self.delete(rows)

    def reserve(self, rows: int) -> None:
        """Room for this many rows, so that loading them does not copy again and again."""
        if rows > self._capacity:
            self._grow(rows)
            self._keys.expect(rows)

    def forget_stored(self) -> None:
        """No checkpoint holds these rows: the next one must write them all."""
        live = self.rows()
        self._state[live] = LIVE
        self._dirty[live] = True
        self._deleted, self._deleted_count = [], 0

    def _as_keys(self, keys: pl.DataFrame) -> pl.DataFrame:
        """The key columns in order and in their types."""
        if keys.schema == self.key_schema:
            return keys
        try:
            return keys.select(pl.col(name).cast(dtype) for name, dtype in self.key_schema.items())
        except pl.exceptions.PolarsError as error:
            raise StateError(
                f"Keys {dict(keys.schema)} do not fit a table keyed by {dict(self.key_schema)}",
                hint="pass the key columns the table was opened with",
            ) from error

    def _take_rows(self, count: int) -> RowIds:
        """Ids for new rows: freed ones first, then fresh ones."""
        reused = self._free[len(self._free) - min(count, len(self._free)) :]
        self._free = self._free[: len(self._free) - len(reused)]
        start, end = self._top, self._top + count - len(reused)
        if end > self._capacity:
            self._grow(end)
        self._top = end
        for rows in (reused, slice(start, end)):
            self._state[rows] = LIVE
            self._dirty[rows] = True
        fresh = np.arange(start, end, dtype=np.int64)
        return np.concatenate([reused, fresh]) if len(reused) else fresh

    def _grow(self, needed: int) -> None:
        self._capacity = max(needed, 2 * self._capacity)
        if self._capacity > MOST_ROWS:
            raise StateError("A state table has too many rows", hint="spread the job over more subtasks")
        self._keys.reserve(self._capacity)
        for column in self._columns.values():
            column.reserve(self._capacity)
        self._state = self._space.grown(self._state, self._capacity)
        self._dirty = self._space.grown(self._dirty, self._capacity)
