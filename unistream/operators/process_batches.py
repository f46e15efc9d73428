"""A function over all rows of a tick, with the state of their keys as columns beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import polars as pl

from unistream.elements import Batch
from unistream.errors import DataError
from unistream.expressions.schema import StreamSchema
from unistream.of_columns import beside
from unistream.operators.base import Context, Operator, OperatorSpec, Output
from unistream.state.backend import RowIds

BatchFunction = Callable[[pl.DataFrame], tuple[pl.DataFrame, pl.DataFrame]]
"""From rows with state columns to rows and new states."""


@dataclass(frozen=True, eq=False, kw_only=True)
class ProcessBatches(OperatorSpec):
    """`function` over rows with `state` columns; it gives rows of `made` and new states by key."""

    name: ClassVar[str] = "process_batches"
    by: tuple[str, ...]
    function: BatchFunction
    state: pl.Schema
    made: pl.Schema

    def schema(self, inputs: Sequence[StreamSchema]) -> StreamSchema:
        known = replace(inputs[0], key=(), side_outputs={})
        return known.with_columns(self.made)

    @property
    def keys(self) -> tuple[str, ...]:
        return self.by

    def build(self, inputs: Sequence[StreamSchema]) -> Operator:
        return _ProcessBatches(self, inputs[0])

    @property
    def label(self) -> str:
        """The function's name as the user knows it."""
        return getattr(self.function, "__name__", type(self.function).__name__)

    def describe(self) -> Mapping[str, str]:
        return {
            "by": ", ".join(self.by),
            "runs": self.label,
            "state": f"{', '.join(self.state)} of every key",
        }


class _ProcessBatches(Operator):
    """Looks up the states, calls the function once, writes what it gives."""

    def __init__(self, spec: ProcessBatches, schema: StreamSchema) -> None:
        self._spec = spec
        self._by = list(spec.by)
        self._keys = pl.Schema({name: schema.columns[name] for name in spec.by})
        self._returned = pl.Schema({**self._keys, **spec.state})

    def open(self, context: Context) -> None:
        self._table = context.state.keyed("states", self._keys, self._spec.state)

    def process(self, batch: Batch, out: Output) -> None:
        keys = batch.frame.select(self._by)
        found = self._table.find(keys)
        given = beside(batch.frame, self._states(found))
        result = self._spec.function(given)
        if not (isinstance(result, tuple) and len(result) == 2):
            raise self._wrong("did not return rows and states", "return `rows, states`, two frames")
        rows, states = result
        self._check("rows", rows, self._spec.made)
        self._check("states", states, self._returned)
        # States are mostly one for each row, whose places are known then.
        theirs = states.select(self._by)
        self._keep(states, found if theirs.equals(keys) else self._table.find(theirs))
        out.emit(rows.select(self._spec.made.names()))

    def _states(self, found: RowIds) -> pl.DataFrame:
        """The state of each row's key, nulls where there is none."""
        unknown = found < 0
        if not unknown.any():
            return self._table.read(found)
        if unknown.all():
            state = self._spec.state.items()
            return pl.DataFrame(
                [pl.Series(name, [None], dtype).new_from_index(0, len(found)) for name, dtype in state]
            )
        # Keys without a state read any row, whose values are then taken away again.
        read = self._table.read(np.where(unknown, found.max(), found))
        there = pl.Series(~unknown)
        return read.select(pl.when(there).then(pl.all()))

    def _keep(self, states: pl.DataFrame, found: RowIds) -> None:
        """Of several states of one key the last stands."""
        missing = np.flatnonzero(found < 0)
        if len(missing):
            fresh = states[missing].unique(self._by, keep="last", maintain_order=True)
            fresh = fresh.filter(~pl.all_horizontal(pl.col(self._spec.state.names()).is_null()))
            rows, _ = self._table.upsert(fresh.select(self._by))
            self._table.write(rows, fresh.select(self._spec.state.names()))
        last = _last_of_each(found)
        values = states.select(self._spec.state.names())
        if len(last) < len(found):
            found, values = found.take(last), values[last]
        self._write(found, values)

    def _write(self, rows: RowIds, values: pl.DataFrame) -> None:
        """Replace the states of these rows; a state of nulls is none."""
        if all(column.null_count() for column in values.get_columns()):
            nothing = values.select(pl.all_horizontal(pl.all().is_null())).to_series()
            self._table.delete(rows[nothing.to_numpy()])
            rows, values = rows[~nothing.to_numpy()], values.filter(~nothing)
        self._table.write(rows, values)

    def _check(self, what: str, frame: object, promised: pl.Schema) -> None:
        hint = f"return a frame with the columns {dict(promised)}"
        if not isinstance(frame, pl.DataFrame):
            raise self._wrong(f"gave {type(frame).__name__} for its {what}", hint)
        if dict(frame.schema) != dict(promised):
            raise self._wrong(f"gave {what} with columns {dict(frame.schema)}", hint)

    def _wrong(self, what: str, hint: str) -> DataError:
        return DataError(f"process_batches: {self._spec.label} {what}", self._spec.where, hint)


def _last_of_each(rows: RowIds) -> npt.NDArray[np.intp]:
    """The last position of each row id that is not negative.

    >>> _last_of_each(np.array([4, -1, 2, 4])).tolist()
    [2, 3]
    """
    if not len(rows):
        return np.empty(0, dtype=np.intp)
    owner = np.empty(max(int(rows.max()), 0) + 1, dtype=np.int32)
    places = np.arange(len(rows), dtype=np.int32)
    there = np.flatnonzero(rows >= 0)
    owner[rows[there]] = places[there]  # where several write, the last one stays
    last: npt.NDArray[np.intp] = there[owner.take(rows[there]) == places[there]]
    return last
