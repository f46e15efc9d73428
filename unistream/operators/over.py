"""Every row with aggregates over the rows of its key that came, or happened, shortly before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import polars as pl

from unistream.durations import spelled
from unistream.elements import MAX_TIME, MIN_TIME, Batch
from unistream.errors import InvalidQuery
from unistream.expressions import expression_tree as tree
from unistream.expressions.analysis import columns_read, output_schema
from unistream.expressions.order_shape import asks_for_order
from unistream.expressions.schema import StreamSchema
from unistream.graph import LATE
from unistream.of_columns import beside, stacked
from unistream.operators.base import Context, Operator, OperatorSpec, Output
from unistream.operators.kept_rows import KeptRows
from unistream.operators.stored_time import StoredTime
from unistream.operators.time_axis import TimeAxis

_AT, _NUMBER, _TICK, _NEW = "__at", "__number", "__tick", "__new"
_SWEEPS_PER_RANGE = 8


@dataclass(frozen=True, eq=False, kw_only=True)
class Over(OperatorSpec):
    """Adds `exprs` over the last `rows` rows of the key, or over those of the last `range` of event time.

    Exactly one of the two is given; `range` is in microseconds. The row itself is part of its window.
    """

    name: ClassVar[str] = "over"
    by: tuple[str, ...]
    exprs: tuple[pl.Expr, ...]
    rows: int | None = None
    range: int | None = None

    def schema(self, inputs: Sequence[StreamSchema]) -> StreamSchema:
        schema = inputs[0]
        if self.range is not None:
            if schema.event_time is None:
                hint = 'say which column is the time: .with_event_time("ts", delay="5s"), or use rows='
                raise InvalidQuery("over(range=) needs event time", self.where, hint)
            TimeAxis.of(schema).length(self.range, "range", self.where)
        made = output_schema("agg", self.exprs, schema.columns, "agg", self.where, self.by)
        new = {name: dtype for name, dtype in made.items() if name not in self.by}
        taken = sorted(set(new) & set(schema.columns))
        if taken:
            hint = f"name it otherwise, as in `.agg(new_{taken[0]}=...)`"
            raise InvalidQuery(f"over adds a column {taken[0]!r}, which is there already", self.where, hint)
        sides = {LATE: schema.columns} if self.range is not None else {}
        return replace(schema, columns=pl.Schema({**schema.columns, **new}), key=(), side_outputs=sides)

    @property
    def keys(self) -> tuple[str, ...]:
        return self.by

    @property
    def by_time(self) -> bool:
        """The last rows are those that came last, whatever their time."""
        return self.range is not None

    @property
    def by_order(self) -> bool:
        return self.rows is not None or asks_for_order(self.exprs)

    @property
    def keeps_order(self) -> bool:
        """Rows with those of a range before them leave in the order of their time."""
        return self.rows is not None

    def lazy(self, inputs: Sequence[pl.LazyFrame], schemas: Sequence[StreamSchema]) -> pl.LazyFrame | None:
        by = list(self.by)
        if self.rows is not None:
            length = self.rows
            rows = inputs[0].with_columns(pl.int_range(pl.len()).over(by).alias(_NUMBER))
        else:
            axis = TimeAxis.of(schemas[0])
            length = axis.length(self.range or 0, "range", self.where)
            ticks = pl.col(axis.column).cast(pl.Int64).alias(_NUMBER)
            rows = inputs[0].with_columns(ticks).sort(_NUMBER, maintain_order=True)
        # An expression that rolls in each key by itself costs a fifth of grouping rows into windows.
        windows = [expr.rolling(_NUMBER, period=f"{length}i", closed="right").over(by) for expr in self.exprs]
        return rows.with_columns(windows).select(self.schema(schemas).columns.names())

    def build(self, inputs: Sequence[StreamSchema]) -> Operator:
        return _OverRange(self, inputs[0]) if self.rows is None else _OverRows(self, inputs[0])

    def describe(self) -> Mapping[str, str]:
        if self.rows is not None:
            reach, kept = f"the last {self.rows} rows", f"{self.rows - 1} rows per key, for ever"
        else:
            reach = f"the last {spelled(self.range or 0)} of event time"
            kept = f"rows of the last {spelled(self.range or 0)}"
        exprs = ", ".join(" ".join(str(expr).split()) for expr in self.exprs)
        return {"by": ", ".join(self.by), "over": reach, "adds": exprs, "state": kept}


def _reads(spec: Over, schema: StreamSchema) -> list[str]:
    """The columns beside the keys that the aggregates need of earlier rows."""
    reads = frozenset[str]().union(*(columns_read(expr) for expr in spec.exprs))
    return [name for name in schema.columns if name in reads and name not in spec.by]


def _rolling(exprs: Sequence[pl.Expr]) -> list[pl.Expr]:
    """The aggregates as they are taken of slices, of which Polars gives one null row a variance of 0.0."""

    def change(node: tree.Node) -> tree.Node | None:
        if tree.kind(node) != "Agg" or tree.aggregation(node)[2].get("ddof") != 0:
            return None
        values = [tree.to_node(tree.to_expr(child).drop_nulls()) for child in tree.children(node)]
        return tree.with_children(node, values)

    found = []
    for expr in exprs:
        try:
            found.append(tree.to_expr(tree.transform(tree.to_node(expr), change)))
        except tree.UnknownExpression:  # holds a Python function that does not pickle
            found.append(expr)
    return found


def _subset(columns: pl.Schema, names: Sequence[str]) -> pl.Schema:
    return pl.Schema({name: columns[name] for name in names})


class _OverRows(Operator):
    """Rows are answered at once, in order of arrival."""

    def __init__(self, spec: Over, schema: StreamSchema) -> None:
        assert spec.rows is not None
        self._by = list(spec.by)
        self._columns = schema.columns
        self._before = spec.rows - 1
        self._reads = _reads(spec, schema)
        self._exprs = _rolling(spec.exprs)
        self._names = [expr.meta.output_name() for expr in spec.exprs]

    def open(self, context: Context) -> None:
        keys, kept = (_subset(self._columns, names) for names in (self._by, self._reads))
        self._kept = KeptRows(context.state, "rows", keys, kept)

    def process(self, batch: Batch, out: Output) -> None:
        new = self._kept.narrowed(batch.frame).with_columns(pl.int_range(pl.len()).alias(_AT))
        old = self._kept.stored(new).with_columns(pl.lit(-1, pl.Int64).alias(_AT))
        # Stable, and numbered within the key, because a rolling window must be sorted by its index.
        rows = stacked([old, new]).with_columns(pl.int_range(pl.len()).over(self._by).alias(_NUMBER))
        answers = rolled(rows, _NUMBER, self._before + 1, self._by, [*self._exprs, pl.col(_AT).last()])
        answers = answers.filter(pl.col(_AT) >= 0).sort(_AT).select(self._names)
        if self._before:
            last = rows.group_by(self._by, maintain_order=True).tail(self._before)
            self._kept.keep(last.select(self._kept.names))
        out.emit(beside(batch.frame, answers), batch.split)


class _OverRange(Operator):
    """Rows wait until time has passed them, so that they are answered in the order of event time."""

    def __init__(self, spec: Over, schema: StreamSchema) -> None:
        assert spec.range is not None
        self._by = list(spec.by)
        self._columns = schema.columns
        self._axis = TimeAxis.of(schema)
        self._range = self._axis.length(spec.range, "range", spec.where)
        self._reads = _reads(spec, schema)
        self._exprs = _rolling(spec.exprs)
        self._names = [expr.meta.output_name() for expr in spec.exprs]

    def open(self, context: Context) -> None:
        columns = self._columns
        self._waiting = context.state.log("waiting", pl.Schema({**columns, _TICK: pl.Int64()}))
        keys = _subset(columns, self._by)
        kept = pl.Schema({**_subset(columns, self._reads), _TICK: pl.Int64()})
        self._kept = KeptRows(context.state, "rows", keys, kept)
        self._last = context.state.keyed("last", keys, pl.Schema({_TICK: pl.Int64()}))
        self._time = StoredTime(context.state.cell("watermark"))
        self._swept = self._time.now
        self._metrics = context.metrics

    def process(self, batch: Batch, out: Output) -> None:
        frame = batch.frame.with_columns(self._axis.ticks(batch.frame).alias(_TICK))
        # Rows without a time are never in order, so they are late too.
        late = (frame[_TICK] < self._axis.tick(self._time.now)).fill_null(True)
        if late.any():
            self._metrics.add("late", int(late.sum()))
            out.emit_to(LATE, frame.filter(late).drop(_TICK))
            frame = frame.filter(~late)
        if frame.height:
            self._waiting.append(0, frame)

    def on_watermark(self, watermark: int, out: Output) -> None:
        self._time.advance(watermark)
        frames = self._waiting.frames(0)
        if frames:
            waiting = stacked(frames)
            passed = pl.lit(True) if watermark == MAX_TIME else pl.col(_TICK) < self._axis.tick(watermark)
            ready = waiting.filter(passed)
            if ready.height:
                rest = waiting.filter(~passed) if ready.height < waiting.height else waiting.clear()
                self._waiting.replace(0, [rest])
                ready = ready.sort(_TICK, maintain_order=True)
                self._answer(ready, out)
                self._time.settle(self._axis.after(ready[_TICK][-1]))
        self._sweep()

    def _answer(self, ready: pl.DataFrame, out: Output) -> None:
        new = ready.select(self._kept.names).with_columns(pl.int_range(pl.len()).alias(_AT))
        old = self._kept.stored(new).with_columns(pl.lit(-1, pl.Int64).alias(_AT))
        rows = stacked([old, new]).sort(_TICK, maintain_order=True)
        # All rows of one time have one window, so it is computed once.
        exprs = [*self._exprs, (pl.col(_AT) >= 0).last().alias(_NEW)]
        answers = rolled(rows, _TICK, self._range, self._by, exprs).filter(pl.col(_NEW))
        answers = answers.unique([*self._by, _TICK], keep="last")
        answered = ready.join(
            answers.select(*self._by, _TICK, *(pl.col(name).alias(f"__{name}") for name in self._names)),
            on=[*self._by, _TICK],
            how="left",
            nulls_equal=True,
            maintain_order="left",
        )
        self._keep(rows)
        named = [pl.col(f"__{name}").alias(name) for name in self._names]
        out.emit(answered.select(*self._columns, *named))

    def _keep(self, rows: pl.DataFrame) -> None:
        """What later rows may still look back to."""
        newest = pl.col(_TICK).max().over(self._by)
        self._kept.keep(rows.filter(pl.col(_TICK) > newest - self._range).select(self._kept.names))
        last = rows.group_by(self._by, maintain_order=True).agg(pl.col(_TICK).max())
        ids, _ = self._last.upsert(last.select(self._by))
        self._last.write(ids, last.select(_TICK))

    def _sweep(self) -> None:
        """Keys of which nothing has come for so long that nothing looks back to it are forgotten."""
        if self._time.now == MAX_TIME:
            return
        now = self._axis.tick(self._time.now)
        if self._swept != MIN_TIME and now < self._swept + max(self._range // _SWEEPS_PER_RANGE, 1):
            return
        self._swept = now
        ids = self._last.rows()
        old = ids[self._last.column(_TICK).take(ids) <= now - self._range]
        if len(old):
            self._kept.forget(self._last.keys(old))
            self._last.delete(old)

    def before_checkpoint(self) -> None:
        self._time.store()


def rolled(
    rows: pl.DataFrame, index: str, length: int, by: Sequence[str], exprs: Sequence[pl.Expr]
) -> pl.DataFrame:
    """`exprs` over the rows of a key with an index above that of each row less `length`, up to its own."""
    return rows.rolling(index, period=f"{length}i", closed="right", group_by=list(by)).agg(exprs)
