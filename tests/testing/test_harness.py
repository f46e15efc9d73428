"""The harness lets right operators pass and finds each kind of wrong one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import polars as pl
import pytest

from unistream.elements import MAX_TIME, Batch, Watermark
from unistream.expressions.schema import EventTime, StreamSchema
from unistream.operators.base import Context, Operator, OperatorSpec, Output
from unistream.testing import OperatorHarness, Passed

KEYED = StreamSchema(pl.Schema({"k": pl.String, "n": pl.Int64}))
TIMED = StreamSchema(pl.Schema({"t": pl.Int64}), event_time=EventTime("t"))
ROWS = pl.DataFrame({"k": ["a", "b", "a", "c", "a", "b"], "n": [1, 2, 3, 4, 5, 6]})


@dataclass(frozen=True, eq=False, kw_only=True)
class Spec(OperatorSpec):
    """Builds whatever operator a test has; rows leave as they came unless `output` says otherwise."""

    name: ClassVar[str] = "under-test"
    make: Callable[[], Operator]
    output: StreamSchema | None = None
    key: tuple[str, ...] | None = None

    @property
    def keys(self) -> tuple[str, ...] | None:
        return self.key

    def schema(self, inputs: Sequence[StreamSchema]) -> StreamSchema:
        return self.output or inputs[0]

    def build(self, inputs: Sequence[StreamSchema]) -> Operator:
        return self.make()


class StatelessSpec(Spec):
    stateful: ClassVar[bool] = False


class Forward(Operator):
    def process(self, batch: Batch, out: Output) -> None:
        out.emit(batch.frame)


class CountPerKey(Operator):
    """Counts rows of each key in a table and gives the counts at the end."""

    def open(self, context: Context) -> None:
        self.counts = context.state.keyed("counts", pl.Schema({"k": pl.String}), pl.Schema({"n": pl.Int64}))

    def process(self, batch: Batch, out: Output) -> None:
        new = batch.frame.group_by("k").agg(n=pl.len().cast(pl.Int64))
        rows, _ = self.counts.upsert(new.select("k"))
        old = self.counts.read(rows)["n"].fill_null(0)
        self.counts.write(rows, pl.DataFrame({"n": old + new["n"]}))

    def finish(self, out: Output) -> None:
        out.emit(self.counts.scan().select("k", "n"))


COUNTS = pl.DataFrame({"k": ["a", "b", "c"], "n": [3, 2, 1]})


def harness(make: Callable[[], Operator], inputs: StreamSchema = KEYED, **options: object) -> OperatorHarness:
    return OperatorHarness(Spec(make=make, **options), inputs)  # type: ignore[arg-type]


def test_a_right_operator_passes_with_its_state_restored_and_spread() -> None:
    under_test = harness(CountPerKey, key=("k",)).feeds(ROWS)
    schedules = [str(schedule) for schedule in under_test.schedules()]
    assert any("restored" in text for text in schedules)
    assert any("3 subtasks" in text for text in schedules)
    under_test.expects(COUNTS)


def test_state_kept_outside_the_tables_is_found() -> None:
    class Outside(CountPerKey):
        def open(self, context: Context) -> None:
            self.counted = pl.DataFrame(schema={"k": pl.String, "n": pl.Int64})

        def process(self, batch: Batch, out: Output) -> None:
            self.counted = pl.concat([self.counted, batch.frame])

        def finish(self, out: Output) -> None:
            out.emit(self.counted.group_by("k").agg(n=pl.len().cast(pl.Int64)))

    with pytest.raises(AssertionError, match="state restored after every call"):
        harness(Outside).feeds(ROWS, ROWS).expects(COUNTS.with_columns(pl.col("n") * 2))


def test_a_missing_partition_is_found() -> None:
    class Global(CountPerKey):
        def finish(self, out: Output) -> None:
            out.emit(pl.DataFrame({"k": ["all"], "n": [int(self.counts.scan()["n"].sum())]}))

    with pytest.raises(AssertionError, match="3 subtasks"):
        harness(Global, key=("k",)).feeds(ROWS).expects(pl.DataFrame({"k": ["all"], "n": [6]}))


def test_dependence_on_the_cut_is_found() -> None:
    class FirstOfBatch(Forward):
        def process(self, batch: Batch, out: Output) -> None:
            out.emit(batch.frame.tail(-1))

    with pytest.raises(AssertionError, match="one row at a time"):
        harness(FirstOfBatch).feeds(ROWS).expects(ROWS.tail(-1))


def test_a_forgotten_buffer_is_found() -> None:
    class Forgets(Operator):
        def __init__(self) -> None:
            self.held: list[pl.DataFrame] = []

        def process(self, batch: Batch, out: Output) -> None:
            self.held.append(batch.frame)
            if sum(frame.height for frame in self.held) >= 4:
                out.emit(pl.concat(self.held))
                self.held.clear()

    spec = StatelessSpec(make=Forgets)
    with pytest.raises(AssertionError, match="one row at a time"):
        OperatorHarness(spec, KEYED).feeds(ROWS).expects(ROWS)


def test_rows_that_vanish_break_the_law() -> None:
    class Drops(Forward):
        def open(self, context: Context) -> None:
            self.metrics = context.metrics

        def process(self, batch: Batch, out: Output) -> None:
            out.emit(batch.frame.filter(pl.col("n") > 1))

    class Counts(Drops):
        def process(self, batch: Batch, out: Output) -> None:
            super().process(batch, out)
            self.metrics.add("filtered", batch.frame.filter(pl.col("n") <= 1).height)

    kept = ROWS.filter(pl.col("n") > 1)
    with pytest.raises(AssertionError, match="rows vanished"):
        OperatorHarness(StatelessSpec(make=Drops), KEYED).feeds(ROWS).expects(kept)
    OperatorHarness(StatelessSpec(make=Counts), KEYED).feeds(ROWS).expects(kept)


def test_a_broken_promise_of_columns_is_found() -> None:
    class Renames(Forward):
        def process(self, batch: Batch, out: Output) -> None:
            out.emit(batch.frame.rename({"n": "m"}))

    with pytest.raises(AssertionError, match="promised"):
        harness(Renames).feeds(ROWS).expects(ROWS)


class Holds(Operator):
    """Gives rows when the watermark has passed them."""

    early = 0

    def open(self, context: Context) -> None:
        self.held = context.state.log("held", TIMED.columns)

    def process(self, batch: Batch, out: Output) -> None:
        self.held.append(0, batch.frame)

    def on_watermark(self, watermark: int, out: Output) -> None:
        frames = self.held.frames(0)
        if not frames:
            return
        rows = pl.concat(frames)
        ready = pl.col("t") < watermark + self.early
        out.emit(rows.filter(ready))
        self.held.replace(0, [rows.filter(~ready)])


def test_an_operator_that_waits_for_time_passes() -> None:
    frames = [pl.DataFrame({"t": [3, 1]}), pl.DataFrame({"t": [2, 9]}), pl.DataFrame({"t": [7, 8]})]
    script = harness(Holds, TIMED).feeds(frames[0], frames[1], Watermark(5), frames[2])
    ways = {schedule.watermarks for schedule in script.schedules()}
    assert ways == {"given", "early", "end"}
    script.expects(pl.concat(frames))


def test_a_decision_on_time_that_depends_on_the_schedule_is_found() -> None:
    class Decides(Holds):
        """Gives only rows that a watermark before the last one has passed."""

        def on_watermark(self, watermark: int, out: Output) -> None:
            if watermark < MAX_TIME:
                super().on_watermark(watermark, out)

    with pytest.raises(AssertionError, match="early as can be"):
        harness(Decides, TIMED).feeds(pl.DataFrame({"t": [1, 2]}), pl.DataFrame({"t": [6]})).expects(
            pl.DataFrame({"t": []}, schema=TIMED.columns)
        )


def test_late_rows_keep_the_watermarks_where_they_are() -> None:
    script = harness(Forward, TIMED).feeds(Watermark(5), pl.DataFrame({"t": [1, 6]}))
    assert {schedule.watermarks for schedule in script.schedules()} == {"given", "early"}


def test_a_watermark_that_goes_back_is_found() -> None:
    class Back(Forward):
        def output_watermark(self, watermark: int) -> int:
            return 7 if watermark == 10 else 3

    with pytest.raises(AssertionError, match="output watermark 3 after 7"):
        harness(Back, TIMED).feeds(Watermark(10), Watermark(20)).expects(TIMED.empty())


def test_timers_fire_when_the_clock_has_moved() -> None:
    class Timer(Forward):
        def open(self, context: Context) -> None:
            self.state = context.state.cell("due")

        def process(self, batch: Batch, out: Output) -> None:
            self.state.set(5_000_000)

        def next_wakeup(self) -> int | None:
            due = self.state.get()
            return due if isinstance(due, int) else None

        def on_processing_time(self, now: int, out: Output) -> None:
            out.emit(pl.DataFrame({"t": [now]}))
            self.state.set(None)

    script = harness(Timer, TIMED).feeds(pl.DataFrame({"t": [1, 2]}), Passed("4s"), Passed("2s"))
    script.expects(pl.DataFrame({"t": [6_000_000]}))
