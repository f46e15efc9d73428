"""Event time: which column it is, how far it has come in each part of the source, what is out of bounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, TypeVar

import polars as pl

from unistream.clock import Clock
from unistream.durations import spelled
from unistream.elements import MAX_TIME, MIN_TIME, Batch
from unistream.expressions.schema import EventTime, StreamSchema
from unistream.graph import REJECTED
from unistream.io.base import REJECTED_SCHEMA
from unistream.one_query import Conditions
from unistream.operators.base import Context, Operator, OperatorSpec, Output
from unistream.operators.time_axis import TimeAxis, greatest, least
from unistream.operators.time_order import TimeOrder

FURTHEST = 2**62
"""Event times beyond this many microseconds from the epoch (146,000 years) are mistakes, not times."""

T = TypeVar("T")


@dataclass(frozen=True, eq=False, kw_only=True)
class EventTimeSpec(OperatorSpec):
    """Declares `column` to be event time; rows without one, or with an impossible one, are rejected.

    Durations are in microseconds: `delay` is how far rows of one split may be out of order, `idle_after`
    how long a split may be silent before it holds nobody back, `max_ahead` how far event time may run
    ahead of the clock, `max_drift` how far ahead of the other sources of the job.
    """

    name: ClassVar[str] = "event_time"
    column: str
    unit: str
    delay: int
    idle_after: int | None = None
    max_ahead: int | None = None
    max_drift: int | None = None

    def schema(self, inputs: Sequence[StreamSchema]) -> StreamSchema:
        time = EventTime(self.column, self.unit)
        return replace(inputs[0], event_time=time, side_outputs={REJECTED: REJECTED_SCHEMA})

    def build(self, inputs: Sequence[StreamSchema]) -> Operator:
        return EventTimeOperator(self, TimeAxis.of(self.schema(inputs)))

    def takes_all(self, inputs: Sequence[StreamSchema], extremes: tuple[Any, Any]) -> bool:
        """Whether no row between these times is rejected, whenever it comes."""
        if self.max_ahead is not None:
            return False
        axis = TimeAxis.of(self.schema(inputs))
        values = pl.DataFrame({self.column: extremes}, schema={self.column: inputs[0].columns[self.column]})
        return _within(axis.ticks(values), axis.tick(-FURTHEST), axis.tick(FURTHEST))

    def order(
        self, inputs: Sequence[StreamSchema], column: str, in_time: bool, conditions: Conditions
    ) -> Callable[[], TimeOrder] | None:
        """What watches the rows of one query: that none is rejected and, with `in_time`, that none is late.

        `column` is the name of the time in the source. None when only the clock can tell.
        """
        if self.max_ahead is not None:
            return None
        axis = replace(TimeAxis.of(self.schema(inputs)), column=column)
        bounds = axis.tick(-FURTHEST), axis.tick(FURTHEST)
        delay = axis.tick(self.delay) if in_time else None
        return lambda: TimeOrder(axis, bounds, delay, conditions)

    @property
    def accepts_updates(self) -> bool:
        return True

    def reads(self, inputs: Sequence[StreamSchema], needed: frozenset[str]) -> Sequence[frozenset[str]]:
        return [needed | {self.column}]

    def describe(self) -> Mapping[str, str]:
        found = {"column": self.column, "delay": spelled(self.delay)}
        if self.idle_after is not None:
            found["idle after"] = spelled(self.idle_after)
        if self.max_ahead is not None:
            found["at most ahead of the clock"] = spelled(self.max_ahead)
        if self.max_drift is not None:
            found["at most ahead of other sources"] = spelled(self.max_drift)
        return found


@dataclass(slots=True)
class _Split:
    """How far one part of the source has come, in microseconds, and when it last gave rows."""

    highest: int
    seen: int
    idle: bool = False


@dataclass(slots=True)
class SplitTimes:
    """The watermark of many splits: the least over those that are being read or are still to be read.

    Splits are named "source/split". One that has ended or fallen idle holds nobody back, but its source
    does, where it came to, until it gives rows of another split, is idle, or is over: nobody knows yet
    what the next file holds. When nothing holds, time stands where the furthest of all came to.
    """

    delay: int
    splits: dict[str, _Split] = field(default_factory=dict)
    pending: dict[str, int | None] = field(default_factory=dict)
    sources: dict[str, _Split] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)
    furthest_over: int = MIN_TIME

    def saw(self, split: str, highest: int, now: int) -> None:
        """The split gave rows."""
        self.pending.pop(split, None)
        known = self.splits.get(split)
        if known is None:
            self.splits[split] = _Split(highest, now)
        else:
            known.highest, known.seen, known.idle = max(known.highest, highest), now, False
        source = self.sources.setdefault(_source(split), _Split(MIN_TIME, now))
        source.seen, source.idle = now, False

    def news(self, source: str, pending: Mapping[str, int | None], ended: Sequence[str], now: int) -> None:
        """What a source says about its splits; its own name among the ended ones says that it is over."""
        self.sources.setdefault(source, _Split(MIN_TIME, now))
        kept = {name: least for name, least in self.pending.items() if _source(name) != source}
        fresh = {name: least for name, least in pending.items() if name not in self.splits}
        self.pending = kept | fresh
        self.ended.update(ended)

    def watermark(self) -> int:
        """Where time stands. Splits that ended since the last call are counted one last time."""
        pending = {name: least for name, least in self.pending.items() if name not in self.ended}
        holds = [self._time(split) for split in self.splits.values() if not split.idle]
        holds += [MIN_TIME if least is None else least for least in pending.values()]
        holds += [self._time(source) for source in self._resting().values() if not source.idle]
        self._forget_ended()
        if holds:
            return min(holds)
        there = [*self.splits.values(), *self.sources.values()]
        return self._time(_Split(max([self.furthest_over, *(each.highest for each in there)]), 0))

    def of_source(self, source: str) -> int | None:
        """Where the time of one source stands; None when it holds nobody."""
        holds = [MIN_TIME if least is None else least for least in self._of(source, self.pending)]
        splits = self._of(source, self.splits)
        holds += [self._time(split) for split in splits if not split.idle]
        resting = self.sources.get(source)
        if not splits and not holds and resting is not None and not resting.idle:
            return self._time(resting)
        return min(holds, default=None)

    def _of(self, source: str, splits: Mapping[str, T]) -> list[T]:
        return [each for name, each in splits.items() if _source(name) == source]

    def held_back(self, source: str, now: int) -> None:
        """The source is not asked for rows, so it is not silent."""
        for split in (*self._of(source, self.splits), self.sources.get(source)):
            if split is not None:
                split.seen = now

    def _time(self, split: _Split) -> int:
        return MIN_TIME if split.highest == MIN_TIME else split.highest - self.delay

    def _resting(self) -> dict[str, _Split]:
        """Sources of which no split is being read or known to come, and that are not over."""
        busy = {_source(name) for name in (*self.splits, *self.pending)} | self.ended
        return {name: source for name, source in self.sources.items() if name not in busy}

    def _forget_ended(self) -> None:
        for name in sorted(self.ended, key=lambda name: "/" not in name):  # sources after their splits
            self.pending.pop(name, None)
            split = self.splits.pop(name, None) or self.sources.pop(name, None)
            if split is None:
                continue
            source = self.sources.get(_source(name)) if "/" in name else None
            if source is None:
                self.furthest_over = max(self.furthest_over, split.highest)
            else:
                source.highest = max(source.highest, split.highest)
        self.ended.clear()

    def holder(self) -> str | None:
        """The split or source that holds the watermark where it is."""
        at = {name: self._time(split) for name, split in self.splits.items() if not split.idle}
        at |= {name: MIN_TIME if least is None else least for name, least in self.pending.items()}
        at |= {name: self._time(source) for name, source in self._resting().items() if not source.idle}
        return min(at, key=lambda name: at[name]) if at else None

    def fall_idle(self, now: int, idle_after: int) -> None:
        """Whatever was silent for so long holds nobody back from now on."""
        for split in (*self.splits.values(), *self._resting().values()):
            split.idle = split.idle or split.seen + idle_after <= now

    def next_idle(self, idle_after: int) -> int | None:
        """When the next split or source falls idle if it stays silent."""
        there = (*self.splits.values(), *self._resting().values())
        awake = [split.seen for split in there if not split.idle]
        return min(awake) + idle_after if awake else None

    def to_json(self) -> dict[str, Any]:
        """What a checkpoint keeps. What is pending the source says again."""
        splits, sources = (
            {name: [split.highest, split.idle] for name, split in group.items()}
            for group in (self.splits, self.sources)
        )
        return {"splits": splits, "sources": sources, "furthest_over": self.furthest_over}

    def load(self, stored: Mapping[str, Any], now: int) -> None:
        """Go on from a checkpoint; the time of silence starts anew."""
        self.splits, self.sources = (
            {name: _Split(high, now, idle) for name, (high, idle) in stored[group].items()}
            for group in ("splits", "sources")
        )
        self.furthest_over = stored["furthest_over"]


def _source(split: str) -> str:
    return split.partition("/")[0]


class EventTimeOperator(Operator):
    """Hands rows on as they are, keeps time per split, and sorts out rows whose time cannot be."""

    def __init__(self, spec: EventTimeSpec, axis: TimeAxis) -> None:
        self._spec = spec
        self._axis = axis
        self._times = SplitTimes(spec.delay)
        self._least, self._greatest = axis.tick(-FURTHEST), axis.tick(FURTHEST)
        self._watermark = MIN_TIME

    def open(self, context: Context) -> None:
        self._id = context.operator_id
        self._clock: Clock = context.clock
        self._metrics = context.metrics
        self._cell = context.state.cell("times")
        stored = self._cell.get()
        if stored is not None:
            self._times.load(stored, self._clock.now())
            self._watermark = stored["watermark"]

    def process(self, batch: Batch, out: Output) -> None:
        frame, ticks = batch.frame, self._axis.ticks(batch.frame)
        latest = self._latest()
        if not _within(ticks, self._least, latest):
            frame, ticks = self._without_impossible(batch, ticks, latest, out)
        if frame.height:
            highest = greatest(ticks)
            assert highest is not None
            self._times.saw(batch.split, self._axis.micros(highest), self._clock.now())
            out.emit(frame)

    def _latest(self) -> int:
        if self._spec.max_ahead is None:
            return self._greatest
        return min(self._greatest, self._axis.tick(self._clock.now() + self._spec.max_ahead))

    def _without_impossible(
        self, batch: Batch, ticks: pl.Series, latest: int, out: Output
    ) -> tuple[pl.DataFrame, pl.Series]:
        """The rows that have a time in bounds; the others leave by the side, each with its reason."""
        good = ticks.is_between(self._least, latest).fill_null(False)
        bad, bad_ticks = batch.frame.filter(~good), ticks.filter(~good)
        out_of_range = ~bad_ticks.is_between(self._least, self._greatest)
        ahead = f"event time is more than {spelled(self._spec.max_ahead or 0)} ahead of the clock"
        reasons = pl.select(
            pl.when(bad_ticks.is_null())
            .then(pl.lit("no event time"))
            .when(out_of_range)
            .then(pl.lit("event time is out of range"))
            .otherwise(pl.lit(ahead))
            .alias("reason")
        ).to_series()
        self._metrics.add("rejected", bad.height)
        out.emit_to(REJECTED, rejected_rows(bad, self._id, batch.split, reasons))
        return batch.frame.filter(good), ticks.filter(good)

    def on_splits(self, source: str, pending: Mapping[str, int | None], ended: Sequence[str]) -> None:
        self._times.news(source, pending, ended, self._clock.now())

    def source_time(self, source: str) -> int | None:
        return self._times.of_source(source)

    def on_held_back(self, source: str) -> None:
        self._times.held_back(source, self._clock.now())

    def output_watermark(self, watermark: int) -> int:
        self._watermark = max(self._watermark, self._times.watermark())
        return MAX_TIME if watermark == MAX_TIME else self._watermark

    def next_wakeup(self) -> int | None:
        idle_after = self._spec.idle_after
        return None if idle_after is None else self._times.next_idle(idle_after)

    def on_processing_time(self, now: int, out: Output) -> None:
        if self._spec.idle_after is not None:
            self._times.fall_idle(now, self._spec.idle_after)
            idle = sum(split.idle for split in self._times.splits.values())
            self._metrics.set("idle_splits", idle)

    def before_checkpoint(self) -> None:
        self._cell.set(self._times.to_json() | {"watermark": self._watermark})

    def explain_time(self) -> dict[str, Any]:
        times = self._times
        return {
            "event_time": self._spec.column,
            "delay": self._spec.delay,
            "watermark": self._watermark,
            "held_by": times.holder(),
            "splits": {name: split.highest - self._spec.delay for name, split in times.splits.copy().items()},
            "idle": [name for name, split in times.splits.copy().items() if split.idle],
            "pending": dict(times.pending),
        }


def _within(ticks: pl.Series, lowest: int, highest: int) -> bool:
    low, high = least(ticks), greatest(ticks)
    return ticks.null_count() == 0 and (low is None or high is None or (low >= lowest and high <= highest))


def rejected_rows(frame: pl.DataFrame, source: str, split: str, reasons: pl.Series) -> pl.DataFrame:
    """Rows in the form in which every rejected row leaves, with their content as JSON."""
    binary = [name for name, dtype in frame.schema.items() if dtype == pl.Binary]
    printable = frame.with_columns(pl.col(binary).bin.encode("base64")) if binary else frame
    raw = printable.to_struct("raw").struct.json_encode()
    return pl.DataFrame(
        {
            "source": pl.repeat(source, frame.height, dtype=pl.String, eager=True),
            "split": pl.repeat(split, frame.height, dtype=pl.String, eager=True),
            "position": pl.repeat(None, frame.height, dtype=pl.Int64, eager=True),
            "reason": reasons,
            "raw": raw,
        },
        schema=REJECTED_SCHEMA,
    )
