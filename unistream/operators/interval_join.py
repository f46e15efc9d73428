"""Rows of two streams whose keys are equal and whose times are near each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from unistream.durations import spelled
from unistream.elements import MAX_TIME, MIN_TIME, Batch
from unistream.errors import InvalidQuery
from unistream.expressions.schema import Changes, StreamSchema
from unistream.operators.base import Context, Operator, Output
from unistream.operators.join_arrivals import Arrivals
from unistream.operators.join_buffer import VIEWED, Flags, SliceBuffer, View
from unistream.operators.join_codes import Pairs
from unistream.operators.join_layout import (
    LEFT,
    RIGHT,
    SIDES,
    JoinSpec,
    PairAxis,
    Pairing,
    PairTime,
    check_timed,
    late_columns,
)
from unistream.operators.join_matching import TICK, Keyed, near_pairs, really_equal, with_code
from unistream.operators.join_query import interval_query

SLICES_PER_INTERVAL = 4
LEAST_WIDTH = 100_000
"""Slices are no shorter than this many microseconds: shorter ones save little memory."""


@dataclass(frozen=True, eq=False, kw_only=True)
class IntervalJoin(JoinSpec):
    """Pairs with the right row later than the left one by `low` to `high` microseconds (either may be < 0).

    Joined rows happened when the later of the two did (column `join_time`). Rows without a partner come
    when time proves that there is none. Rows that come behind the watermark are late.
    """

    low: int
    high: int

    def __post_init__(self) -> None:
        JoinSpec.__post_init__(self)
        if self.low > self.high:
            raise InvalidQuery(
                f"within=({spelled(self.low)!r}, {spelled(self.high)!r}) ends before it begins",
                self.where,
                f"put the earlier bound first: within=({spelled(self.high)!r}, {spelled(self.low)!r})",
            )

    @property
    def by_time(self) -> bool:
        return True

    def schema(self, inputs: Sequence[StreamSchema]) -> StreamSchema:
        check_timed(inputs, "A join within an interval", self.where)
        for side, schema in zip(SIDES, inputs, strict=True):
            if schema.changes is not Changes.APPEND:
                hint = "join before the step that updates, or take final results there (emit='close')"
                raise InvalidQuery(
                    f"A join within an interval takes rows that stay; the {side} side updates",
                    self.where,
                    hint,
                )
        both = self.both(inputs)
        bounded = all(schema.bounded for schema in inputs)
        side_outputs = late_columns(both)
        if self.left_only:
            return replace(inputs[LEFT], key=(), bounded=bounded, side_outputs=side_outputs)
        time = PairTime(inputs)
        return StreamSchema(
            time.columns(both, self.where),
            event_time=time.event_time,
            bounded=bounded,
            side_outputs=side_outputs,
        )

    def build(self, inputs: Sequence[StreamSchema]) -> Operator:
        return IntervalJoinOperator(self, inputs)

    def lazy(self, inputs: Sequence[pl.LazyFrame], schemas: Sequence[StreamSchema]) -> pl.LazyFrame | None:
        return interval_query(self, inputs, schemas)

    def keeps(self, side: int) -> int:
        """How long (microseconds) rows of a side are kept after time has passed them."""
        return self.high if side == LEFT else -self.low

    def describe(self) -> Mapping[str, str]:
        found = dict(super().describe())
        found["within"] = f"right is {spelled(self.low)} to {spelled(self.high)} after left"
        for side, name in enumerate(SIDES):
            length = self.keeps(side)
            until = (
                f"{spelled(abs(length))} {'past' if length > 0 else 'before'} them" if length else "at them"
            )
            found[f"keeps {name}"] = f"rows until the watermark is {until}"
        return found


class IntervalJoinOperator(Operator):
    """Each batch meets what is kept of the other side, and is kept itself.

    So every pair is found once, by whichever row comes second. A row that time has not passed meets
    everything: what it could match on the other side is kept until time has passed it.
    """

    def __init__(self, spec: IntervalJoin, inputs: Sequence[StreamSchema]) -> None:
        self._spec = spec
        self._inputs = inputs
        self._axis = PairAxis(inputs)
        self._pairing = Pairing(spec, inputs, None if spec.left_only else PairTime(inputs))
        self._low, self._high = self._axis.tick(spec.low), self._axis.tick(spec.high)
        self._holds = max(0, *(spec.keeps(side) for side in (LEFT, RIGHT) if spec.marks(side)), 0)

    def open(self, context: Context) -> None:
        self._context = context
        self._at_once = context.settings.memory_budget_bytes // VIEWED
        width = self._axis.tick(max((self._spec.high - self._spec.low) // SLICES_PER_INTERVAL, LEAST_WIDTH))
        self._buffers = [
            SliceBuffer(
                context.state,
                name,
                with_code(schema.columns),
                width,
                marked=self._spec.marks(side),
                exact=False,
            )
            for side, (name, schema) in enumerate(zip(SIDES, self._inputs, strict=True))
        ]
        self._arrivals = Arrivals(self._axis, self._pairing, context)

    def process(self, batch: Batch, out: Output) -> None:
        side = batch.port
        rows = self._arrivals.in_time(batch.frame, side, self._spec.by, out)
        if not rows.height:
            return
        found = self._meet(rows, side, out)
        if self._spec.left_only and side == LEFT:
            # What found a partner is in the result or out of it; either way nothing is left to decide.
            rows, found = rows.filter(pl.Series(~found)), found[~found]
        self._buffers[side].add(rows, found)
        self._context.metrics.set("rows_kept", sum(map(len, self._buffers)))

    def _meet(self, rows: pl.DataFrame, side: int, out: Output) -> Flags:
        """Hand on the pairs of new rows with what is kept of the other side; which of the new are in one."""
        found = np.zeros(rows.height, dtype=np.bool_)
        low, high = (self._low, self._high) if side == LEFT else (-self._high, -self._low)
        ticks = rows.get_column(TICK)
        probe = Keyed.of(rows)
        for view in self._buffers[1 - side].views(int(ticks[0]) + low, int(ticks[-1]) + high, self._at_once):
            kept = view.keyed
            assert kept is not None
            hit = np.zeros(view.height, dtype=np.bool_) if self._spec.marks(1 - side) else None
            for at, of in near_pairs(probe, kept, low, high):
                self._hand_on(rows, view, (at, of), side, found, hit, out)
            if hit is not None:
                self._settle_hits(view, hit, 1 - side, out)
        if self._spec.how == "semi" and side == LEFT:
            out.emit(self._pairing.alone(rows.filter(pl.Series(found)), LEFT))
        return found

    def _hand_on(
        self,
        rows: pl.DataFrame,
        view: View,
        pairs: Pairs,
        side: int,
        found: Flags,
        hit: Flags | None,
        out: Output,
    ) -> None:
        at, of = pairs
        if not len(at):
            return  # and nothing kept is read
        same = really_equal(pairs, rows, view.frame, self._spec.by)
        if same is not None:
            at, of = at[same], of[same]
        if not self._spec.left_only or self._spec.predicate is not None:
            kept = view.frame_for(len(at))
            if side == LEFT:
                joined = self._pairing.pairs(rows, kept, at, of)
            else:
                joined = self._pairing.pairs(kept, rows, of, at)
            fits = self._pairing.fitting(joined)
            if fits is not None:
                at, of, joined = at[fits.to_numpy()], of[fits.to_numpy()], joined.filter(fits)
            if not self._spec.left_only:
                out.emit(self._pairing.result(joined))
        found[at] = True
        if hit is not None:
            hit[of] = True

    def _settle_hits(self, view: View, hit: Flags, side: int, out: Output) -> None:
        """Kept rows have found a partner; for a semi join the first one brings them into the result."""
        first = hit & ~view.done() if self._spec.how == "semi" else hit
        if self._spec.how == "semi" and first.any():
            out.emit(self._pairing.alone(view.where(first), LEFT))
        self._buffers[side].mark(view, hit)

    def on_watermark(self, watermark: int, out: Output) -> None:
        self._arrivals.advance(watermark, (buffer.latest() for buffer in self._buffers))
        for side in (LEFT, RIGHT):
            horizon = self._horizon(side)
            if self._spec.marks(side):
                for rows in self._buffers[side].settle(horizon):
                    if self._spec.outer(side):
                        out.emit(self._pairing.alone(rows, side))
            self._buffers[side].drop(horizon)
        self._context.metrics.set("rows_kept", sum(map(len, self._buffers)))

    def _horizon(self, side: int) -> int:
        """Rows of a side before this tick meet nobody any more."""
        tick = self._arrivals.tick
        return tick if tick in (MIN_TIME, MAX_TIME) else tick - self._axis.tick(self._spec.keeps(side))

    def output_watermark(self, watermark: int) -> int:
        # A row that waits for a partner is that much behind the watermark when it leaves alone.
        if watermark in (MIN_TIME, MAX_TIME):
            return watermark
        return max(MIN_TIME, watermark - self._holds)

    def before_checkpoint(self) -> None:
        self._arrivals.store()
        for side, buffer in enumerate(self._buffers):
            if self._spec.marks(side):
                buffer.write_marks()

    def explain_time(self) -> Mapping[str, Any]:
        found: dict[str, Any] = {"watermark": self._arrivals.watermark}
        for name, buffer in zip(SIDES, self._buffers, strict=True):
            earliest = buffer.earliest()
            found[f"{name}_rows_kept"] = len(buffer)
            found[f"{name}_kept_since"] = None if earliest is None else self._axis.micros(earliest)
        return found
