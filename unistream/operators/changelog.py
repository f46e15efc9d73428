"""From one changelog mode to another: upserts to retractions, changes to plain rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import polars as pl

from unistream.elements import Batch
from unistream.errors import InvalidQuery
from unistream.expressions.changelog import came
from unistream.expressions.schema import CHANGE, OPERATION, Change, Changes, StreamSchema, spell_changes
from unistream.of_columns import columns_of, frame_of
from unistream.operators.base import Context, Operator, OperatorSpec, Output
from unistream.operators.buffered_aggregate import marks
from unistream.operators.folded_array import Mask
from unistream.operators.row_order import Positions, equal
from unistream.operators.row_places import runs_of
from unistream.state.backend import RowIds
from unistream.state.gather import taken


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
        frame = batch.frame
        rows, made = self._table.place(columns_of(frame, self._key))
        comes = came(frame)
        order, first = runs_of(rows)
        if len(first) < len(rows):
            last = np.sort(order[np.append(first[1:], len(order)) - 1])
            frame, rows, made, comes = taken(frame, last), rows[last], made[last], comes[last]
        changes = ~comes | made
        changes[~changes] = self._differ(frame, rows, np.flatnonzero(~changes))
        replaced = changes & ~made
        self._take_back(rows[replaced], comes[replaced], out)
        # Keys that are deleted before they were ever seen were given rows, too.
        self._table.delete(rows[~comes])
        coming = np.flatnonzero(changes & comes)
        if len(coming):
            self._hand_on(taken(frame, coming), rows[coming], made[coming], out)

    def _differ(self, frame: pl.DataFrame, rows: RowIds, known: Positions) -> Mask:
        """Which rows of known keys are not as they were, as maxima are that got smaller values."""
        old = self._table.read(rows[known])
        differ = np.zeros(len(known), dtype=np.bool_)
        for name in self._values:
            differ |= ~equal(old.get_column(name), frame.get_column(name)[known])
        return differ

    def _take_back(self, rows: RowIds, replaced: Mask, out: Output) -> None:
        if len(rows):
            old = [*self._table.keys(rows).get_columns(), *self._table.read(rows).get_columns()]
            why = np.where(replaced, Change.UPDATE_BEFORE.value, Change.DELETE.value).astype(np.int8)
            out.emit(columns_of(frame_of([*old, pl.Series(CHANGE, why)]), [*self._columns, CHANGE]))

    def _hand_on(self, coming: pl.DataFrame, rows: RowIds, made: Mask, out: Output) -> None:
        if self._values:
            self._table.write(rows, columns_of(coming, self._values))
        out.emit(coming.drop(CHANGE).hstack([marks(made)]))


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
