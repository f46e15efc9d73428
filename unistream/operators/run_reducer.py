"""Partial aggregates of runs of rows by NumPy: what `group_by` makes, for rows that lie in order anyway."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from unistream.expressions import expression_tree as tree
from unistream.expressions.aggregates import Decomposition, StateColumn
from unistream.expressions.expression_tree import Node, UnknownExpression
from unistream.expressions.no_rows import no_rows
from unistream.expressions.row_wise import is_row_wise
from unistream.of_columns import frame_of
from unistream.operators.row_order import Positions
from unistream.state.columns import ARRAY_TYPES, logical

Values = npt.NDArray[Any]
Reduce = Callable[[Values, Positions], Values]

_TIMES = (pl.Date, pl.Datetime, pl.Duration, pl.Time)
_KINDS = ("Sum", "Min", "Max", "Count")


@dataclass(frozen=True, slots=True)
class _Column:
    """One state column: which values of the rows it is made of (None: the rows themselves), and how."""

    name: str
    dtype: pl.DataType
    kind: str
    values: int | None
    reduce: Reduce | None


class RunReducer:
    """State columns of runs of rows, for sums, counts, least and greatest of numbers and times.

    `of` gives None where one of the columns is something else.
    """

    def __init__(self, columns: Sequence[_Column], inputs: Sequence[pl.Expr]) -> None:
        self._columns = columns
        self._inputs = [expr.alias(str(at)) for at, expr in enumerate(inputs)]
        names = [expr.meta.output_name() if _is_column(expr) else None for expr in inputs]
        self._plain = [name for name in names if name is not None] if None not in names else None

    @classmethod
    def of(cls, parts: Decomposition, schema: pl.Schema) -> RunReducer | None:
        """For these parts of rows of this schema."""
        inputs: dict[bytes, int] = {}
        exprs: list[pl.Expr] = []
        columns = []
        for column, expr in zip(parts.columns, parts.partial, strict=True):
            found = _read(expr)
            if found is None:
                return None
            kind, inner = found
            at = None
            if inner is not None:
                values = tree.to_expr(inner)
                if not _fits(values, kind, column, schema):
                    return None
                at = inputs.setdefault(values.meta.serialize(), len(exprs))
                if at == len(exprs):
                    exprs.append(values)
            columns.append(_Column(column.name, column.dtype, kind, at, _reduce_of(kind, column)))
        return cls(columns, exprs)

    @classmethod
    def merging(cls, parts: Decomposition) -> RunReducer | None:
        """For putting parts together."""
        columns = []
        for at, column in enumerate(parts.columns):
            kind = column.how.capitalize()
            if kind not in _KINDS or not _fits(pl.col(column.name), kind, column, parts.state_schema):
                return None
            columns.append(_Column(column.name, column.dtype, kind, at, _reduce_of(kind, column)))
        return cls(columns, [pl.col(column.name) for column in parts.columns])

    def values_of(self, rows: pl.DataFrame) -> list[pl.Series] | None:
        """What is reduced of these rows.

        None when a null is among what a least or greatest is taken of: `group_by` is asked then.
        """
        if self._plain is not None:
            values = [rows.get_column(name) for name in self._plain]
        else:
            values = rows.select(self._inputs).get_columns()
        extremes = {c.values for c in self._columns if c.kind in ("Min", "Max")}
        return None if any(s.null_count() for at, s in enumerate(values) if at in extremes) else values

    def reduce(self, values: Sequence[pl.Series], order: Positions, first: Positions) -> pl.DataFrame:
        """One row for each run: rows in this order, runs beginning at these places of it."""
        nulls = [series.null_count() > 0 for series in values]
        lengths = np.concatenate([first[1:], [len(order)]]) - first
        taken: dict[int, Values] = {}
        made = []
        for column in self._columns:
            at = column.values
            if at is None or (column.kind == "Count" and not nulls[at]):
                result = lengths
            elif column.kind == "Count":
                known = values[at].is_not_null().to_numpy().astype(np.int64)
                result = np.add.reduceat(known.take(order), first)
            else:
                if at not in taken:
                    taken[at] = _numbers(values[at]).take(order)
                assert column.reduce is not None
                # Where every run is one row, there is nothing to put together.
                result = taken[at] if len(first) == len(order) else column.reduce(taken[at], first)
            made.append(logical(column.name, result, column.dtype))
        return frame_of(made)


def _read(expr: pl.Expr) -> tuple[str, Node | None] | None:
    """What sort of aggregate it is and of what; None for what is not known here."""
    try:
        node = tree.without_alias(tree.to_node(expr))
        if tree.kind(node) == "Cast":
            node = tree.children(node)[0]
        if node == "Len":
            return "Count", None
        if tree.kind(node) != "Agg":
            return None
        kind, inner, options = tree.aggregation(node)
    except UnknownExpression:
        return None
    if kind not in _KINDS or options.get("propagate_nans") or options.get("include_nulls"):
        return None
    return kind, inner


def _fits(expr: pl.Expr, kind: str, column: StateColumn, schema: pl.Schema) -> bool:
    if not expr.meta.root_names() or not is_row_wise(expr, schema):
        return False
    if kind == "Count":
        return True
    dtype = no_rows(schema).select(expr.alias("_")).collect_schema()["_"]
    if kind == "Sum":
        whole = dtype.is_integer() and dtype not in (pl.Int128, pl.UInt128)
        return whole or dtype in (pl.Boolean, pl.Float64)
    wide = dtype in (pl.Int128, pl.UInt128)
    return column.dtype == dtype and (
        (dtype.is_numeric() and not wide and not dtype.is_decimal()) or isinstance(dtype, _TIMES)
    )


def _reduce_of(kind: str, column: StateColumn) -> Reduce | None:
    is_float = column.dtype.is_float()
    match kind:
        case "Sum":
            # Integers wrap around in the width that Polars gives their sum.
            return partial(np.add.reduceat, dtype=ARRAY_TYPES[column.dtype.base_type()])
        case "Min":
            return (np.fmin if is_float else np.minimum).reduceat  # NaN gives way to numbers, as in Polars
        case "Max":
            return (np.fmax if is_float else np.maximum).reduceat
    return None


def _numbers(series: pl.Series) -> Values:
    """Numbers behind the values, nulls as zero; Booleans as what sums of them are."""
    if not series.dtype.is_numeric():  # Booleans and times
        series = series.cast(pl.Int64)
    return (series.fill_null(0) if series.null_count() else series).to_numpy()


def _is_column(expr: pl.Expr) -> bool:
    return tree.kind(tree.to_node(expr)) == "Column"
