"""`verify` certifies right streams and finds wrong ones, down to a handful of rows."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import unistream as us
from unistream.elements import MAX_TIME, MIN_TIME, Batch
from unistream.expressions.schema import CHANGE, Changes, EventTime, StreamSchema
from unistream.expressions.time import microseconds_of
from unistream.operators.base import Context, Operator, OperatorSpec, Output
from unistream.testing import Certificate, ListSource, Reject, VerificationFailed, crash_at, verify
from unistream.testing.crash import CrashReport
from unistream.testing.schedules import Delay, Schedule, SourceRows, in_order
from unistream.testing.ways import run_with_crashes

ROWS = pl.DataFrame({"a": range(200), "b": [n % 7 for n in range(200)]})


def failure(stream: us.Stream, **options: object) -> VerificationFailed:
    with pytest.raises(VerificationFailed) as caught:
        verify(stream, seeds=5, **options)  # type: ignore[arg-type]
    return caught.value


def rows_of(failed: VerificationFailed) -> int:
    return sum(frame.height for frame in failed.inputs.values())


# Right streams


def test_a_right_stream_gets_a_certificate_that_says_what_was_tried() -> None:
    one = us.from_frame(ROWS).filter(pl.col("b") > 2).with_columns(c=pl.col("a") * 2)
    certificate = verify(one.union(one), seeds=6)
    assert isinstance(certificate, Certificate)
    assert certificate.whole_query
    assert (certificate.rows, certificate.result_rows) == (200, 2 * ROWS.filter(pl.col("b") > 2).height)
    assert "one Polars query, one tick, one row at a time, and 6 random cuts" in repr(certificate)


def test_several_sources_with_splits_and_rejected_rows() -> None:
    schema = {"a": pl.Int64}
    left = us.scan(ListSource(schema, {"x": [(1,), Reject("?")], "y": [(2,), (3,)], "none": []}))
    right = us.scan(ListSource(schema, [(4,)]))
    assert verify(left.union(right), seeds=4).rows == 4
    assert verify(left.rejected(), seeds=4).result_rows == 1


def test_empty_input() -> None:
    assert verify(us.from_frame(ROWS.clear()).filter(pl.col("a") > 1), seeds=2).rows == 0


def test_an_unbounded_stream_is_refused() -> None:
    with pytest.raises(us.InvalidQuery, match="needs it bounded"):
        verify(us.scan(ListSource({"a": pl.Int64}, bounded=False)))
    with pytest.raises(us.InvalidQuery, match="more than 10 rows"):
        verify(us.from_frame(ROWS), max_rows=10)


# Wrong streams


def test_numbering_rows_by_batch_is_found_with_two_rows() -> None:
    numbered = us.from_frame(ROWS).map_batches(lambda frame: frame.with_row_index("i"))
    failed = failure(numbered)
    assert rows_of(failed) == 2
    assert failed.got is not None
    assert failed.got["i"].to_list() == [0, 0]
    assert failed.expected["i"].to_list() == [0, 1]
    assert "one row at a time" in str(failed)
    assert "arriving as: frame-1 rows: 1 1" in str(failed)


def test_losing_the_first_row_of_each_batch_is_found() -> None:
    failed = failure(us.from_frame(ROWS).map_batches(lambda frame: frame.tail(-1), schema=ROWS.schema))
    assert rows_of(failed) == 2
    assert (failed.expected.height, failed.got.height if failed.got is not None else None) == (1, 0)


def test_a_failure_that_only_small_batches_show_is_found() -> None:
    def fragile(frame: pl.DataFrame) -> pl.DataFrame:
        if frame.height == 1 and frame["a"][0] == 150:
            raise ValueError("one row is not enough")
        return frame

    failed = failure(us.from_frame(ROWS).map_batches(fragile, schema=ROWS.schema))
    assert failed.got is None
    assert "one row is not enough" in failed.difference


def test_an_error_of_the_batch_itself_is_no_difference() -> None:
    def always(frame: pl.DataFrame) -> pl.DataFrame:
        raise ValueError("always")

    with pytest.raises(us.JobFailed, match="always"):
        verify(us.from_frame(ROWS).map_batches(always, schema=ROWS.schema))


def test_a_stream_that_is_not_repeatable_is_named_so() -> None:
    calls = iter([False, True])

    def second_only(frame: pl.DataFrame) -> pl.DataFrame:
        return frame.head(0) if next(calls, False) else frame

    with pytest.raises(RuntimeError, match="not repeatable"):
        verify(us.from_frame(ROWS).map_batches(second_only, schema=ROWS.schema), seeds=2)


@dataclass(frozen=True, eq=False, kw_only=True)
class Buffer(OperatorSpec):
    """Gives rows four at a time."""

    name: ClassVar[str] = "buffer"
    stateful: ClassVar[bool] = False
    forgets: bool

    def schema(self, inputs: Sequence[StreamSchema]) -> StreamSchema:
        return inputs[0]

    def build(self, inputs: Sequence[StreamSchema]) -> Operator:
        return BufferOperator(self.forgets)


class BufferOperator(Operator):
    def __init__(self, forgets: bool) -> None:
        self.held: list[pl.DataFrame] = []
        self.forgets = forgets

    def process(self, batch: Batch, out: Output) -> None:
        self.held.append(batch.frame)
        if sum(frame.height for frame in self.held) >= 4:
            self.give(out)

    def give(self, out: Output) -> None:
        for frame in self.held:
            out.emit(frame)
        self.held.clear()

    def finish(self, out: Output) -> None:
        if not self.forgets:
            self.give(out)


def test_a_buffer_that_is_forgotten_at_the_end_is_found() -> None:
    # 201 rows: one at a time, the last stays behind.
    rows = us.from_frame({"a": range(201)})
    verify(rows.apply(Buffer(forgets=False)), seeds=5, crashes=0)
    failed = failure(rows.apply(Buffer(forgets=True)))
    assert rows_of(failed) == 5


def test_rows_held_outside_the_state_tables_are_lost_in_a_crash_and_that_is_found() -> None:
    rows = us.from_frame({"a": range(60)})
    with pytest.raises(VerificationFailed, match="run by crash_and_resume") as caught:
        verify(rows.apply(Buffer(forgets=False)), seeds=8, crashes=8)
    assert caught.value.got is not None
    assert caught.value.got.height < caught.value.expected.height
    assert rows_of(caught.value) < 60


def test_a_stateless_stream_survives_crashes() -> None:
    one = us.scan(ListSource({"n": pl.Int64}, {"x": [(n,) for n in range(9)], "y": [(n,) for n in range(7)]}))
    certificate = verify(one.filter(pl.col("n") % 2 == 0), seeds=6, crashes=6)
    assert "6 of these also with crashes and restarts from checkpoints" in repr(certificate)


def test_crashes_that_are_certified_did_happen(monkeypatch: pytest.MonkeyPatch) -> None:
    reports: list[CrashReport] = []

    @contextmanager
    def noted(*args: Any, **options: Any) -> Iterator[CrashReport]:
        with crash_at(*args, **options) as report:
            reports.append(report)
            yield report

    monkeypatch.setattr("unistream.testing.ways.crash_at", noted)
    certificate = verify(us.from_frame({"a": [1, 2, 3]}).filter(pl.col("a") > 1), seeds=5, crashes=4)
    assert certificate.crashed == 4
    assert sum(report.happened for report in reports) >= 4


def test_a_run_in_which_nothing_died_is_not_certified_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    # A stream that is never twice at the same points, as one that asks in threads of its own may be.
    monkeypatch.setattr("unistream.testing.ways.crash_at", lambda *args, **options: nullcontext())
    certificate = verify(us.from_frame(ROWS).filter(pl.col("a") > 1), seeds=3)
    assert certificate.crashed == 0
    assert "crashes" not in repr(certificate)


@pytest.mark.parametrize("seed", range(5))
def test_crashes_are_the_same_for_the_same_seed(seed: int) -> None:
    stream = us.from_frame(ROWS).filter(pl.col("a") > 1)
    first, again = (run_with_crashes(stream, seed) for _ in range(2))
    assert first[1] == again[1] > 0
    assert_frame_equal(first[0], again[0])


def test_order_matters_only_when_asked() -> None:
    two = us.from_frame({"a": [1, 2, 3]}).union(us.from_frame({"a": [4, 5, 6]}))
    verify(two, seeds=5)
    assert rows_of(failure(two, ordered=True)) >= 2


def test_a_failure_travels() -> None:
    failed = failure(us.from_frame(ROWS).map_batches(lambda frame: frame.with_row_index("i")))
    again = pickle.loads(pickle.dumps(failed))
    assert str(again) == str(failed)
    assert again.seed == failed.seed


def test_another_way_to_run_can_be_verified_too() -> None:
    ran = []

    def collect(stream: us.Stream, schedule: Schedule) -> pl.DataFrame:
        ran.append(stream)
        return stream.collect(settings=us.Settings(whole_query=False, tick_rows=3))

    certificate = verify(us.from_frame(ROWS), seeds=2, crashes=0, ways=[collect])
    assert len(ran) == 4
    assert "run by collect" in repr(certificate)


# Event time


TIMES = ListSource({"t": pl.Int64}, {"x": [(1,), (100,)], "y": [(1,), (100,)]})


def test_a_query_that_was_given_up_is_not_certified() -> None:
    counted = us.scan(TIMES).with_event_time("t", unit="s").window(us.tumbling("10s")).agg(n=pl.len())
    assert "one Polars streaming query" in counted.explain()
    certificate = verify(counted, seeds=2, crashes=0)
    assert not certificate.whole_query
    assert "Polars" not in repr(certificate)


def test_a_time_under_a_new_name_is_shuffled_within_its_delay() -> None:
    times = us.from_frame({"t": list(range(0, 200, 5))})
    counted = times.rename({"t": "u"}).with_event_time("u", unit="s", delay="20s")
    certificate = verify(counted.window(us.tumbling("10s")).agg(n=pl.len()), seeds=4, crashes=0)
    assert certificate.shuffled == 2
    assert certificate.delays == ("20s of 't'",)


def test_a_computed_time_is_not_taken_for_the_column_of_its_name() -> None:
    falling = us.from_frame({"t": list(range(200, 0, -5))}).with_columns(t=200 - pl.col("t"))
    counted = falling.with_event_time("t", unit="s").window(us.tumbling("10s")).agg(n=pl.len())
    certificate = verify(counted, seeds=4, crashes=0)
    assert (certificate.shuffled, certificate.sorted_splits) == (0, ())


# A small operator that drops what is later than its delay and gives the running maximum


@dataclass(frozen=True, eq=False, kw_only=True)
class Newest(OperatorSpec):
    """The newest `keep` rows at the end, or every new maximum as an update."""

    name: ClassVar[str] = "newest"
    stateful: ClassVar[bool] = False
    delay: int
    updates: bool = False
    eager: bool = False

    def schema(self, inputs: Sequence[StreamSchema]) -> StreamSchema:
        columns = inputs[0].columns
        changes = Changes.UPSERT if self.updates else Changes.APPEND
        return StreamSchema(columns, EventTime("t"), changes, ("k",) if self.updates else ())

    def build(self, inputs: Sequence[StreamSchema]) -> Operator:
        return NewestOperator(self)


class NewestOperator(Operator):
    def __init__(self, spec: Newest) -> None:
        self.spec = spec
        self.newest = MIN_TIME

    def open(self, context: Context) -> None:
        self.metrics = context.metrics

    def process(self, batch: Batch, out: Output) -> None:
        for row in batch.frame.iter_slices(1):
            time = row["t"][0]
            late = time < self.newest - (0 if self.spec.eager else self.spec.delay)
            self.newest = max(self.newest, time)
            if late:
                self.metrics.add("late")
            elif self.spec.updates:
                if time == self.newest:
                    out.emit(row.with_columns(pl.lit(2, pl.Int8).alias(CHANGE)))
            else:
                out.emit(row)


TIMED = pl.DataFrame({"k": ["x"] * 40, "t": [n + (5 if n % 3 else 0) for n in range(40)]})


def test_orders_within_the_delay_are_tried() -> None:
    certificate = verify(us.from_frame(TIMED).apply(Newest(delay=10)), seeds=6)
    assert certificate.shuffled == 3
    assert "3 of these with rows out of order within 10us of 't'" in repr(certificate)
    assert verify(us.from_frame(TIMED).apply(Newest(delay=10)), seeds=6, shuffled=False).shuffled == 0


def test_dropping_rows_that_are_not_late_is_found() -> None:
    sorted_rows = TIMED.sort("t")
    failed = failure(us.from_frame(sorted_rows).apply(Newest(delay=10, eager=True)))
    assert rows_of(failed) <= 3
    assert "another order within the delay" in str(failed)


def test_rows_later_than_the_delay_are_sorted_first() -> None:
    late = pl.DataFrame({"k": ["x", "x"], "t": [100, 1]})
    certificate = verify(us.from_frame(late).apply(Newest(delay=10)), seeds=2)
    assert certificate.result_rows == 2
    assert "after sorting frame-1/rows" in repr(certificate)


def test_changelogs_are_folded_before_they_are_compared() -> None:
    certificate = verify(us.from_frame(TIMED).apply(Newest(delay=10, updates=True)), seeds=6)
    assert certificate.result_rows == 1


@pytest.mark.parametrize("seed", range(20))
def test_a_shuffled_split_keeps_to_its_delay(seed: int) -> None:
    delay = Delay(EventTime("t"), 10)
    rows = SourceRows({"0": TIMED}, {}, delay)
    (source,) = Schedule(seed, "random", shuffled=True).sources([rows])
    frame = source.frame()
    assert sorted(frame["t"]) == sorted(TIMED["t"])
    assert in_order(frame, delay)
    newest = MIN_TIME
    for time in frame.select(microseconds_of(delay.time, frame.schema)).to_series():
        assert MIN_TIME <= newest - 10 <= time or newest == MIN_TIME
        newest = max(newest, time)
    assert newest < MAX_TIME
