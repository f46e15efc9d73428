"""The contract in plain Python, one row at a time: what the fast tables are compared with in tests."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from unistream.of_columns import beside
from unistream.state.backend import KeyedTable, RowIds

_NAN = ("NaN",)


def comparable(value: Any) -> Any:
    """A value that is equal to itself and can be looked up: NaN, lists and structs made plain."""
    if isinstance(value, float) and value != value:
        return _NAN
    if isinstance(value, (list, tuple)):
        return tuple(comparable(item) for item in value)
    if isinstance(value, dict):
        return tuple((name, comparable(item)) for name, item in value.items())
    return value


class DictTable(KeyedTable):
    """Rows in a dict by key. It has no arrays: `column` is refused."""

    def __init__(self, keys: pl.Schema, values: pl.Schema) -> None:
        self._key_schema, self._value_schema = keys, values
        self._ids: dict[Any, int] = {}
        self._rows: dict[int, tuple[tuple[Any, ...], dict[str, Any]]] = {}
        self._next = 0

    def upsert(self, keys: pl.DataFrame) -> tuple[RowIds, npt.NDArray[np.bool_]]:
        rows, new = [], []
        for key in keys.select(self._key_schema.names()).rows():
            identity = comparable(key)
            new.append(identity not in self._ids)
            if new[-1]:
                self._ids[identity] = self._next
                self._rows[self._next] = key, dict.fromkeys(self._value_schema)
                self._next += 1
            rows.append(self._ids[identity])
        return np.array(rows, dtype=np.int64), np.array(new, dtype=np.bool_)

    def place(self, keys: pl.DataFrame) -> tuple[RowIds, npt.NDArray[np.bool_]]:
        made = self.find(keys) < 0
        return self.upsert(keys)[0], made

    def insert(self, keys: pl.DataFrame) -> RowIds:
        rows, new = self.upsert(keys)
        assert new.all(), "a key is there already or occurs twice"
        return rows

    def find(self, keys: pl.DataFrame) -> RowIds:
        wanted = keys.select(self._key_schema.names()).rows()
        return np.array([self._ids.get(comparable(key), -1) for key in wanted], dtype=np.int64)

    def column(self, name: str) -> npt.NDArray[Any]:
        # These are there for speed alone; whoever asks for one is testing another table by mistake.
        raise NotImplementedError("the reference table has no arrays")

    def touch(self, rows: RowIds) -> None:
        return None

    def read(self, rows: RowIds) -> pl.DataFrame:
        values = [self._rows[int(row)][1] for row in rows]
        return pl.DataFrame(values, schema=self._value_schema)

    def write(self, rows: RowIds, values: pl.DataFrame) -> None:
        for row, new in zip(rows.tolist(), values.rows(named=True), strict=True):
            self._rows[row][1].update(new)

    def keys(self, rows: RowIds) -> pl.DataFrame:
        return pl.DataFrame([self._rows[int(row)][0] for row in rows], schema=self._key_schema, orient="row")

    def delete(self, rows: RowIds) -> None:
        for row in rows.tolist():
            del self._ids[comparable(self._rows.pop(row)[0])]

    def rows(self) -> RowIds:
        return np.array(list(self._rows), dtype=np.int64)

    def scan(self) -> pl.DataFrame:
        rows = self.rows()
        return beside(self.keys(rows), self.read(rows))

    def __len__(self) -> int:
        return len(self._rows)
