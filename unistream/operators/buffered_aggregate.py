"""Aggregates that cannot be folded: the rows of each key are kept and its touched keys evaluated anew."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from unistream.elements import Batch
from unistream.expressions.analysis import columns_read
from unistream.expressions.schema import CHANGE, Change, Changes, StreamSchema
from unistream.of_columns import stacked
from unistream.operators.base import Context, Operator, Output
from unistream.operators.kept_rows import KeptRows, standing
from unistream.state.key_codes import join_on_keys


class BufferedAggregate(Operator):
    """Keeps the columns that are read, of all rows of each key."""

    def __init__(self, by: Sequence[str], exprs: Sequence[pl.Expr], schema: StreamSchema) -> None:
        self._by = list(by)
        self._exprs = exprs
        self._schema = schema
        self._updating = schema.changes is not Changes.APPEND

    def open(self, context: Context) -> None:
        columns = self._schema.columns
        reads = frozenset[str]().union(*(columns_read(expr) for expr in self._exprs)) - set(self._by)
        keys = pl.Schema({name: columns[name] for name in self._by})
        kept = pl.Schema({name: dtype for name, dtype in columns.items() if name in reads})
        self._kept = KeptRows(context.state, "rows", keys, kept)

    def process(self, batch: Batch, out: Output) -> None:
        frame = self._kept.narrowed(batch.frame)
        old = self._kept.stored(frame)
        if self._updating:
            rows = standing(old, frame, self._kept.names)
            self._delete(old, rows, out)
        else:
            rows = stacked([old, frame])
        result = self._evaluated(rows)
        out.emit(result.with_columns(marks(self._kept.keep(rows))))

    def _delete(self, old: pl.DataFrame, rows: pl.DataFrame, out: Output) -> None:
        """Keys that have no rows any more; a deletion carries what was true before it."""
        gone = self._kept.keys_gone(old, rows)
        if gone.height:
            last = self._evaluated(join_on_keys(old, gone, self._by, "semi"))
            out.emit(last.with_columns(pl.lit(Change.DELETE.value, pl.Int8).alias(CHANGE)))
            self._kept.forget(gone)

    def _evaluated(self, rows: pl.DataFrame) -> pl.DataFrame:
        return rows.group_by(self._by, maintain_order=True).agg(self._exprs)


_MARKS = np.array([Change.UPDATE_AFTER.value, Change.INSERT.value], dtype=np.int8)


def marks(new: npt.NDArray[np.bool_]) -> pl.Series:
    """The column that tells rows of new keys from rows that replace others."""
    return pl.Series(CHANGE, _MARKS.take(new))
