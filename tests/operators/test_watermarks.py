"""Event time per split, idle and pending splits, impossible times, and the clock as event time."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import polars as pl
import pytest

from unistream.config import Settings
from unistream.elements import MAX_TIME, MIN_TIME, Batch
from unistream.expressions.schema import EventTime, StreamSchema
from unistream.metrics import Metrics
from unistream.operators.base import Context, Output
from unistream.operators.ingestion_time import IngestionTimeSpec
from unistream.operators.watermarks import EventTimeOperator, EventTimeSpec
from unistream.state.memory import MemoryBackend
from unistream.testing import VirtualClock

SECOND = 1_000_000


class Gathered(Output):
    def __init__(self) -> None:
        self.rows: list[pl.DataFrame] = []
        self.side: list[pl.DataFrame] = []

    def emit(self, frame: pl.DataFrame, split: str = "") -> None:
        assert split == ""
        self.rows.append(frame)

    def emit_to(self, tag: str, frame: pl.DataFrame) -> None:
        assert tag == "rejected"
        self.side.append(frame)


def restored(backend: MemoryBackend) -> MemoryBackend:
    """Another backend that holds what a checkpoint of this one would."""
    snapshot = backend.snapshot(1).finish()
    other = MemoryBackend()
    other.restore(snapshot.tables, {file.logical_name: file.path for file in snapshot.files})
    return other


class Timed:
    """The operator over a column of whole seconds, with a clock that the test moves."""

    def __init__(self, dtype: Any = pl.Int64, **options: Any) -> None:
        schema = StreamSchema(pl.Schema({"t": dtype}))
        self.spec = EventTimeSpec(column="t", unit="s", **{"delay": 0, **options})
        self.clock, self.metrics, self.out = VirtualClock(), Metrics(), Gathered()
        self.backend = MemoryBackend()
        self.schema = schema
        self.operator = self._open()

    def _open(self) -> EventTimeOperator:
        operator = self.spec.build([self.schema])
        assert isinstance(operator, EventTimeOperator)
        store = self.backend.store("op")
        operator.open(Context("op", self.clock, self.metrics, Settings(), store))
        return operator

    def restart(self) -> None:
        self.operator.before_checkpoint()
        self.backend = restored(self.backend)
        self.operator = self._open()

    def gives(self, *times: Any, split: str = "") -> None:
        frame = pl.DataFrame({"t": list(times)}, schema=self.schema.columns)
        self.operator.process(Batch(frame, split=split), self.out)

    def watermark(self, inputs: int = MIN_TIME) -> int:
        wakeup = self.operator.next_wakeup()
        if wakeup is not None and wakeup <= self.clock.now():
            self.operator.on_processing_time(self.clock.now(), self.out)
        return self.operator.output_watermark(inputs)


def test_the_greatest_time_less_the_delay() -> None:
    timed = Timed(delay=5 * SECOND)
    assert timed.watermark() == MIN_TIME
    timed.gives(10, 30, 20)
    assert timed.watermark() == 25 * SECOND
    timed.gives(12)
    assert timed.watermark() == 25 * SECOND
    assert timed.watermark(MAX_TIME) == MAX_TIME


@pytest.mark.parametrize(
    ("dtype", "unit", "value", "micros"),
    [
        (pl.Datetime("us"), "us", datetime(1970, 1, 1, 0, 0, 1), SECOND),
        (pl.Datetime("ms"), "us", datetime(1970, 1, 1, 0, 0, 1), SECOND),
        (pl.Datetime("ns"), "us", datetime(1970, 1, 1, 0, 0, 1), SECOND),
        (pl.Datetime("us", "Asia/Tokyo"), "us", datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC), SECOND),
        (pl.Date, "us", date(1970, 1, 2), 86_400 * SECOND),
        (pl.Int64, "ms", 1_000, SECOND),
        (pl.Int32, "s", 1, SECOND),
        (pl.UInt64, "ns", 1_000_000_999, SECOND),
    ],
)
def test_every_type_of_time(dtype: Any, unit: str, value: Any, micros: int) -> None:
    timed = Timed(dtype)
    timed.spec = EventTimeSpec(column="t", unit=unit, delay=0)
    timed.operator = timed._open()
    timed.gives(value)
    assert timed.watermark() == micros


def test_the_slowest_split_holds_the_others() -> None:
    timed = Timed()
    timed.gives(100, split="a")
    timed.gives(10, split="b")
    assert timed.watermark() == 10 * SECOND
    timed.gives(50, split="b")
    assert timed.watermark() == 50 * SECOND
    assert timed.operator.explain_time()["held_by"] == "b"


def test_a_split_that_is_still_to_be_read_holds_the_watermark_at_its_least_time() -> None:
    timed = Timed(delay=SECOND)
    timed.operator.on_splits("s", {"s/a": 0, "s/b": 20 * SECOND, "s/c": None}, [])
    timed.gives(100, split="s/a")
    assert timed.watermark() == MIN_TIME
    timed.operator.on_splits("s", {"s/b": 20 * SECOND}, [])
    assert timed.watermark() == 20 * SECOND
    timed.operator.on_splits("s", {"s/b": 20 * SECOND}, ["s/a"])
    assert timed.watermark() == 20 * SECOND
    timed.gives(30, split="s/b")
    timed.operator.on_splits("s", {}, [])
    assert timed.watermark() == 29 * SECOND


def test_a_split_that_ended_with_its_last_rows_counts_them_and_then_holds_nobody() -> None:
    timed = Timed()
    timed.operator.on_splits("s", {"s/b": None}, ["s/a"])  # said before its rows are seen, in the same tick
    timed.gives(40, split="s/a")
    assert timed.watermark() == MIN_TIME
    timed.operator.on_splits("s", {}, ["s/b"])
    timed.gives(30, split="s/b")
    assert timed.watermark() == 30 * SECOND
    assert timed.watermark() == 40 * SECOND  # nothing is being read: time stands where the furthest came to


def test_a_silent_split_is_released_after_idle_after_and_comes_back() -> None:
    timed = Timed(idle_after=10 * SECOND)
    timed.gives(100, split="a")
    timed.gives(10, split="b")
    timed.clock.advance("9s")
    timed.gives(101, split="a")
    assert timed.watermark() == 10 * SECOND
    timed.clock.advance("1s")
    assert timed.watermark() == 101 * SECOND
    assert timed.metrics.get("idle_splits") == 1
    assert timed.operator.explain_time()["idle"] == ["b"]
    timed.gives(11, split="b")
    timed.gives(200, split="a")
    assert timed.watermark() == 101 * SECOND  # it does not go back, and it waits for b again
    timed.gives(150, split="b")
    assert timed.watermark() == 150 * SECOND


def test_when_all_splits_are_silent_time_stands_at_the_furthest() -> None:
    timed = Timed(idle_after=10 * SECOND)
    timed.gives(100, split="a")
    timed.gives(10, split="b")
    timed.clock.advance("10s")
    assert timed.watermark() == 100 * SECOND


def test_rows_without_a_possible_time_are_rejected_with_the_reason() -> None:
    timed = Timed(max_ahead=60 * SECOND)
    timed.clock.advance("100s")
    timed.gives(10, None, 2**62, 161, 160, split="s/a")
    assert pl.concat(timed.out.rows).to_series().to_list() == [10, 160]
    assert pl.concat(timed.out.side).select("source", "split", "reason", "raw").rows() == [
        ("op", "s/a", "no event time", '{"t":null}'),
        ("op", "s/a", "event time is out of range", '{"t":4611686018427387904}'),
        ("op", "s/a", "event time is more than 1m ahead of the clock", '{"t":161}'),
    ]
    assert timed.metrics.get("rejected") == 3
    assert timed.watermark() == 160 * SECOND


def test_only_impossible_rows_say_nothing_of_time() -> None:
    timed = Timed()
    timed.gives(None, None)
    assert timed.watermark() == MIN_TIME


def test_a_restart_goes_on_where_time_stood() -> None:
    timed = Timed(delay=SECOND, idle_after=10 * SECOND)
    timed.gives(100, split="a")
    timed.gives(10, split="b")
    timed.clock.advance("10s")
    timed.gives(20, split="b")
    assert timed.watermark() == 19 * SECOND
    timed.restart()
    assert timed.watermark() == 19 * SECOND
    timed.gives(21, split="b")
    assert timed.watermark() == 20 * SECOND
    timed.clock.advance("10s")
    assert timed.watermark() == 99 * SECOND


def test_ingestion_time_never_goes_back() -> None:
    spec = IngestionTimeSpec(column="at")
    schema = StreamSchema(pl.Schema({"a": pl.Int64}))
    assert spec.schema([schema]).event_time == EventTime("at")
    clock, out, backend = VirtualClock(5), Gathered(), MemoryBackend()
    operator = spec.build([schema])
    operator.open(Context("op", clock, Metrics(), Settings(), backend.store("op")))
    operator.process(Batch(pl.DataFrame({"a": [1, 2]})), out)
    assert operator.output_watermark(MIN_TIME) == 5
    clock.advance("1s")
    assert operator.output_watermark(MIN_TIME) == SECOND + 5
    operator.before_checkpoint()
    backend = restored(backend)
    again = spec.build([schema])
    again.open(Context("op", VirtualClock(0), Metrics(), Settings(), backend.store("op")))
    again.process(Batch(pl.DataFrame({"a": [3]})), out)
    assert again.output_watermark(MIN_TIME) == SECOND + 5
    micros = pl.concat(out.rows)["at"].to_physical().to_list()
    assert micros == [5, 5, SECOND + 5]
    assert again.output_watermark(MAX_TIME) == MAX_TIME
