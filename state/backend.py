"""The contract of operator state: whole columns, never row by row.

An operator opens named tables through its context. Three kinds are enough: rows by key (`KeyedTable`),
frames in order under an integer bucket such as a window (`LogTable`), and one small JSON value (`Cell`).
Snapshot, restore, rescaling and inspection belong to the store, not to operators.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

RowIds = npt.NDArray[np.int64]


class KeyedTable(ABC):
    """Rows found by the values of key columns, held as columns in memory under row ids.

    A row id stays valid until its row is deleted. Keys may have any type and may be null; two nulls are
    the same key, and so are two NaN.
    """

    @abstractmethod
    def upsert(self, keys: pl.DataFrame) -> tuple[RowIds, npt.NDArray[np.bool_]]:
        """Row id of each key, making rows that are missing; and which of them are new.

        Keys must be distinct within one call. New rows hold nulls (zeros in columns seen through
        `column`) until written.
        """

    @abstractmethod
    def insert(self, keys: pl.DataFrame) -> RowIds:
        """Make a row for each of these keys: distinct ones that `find` did not find, which nobody checks.

        For who has just looked: `upsert` looks twice more.
        """

    @abstractmethod
    def place(self, keys: pl.DataFrame) -> tuple[RowIds, npt.NDArray[np.bool_]]:
        """As `upsert`, of keys that may repeat: each row made now is marked wherever its key stands."""

    @abstractmethod
    def find(self, keys: pl.DataFrame) -> RowIds:
        """Row id of each key, -1 where there is none."""

    @abstractmethod
    def column(self, name: str) -> npt.NDArray[Any]:
        """The live array behind a numeric or Boolean value column, indexed by row id.

        For gather and scatter in place; call `touch` with the rows that were changed. The array is
        replaced when the table grows, so ask again after each `upsert`. Nulls are not seen through it:
        keep validity in a column of its own.
        """

    @abstractmethod
    def touch(self, rows: RowIds) -> None:
        """These rows were changed through `column`: they go into the next checkpoint."""

    @abstractmethod
    def read(self, rows: RowIds) -> pl.DataFrame:
        """Value columns of these rows."""

    @abstractmethod
    def write(self, rows: RowIds, values: pl.DataFrame) -> None:
        """Replace value columns (all, or those the frame has) of these distinct rows."""

    @abstractmethod
    def keys(self, rows: RowIds) -> pl.DataFrame:
        """Key columns of these rows."""

    @abstractmethod
    def delete(self, rows: RowIds) -> None:
        """Forget these rows; their ids may be given out again."""

    @abstractmethod
    def rows(self) -> RowIds:
        """Ids of all live rows."""

    @abstractmethod
    def scan(self) -> pl.DataFrame:
        """Keys and values of all live rows."""

    @abstractmethod
    def __len__(self) -> int:
        """How many rows are live."""


class LogTable(ABC):
    """Frames in the order they were added, under integer buckets that come and go whole."""

    @abstractmethod
    def append(self, bucket: int, frame: pl.DataFrame) -> None:
        """Add a frame behind those of the bucket. It is kept as it is and must not be changed after."""

    @abstractmethod
    def buckets(self) -> Sequence[int]:
        """The buckets that hold something, ascending."""

    @abstractmethod
    def frames(self, bucket: int, start: int = 0) -> Sequence[pl.DataFrame]:
        """The frames of a bucket in the order they were added, from number `start` on."""

    @abstractmethod
    def replace(self, bucket: int, frames: Iterable[pl.DataFrame], start: int = 0) -> None:
        """Put these in place of the bucket's frames from number `start` on (folding many into one)."""

    @abstractmethod
    def drop(self, buckets: Iterable[int]) -> None:
        """Forget whole buckets."""

    @abstractmethod
    def thin(self, bucket: int, gone: Collection[int]) -> None:
        """Forget the frames with these numbers of a bucket; the others stay as they are, and where."""

    @abstractmethod
    def __len__(self) -> int:
        """How many rows are held in all."""


class Cell(ABC):
    """One JSON value."""

    @abstractmethod
    def get(self, default: Any = None) -> Any:
        """The value, or `default` when none was set."""

    @abstractmethod
    def set(self, value: Any) -> None:
        """Replace the value."""


class StateStore(ABC):
    """The tables of one operator. Names are stable: a restored table is found by its name."""

    @abstractmethod
    def keyed(self, name: str, keys: pl.Schema, values: pl.Schema) -> KeyedTable:
        """Open or make a table of rows by key."""

    @abstractmethod
    def log(self, name: str, schema: pl.Schema) -> LogTable:
        """Open or make a table of frames by bucket."""

    @abstractmethod
    def cell(self, name: str) -> Cell:
        """Open or make a single value."""
