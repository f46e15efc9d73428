"""The first or the last row of each key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
import polars as pl

from unistream.durations import spelled
from unistream.elements import MIN_TIME, Batch
from unistream.errors import InvalidQuery
from unistream.expressions.schema import CHANGE, Change, Changes, StreamSchema
from unistream.expressions.time import microseconds_of
from unistream.operators.base import Context, Operator, OperatorSpec, Output

LATE = "late"
_SEEN = "seen"
_BUCKETS_PER_SPAN = 8
"""Keys are forgotten in bunches: a key stays at most an eighth longer than `within`."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Unique(OperatorSpec):
    """One row for each value of `subset`: the first that came, or the last so far.

    With `within` (microseconds of event time) a key is forgotten that long after its first row.
    """

    name: ClassVar[str] = "unique"
    subset: tuple[str, ...]
    keep: Literal["first", "last"] = "first"
    within: int | None = None

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

    def reads(self, inputs: Sequence[StreamSchema], needed: frozenset[str]) -> Sequence[frozenset[str]]:
        time = inputs[0].event_time
        extra = {time.column} if time is not None and self.within is not None else set()
        return [needed | frozenset(self.subset) | extra]

    def build(self, inputs: Sequence[StreamSchema]) -> Operator:
        return _KeepLast(self, inputs[0]) if self.keep == "last" else _KeepFirst(self, inputs[0])

    def lazy(self, inputs: Sequence[pl.LazyFrame]) -> pl.LazyFrame | None:
        if self.within is not None or self.keep == "last":
            return None
        return inputs[0].unique(subset=list(self.subset), keep="first", maintain_order=True)

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
        self._watermark = MIN_TIME
        self._bucket = max((spec.within or 0) // _BUCKETS_PER_SPAN, 1)
        self._by_bucket: dict[int, list[np.ndarray]] = {}

    def open(self, context: Context) -> None:
        keys = pl.Schema({name: self._schema.columns[name] for name in self._subset})
        values = pl.Schema({_SEEN: pl.Int64} if self._within is not None else {})
        self._table = context.state.keyed("seen", keys, values)
        self._metrics = context.metrics
        self._stored_watermark = context.state.cell("watermark")
        self._watermark = self._stored_watermark.get(MIN_TIME)
        if self._within is not None:
            rows = self._table.rows()
            self._remember(rows, self._table.column(_SEEN)[rows])

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
        late = self._times(frame) < self._watermark
        if not late.any():
            return frame
        out.emit_to(LATE, frame.filter(late))
        self._metrics.add("late", int(late.sum()))
        return frame.filter(~late)

    def _first_within(self, frame: pl.DataFrame) -> pl.DataFrame:
        """In order of arrival: a row passes unless its key passed at most `within` before it.

        Each round decides the first row left of every key, so there are as many rounds as rows of one
        key pass in one batch: usually one.
        """
        position, left = "__position", frame.with_row_index("__position")
        passed: list[pl.DataFrame] = []
        while left.height:
            firsts = left.unique(subset=self._subset, keep="first", maintain_order=True)
            rows, new = self._table.upsert(firsts.select(self._subset))
            times = self._times(firsts).to_numpy()
            seen = self._table.column(_SEEN)
            passes = new | (times > seen[rows] + self._within)
            seen[rows[passes]] = times[passes]
            self._table.touch(rows[passes])
            self._remember(rows[passes], times[passes])
            passed.append(firsts.filter(pl.Series(passes)))
            known = firsts.select(self._subset).with_columns(pl.Series("__known", seen[rows]))
            rest = left.join(firsts.select(position), on=position, how="anti", maintain_order="left")
            rest = rest.join(known, on=self._subset, how="left", nulls_equal=True, maintain_order="left")
            beyond = self._times(rest) > rest["__known"] + self._within
            left = rest.filter(beyond).drop("__known")
        return pl.concat(passed).sort(position).drop(position)

    def _times(self, frame: pl.DataFrame) -> pl.Series:
        assert self._time is not None
        return frame.select(microseconds_of(self._time, self._schema.columns)).to_series()

    def _remember(self, rows: np.ndarray, times: np.ndarray) -> None:
        """Note under which bucket of time each row of the table is to be looked at again."""
        buckets = times // self._bucket
        for bucket in np.unique(buckets):
            self._by_bucket.setdefault(int(bucket), []).append(rows[buckets == bucket])

    def on_watermark(self, watermark: int, out: Output) -> None:
        self._watermark = watermark
        if self._within is None:
            return
        horizon = (watermark - self._within) // self._bucket
        for bucket in sorted(bucket for bucket in self._by_bucket if bucket < horizon):
            rows = np.unique(np.concatenate(self._by_bucket.pop(bucket)))
            # A row id may have been given to another key since, or its key may have passed again.
            stale = self._table.column(_SEEN)[rows] // self._bucket == bucket
            self._table.delete(np.intersect1d(rows[stale], self._table.rows(), assume_unique=True))

    def before_checkpoint(self) -> None:
        self._stored_watermark.set(self._watermark)


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
