"""A function over all rows of a tick, with the state of their keys as columns beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import polars as pl

from unistream.elements import Batch
from unistream.errors import DataError, StateError
from unistream.expressions.schema import StreamSchema
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
        given = pl.DataFrame([*batch.frame.get_columns(), *self._states(batch.frame).get_columns()])
        result = self._spec.function(given)
        if not (isinstance(result, tuple) and len(result) == 2):
            raise self._wrong("did not return rows and states", "return `rows, states`, two frames")
        rows, states = result
        self._check("rows", rows, self._spec.made)
        self._check("states", states, self._returned)
        self._write(states.select(self._returned.names()))
        out.emit(rows.select(self._spec.made.names()))

    def _states(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The state of each row's key, nulls where there is none."""
        found = self._table.find(frame.select(self._by))
        unknown = found < 0
        if not unknown.any():
            return self._table.read(found)
        if unknown.all():
            return pl.DataFrame(
                [
                    pl.Series(name, [None], dtype).new_from_index(0, len(found))
                    for name, dtype in self._spec.state.items()
                ]
            )
        # Keys without a state read any row, whose values are then taken away again.
        read = self._table.read(np.where(unknown, found.max(), found))
        there = pl.Series(~unknown)
        return read.select(pl.when(there).then(pl.all()))

    def _write(self, states: pl.DataFrame) -> None:
        if not states.height:
            return
        values = states.select(self._spec.state.names())
        if all(column.null_count() for column in values.get_columns()):
            nothing = values.select(pl.all_horizontal(pl.all().is_null())).to_series()
            rows = self._table.find(states.filter(nothing).select(self._by))
            self._table.delete(np.unique(rows[rows >= 0]))
            states, values = states.filter(~nothing), values.filter(~nothing)
        hint = "group by the key and take one row of each, as in `.group_by(keys).last()`"
        try:
            rows, _ = self._table.upsert(states.select(self._by))
        except StateError as error:
            raise self._wrong("gave two states for one key", hint) from error
        if not _distinct(rows):
            raise self._wrong("gave two states for one key", hint)
        self._table.write(rows, values)

    def _check(self, what: str, frame: object, promised: pl.Schema) -> None:
        hint = f"return a frame with the columns {dict(promised)}"
        if not isinstance(frame, pl.DataFrame):
            raise self._wrong(f"gave {type(frame).__name__} for its {what}", hint)
        if dict(frame.schema) != dict(promised):
            raise self._wrong(f"gave {what} with columns {dict(frame.schema)}", hint)

    def _wrong(self, what: str, hint: str) -> DataError:
        return DataError(f"process_batches: {self._spec.label} {what}", self._spec.where, hint)


def _distinct(rows: RowIds) -> bool:
    """Whether no row id is there twice: each keeps the place that was written into it."""
    if not len(rows):
        return True
    owner = np.empty(int(rows.max()) + 1, dtype=np.int32)
    places = np.arange(len(rows), dtype=np.int32)
    owner[rows] = places
    return bool((owner.take(rows) == places).all())
