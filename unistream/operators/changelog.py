"""From one changelog mode to another: upserts to retractions, changes to plain rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import polars as pl

from unistream.elements import Batch
from unistream.errors import InvalidQuery
from unistream.expressions.changelog import COMING
from unistream.expressions.schema import CHANGE, OPERATION, Change, Changes, StreamSchema, spell_changes
from unistream.operators.base import Context, Operator, OperatorSpec, Output
from unistream.operators.row_order import columns_of
from unistream.state.backend import RowIds


@dataclass(frozen=True, eq=False, kw_only=True)
class Retractions(OperatorSpec):
    """Upserts by key as pairs: the row that was true is taken back before the new one comes.

    Put in front of every operator that has to take earlier rows back, such as an aggregate.
    """

    name: ClassVar[str] = "retractions"

    def schema(self, inputs: Sequence[StreamSchema]) -> StreamSchema:
        schema = inputs[0]
        if schema.changes is Changes.UPSERT and not schema.key:
            hint = "keep the key columns in the select before"
            raise InvalidQuery("The stream updates rows by a key that was dropped", self.where, hint)
        return replace(schema, changes=Changes.RETRACT, side_outputs={})

    @property
    def accepts_updates(self) -> bool:
        return True

    def build(self, inputs: Sequence[StreamSchema]) -> Operator:
        return _Retractions(inputs[0])

    def lazy(self, inputs: Sequence[pl.LazyFrame], schemas: Sequence[StreamSchema]) -> pl.LazyFrame | None:
        return inputs[0]  # nothing is taken back in a table that is final

    def describe(self) -> Mapping[str, str]:
        return {"state": "the latest row of each key, for ever"}


class _Retractions(Operator):
    """Remembers the latest row of each key; within a batch only the last row of a key counts."""

    def __init__(self, schema: StreamSchema) -> None:
        self._key = list(schema.key)
        self._values = [name for name in schema.columns if name not in schema.key]
        self._columns = schema.columns

    def open(self, context: Context) -> None:
        keys = pl.Schema({name: self._columns[name] for name in self._key})
        # A table needs a value even when every column is part of the key.
        values = pl.Schema({name: self._columns[name] for name in self._values})
        self._table = context.state.keyed("latest", keys, values)

    def process(self, batch: Batch, out: Output) -> None:
        last = batch.frame.unique(subset=self._key, keep="last", maintain_order=True)
        found = self._table.find(last.select(self._key))
        known = found >= 0
        comes = last[CHANGE].is_in(COMING).to_numpy()
        same = self._unchanged(last, found) & comes
        if same.any():
            last, found, known, comes = (
                last.filter(pl.Series(~same)),
                found[~same],
                known[~same],
                comes[~same],
            )
        self._take_back(found[known], comes[known], out)
        deleted = found[known & ~comes]
        if len(deleted):
            self._table.delete(deleted)
        coming = last.filter(pl.Series(comes))
        if coming.height:
            rows, new = self._table.upsert(coming.select(self._key))
            if self._values:
                self._table.write(rows, coming.select(self._values))
            marks = np.where(new, Change.INSERT.value, Change.UPDATE_AFTER.value).astype(np.int8)
            out.emit(coming.with_columns(pl.Series(CHANGE, marks)))

    def _unchanged(self, rows: pl.DataFrame, found: RowIds) -> npt.NDArray[np.bool_]:
        """Which rows are as they were, such as maxima of keys that got smaller values."""
        same = found >= 0
        places = np.flatnonzero(same)
        old, new = self._table.read(found[places]), rows.select(self._values)[places]
        for name in self._values:
            same[places] &= old[name].eq_missing(new[name]).to_numpy()
        return same

    def _take_back(self, rows: np.ndarray, replaced: np.ndarray, out: Output) -> None:
        if len(rows):
            old = pl.concat([self._table.keys(rows), self._table.read(rows)], how="horizontal")
            marks = np.where(replaced, Change.UPDATE_BEFORE.value, Change.DELETE.value).astype(np.int8)
            out.emit(old.select(*self._columns, pl.Series(CHANGE, marks)))


@dataclass(frozen=True, eq=False, kw_only=True)
class ShowChanges(OperatorSpec):
    """The changelog as rows that are only ever added, with a first column `op`."""

    name: ClassVar[str] = "changes"
    stateful: ClassVar[bool] = False

    def schema(self, inputs: Sequence[StreamSchema]) -> StreamSchema:
        if OPERATION in inputs[0].columns:
            hint = f"rename column {OPERATION!r} first"
            raise InvalidQuery(
                f"changes() adds a column {OPERATION!r}, which is there already", self.where, hint
            )
        columns = [(OPERATION, pl.String()), *inputs[0].columns.items()]
        return StreamSchema(pl.Schema(columns), bounded=inputs[0].bounded)

    @property
    def accepts_updates(self) -> bool:
        return True

    def build(self, inputs: Sequence[StreamSchema]) -> Operator:
        return _ShowChanges(inputs[0])


class _ShowChanges(Operator):
    def __init__(self, schema: StreamSchema) -> None:
        self._columns = [*schema.columns, CHANGE]
        self._plain = schema.changes is Changes.APPEND

    def process(self, batch: Batch, out: Output) -> None:
        frame = batch.frame
        if self._plain:
            frame = frame.with_columns(pl.lit(Change.INSERT.value, pl.Int8).alias(CHANGE))
        out.emit(spell_changes(columns_of(frame, self._columns)))
