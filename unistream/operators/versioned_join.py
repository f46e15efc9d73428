"""Each row beside the version of another row that was valid when it happened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import polars as pl

from unistream.durations import spelled
from unistream.elements import MAX_TIME, MIN_TIME, Batch
from unistream.errors import InvalidQuery
from unistream.expressions.schema import Changes, StreamSchema
from unistream.of_columns import columns_of, stacked
from unistream.operators.base import Context, Operator, Output
from unistream.operators.join_arrivals import Arrivals
from unistream.operators.join_buffer import SliceBuffer
from unistream.operators.join_layout import (
    LEFT,
    RIGHT,
    SIDES,
    JoinSpec,
    PairAxis,
    Pairing,
    check_timed,
    late_columns,
)
from unistream.operators.join_matching import TICK

Strategy = Literal["backward", "forward", "nearest"]

STRATEGIES = ("backward", "forward", "nearest")

_WIDTH, _SLICES = 1_000_000, 4
"""Rows wait in slices of at least a second, four to a tolerance that they wait for."""

_SWEEPS = 8
"""Versions are forgotten in bunches: one stays at most an eighth longer than the tolerance."""

_AT = "__at"


@dataclass(frozen=True, eq=False, kw_only=True)
class VersionedJoin(JoinSpec):
    """Every left row once, with the right row of its key that is the last before it (or the first after it).

    `tolerance` (microseconds) is how far apart they may be. Of right rows with one key and one time the
    last to come counts; at equal distance the earlier is the nearest.
    """

    strategy: Strategy = "backward"
    tolerance: int | None = None

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            hint = f"one of {', '.join(STRATEGIES)}"
            raise InvalidQuery(f"join_asof has no strategy={self.strategy!r}", self.where, hint)

    def schema(self, inputs: Sequence[StreamSchema]) -> StreamSchema:
        check_timed(inputs, "join_asof", self.where)
        for side, schema in zip(SIDES, inputs, strict=True):
            if schema.changes is not Changes.APPEND:
                hint = "versions are rows that stay: join the stream before the step that updates"
                raise InvalidQuery(
                    f"join_asof takes rows that stay; the {side} side updates", self.where, hint
                )
        bounded = all(schema.bounded for schema in inputs)
        if self.strategy != "backward" and self.tolerance is None and not bounded:
            hint = 'say how long a row may wait, as in tolerance="5m", or look back with strategy="backward"'
            raise InvalidQuery(
                f"join_asof with strategy={self.strategy!r} would have rows wait for ever", self.where, hint
            )
        both = self.both(inputs)
        for name in self.by:
            if both[name].is_nested():
                hint = "take it apart first, as in `.with_columns(id=pl.col('key').struct.field('id'))`"
                if not isinstance(both[name], pl.Struct):
                    hint = (
                        "make plain columns of it first, as in `.with_columns(id=pl.col('key').list.first())`"
                    )
                raise InvalidQuery(
                    f"join_asof cannot go by {name!r}, which is {both[name]}", self.where, hint
                )
        return replace(inputs[LEFT], columns=both, key=(), bounded=bounded, side_outputs=late_columns(both))

    def build(self, inputs: Sequence[StreamSchema]) -> Operator:
        return _LookBack(self, inputs) if self.strategy == "backward" else _LookAhead(self, inputs)

    def describe(self) -> Mapping[str, str]:
        far = "" if self.tolerance is None else f", at most {spelled(self.tolerance)} apart"
        past = {"backward": "the last before", "forward": "the first after", "nearest": "the nearest to"}
        found = {"by": ", ".join(self.by), "takes": f"{past[self.strategy]} each left row{far}"}
        if self.strategy == "backward":
            found["keeps left"] = "rows until the watermark has passed them"
            until = (
                ""
                if self.tolerance is None
                else f", until the watermark is {spelled(self.tolerance)} past it"
            )
            found["keeps right"] = f"the last version of each key{until}, and versions that are ahead of time"
        elif self.tolerance is None:
            found["keeps"] = "all rows until the end"
        else:
            twice = 2 if self.strategy == "nearest" else 1
            found["keeps left"] = f"rows until the watermark is {spelled(self.tolerance)} past them"
            found["keeps right"] = f"rows until the watermark is {spelled(twice * self.tolerance)} past them"
        return found


class _Versioned(Operator):
    """Rows of both sides wait until time has passed all that could be the version of a left row."""

    def __init__(self, spec: VersionedJoin, inputs: Sequence[StreamSchema]) -> None:
        self._spec = spec
        self._inputs = inputs
        self._by = list(spec.by)
        self._axis = PairAxis(inputs)
        self._pairing = Pairing(spec, inputs, None)
        self._tolerance = None if spec.tolerance is None else self._axis.tick(spec.tolerance)
        others = [name for name in inputs[RIGHT].columns if name not in spec.by]
        self._kept = [self._by + others + [TICK], others]

    def open(self, context: Context) -> None:
        self._context = context
        self._arrivals = Arrivals(self._axis, self._pairing, context)
        ahead = 0 if self._spec.strategy == "backward" else self._spec.tolerance or 0
        width = self._axis.tick(max(ahead // _SLICES, _WIDTH))
        self._lefts = SliceBuffer(context.state, "left", self._inputs[LEFT].columns, width, marked=True)
        self._rights = SliceBuffer(
            context.state, "right", self._inputs[RIGHT].columns, width, marked=self._settles
        )

    _settles = False

    def process(self, batch: Batch, out: Output) -> None:
        rows = self._arrivals.in_time(batch.frame, batch.port, (), out)
        if batch.port == RIGHT:
            known = rows.drop_nulls(self._by)
            self._context.metrics.add("filtered", rows.height - known.height)
            self._rights.add(known, np.zeros(known.height, dtype=np.bool_))
        else:
            self._lefts.add(rows, np.zeros(rows.height, dtype=np.bool_))

    def _earlier(self, tick: int, by: int | None) -> int:
        """A tick moved back by a length; without a length to the end that is never reached."""
        if tick in (MIN_TIME, MAX_TIME):
            return tick
        return MIN_TIME if by is None else tick - by

    def _joined(self, lefts: pl.DataFrame, versions: pl.DataFrame, strategy: str) -> pl.DataFrame:
        """The left rows with the columns of their versions."""
        versions = versions.select(self._kept[0]).sort(TICK, maintain_order=True)
        versions = versions.unique([*self._by, TICK], keep="last", maintain_order=True)
        if strategy != "nearest":
            return self._asof(lefts, versions, strategy)
        numbered = versions.with_columns(pl.col(TICK).alias(_AT))
        back = self._asof(lefts, numbered, "backward").get_column(_AT)
        ahead = self._asof(lefts, numbered, "forward").get_column(_AT)
        own = lefts.get_column(TICK)
        nearer = pl.select(
            pl.when((own - back <= ahead - own).fill_null(back.is_not_null())).then(back).otherwise(ahead)
        ).to_series()
        keyed = lefts.with_columns(nearer.alias(_AT))
        exact = versions.rename({TICK: _AT})
        return keyed.join(exact, on=[*self._by, _AT], how="left", maintain_order="left").drop(_AT)

    def _asof(self, lefts: pl.DataFrame, versions: pl.DataFrame, strategy: str) -> pl.DataFrame:
        return lefts.join_asof(
            versions,
            on=TICK,
            by=self._by,
            strategy=strategy,  # type: ignore[arg-type]
            tolerance=self._tolerance,
            check_sortedness=False,
        )

    def before_checkpoint(self) -> None:
        self._arrivals.store()
        self._lefts.write_marks()
        self._rights.write_marks()

    def explain_time(self) -> Mapping[str, Any]:
        return {
            "watermark": self._arrivals.watermark,
            "left_rows_waiting": len(self._lefts),
            "right_rows_ahead": len(self._rights),
        }

    def _emit(self, lefts: Sequence[pl.DataFrame], versions: pl.DataFrame, out: Output) -> None:
        rows = stacked(lefts).sort(TICK, maintain_order=True)
        out.emit(columns_of(self._joined(rows, versions, self._spec.strategy), self._pairing.both.names()))


class _LookBack(_Versioned):
    """When time passes a version it becomes the one that counts for its key; older ones are forgotten."""

    _settles = True

    def open(self, context: Context) -> None:
        super().open(context)
        columns = self._inputs[RIGHT].columns
        keys = pl.Schema({name: columns[name] for name in self._by})
        values = pl.Schema({name: columns[name] for name in self._kept[1]} | {TICK: pl.Int64()})
        self._table = context.state.keyed("versions", keys, values)
        self._swept = MIN_TIME

    def on_watermark(self, watermark: int, out: Output) -> None:
        self._arrivals.advance(watermark, [self._lefts.latest(), self._rights.latest()])
        horizon = self._arrivals.tick
        passed = self._rights.settle(horizon)
        lefts = self._lefts.settle(horizon)
        if lefts:
            self._emit(lefts, pl.concat([self._standing(lefts), *passed], how="diagonal"), out)
        if passed:
            self._stand(stacked(passed))
        self._lefts.drop(horizon)
        self._rights.drop(horizon)
        self._sweep(horizon)
        self._context.metrics.set("rows_kept", len(self._lefts) + len(self._rights) + len(self._table))

    def _standing(self, lefts: Sequence[pl.DataFrame]) -> pl.DataFrame:
        """The versions that counted so far, of the keys that are asked for."""
        keys = stacked([columns_of(rows, self._by) for rows in lefts]).unique(maintain_order=True)
        ids = self._table.find(keys)
        ids = ids[ids >= 0]
        return self._table.keys(ids).hstack(self._table.read(ids))

    def _stand(self, versions: pl.DataFrame) -> None:
        last = versions.sort(TICK, maintain_order=True).unique(self._by, keep="last", maintain_order=True)
        ids, _ = self._table.upsert(last.select(self._by))
        self._table.write(ids, last.select(*self._kept[1], TICK))

    def _sweep(self, horizon: int) -> None:
        """Forget versions too old for any row to come."""
        if self._tolerance is None or horizon in (MIN_TIME, MAX_TIME):
            return
        if self._swept != MIN_TIME and horizon - self._swept < self._tolerance // _SWEEPS:
            return
        self._swept = horizon
        ids = self._table.rows()
        self._table.delete(ids[self._table.column(TICK)[ids] < horizon - self._tolerance])


class _LookAhead(_Versioned):
    """A left row waits until time has passed all that it could take; right rows until none can take them."""

    def on_watermark(self, watermark: int, out: Output) -> None:
        self._arrivals.advance(watermark, [self._lefts.latest(), self._rights.latest()])
        horizon = self._earlier(self._arrivals.tick, self._tolerance)
        lefts = self._lefts.settle(horizon)
        nearest = self._spec.strategy == "nearest"
        if lefts:
            reach = 2**61 if self._tolerance is None else self._tolerance
            low = min(int(rows.get_column(TICK).to_numpy().min()) for rows in lefts)
            high = max(int(rows.get_column(TICK).to_numpy().max()) for rows in lefts)
            view = self._rights.view(low - (reach if nearest else 0), high + reach)
            empty = pl.DataFrame(schema={**self._inputs[RIGHT].columns, TICK: pl.Int64})
            self._emit(lefts, view.frame if view.frame.height else empty, out)
        self._lefts.drop(horizon)
        if not nearest:
            self._rights.drop(horizon)
        elif watermark != MAX_TIME:  # what is started again may look back beyond the end
            self._rights.drop(self._earlier(horizon, self._tolerance))
        self._context.metrics.set("rows_kept", len(self._lefts) + len(self._rights))

    def output_watermark(self, watermark: int) -> int:
        return self._axis.micros(self._earlier(self._axis.tick(watermark), self._tolerance))
