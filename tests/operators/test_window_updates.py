"""Windows that give results early and correct them late: the table they add up to, and each change."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from unistream.elements import MAX_TIME, Batch, Watermark
from unistream.errors import InvalidQuery
from unistream.expressions.analysis import expand
from unistream.expressions.schema import CHANGE, Change, Changes, EventTime, StreamSchema
from unistream.operators.window_aggregate import AlignedWindowSpec
from unistream.operators.window_contents import Aggregation, Top
from unistream.operators.windows import AlignedWindow, Cumulating, Emit, Sliding, Span, Tumbling
from unistream.testing.bench import OperatorBench
from unistream.testing.harness import OperatorHarness, Passed

SECOND = 1_000_000
SCHEMA = StreamSchema(
    pl.Schema({"t": pl.Int64, "k": pl.String, "v": pl.Int64}), event_time=EventTime("t", "s")
)
AGGREGATES = {"n": pl.len(), "total": pl.col("v").sum(), "first": pl.col("v").first()}
MEDIAN = {"median": pl.col("v").median(), "values": pl.col("v").implode()}
TUMBLING = Tumbling(size=Span.parse("10s", "size"))
SLIDING = Sliding(size=Span.parse("10s", "size"), every=Span.parse("5s", "every"))
CUMULATING = Cumulating(size=Span.parse("10s", "size"), step=Span.parse("5s", "step"))


def spec(
    window: AlignedWindow = TUMBLING,
    aggregates: dict[str, pl.Expr] = AGGREGATES,
    emit: Emit | None = None,
    lateness: int = 0,
    by: tuple[str, ...] = ("k",),
) -> AlignedWindowSpec:
    exprs = expand([], aggregates, SCHEMA.columns, "agg", None, by)
    return AlignedWindowSpec(
        window=window,
        by=by,
        calculation=Aggregation.of(exprs),
        emit=emit or Emit(),
        lateness=lateness * SECOND,
    )


def random_rows(seed: int, count: int = 24) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    times = np.sort(rng.integers(0, 50, count)) - rng.integers(0, 6, count)
    keys = rng.choice(["a", "b", None], count).tolist()
    return pl.DataFrame(
        {"t": times, "k": keys, "v": rng.integers(0, 9, count)}, schema=SCHEMA.columns, strict=False
    )


def final_table(rows: pl.DataFrame, window: AlignedWindow, aggregates: dict[str, pl.Expr]) -> pl.DataFrame:
    """What the same windows give that only speak when they close."""
    with OperatorBench(spec(window, aggregates), [SCHEMA]) as bench:
        bench.process(Batch(rows))
        bench.advance_watermark(MAX_TIME)
        return pl.concat(bench.frames[""])


@pytest.mark.parametrize("aggregates", [AGGREGATES, {"n": pl.len(), **MEDIAN}], ids=["folded", "all rows"])
@pytest.mark.parametrize("window", [TUMBLING, CUMULATING], ids=lambda window: window.text)
def test_changes_add_up_to_the_final_windows(window: AlignedWindow, aggregates: dict[str, pl.Expr]) -> None:
    rows = random_rows(1)
    asked = spec(window, aggregates, Emit(when="change"))
    assert asked.schema([SCHEMA]).changes is Changes.UPSERT
    harness = OperatorHarness(asked, SCHEMA)
    harness.feeds(rows[:9], Watermark(8 * SECOND), rows[9:]).expects(final_table(rows, window, aggregates))


def test_corrections_add_up_to_the_final_windows() -> None:
    rows = random_rows(2)
    later = rows.sample(fraction=1, shuffle=True, seed=1)
    harness = OperatorHarness(spec(SLIDING, lateness=60), SCHEMA)
    harness.feeds(later[:12], Watermark(45 * SECOND), later[12:])
    harness.expects(final_table(later, SLIDING, AGGREGATES), watermarks=("given", "end"))


def changes(bench: OperatorBench) -> list[tuple[Any, ...]]:
    """What came out since the last call, with the change in front."""
    frames = bench.frames.get("", [])
    found = [frame.select(CHANGE, pl.exclude(CHANGE)).rows() for frame in frames]
    frames.clear()  # type: ignore[attr-defined]
    return [row for rows in found for row in rows]


def rows_at(*times: int) -> Batch:
    return Batch(pl.DataFrame({"t": times, "k": ["a"] * len(times), "v": [1] * len(times)}))


COUNT = {"n": pl.len()}
INSERT, UPDATE = Change.INSERT.value, Change.UPDATE_AFTER.value


def test_with_every_change_what_was_touched_is_given() -> None:
    with OperatorBench(spec(aggregates=COUNT, emit=Emit(when="change")), [SCHEMA]) as bench:
        bench.process(rows_at(1, 2, 11))
        assert sorted(changes(bench)) == [(INSERT, "a", 0, 10, 2), (INSERT, "a", 10, 20, 1)]
        bench.process(rows_at(12))
        assert changes(bench) == [(UPDATE, "a", 10, 20, 2)]
        bench.advance_watermark(MAX_TIME)
        assert changes(bench) == []


def test_by_the_clock_what_has_changed_is_given_and_the_rest_at_close() -> None:
    emit = Emit(when="every", every=5 * SECOND)
    with OperatorBench(spec(aggregates=COUNT, emit=emit), [SCHEMA]) as bench:
        bench.process(rows_at(1, 11))
        bench.pass_time("4s")
        assert changes(bench) == []
        bench.pass_time("1s")
        assert sorted(changes(bench)) == [(INSERT, "a", 0, 10, 1), (INSERT, "a", 10, 20, 1)]
        bench.pass_time("10s")
        assert changes(bench) == []
        bench.process(rows_at(2))
        bench.advance_watermark(10 * SECOND)
        assert changes(bench) == [(UPDATE, "a", 0, 10, 2)]
        bench.pass_time("5s")
        bench.advance_watermark(MAX_TIME)
        assert changes(bench) == []


def test_late_rows_within_the_allowed_lateness_correct_the_result_and_later_ones_are_late() -> None:
    with OperatorBench(spec(aggregates=COUNT, lateness=10), [SCHEMA]) as bench:
        bench.process(rows_at(1, 12))
        bench.advance_watermark(15 * SECOND)
        assert changes(bench) == [(INSERT, "a", 0, 10, 1)]
        bench.process(rows_at(2, 13))
        assert changes(bench) == [(UPDATE, "a", 0, 10, 2)]
        bench.advance_watermark(20 * SECOND)
        bench.process(rows_at(3, 14))
        assert sorted(changes(bench)) == [(INSERT, "a", 10, 20, 2), (UPDATE, "a", 10, 20, 3)]
        (late,) = bench.frames["late"]
        assert late.select("t", "late_watermark", "late_window_start", "late_window_end").rows() == [
            (3, 20, 0, 10)
        ]


def test_a_row_goes_into_those_of_its_windows_that_are_still_open() -> None:
    with OperatorBench(spec(SLIDING, COUNT, lateness=2), [SCHEMA]) as bench:
        bench.process(rows_at(8))
        bench.advance_watermark(13 * SECOND)
        assert changes(bench) == [(INSERT, "a", 0, 10, 1)]
        bench.process(rows_at(7))
        bench.advance_watermark(MAX_TIME)
        assert changes(bench) == [(INSERT, "a", 5, 15, 2)]
        assert bench.metrics.get("late") == 0


def test_the_clock_goes_on_after_a_restart() -> None:
    rows = random_rows(3)
    asked = spec(aggregates=AGGREGATES, emit=Emit(when="every", every=SECOND))
    harness = OperatorHarness(asked, SCHEMA)
    harness.feeds(rows[:9], Passed("2s"), rows[9:], Passed("2s"))
    harness.expects(final_table(rows, TUMBLING, AGGREGATES))


def test_only_aggregates_can_be_updated() -> None:
    top = Top(frozenset(SCHEMA.columns), 2, (pl.col("v"),), (False,))
    asked = AlignedWindowSpec(window=TUMBLING, by=("k",), calculation=top, emit=Emit(when="change"))
    with pytest.raises(InvalidQuery, match="updates of aggregates"):
        asked.schema([SCHEMA])
    with pytest.raises(InvalidQuery, match="is not known"):
        Emit(when="sometimes")
