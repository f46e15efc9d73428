"""One row per key that is true so far, handed on whenever its key was touched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import polars as pl

from unistream.elements import Batch
from unistream.errors import InvalidQuery
from unistream.expressions.aggregates import Decomposition, Holistic, decompose
from unistream.expressions.analysis import columns_read, output_schema
from unistream.expressions.arrival_order import is_settled
from unistream.expressions.changelog import came
from unistream.expressions.expression_tree import cast_column
from unistream.expressions.order_shape import asks_for_order
from unistream.expressions.schema import CHANGE, Change, Changes, StreamSchema
from unistream.of_columns import columns_of, frame_of
from unistream.operators.accumulators import Accumulators, Groups
from unistream.operators.base import Context, Operator, OperatorSpec, Output
from unistream.operators.buffered_aggregate import BufferedAggregate, marks
from unistream.operators.distinct_marks import DistinctMarks
from unistream.operators.folded_array import Mask, folds_in_place
from unistream.operators.row_order import Positions
from unistream.operators.row_places import runs_of
from unistream.operators.run_reducer import RunReducer
from unistream.state.backend import RowIds
from unistream.state.distinct import distinct
from unistream.state.gather import taken
from unistream.state.shown import show_as
from unistream.state.tags import is_exact

_ORDERLESS = ("sum", "min", "max")
_NARROW = (pl.Float32, pl.Float16)
_COUNT = "__count"


@dataclass(frozen=True, eq=False, kw_only=True)
class RunningAggregate(OperatorSpec):
    """Aggregates over all rows of a key so far; the output updates by key."""

    name: ClassVar[str] = "aggregate"
    by: tuple[str, ...]
    exprs: tuple[pl.Expr, ...]
    kept: str = ""
    """For `explain`: what is held for each key; see `what_is_kept`."""

    def schema(self, inputs: Sequence[StreamSchema]) -> StreamSchema:
        schema = inputs[0]
        if schema.changes is Changes.UPSERT:
            raise InvalidQuery("An aggregate over an upsert stream needs its earlier rows", self.where)
        keys = [(name, schema.columns[name]) for name in self.by]
        results = output_schema("agg", self.exprs, schema.columns, "agg", self.where, self.by)
        made = [(name, dtype) for name, dtype in results.items() if name not in self.by]
        return StreamSchema(
            pl.Schema(keys + made), changes=Changes.UPSERT, key=self.by, bounded=schema.bounded
        )

    @property
    def keys(self) -> tuple[str, ...]:
        return self.by

    @property
    def accepts_updates(self) -> bool:
        return True

    @property
    def needs_retractions(self) -> bool:
        return True

    def reads(self, inputs: Sequence[StreamSchema], needed: frozenset[str]) -> Sequence[frozenset[str]]:
        return [frozenset(self.by).union(*(columns_read(expr) for expr in self.exprs))]

    def build(self, inputs: Sequence[StreamSchema]) -> Operator:
        schema = inputs[0]
        found = _plan(self.by, self.exprs, schema)
        if isinstance(found, Holistic):
            return BufferedAggregate(self.by, self.exprs, schema)
        return _Folded(self, schema, found)

    @property
    def by_order(self) -> bool:
        return asks_for_order(self.exprs)

    def holds_rows(self, schemas: Sequence[StreamSchema]) -> bool:
        return isinstance(decompose(self.exprs, schemas[0].columns, self.by), Holistic)

    def lazy(self, inputs: Sequence[pl.LazyFrame], schemas: Sequence[StreamSchema]) -> pl.LazyFrame | None:
        groups = inputs[0].group_by(self.by)
        reads = frozenset[str]().union(*(columns_read(expr) for expr in self.exprs))
        narrow = any(schemas[0].columns[name] in _NARROW for name in reads)
        if not narrow and all(is_settled(expr) for expr in self.exprs):
            return groups.agg(self.exprs)
        # Where Polars may choose, as among equals, what is kept of rows says which it is; and sums of narrow
        # floats are kept wide.
        found = decompose(self.exprs, schemas[0].columns, self.by)
        if isinstance(found, Holistic):
            return groups.agg(self.exprs)
        return groups.agg(found.partial).select(*self.by, *found.finish)

    def describe(self) -> Mapping[str, str]:
        exprs = ", ".join(" ".join(str(expr).split()) for expr in self.exprs)
        found = {"by": ", ".join(self.by), "aggregates": exprs}
        return found | ({"keeps": self.kept} if self.kept else {}) | {"state": "every key, for ever"}


def what_is_kept(by: Sequence[str], exprs: Sequence[pl.Expr], schema: StreamSchema) -> str:
    """What a running aggregate holds for each key, and why when that is all of its rows."""
    found = _plan(by, exprs, schema)
    if isinstance(found, Holistic):
        columns = sorted(frozenset[str]().union(*(columns_read(expr) for expr in exprs)) - set(by))
        return f"{', '.join(columns) or 'no column'} of all rows of a key, because {found}"
    lists = f", {len(found.kept_values)} of them lists of values" if found.kept_values else ""
    different = ", ".join(dict.fromkeys(str(one.values.expr) for one in found.distinct))
    values = f", and the different values of {different}" if different else ""
    return f"{len(found.columns)} running values per key{lists}{values}"


def _plan(by: Sequence[str], exprs: Sequence[pl.Expr], schema: StreamSchema) -> Decomposition | Holistic:
    """How the expressions are kept: folded, or else evaluated anew over all rows of a key."""
    if schema.changes is Changes.APPEND:
        return decompose(exprs, schema.columns, by, marked=True)
    # Whether a key still has rows is not for the user's aggregates to tell.
    found = decompose([*exprs, pl.len().alias(_COUNT)], schema.columns, by, retracting=True)
    if isinstance(found, Holistic) or found.invertible:
        return found
    for expr in exprs:
        alone = decompose([expr], schema.columns, by, retracting=True)
        if isinstance(alone, Decomposition) and not alone.invertible:
            return Holistic(" ".join(str(expr).split()), "cannot take a row back exactly")
    raise AssertionError("one of the expressions must be in the way")


@dataclass(frozen=True, slots=True)
class ByPlace:
    """When rows are put in order of their places in the table rather than grouped: always in small ticks, in
    larger ones where keys have few rows each, as they had in the tick before. Polars groups others faster."""

    most_rows: int
    least_keys: float
    """Keys for each row."""

    def suits(self, rows: int, keys_per_row: float) -> bool:
        """Whether a tick of so many rows should go by place."""
        return rows <= self.most_rows or keys_per_row >= self.least_keys


# Looking up a key that is one number costs next to nothing; any other is hashed and compared.
_OF_NUMBERS = ByPlace(32_768, 0.05)
_OF_OTHERS = ByPlace(8_192, 0.3)


class _Folded(Operator):
    """Keeps partial aggregates: the batch is grouped once, then folded into the table in place."""

    def __init__(self, spec: RunningAggregate, schema: StreamSchema, found: Decomposition) -> None:
        self._by = list(spec.by)
        self._schema = schema
        self._updating = schema.changes is not Changes.APPEND
        self._found = found
        self._finish = [expr for expr in found.finish if expr.meta.output_name() != _COUNT]
        in_place = all(folds_in_place(column) and column.how in _ORDERLESS for column in found.columns)
        rows = pl.Schema({**schema.columns, **found.marks})
        self._reducer = RunReducer.of(found, rows) if in_place else None
        self._keys = pl.Schema({name: schema.columns[name] for name in spec.by})
        self._by_place = _OF_NUMBERS if is_exact(self._keys) else _OF_OTHERS
        self._keys_per_row = 0.0
        others = [name for name in rows if name not in spec.by]
        self._columns = [*spec.by, *others]
        self._count = [expr for expr in found.finish if expr.meta.output_name() == _COUNT]
        self._casts = [cast_column(expr) for expr in self._finish]
        made = spec.schema([schema]).columns
        self._made = [(expr.meta.output_name(), made[expr.meta.output_name()]) for expr in self._finish]

    def open(self, context: Context) -> None:
        self._state = Accumulators(context.state, "groups", self._keys, self._found)
        show_as(context.state, "groups", [*self._by, *self._finish])
        distinct = self._found.distinct
        self._marks = DistinctMarks(context.state, self._keys, distinct) if distinct else None

    def process(self, batch: Batch, out: Output) -> None:
        if self._updating:
            self._process_changes(batch.frame, out)
            return
        frame, keys = batch.frame, 0
        if self._marks is not None:
            frame = self._marks.marked(frame)
        by_place = self._folded_by_place(frame)
        for groups in self._state.fold(self._partials(frame)) if by_place is None else [by_place]:
            keys += len(groups.rows)
            out.emit(self._rows(groups.keys, groups.states, marks(groups.new)))
        self._keys_per_row = keys / max(1, frame.height)

    def _folded_by_place(self, frame: pl.DataFrame) -> Groups | None:
        if self._reducer is None or not self._by_place.suits(frame.height, self._keys_per_row):
            return None
        return self._state.fold_rows(columns_of(frame, self._columns), self._reducer)

    def _partials(self, frame: pl.DataFrame) -> pl.DataFrame:
        return frame.group_by(self._by).agg(self._found.partial)

    def _rows(self, keys: pl.DataFrame, states: pl.DataFrame, change: pl.Series) -> pl.DataFrame:
        """Finished rows; `states` are aligned with `keys`."""
        if None in self._casts:
            whole = frame_of([*keys.get_columns(), *states.get_columns(), change])
            return whole.select_seq(*self._by, *self._finish, CHANGE)
        # Sums, counts and extremes need no query, which would cost as much as folding them.
        finished = [
            _cast(states.get_column(str(column)), dtype).alias(name)
            for column, (name, dtype) in zip(self._casts, self._made, strict=True)
        ]
        return frame_of([*keys.get_columns(), *finished, change])

    def _process_changes(self, frame: pl.DataFrame, out: Output) -> None:
        """What came and what went is grouped apart; only what is left of both is handed on."""
        if frame.is_empty():
            return
        state = self._state
        comes = came(frame)
        parts = self._reduced_changes(frame, comes)
        if parts is None:
            parts = [self._grouped_change(taken(frame, which), sign) for which, sign in _sides(comes)]
        self._keys_per_row = sum(len(part.rows) for part in parts) / frame.height
        rows = distinct(np.concatenate([part.rows for part in parts]))
        new = np.isin(rows, np.concatenate([part.rows[part.made] for part in parts]))
        state.clear(rows[new])
        before = state.states(rows)
        for part in parts:
            state.add(part.rows, part.partials, part.sign)
        after, keys = state.states(rows), state.table.keys(rows)
        empty: Mask = after.select(self._count).to_series().to_numpy() <= 0
        gone, left = np.flatnonzero(empty & ~new), np.flatnonzero(~empty)
        if len(gone):
            # A deletion carries the row that was true before it.
            deleted = pl.Series(CHANGE, np.full(len(gone), Change.DELETE.value, dtype=np.int8))
            out.emit(self._rows(taken(keys, gone), taken(before, gone), deleted))
        out.emit(self._rows(taken(keys, left), taken(after, left), marks(new[left])))
        state.table.delete(rows[empty])

    def _grouped_change(self, frame: pl.DataFrame, sign: int) -> _Change:
        partials = self._partials(frame)
        _, rows, made = self._state.place(partials)
        return _Change(sign, rows, made, partials)

    def _reduced_changes(self, frame: pl.DataFrame, comes: Mask) -> list[_Change] | None:
        """As `_grouped_change` of what came and what went, by places in the table; None if it must group."""
        if self._reducer is None or not self._by_place.suits(frame.height, self._keys_per_row):
            return None
        rows = columns_of(frame, self._columns)
        values = self._reducer.values_of(rows)
        if values is None:
            return None
        places, made = self._state.table.place(columns_of(rows, self._by))
        parts = []
        for which, sign in _sides(comes):
            order, first = runs_of(places[which])
            heads = which[order[first]]
            partials = self._reducer.reduce(values, which[order], first)
            parts.append(_Change(sign, places[heads], made[heads], partials))
        return parts


@dataclass(frozen=True, slots=True)
class _Change:
    """Partial rows of what came or of what went, where they belong, and which rows were made for them."""

    sign: int
    rows: RowIds
    made: Mask
    partials: pl.DataFrame


def _sides(comes: Mask) -> list[tuple[Positions, int]]:
    """The positions of what comes, and of what goes, with their signs; those sides that have any."""
    sides = (np.flatnonzero(comes), 1), (np.flatnonzero(~comes), -1)
    return [side for side in sides if len(side[0])]


def _cast(series: pl.Series, dtype: pl.DataType) -> pl.Series:
    return series if series.dtype == dtype else series.cast(dtype)
