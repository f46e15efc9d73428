"""The first or the last row of each key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from unistream.durations import spelled
from unistream.elements import MAX_TIME, MIN_TIME, Batch
from unistream.errors import InvalidQuery
from unistream.expressions.schema import CHANGE, Change, Changes, StreamSchema
from unistream.expressions.time import microseconds_of
from unistream.operators.base import Context, Operator, OperatorSpec, Output
from unistream.operators.stored_time import StoredTime

LATE = "late"
_SEEN = "seen"
_SWEEPS_PER_SPAN = 8
"""Keys are forgotten in bunches: a key stays at most an eighth longer than `within`."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Unique(OperatorSpec):
    """One row for each value of `subset`: the first that came, or the last so far.

    With `within` (microseconds of event time) a key is forgotten that long after its first row. `whole` says
    that `subset` is all columns, so that it does not matter which of the rows it is.
    """

    name: ClassVar[str] = "unique"
    subset: tuple[str, ...]
    keep: Literal["first", "last"] = "first"
    within: int | None = None
    whole: bool = False

    def schema(self, inputs: Sequence[StreamSchema]) -> StreamSchema:
        schema = inputs[0]
        if schema.changes is not Changes.APPEND:
            hint = "aggregate it, or take .changes() first"
            raise InvalidQuery(
                "unique takes rows that are only added, and this stream updates", self.where, hint
            )
        if self.within is not None and schema.event_time is None:
            hint = 'say which column is the time: .with_event_time("ts", delay="5s")'
            raise InvalidQuery("unique(within=) needs event time", self.where, hint)
        if self.within is not None and self.keep == "last":
            hint = "leave within out, or keep the first"
            raise InvalidQuery('unique(within=) works with keep="first" only', self.where, hint)
        if self.keep == "last":
            return replace(schema, changes=Changes.UPSERT, key=self.subset, side_outputs={})
        return replace(schema, side_outputs={LATE: schema.columns} if self.within is not None else {})

    @property
    def keys(self) -> tuple[str, ...]:
        return self.subset

    @property
    def by_order(self) -> bool:
        return not self.whole

    @property
    def keeps_order(self) -> bool:
        """The last row is not known where it stands: an updating table has no order."""
        return self.keep == "first"

    def reads(self, inputs: Sequence[StreamSchema], needed: frozenset[str]) -> Sequence[frozenset[str]]:
        time = inputs[0].event_time
        extra = {time.column} if time is not None and self.within is not None else set()
        return [needed | frozenset(self.subset) | extra]

    def build(self, inputs: Sequence[StreamSchema]) -> Operator:
        return _KeepLast(self, inputs[0]) if self.keep == "last" else _KeepFirst(self, inputs[0])

    def lazy(self, inputs: Sequence[pl.LazyFrame], schemas: Sequence[StreamSchema]) -> pl.LazyFrame | None:
        if self.within is not None:
            return None
        return inputs[0].unique(list(self.subset), keep=self.keep, maintain_order=self.keeps_order)

    def describe(self) -> Mapping[str, str]:
        kept = "for ever" if self.within is None else f"for {spelled(self.within)} of event time"
        return {"by": ", ".join(self.subset), "keep": self.keep, "state": f"one entry per key, {kept}"}


class _KeepFirst(Operator):
    """Lets a row pass when its key is not in the table, or is there for too long."""

    def __init__(self, spec: Unique, schema: StreamSchema) -> None:
        self._subset = list(spec.subset)
        self._within = spec.within
        self._time = schema.event_time if spec.within is not None else None
        self._schema = schema

    def open(self, context: Context) -> None:
        keys = pl.Schema({name: self._schema.columns[name] for name in self._subset})
        values = pl.Schema({_SEEN: pl.Int64} if self._within is not None else {})
        self._table = context.state.keyed("seen", keys, values)
        self._metrics = context.metrics
        self._reached = StoredTime(context.state.cell("watermark"))
        self._next_sweep = self._reached.now

    def process(self, batch: Batch, out: Output) -> None:
        frame = batch.frame
        if self._time is None:
            passed = self._first_of_each(frame)
        else:
            frame = self._without_late(frame, out)
            passed = self._first_within(frame) if frame.height else frame
        self._metrics.add("filtered", frame.height - passed.height)
        out.emit(passed, batch.split)

    def _first_of_each(self, frame: pl.DataFrame) -> pl.DataFrame:
        firsts = frame.unique(subset=self._subset, keep="first", maintain_order=True)
        _, new = self._table.upsert(firsts.select(self._subset))
        return firsts.filter(pl.Series(new))

    def _without_late(self, frame: pl.DataFrame, out: Output) -> pl.DataFrame:
        late = (self._times(frame) < self._reached.now).fill_null(True)
        if not late.any():
            return frame
        out.emit_to(LATE, frame.filter(late))
        self._metrics.add("late", int(late.sum()))
        return frame.filter(~late)

    def _first_within(self, frame: pl.DataFrame) -> pl.DataFrame:
        """In order of arrival: a row passes unless its key passed at most `within` before it."""
        assert self._within is not None
        keys = frame.select(self._subset)
        made, new = self._table.upsert(keys.unique(maintain_order=True))
        seen = self._table.column(_SEEN)
        seen[made[new]] = MIN_TIME
        rows, times = self._table.find(keys), self._times(frame).to_numpy()
        order = np.argsort(rows, kind="stable")
        rows, times = rows.take(order), times.take(order)
        passed = np.flatnonzero(_passing(rows, times, seen.take(rows), self._within))
        # The last that passed of each key is the one to remember.
        last = passed[np.diff(rows.take(passed), append=-1) != 0]
        seen[rows.take(last)] = times.take(last)
        self._table.touch(rows.take(last))
        return frame[np.sort(order.take(passed))]

    def _times(self, frame: pl.DataFrame) -> pl.Series:
        assert self._time is not None
        return frame.select(microseconds_of(self._time, self._schema.columns)).to_series()

    def on_watermark(self, watermark: int, out: Output) -> None:
        self._reached.advance(watermark)
        if self._within is None or watermark < self._next_sweep or watermark == MAX_TIME:
            return
        self._next_sweep = watermark + max(self._within // _SWEEPS_PER_SPAN, 1)
        rows = self._table.rows()
        # Rows of these keys that are still to come are too far behind them to be held back.
        self._table.delete(rows[self._table.column(_SEEN).take(rows) < watermark - self._within])

    def before_checkpoint(self) -> None:
        self._reached.store()


class _KeepLast(Operator):
    """Every batch hands on the last row of each of its keys; the table knows which keys are new."""

    def __init__(self, spec: Unique, schema: StreamSchema) -> None:
        self._subset = list(spec.subset)
        self._schema = schema

    def open(self, context: Context) -> None:
        keys = pl.Schema({name: self._schema.columns[name] for name in self._subset})
        self._table = context.state.keyed("seen", keys, pl.Schema())
        self._metrics = context.metrics

    def process(self, batch: Batch, out: Output) -> None:
        lasts = batch.frame.unique(subset=self._subset, keep="last", maintain_order=True)
        _, new = self._table.upsert(lasts.select(self._subset))
        change = np.where(new, Change.INSERT.value, Change.UPDATE_AFTER.value).astype(np.int8)
        self._metrics.add("filtered", batch.frame.height - lasts.height)
        out.emit(lasts.with_columns(pl.Series(CHANGE, change)), batch.split)


Times = npt.NDArray[np.int64]


def _passing(keys: Times, times: Times, seen: Times, within: int) -> npt.NDArray[np.bool_]:
    """Which rows pass; rows stand by key, those of a key in order of arrival.

    `seen` is when the key passed before the batch. From each row a link leads to the row of its key that
    passes next if it passes itself; those reached from the first that passes are found by doubling the
    links, so that a key that passes a thousand times takes ten rounds.

    >>> one_key = np.zeros(5, dtype=np.int64)
    >>> _passing(one_key, np.array([1, 3, 9, 8, 20]), np.full(5, MIN_TIME), 5).tolist()
    [True, False, True, False, True]
    """
    count = len(keys)
    first = np.append(True, np.diff(keys) != 0)
    group = np.cumsum(first) - 1
    highest = pl.DataFrame({"k": group, "t": times}).select(pl.col("t").cum_max().over("k")).to_series()
    ends = np.where(seen == MIN_TIME, MIN_TIME, seen + within)
    values, ranks = np.unique(np.concatenate([highest.to_numpy(), times + within, ends]), return_inverse=True)
    reached, own, before = (group * (len(values) + 1) + part for part in np.split(ranks, 3))
    # A row that passes is later than all before it, so the highest time so far tells who passes next.
    links = np.append(_within_group(np.searchsorted(reached, own, side="right"), group), count)
    passing: npt.NDArray[np.bool_] = np.zeros(count + 1, dtype=np.bool_)
    passing[_within_group(np.searchsorted(reached, before, side="right"), group)[first]] = True
    while True:
        further = links.take(np.flatnonzero(passing))
        if passing[further].all() and passing[count]:
            break
        passing[further] = passing[count] = True
        links = links.take(links)
    return passing[:count]


def _within_group(places: Times, group: Times) -> Times:
    """Places that are in another group than their row become the place behind all rows."""
    count = len(group)
    same = group.take(np.minimum(places, count - 1)) == group
    return np.where((places < count) & same, places, count)
