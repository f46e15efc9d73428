"""One window for all rows of a key, given when a trigger says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import polars as pl

from unistream.elements import Batch
from unistream.errors import InvalidQuery
from unistream.expressions.order_shape import asks_for_order
from unistream.expressions.schema import CHANGE, Change, Changes, EventTime, StreamSchema
from unistream.of_columns import beside, stacked
from unistream.operators.base import Context, Operator, Output
from unistream.operators.window_contents import Aggregation
from unistream.operators.window_query import global_window_query
from unistream.operators.window_sequence import SEQUENCE, Listed
from unistream.operators.window_spec import WINDOW_END, WINDOW_START, WindowSpec
from unistream.operators.windows import GlobalWindow
from unistream.state.backend import RowIds
from unistream.state.key_codes import join_on_keys, key_codes

_ALL, _CODE = "__all", "__code"
_FROM, _COUNT, _GIVEN, _CHANGED = "__from", "__count", "__given", "__changed"


@dataclass(frozen=True, eq=False, kw_only=True)
class GlobalWindowSpec(WindowSpec):
    """All rows of a key; `window_start` and `window_end` are numbers of rows, from 0."""

    name: ClassVar[str] = "global_window"
    window: GlobalWindow

    def schema(self, inputs: Sequence[StreamSchema]) -> StreamSchema:
        if self.lateness:
            raise InvalidQuery(
                "No row is late for a global window", self.where, "leave out allowed_lateness="
            )
        found = super().schema(inputs)
        if found.changes is not Changes.APPEND and not isinstance(self.calculation, Aggregation):
            raise InvalidQuery(
                "Windows give updates of aggregates, one row per key, and of nothing else",
                self.where,
                "use .agg(...), or purge=True for results that stay",
            )
        return found

    @property
    def changes(self) -> Changes:
        once = self.emit.when == "close" and self.window.every is None
        return Changes.APPEND if once or self.window.purge else Changes.UPSERT

    def time_columns(self, rows: StreamSchema) -> dict[str, pl.DataType]:
        return {WINDOW_START: pl.Int64(), WINDOW_END: pl.Int64()}

    def result_key(self) -> tuple[str, ...]:
        return (*self.by, WINDOW_START)

    def result_time(self, rows: StreamSchema) -> EventTime | None:
        return None

    def late_schema(self, rows: StreamSchema) -> Mapping[str, pl.Schema]:
        return {}

    def build(self, inputs: Sequence[StreamSchema]) -> Operator:
        return GlobalWindowOperator(self, inputs[0])

    @property
    def by_order(self) -> bool:
        return not isinstance(self.calculation, Aggregation) or asks_for_order(self.calculation.exprs)

    def lazy(self, inputs: Sequence[pl.LazyFrame], schemas: Sequence[StreamSchema]) -> pl.LazyFrame | None:
        return global_window_query(self, inputs[0], schemas[0])


class GlobalWindowOperator(Operator):
    """A row per key: what its rows have been folded into, how many they are, and what was given of them."""

    def __init__(self, spec: GlobalWindowSpec, rows: StreamSchema) -> None:
        self._by = list(spec.by)
        self._emit, self._every, self._purge = spec.emit, spec.window.every, spec.window.purge
        self._contents = Listed.unless_short(spec.calculation.contents(rows.columns, spec.by, spec.where))
        result = spec.schema([rows])
        self._columns, self._updating = result.columns.names(), result.changes is Changes.UPSERT
        self._keys = pl.Schema({name: rows.columns[name] for name in self._by} or {_ALL: pl.Int8()})
        self._seen = 0
        self._next_given: int | None = None

    def open(self, context: Context) -> None:
        self._clock = context.clock
        numbers = {_FROM: pl.Int64(), _COUNT: pl.Int64(), _GIVEN: pl.Boolean(), _CHANGED: pl.Boolean()}
        values = pl.Schema({**self._contents.stored, **numbers})
        self._table = context.state.keyed("keys", self._keys, values)
        for name in numbers:  # a column that was seen as an array is zero, not null, in new rows
            self._table.column(name)
        self._seen = self._contents.last_sequence(self._table.read(self._table.rows())) + 1
        self._schedule()

    def process(self, batch: Batch, out: Output) -> None:
        rows = batch.frame if self._by else batch.frame.with_columns(pl.lit(0, pl.Int8).alias(_ALL))
        _, codes = key_codes(rows, self._keys.names())
        born = np.arange(self._seen, self._seen + rows.height)
        self._seen += rows.height
        marked = rows.with_columns(pl.Series(_CODE, codes), pl.Series(SEQUENCE, born))
        parts = self._contents.fold(marked, [_CODE, *self._keys])
        ids = self._fold(parts.drop(_CODE))
        counts = self._table.column(_COUNT)
        before = counts.take(ids)
        counts[ids] = before + np.bincount(codes)[parts.get_column(_CODE).to_numpy()]
        self._table.column(_CHANGED)[ids] = True
        self._table.touch(ids)
        if self._emit.when == "change":
            self._give(ids, out)
        elif self._every is not None:
            self._give(ids[counts.take(ids) // self._every > before // self._every], out)
        self._schedule()

    def _fold(self, parts: pl.DataFrame) -> RowIds:
        """Merge parts into the rows of their keys; the ids of these, in the order of `parts`."""
        keys, names = parts.select(self._keys.names()), self._contents.stored.names()
        ids, new = self._table.upsert(keys)
        begun = ~new
        if self._purge:
            begun &= self._table.column(_CHANGED).take(ids)
        if begun.any():
            older = beside(keys.filter(pl.Series(begun)), self._table.read(ids[begun]))
            both = stacked([older.select(parts.columns), parts])
            merged = self._contents.merge(both, self._keys.names())
            parts = join_on_keys(keys, merged, self._keys.names(), "left")
        self._table.write(ids, parts.select(names))
        return ids

    def _give(self, ids: RowIds, out: Output) -> None:
        """Hand on what these keys have come to."""
        given = self._table.column(_GIVEN).take(ids)
        for change, some in ((Change.INSERT, ids[~given]), (Change.UPDATE_AFTER, ids[given])):
            if len(some):
                out.emit(self._result(some, change))
        self._table.column(_CHANGED)[ids] = False
        if self._purge:
            self._table.column(_FROM)[ids] = self._table.column(_COUNT).take(ids)
        else:
            self._table.column(_GIVEN)[ids] = True
        self._table.touch(ids)

    def _result(self, ids: RowIds, change: Change) -> pl.DataFrame:
        names = [WINDOW_START, WINDOW_END, *self._keys]
        parts = beside(self._table.keys(ids), self._table.read(ids))
        bounds = {WINDOW_START: pl.col(_FROM), WINDOW_END: pl.col(_COUNT)}
        made = self._contents.finish(parts.with_columns(**bounds), names).select(self._columns)
        return made.with_columns(pl.lit(change.value, pl.Int8).alias(CHANGE)) if self._updating else made

    def _changed(self) -> RowIds:
        ids = self._table.rows()
        changed: RowIds = ids[self._table.column(_CHANGED).take(ids)]
        return changed

    def _schedule(self) -> None:
        if self._emit.when == "every" and self._next_given is None and len(self._table):
            self._next_given = self._clock.now() + self._emit.every

    def next_wakeup(self) -> int | None:
        return self._next_given

    def on_processing_time(self, now: int, out: Output) -> None:
        self._give(self._changed(), out)
        self._next_given = None

    def finish(self, out: Output) -> None:
        self._give(self._changed(), out)
