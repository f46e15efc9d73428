"""The state of a decomposed aggregation, one row per key, folded in place."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from unistream.expressions.aggregates import Decomposition
from unistream.of_columns import frame_of, in_one_piece, stacked
from unistream.operators.folded_array import FoldedArray, Mask, folds_in_place, value_columns
from unistream.operators.row_order import in_key_order, in_row_order
from unistream.operators.row_places import runs_of
from unistream.operators.run_reducer import RunReducer
from unistream.state.backend import KeyedTable, RowIds, StateStore
from unistream.state.gather import taken

_ROW = "__row"
_BYTES_AT_ONCE = 4 << 20
"""So much of what NumPy cannot fold is merged together: it is copied several times on the way."""


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
        arrays = [column for column in found.columns if folds_in_place(column)]
        folded = {column.name for column in arrays}
        self._frames = [column for column in found.columns if column.name not in folded]
        self._merge = [expr for expr in found.merge if expr.meta.output_name() not in folded]
        self._order = [column.name for column in found.columns]
        self._key_width = len(keys)
        self._row_bytes = 0  # of what Polars merges, as it was when it was merged last
        self.table: KeyedTable = store.keyed(name, keys, value_columns(found.columns))
        self._arrays = [FoldedArray(column, self.table) for column in arrays]

    def fold(self, partials: pl.DataFrame) -> Iterator[Groups]:
        """Add partial rows: key columns, then state columns, of distinct keys; a part of them at a time."""
        _, rows, new = self.place(partials)
        order = in_row_order(rows)
        step = max(1, _BYTES_AT_ONCE // max(1, self._row_bytes))
        for start in range(0, len(rows), step):
            part = order[start : start + step]
            yield self._fold(rows.take(part), new.take(part), taken(partials, part))

    def _fold(self, rows: RowIds, new: Mask, partials: pl.DataFrame) -> Groups:
        """Add partial rows to these rows of the table, which ascend."""
        keys = frame_of(partials.get_columns()[: self._key_width])
        fresh = np.flatnonzero(new)
        # What Polars merges may read columns that are folded in place, as they were before.
        states = self._merged(rows, fresh, partials) if self._frames else {}
        for array in self._arrays:
            states[array.name] = array.fold(rows, fresh, partials.get_column(array.name))
        self.table.touch(rows)
        return Groups(rows, new, keys, frame_of([states[name] for name in self._order]))

    def fold_rows(self, rows: pl.DataFrame, reducer: RunReducer) -> Groups | None:
        """As `fold`, of rows that are not grouped yet; None for rows that the reducer leaves to `group_by`.

        `rows` has the key columns first. Every state column must fold in place.
        """
        rows = in_one_piece(rows)  # or each step would put the pieces together for itself
        values = reducer.values_of(rows)
        if values is None:
            return None
        keys = frame_of(rows.get_columns()[: self._key_width])
        places, made = self.table.place(keys)
        order, first = runs_of(places)
        partials = reducer.reduce(values, order, first)
        heads = order[first]
        places, new = places.take(heads), made.take(heads)
        fresh = np.flatnonzero(new)
        states = [array.fold(places, fresh, partials.get_column(array.name)) for array in self._arrays]
        self.table.touch(places)
        return Groups(places, new, taken(keys, heads), frame_of(states))

    def place(self, partials: pl.DataFrame) -> tuple[pl.DataFrame, RowIds, Mask]:
        """The keys of partial rows, their rows in the table and which were made now."""
        keys = frame_of(partials.get_columns()[: self._key_width])
        rows = self.table.find(keys)
        new = rows < 0
        missing = np.flatnonzero(new)
        if len(missing):
            missing = missing[in_key_order(keys[missing])]
            rows[missing] = self.table.insert(keys[missing])
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
        return frame_of([found[name] for name in self._order])

    def _merged(self, rows: RowIds, fresh: RowIds, partials: pl.DataFrame) -> dict[str, pl.Series]:
        """The columns that NumPy cannot fold, merged by Polars and written."""
        names = [column.name for column in self._frames]
        merged = partials.select(names)
        if len(fresh) < len(rows):
            known = np.delete(rows, fresh)
            old = self.states(known).with_columns(pl.Series(_ROW, known))
            given = partials.select(*self._order, pl.Series(_ROW, rows))
            both = stacked([old, given]).group_by(_ROW, maintain_order=True).agg(self._merge)
            merged = both.sort(_ROW).select(names)
        self.table.write(rows, merged)
        self._row_bytes = int(merged.estimated_size()) // len(rows)
        return {name: merged[name] for name in names}
