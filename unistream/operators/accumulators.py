"""The state of a decomposed aggregation, one row per key, folded in place."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from unistream.expressions.aggregates import Decomposition, StateColumn
from unistream.operators.row_order import in_key_order, in_row_order, taken
from unistream.state.backend import KeyedTable, RowIds, StateStore
from unistream.state.columns import physical

Values = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]

_IN_PLACE = (pl.Boolean, pl.Date, pl.Datetime, pl.Duration, pl.Time)
_MISSING = "?"
"""Ending of the column that says which values of a nullable column are null."""
_ROW = "__row"


@dataclass(frozen=True, slots=True)
class Groups:
    """Keys that a batch touched, in the order of their rows, with their states and which of them are new."""

    rows: RowIds
    new: Mask
    keys: pl.DataFrame
    states: pl.DataFrame


class Accumulators:
    """Folds partial rows (one per key) into the table and gives back whole states.

    Each array is read and written once per batch. Groups come out in the order of their rows, not in that
    of `group_by`, which is another in every run.
    """

    def __init__(self, store: StateStore, name: str, keys: pl.Schema, found: Decomposition) -> None:
        arrays = [column for column in found.columns if _in_place(column)]
        folded = {column.name for column in arrays}
        self._frames = [column for column in found.columns if column.name not in folded]
        self._merge = [expr for expr in found.merge if expr.meta.output_name() not in folded]
        values: dict[str, pl.DataType] = {column.name: column.dtype for column in found.columns}
        values |= {column.name + _MISSING: pl.Boolean() for column in arrays if column.nullable}
        self._order = [column.name for column in found.columns]
        self._key_width = len(keys)
        self.table: KeyedTable = store.keyed(name, keys, pl.Schema(values))
        self._arrays = [_FoldedArray(column, self.table) for column in arrays]

    def fold(self, partials: pl.DataFrame) -> Groups:
        """Add partial rows: key columns, then state columns, of distinct keys."""
        _, rows, new = self.place(partials)
        order = in_row_order(rows)
        rows, new = rows.take(order), new.take(order)
        partials = taken(partials, order)
        keys = pl.DataFrame(partials.get_columns()[: self._key_width])
        fresh = np.flatnonzero(new)
        # What Polars merges may read columns that are folded in place, as they were before.
        states = self._merged(rows, fresh, partials) if self._frames else {}
        for array in self._arrays:
            states[array.name] = array.fold(rows, fresh, partials.get_column(array.name))
        self.table.touch(rows)
        return Groups(rows, new, keys, pl.DataFrame([states[name] for name in self._order]))

    def place(self, partials: pl.DataFrame) -> tuple[pl.DataFrame, RowIds, Mask]:
        """The keys of partial rows, their rows in the table and which were made now."""
        keys = pl.DataFrame(partials.get_columns()[: self._key_width])
        rows = self.table.find(keys)
        new = rows < 0
        missing = np.flatnonzero(new)
        if len(missing):
            missing = missing[in_key_order(keys[missing])]
            rows[missing], _ = self.table.upsert(keys[missing])
        return keys, rows, new

    def add(self, rows: RowIds, partials: pl.DataFrame, sign: int) -> None:
        """Add or take back the contribution of partial rows; every column must be invertible."""
        for array in self._arrays:
            array.add(rows, partials.get_column(array.name), sign)
        if self._frames:
            old = self.table.read(rows)
            change = operator.add if sign > 0 else operator.sub
            both = [change(old[column.name], partials[column.name]) for column in self._frames]
            self.table.write(rows, pl.DataFrame(both))
        self.table.touch(rows)

    def clear(self, rows: RowIds) -> None:
        """States of new rows as the sum of nothing; only for invertible columns."""
        zeros = [pl.zeros(len(rows), column.dtype, eager=True).alias(column.name) for column in self._frames]
        if zeros:
            self.table.write(rows, pl.DataFrame(zeros))

    def states(self, rows: RowIds) -> pl.DataFrame:
        """The state columns of these rows, as partial rows have them."""
        found = {array.name: array.read(rows) for array in self._arrays}
        if self._frames:
            read = self.table.read(rows)
            found |= {column.name: read[column.name] for column in self._frames}
        return pl.DataFrame([found[name] for name in self._order])

    def _merged(self, rows: RowIds, fresh: RowIds, partials: pl.DataFrame) -> dict[str, pl.Series]:
        """The columns that NumPy cannot fold, merged by Polars and written."""
        names = [column.name for column in self._frames]
        merged = partials.select(names)
        if len(fresh) < len(rows):
            known = np.delete(rows, fresh)
            old = self.states(known).with_columns(pl.Series(_ROW, known))
            given = partials.select(*self._order, pl.Series(_ROW, rows))
            both = pl.concat([old, given]).group_by(_ROW, maintain_order=True).agg(self._merge)
            merged = both.sort(_ROW).select(names)
        self.table.write(rows, merged)
        return {name: merged[name] for name in names}


class _FoldedArray:
    """One state column as an array of the table."""

    def __init__(self, column: StateColumn, table: KeyedTable) -> None:
        self.name = column.name
        self._dtype = column.dtype
        self._table = table
        self._how = column.how
        self._fold = _FOLDS[column.how, column.dtype.is_float()]
        self._nullable = column.nullable
        # Most columns never hold a null: then nobody looks at which do.
        self._has_nulls = column.nullable and bool(table.column(self.name + _MISSING).any())

    def fold(self, rows: RowIds, fresh: RowIds, partial: pl.Series) -> pl.Series:
        """Fold one value into each row, `fresh` being the positions of new ones; the results."""
        array = self._table.column(self.name)
        given = physical(partial, array.dtype)
        if len(fresh) == len(rows):
            result = given
        else:
            old = array.take(rows)
            result = self._fold(old, given)
            if len(fresh):
                result[fresh] = given[fresh]
            if self._nullable and (self._has_nulls or partial.null_count()):
                return self._fold_with_nulls(rows, fresh, (old, given, result), partial.is_null().to_numpy())
        array[rows] = result
        if self._nullable and partial.null_count():
            self._mark(rows, partial.is_null().to_numpy())
            return partial
        return self._series(result)

    def _fold_with_nulls(
        self, rows: RowIds, fresh: RowIds, values: tuple[Values, Values, Values], gives_null: Mask
    ) -> pl.Series:
        old, given, result = values
        was_null = self._table.column(self.name + _MISSING).take(rows)
        if self._how in ("min", "max"):
            was_null[fresh] = True
            result = np.where(was_null, given, np.where(gives_null, old, result))
            is_null = was_null & gives_null
        elif self._how == "first":  # a null that came first is the answer
            is_null = was_null
            is_null[fresh] = gives_null[fresh]
        else:
            is_null = gives_null
        self._table.column(self.name)[rows] = result
        self._mark(rows, is_null)
        return self._with_nulls(self._series(result), is_null)

    def _mark(self, rows: RowIds, is_null: Mask) -> None:
        self._table.column(self.name + _MISSING)[rows] = is_null
        self._has_nulls = self._has_nulls or bool(is_null.any())

    def add(self, rows: RowIds, partial: pl.Series, sign: int) -> None:
        """Add the values, or subtract them."""
        array = self._table.column(self.name)
        given = physical(partial, array.dtype)
        array[rows] = array.take(rows) + given if sign > 0 else array.take(rows) - given

    def read(self, rows: RowIds) -> pl.Series:
        """The values of these rows."""
        series = self._series(self._table.column(self.name).take(rows))
        if not self._has_nulls:
            return series
        return self._with_nulls(series, self._table.column(self.name + _MISSING).take(rows))

    def _series(self, values: Values) -> pl.Series:
        series = pl.Series(self.name, values)
        return series if series.dtype == self._dtype else series.cast(self._dtype)

    def _with_nulls(self, series: pl.Series, is_null: Mask) -> pl.Series:
        if not is_null.any():
            return series
        return series.zip_with(pl.Series(~is_null), pl.Series(self.name, [None], self._dtype))


def _in_place(column: StateColumn) -> bool:
    """Whether the column is an array that NumPy can fold; others are folded by Polars."""
    if column.how == "frame":
        return False
    integer = column.dtype.is_integer() and column.dtype not in (pl.Int128, pl.UInt128)
    return integer or column.dtype.is_float() or column.dtype.base_type() in _IN_PLACE


def _keep_old(old: Values, given: Values) -> Values:
    return old.copy()


def _take_new(old: Values, given: Values) -> Values:
    return given.copy()


_FOLDS: dict[tuple[str, bool], Callable[[Values, Values], Values]] = {
    ("sum", False): np.add,
    ("sum", True): np.add,
    ("min", False): np.minimum,
    ("min", True): np.fmin,
    ("max", False): np.maximum,
    ("max", True): np.fmax,
    ("first", False): _keep_old,
    ("first", True): _keep_old,
    ("last", False): _take_new,
    ("last", True): _take_new,
}
"""By how and whether of floats: NaN gives way to numbers in fmin and fmax, as in Polars."""
