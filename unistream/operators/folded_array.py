"""One column of running values, held as an array of a table and folded in place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from unistream.expressions.aggregates import StateColumn
from unistream.state.backend import KeyedTable, RowIds
from unistream.state.columns import logical, physical

Values = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]

_IN_PLACE = (pl.Boolean, pl.Date, pl.Datetime, pl.Duration, pl.Time)
_MISSING = "?"
"""Ending of the column that says which values of a nullable column are null."""


def folds_in_place(column: StateColumn) -> bool:
    """Whether the column is an array that NumPy can fold; others are folded by Polars."""
    if column.how == "frame":
        return False
    integer = column.dtype.is_integer() and column.dtype not in (pl.Int128, pl.UInt128)
    return integer or column.dtype.is_float() or column.dtype.base_type() in _IN_PLACE


def value_columns(columns: Sequence[StateColumn]) -> pl.Schema:
    """What a table holds for these columns, each of which folds in place or is kept in frames."""
    values = {column.name: column.dtype for column in columns}
    nullable = [column.name for column in columns if column.nullable and folds_in_place(column)]
    return pl.Schema({**values, **{name + _MISSING: pl.Boolean() for name in nullable}})


class FoldedArray:
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
        if self._nullable and (self._has_nulls or partial.null_count()):
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

    def put(self, rows: RowIds, values: pl.Series) -> None:
        """Replace the values of these rows."""
        array = self._table.column(self.name)
        array[rows] = physical(values, array.dtype)
        if self._nullable and (self._has_nulls or values.null_count()):
            self._mark(rows, values.is_null().to_numpy())

    def read(self, rows: RowIds) -> pl.Series:
        """The values of these rows."""
        series = self._series(self._table.column(self.name).take(rows))
        if not self._has_nulls:
            return series
        return self._with_nulls(series, self._table.column(self.name + _MISSING).take(rows))

    def _series(self, values: Values) -> pl.Series:
        return logical(self.name, values, self._dtype)

    def _with_nulls(self, series: pl.Series, is_null: Mask) -> pl.Series:
        if not is_null.any():
            return series
        return series.zip_with(pl.Series(~is_null), pl.Series(self.name, [None], self._dtype))


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
