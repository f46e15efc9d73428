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
from unistream.expressions.changelog import COMING
from unistream.expressions.schema import CHANGE, Change, Changes, StreamSchema
from unistream.operators.accumulators import Accumulators
from unistream.operators.base import Context, Operator, OperatorSpec, Output

_ORDERLESS = ("sum", "min", "max")
_COUNT = "__count"
_ROWS = "__rows"


@dataclass(frozen=True, eq=False, kw_only=True)
class RunningAggregate(OperatorSpec):
    """Aggregates over all rows of a key so far; the output updates by key."""

    name: ClassVar[str] = "aggregate"
    by: tuple[str, ...]
    exprs: tuple[pl.Expr, ...]

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

    def plan(self, columns: pl.Schema) -> Decomposition | Holistic:
        """How the expressions are kept."""
        return decompose(self.exprs, columns, self.by)

    def build(self, inputs: Sequence[StreamSchema]) -> Operator:
        schema = inputs[0]
        found = self.plan(schema.columns)
        updating = schema.changes is not Changes.APPEND
        if isinstance(found, Holistic) or (updating and not found.invertible):
            return _Buffered(self, schema)
        return _Folded(self, schema, found)

    def lazy(self, inputs: Sequence[pl.LazyFrame]) -> pl.LazyFrame | None:
        found = self.plan(inputs[0].collect_schema())
        if isinstance(found, Holistic) or any(column.how not in _ORDERLESS for column in found.columns):
            return None  # the order of rows matters, which one big query does not keep
        return inputs[0].group_by(self.by).agg(self.exprs)

    def describe(self) -> Mapping[str, str]:
        exprs = ", ".join(" ".join(str(expr).split()) for expr in self.exprs)
        return {"by": ", ".join(self.by), "aggregates": exprs, "state": "one row per key, for ever"}


class _Folded(Operator):
    """Keeps partial aggregates: the batch is grouped once, then folded into the table in place."""

    def __init__(self, spec: RunningAggregate, schema: StreamSchema, found: Decomposition) -> None:
        self._by = list(spec.by)
        self._schema = schema
        self._updating = schema.changes is not Changes.APPEND
        if self._updating:
            # Whether a key still has rows is not for the user's aggregates to tell.
            counted = (*spec.exprs, pl.len().alias(_COUNT))
            again = decompose(counted, schema.columns, spec.by)
            assert isinstance(again, Decomposition)
            found = again
        self._found = found
        self._finish = [expr for expr in found.finish if expr.meta.output_name() != _COUNT]
        self._count = [expr for expr in found.finish if expr.meta.output_name() == _COUNT]

    def open(self, context: Context) -> None:
        keys = pl.Schema({name: self._schema.columns[name] for name in self._by})
        self._state = Accumulators(context.state, "groups", keys, self._found)

    def process(self, batch: Batch, out: Output) -> None:
        if not self._updating:
            partials = batch.frame.group_by(self._by).agg(self._found.partial)
            rows, new = self._state.fold(partials.select(self._by), partials)
            out.emit(self._rows(partials.select(self._by), self._state.states(rows), _marks(new)))
            return
        self._process_changes(batch.frame, out)

    def _rows(self, keys: pl.DataFrame, states: pl.DataFrame, marks: np.ndarray) -> pl.DataFrame:
        """Finished rows; `states` are aligned with `keys`."""
        whole = pl.DataFrame([*keys.get_columns(), *states.get_columns()])
        return whole.select(*self._by, *self._finish, pl.Series(CHANGE, marks))

    def _process_changes(self, frame: pl.DataFrame, out: Output) -> None:
        comes = frame[CHANGE].is_in(COMING)
        partials = frame.filter(comes).group_by(self._by).agg(self._found.partial)
        gone = frame.filter(~comes).group_by(self._by).agg(self._found.partial)
        touched = pl.concat([partials.select(self._by), gone.select(self._by)]).unique()
        known = self._state.table.find(touched)
        before = self._state.states(known[known >= 0])
        self._state.fold(partials.select(self._by), partials)
        rows = self._state.table.find(gone.select(self._by))
        self._state.take_back(rows[rows >= 0], gone.filter(pl.Series(rows >= 0)))
        rows = self._state.table.find(touched)
        there = rows >= 0
        touched, rows, new = touched.filter(pl.Series(there)), rows[there], (known < 0)[there]
        states = self._state.states(rows)
        empty = states.select(self._count).to_series().to_numpy() <= 0
        self._emit_deleted(touched, before, known[known >= 0], rows, empty & ~new, out)
        self._state.table.delete(rows[empty])
        left = pl.Series(~empty)
        out.emit(self._rows(touched.filter(left), states.filter(left), _marks(new[~empty])))

    def _emit_deleted(
        self,
        keys: pl.DataFrame,
        before: pl.DataFrame,
        known: np.ndarray,
        rows: np.ndarray,
        gone: np.ndarray,
        out: Output,
    ) -> None:
        """A deletion carries the row that was true before it."""
        if gone.any():
            order = np.argsort(known)
            at = order[np.searchsorted(known, rows[gone], sorter=order)]
            marks = np.full(len(at), Change.DELETE.value, dtype=np.int8)
            out.emit(self._rows(keys.filter(pl.Series(gone)), before[at], marks))


class _Buffered(Operator):
    """Keeps the rows of each key in a list and has Polars evaluate the touched keys anew."""

    def __init__(self, spec: RunningAggregate, schema: StreamSchema) -> None:
        self._by = list(spec.by)
        self._exprs = spec.exprs
        self._schema = schema
        reads = frozenset().union(*(columns_read(expr) for expr in spec.exprs)) - set(spec.by)
        self._columns = [name for name in schema.columns if name in reads] or [_COUNT]
        self._updating = schema.changes is not Changes.APPEND

    def open(self, context: Context) -> None:
        columns = self._schema.columns
        fields = [pl.Field(name, columns.get(name, pl.UInt8())) for name in self._columns]
        keys = pl.Schema({name: columns[name] for name in self._by})
        self._table = context.state.keyed("rows", keys, pl.Schema({_ROWS: pl.List(pl.Struct(fields))}))

    def process(self, batch: Batch, out: Output) -> None:
        frame = batch.frame
        if self._columns == [_COUNT]:
            frame = frame.with_columns(pl.lit(0, pl.UInt8).alias(_COUNT))
        keys = frame.select(self._by).unique(maintain_order=True)
        found = self._table.find(keys)
        old = self._stored(keys, found)
        before = self._evaluated(old) if self._updating else None
        rows = self._after(old, frame)
        result = self._evaluated(rows)
        ids, new = self._table.upsert(result.select(self._by))
        lists = rows.group_by(self._by, maintain_order=True).agg(pl.struct(self._columns).alias(_ROWS))
        self._table.write(ids, lists.select(_ROWS))
        out.emit(result.with_columns(pl.Series(CHANGE, _marks(new))))
        if before is not None:
            deleted = before.join(result.select(self._by), on=self._by, how="anti", nulls_equal=True)
            if deleted.height:
                self._table.delete(self._table.find(deleted.select(self._by)))
                out.emit(deleted.with_columns(pl.lit(Change.DELETE.value, pl.Int8).alias(CHANGE)))

    def _stored(self, keys: pl.DataFrame, found: np.ndarray) -> pl.DataFrame:
        """The rows kept for these keys, one row each again."""
        known = keys.filter(pl.Series(found >= 0))
        lists = self._table.read(found[found >= 0])[_ROWS]
        return known.with_columns(lists).explode(_ROWS).unnest(_ROWS)

    def _after(self, old: pl.DataFrame, frame: pl.DataFrame) -> pl.DataFrame:
        """The rows of the touched keys once the batch is in."""
        names = [*self._by, *self._columns]
        if not self._updating:
            return pl.concat([old.select(names), frame.select(names)])
        sign = pl.when(pl.col(CHANGE).is_in(COMING)).then(1).otherwise(-1).alias("__sign")
        both = pl.concat([old.select(*names, pl.lit(1).alias("__sign")), frame.select(*names, sign)])
        counts = both.group_by(names, maintain_order=True).agg(pl.col("__sign").sum())
        times = counts.filter(pl.col("__sign") > 0)
        return times.select(pl.all().repeat_by("__sign")).explode(pl.all()).select(names)

    def _evaluated(self, rows: pl.DataFrame) -> pl.DataFrame:
        return rows.group_by(self._by, maintain_order=True).agg(self._exprs)


def _marks(new: np.ndarray) -> np.ndarray:
    return np.where(new, Change.INSERT.value, Change.UPDATE_AFTER.value).astype(np.int8)
