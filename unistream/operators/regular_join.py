"""All rows of two streams whose keys are equal, corrected as rows come and go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import polars as pl

from unistream.durations import spelled
from unistream.elements import MAX_TIME, MIN_TIME, Batch
from unistream.errors import InvalidQuery
from unistream.expressions.changelog import COMING
from unistream.expressions.schema import CHANGE, Change, Changes, StreamSchema
from unistream.expressions.time import microseconds_of
from unistream.operators.base import Context, Operator, Output
from unistream.operators.join_codes import Places
from unistream.operators.join_layout import LEFT, SIDES, JoinSpec, Pairing
from unistream.operators.join_matching import MOST_ROWS, equal_pairs, key_code, really_equal
from unistream.operators.join_table import DELTA, SideTable
from unistream.operators.stored_time import StoredTime

_TIME = "__time"


@dataclass(frozen=True, eq=False, kw_only=True)
class RegularJoin(JoinSpec):
    """Pairs of all rows so far. With `ttl` (microseconds) a row is forgotten that long after it came.

    That is a length of event time when both sides have it, and of the clock otherwise. Results of forgotten
    rows stand. `unbounded` says that rows may be kept for ever.
    """

    ttl: int | None = None
    unbounded: bool = False
    ways_out: ClassVar[str] = (
        'within=("-5m", "1m") for rows near in time, window=us.tumbling("1m") for rows of one window, '
        'ttl="1d" to forget rows in time, .lookup(...) for a table, or unbounded=True to keep all rows'
    )

    def schema(self, inputs: Sequence[StreamSchema]) -> StreamSchema:
        bounded = all(schema.bounded for schema in inputs)
        if not bounded and self.ttl is None and not self.unbounded:
            raise InvalidQuery(
                "join would keep all rows of streams that never end", self.where, f"say {self.ways_out}"
            )
        for side, schema in zip(SIDES, inputs, strict=True):
            if schema.changes is Changes.UPSERT:
                raise InvalidQuery(f"join needs the earlier rows of the {side} side's updates", self.where)
        stay = all(schema.changes is Changes.APPEND for schema in inputs) and self.how in ("inner", "semi")
        both = self.both(inputs)
        return StreamSchema(
            inputs[LEFT].columns if self.left_only else both,
            changes=Changes.APPEND if stay else Changes.RETRACT,
            bounded=bounded,
        )

    @property
    def accepts_updates(self) -> bool:
        return True

    @property
    def needs_retractions(self) -> bool:
        return True

    def build(self, inputs: Sequence[StreamSchema]) -> Operator:
        return _RegularJoin(self, inputs)

    def lazy(self, inputs: Sequence[pl.LazyFrame], schemas: Sequence[StreamSchema]) -> pl.LazyFrame | None:
        if self.ttl is not None or (self.predicate is not None and self.how != "inner"):
            return None
        left, right = inputs
        joined = left.join(right, on=list(self.by), how=self.how, coalesce=None if self.left_only else True)
        if self.predicate is not None:
            joined = joined.filter(self.predicate)
        names = left.collect_schema().names()
        if not self.left_only:
            names += [name for name in right.collect_schema().names() if name not in self.by]
        return joined.select(names)

    def describe(self) -> Mapping[str, str]:
        kept = "all rows until the end" if self.ttl is None and not self.unbounded else "all rows for ever"
        if self.ttl is not None:
            kept = f"rows for {spelled(self.ttl)}"
        return {**super().describe(), "keeps left": kept, "keeps right": kept}


class _RegularJoin(Operator):
    """A batch is netted to rows that go and rows that come; each meets all rows of the other side.

    A row of a side that needs it carries how many rows it matches: when that leaves or reaches zero, the
    row's result without a partner goes or comes.
    """

    def __init__(self, spec: RegularJoin, inputs: Sequence[StreamSchema]) -> None:
        self._spec = spec
        self._inputs = inputs
        self._pairing = Pairing(spec, inputs, None)
        self._marked = spec.schema(inputs).changes is not Changes.APPEND
        self._timed = all(schema.event_time is not None for schema in inputs)

    def open(self, context: Context) -> None:
        self._context = context
        self._tables = [
            SideTable(context.state, name, schema.columns)
            for name, schema in zip(SIDES, self._inputs, strict=True)
        ]
        self._time = StoredTime(context.state.cell("time"))

    def process(self, batch: Batch, out: Output) -> None:
        side = batch.port
        self._forget()
        net = self._net(batch.frame, side)
        known = key_code(net, self._spec.by).is_not_null()
        if not known.all():
            self._without_key(net.filter(~known), side, out)
            net = net.filter(known)
        for coming in (False, True):
            rows = net.filter(pl.col(DELTA) > 0 if coming else pl.col(DELTA) < 0)
            if rows.height:
                self._apply(rows, side, coming, out)
        self._context.metrics.set("rows_kept", sum(map(len, self._tables)))

    def _net(self, frame: pl.DataFrame, side: int) -> pl.DataFrame:
        """Every distinct row with how much more often it came than went, and when it came last."""
        schema = self._inputs[side]
        sign = (
            pl.lit(1) if CHANGE not in frame.columns else pl.col(CHANGE).is_in(COMING).cast(pl.Int64) * 2 - 1
        )
        time = pl.lit(self._context.clock.now())
        if self._timed and schema.event_time is not None:
            time = microseconds_of(schema.event_time, schema.columns).fill_null(MIN_TIME)
        marked = frame.with_columns(sign.cast(pl.Int64).alias(DELTA), time.cast(pl.Int64).alias(_TIME))
        names = schema.columns.names()
        net = marked.group_by(names, maintain_order=True).agg(pl.col(DELTA).sum(), pl.col(_TIME).max())
        return net.filter(pl.col(DELTA) != 0)

    def _without_key(self, rows: pl.DataFrame, side: int, out: Output) -> None:
        """Rows with a null key match nothing, so nothing needs to be kept of them."""
        if not self._spec.outer(side):
            self._context.metrics.add("filtered", int(rows.get_column(DELTA).abs().sum()))
            return
        for coming in (False, True):
            part = rows.filter(pl.col(DELTA) > 0 if coming else pl.col(DELTA) < 0)
            times = part.get_column(DELTA).abs().to_numpy()
            self._emit(self._pairing.alone(part, side), times, coming, out)

    def _apply(self, rows: pl.DataFrame, side: int, coming: bool, out: Output) -> None:
        """Rows of one side that all come, or all go."""
        own, other = self._tables[side], self._tables[1 - side]
        codes = key_code(rows, self._spec.by)
        change = own.change(rows, codes, rows.get_column(_TIME))
        self._context.metrics.add("unknown_retractions", change.unknown)
        times, delta = np.abs(change.delta), change.delta
        matches = np.zeros(rows.height, dtype=np.int64)
        ids = other.rows()
        counts = other.counts(ids)
        for at, of in equal_pairs(codes, pl.Series(other.codes(ids))):
            at, of, joined = self._pairs(rows, side, (at, of), ids)
            matches += np.bincount(at, counts[of], rows.height).astype(np.int64)
            news = np.bincount(of, delta[at], len(ids)).astype(np.int64)
            touched = np.flatnonzero(news)
            was, now = other.add_matches(ids[touched], news[touched])
            # What goes, goes before what comes in its place.
            if coming and self._spec.marks(1 - side):
                self._turned(other, ids[touched], was, now, 1 - side, out)
            if joined is not None:
                self._emit(joined, times[at] * counts[of], coming, out)
            if not coming and self._spec.marks(1 - side):
                self._turned(other, ids[touched], was, now, 1 - side, out)
        # A row that was there already counts what it counted then: some of its partners may be forgotten.
        matches = own.settle(change, matches)
        if self._spec.marks(side):
            lonely = matches == 0 if self._spec.how != "semi" else matches > 0
            self._emit(self._pairing.alone(rows.filter(pl.Series(lonely)), side), times[lonely], coming, out)
        own.remove_empty(change)

    def _pairs(
        self, rows: pl.DataFrame, side: int, pairs: tuple[Places, Places], ids: Places
    ) -> tuple[Places, Places, pl.DataFrame | None]:
        """The pairs of rows with rows of the other side that really are; and joined, if they are results."""
        at, of = pairs
        theirs = self._tables[1 - side].frame(ids[of])
        places = np.arange(len(of))
        same = really_equal((at, places), rows, theirs, self._spec.by)
        if same is not None:
            at, of, places = at[same], of[same], places[same]
        if self._spec.left_only and self._spec.predicate is None:
            return at, of, None
        if side == LEFT:
            joined = self._pairing.pairs(rows, theirs, at, places)
        else:
            joined = self._pairing.pairs(theirs, rows, places, at)
        fits = self._pairing.fitting(joined)
        if fits is not None:
            at, of, joined = at[fits.to_numpy()], of[fits.to_numpy()], joined.filter(fits)
        return at, of, None if self._spec.left_only else joined

    def _turned(
        self, table: SideTable, ids: Places, was: Places, now: Places, side: int, out: Output
    ) -> None:
        """Kept rows that found their first partner, or lost their last."""
        for turned, coming in (((was == 0) & (now > 0), False), ((was > 0) & (now == 0), True)):
            rows = ids[turned]
            if len(rows):
                alone = self._pairing.alone(table.frame(rows), side)
                self._emit(alone, table.counts(rows), coming != (self._spec.how == "semi"), out)

    def _emit(self, rows: pl.DataFrame, times: Places, coming: bool, out: Output) -> None:
        """Rows that come or go, each so many times; a bounded number of them together."""
        if not rows.height:
            return
        if (times == 1).all():
            out.emit(self._marked_as(rows, coming))
            return
        ends = np.cumsum(times)
        for start in range(0, int(ends[-1]), MOST_ROWS):
            wanted = np.arange(start, min(start + MOST_ROWS, int(ends[-1])))
            out.emit(self._marked_as(rows[np.searchsorted(ends, wanted, side="right")], coming))

    def _marked_as(self, rows: pl.DataFrame, coming: bool) -> pl.DataFrame:
        if not self._marked:
            return rows
        change = Change.INSERT if coming else Change.DELETE
        return rows.with_columns(pl.lit(change.value, pl.Int8).alias(CHANGE))

    def _forget(self) -> None:
        if self._spec.ttl is None:
            return
        now = self._time.now if self._timed else self._context.clock.now()
        if now not in (MIN_TIME, MAX_TIME):
            for table in self._tables:
                table.forget(now - self._spec.ttl)

    def on_watermark(self, watermark: int, out: Output) -> None:
        self._time.advance(watermark)
        self._forget()
        self._context.metrics.set("rows_kept", sum(map(len, self._tables)))

    def before_checkpoint(self) -> None:
        self._time.store()

    def explain_time(self) -> Mapping[str, Any]:
        kept = {f"{name}_rows_kept": len(table) for name, table in zip(SIDES, self._tables, strict=True)}
        return {"watermark": self._time.now, **kept}
