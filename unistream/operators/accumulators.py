"""The state of a decomposed aggregation, one row per key, folded in place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from unistream.expressions.aggregates import Decomposition, StateColumn
from unistream.state.backend import KeyedTable, RowIds, StateStore

Values = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]

_IN_PLACE = (pl.Boolean, pl.Date, pl.Datetime, pl.Duration, pl.Time)
_VALID = "?"
"""Ending of the column that says which values of a nullable column are there."""


def _in_place(column: StateColumn) -> bool:
    """Whether the column is an array that NumPy can fold; others are folded by Polars."""
    if column.how == "frame":
        return False
    integer = column.dtype.is_integer() and column.dtype not in (pl.Int128, pl.UInt128)
    return integer or column.dtype.is_float() or column.dtype.base_type() in _IN_PLACE


class Accumulators:
    """Folds partial rows (one per key) into the table and reads whole states back."""

    def __init__(self, store: StateStore, name: str, keys: pl.Schema, found: Decomposition) -> None:
        self._arrays = [column for column in found.columns if _in_place(column)]
        self._frames = [column for column in found.columns if not _in_place(column)]
        folded = {column.name for column in self._frames}
        self._merge = [expr for expr in found.merge if expr.meta.output_name() in folded]
        values: dict[str, pl.DataType] = {}
        for column in found.columns:
            values[column.name] = column.dtype
            if column.nullable and _in_place(column):
                values[column.name + _VALID] = pl.Boolean()
        self._order = [column.name for column in found.columns]
        self.table: KeyedTable = store.keyed(name, keys, pl.Schema(values))

    def fold(self, keys: pl.DataFrame, partials: pl.DataFrame) -> tuple[RowIds, Mask]:
        """Add the partial rows of distinct keys; the rows they are in, and which are new."""
        rows, new = self.table.upsert(keys)
        # What Polars merges may read columns that are folded in place, as they were before.
        merged = self._merged(rows, new, partials) if self._frames else None
        for column in self._arrays:
            self._fold_array(column, rows, new, partials[column.name])
        if merged is not None:
            self.table.write(merged["__row"].to_numpy(), merged.drop("__row"))
        self.table.touch(rows)
        return rows, new

    def take_back(self, rows: RowIds, partials: pl.DataFrame) -> None:
        """Undo the contribution of partial rows; every column must be invertible."""
        for column in self._arrays:
            array = self.table.column(column.name)
            array[rows] -= _values(partials[column.name], array.dtype)
        self.table.touch(rows)

    def states(self, rows: RowIds) -> pl.DataFrame:
        """The state columns of these rows, as partial rows have them."""
        found: dict[str, pl.Series] = {}
        for column in self._arrays:
            gathered = pl.Series(column.name, self.table.column(column.name)[rows])
            if gathered.dtype != column.dtype:
                gathered = gathered.cast(column.dtype)
            if column.nullable:
                valid = pl.Series(self.table.column(column.name + _VALID)[rows])
                gathered = gathered.zip_with(valid, pl.Series(column.name, [None], column.dtype))
            found[column.name] = gathered
        if self._frames:
            read = self.table.read(rows)
            found |= {column.name: read[column.name] for column in self._frames}
        return pl.DataFrame([found[name].alias(name) for name in self._order])

    def _fold_array(self, column: StateColumn, rows: RowIds, new: Mask, partial: pl.Series) -> None:
        array = self.table.column(column.name)
        given = _values(partial, array.dtype)
        if not column.nullable:
            array[rows] = np.where(new, given, _FOLDS[column.how](array[rows], given))
            return
        valid = self.table.column(column.name + _VALID)
        has, gives = valid[rows] & ~new, partial.is_not_null().to_numpy()
        if column.how in ("first", "last"):
            # A null that came first, or last, is the answer.
            takes = new if column.how == "first" else np.ones(len(rows), dtype=np.bool_)
            array[rows] = np.where(takes, given, array[rows])
            valid[rows] = np.where(takes, gives, has)
            return
        both = _FOLDS[column.how](array[rows], given)
        array[rows] = np.where(has & gives, both, np.where(gives, given, array[rows]))
        valid[rows] = has | gives

    def _merged(self, rows: RowIds, new: Mask, partials: pl.DataFrame) -> pl.DataFrame:
        """The columns that NumPy cannot fold, as they are to be written."""
        given = partials.select(*self._order, pl.Series("__row", rows))
        old = self.states(rows[~new]).with_columns(pl.Series("__row", rows[~new]))
        return pl.concat([old, given]).group_by("__row", maintain_order=True).agg(self._merge)


def _values(series: pl.Series, dtype: np.dtype[Any]) -> Values:
    """The numbers behind a column; whatever stands at nulls is not looked at."""
    if series.null_count():
        series = series.to_physical().fill_null(False if series.dtype == pl.Boolean else 0)
    return series.to_physical().to_numpy().astype(dtype, copy=False)


def _keep_old(old: Values, given: Values) -> Values:
    return old


def _take_new(old: Values, given: Values) -> Values:
    return given


_FOLDS: dict[str, Callable[[Values, Values], Values]] = {
    "sum": np.add,
    "min": np.fmin,
    "max": np.fmax,
    "first": _keep_old,
    "last": _take_new,
}
"""NaN gives way to numbers in fmin and fmax, as in Polars."""
