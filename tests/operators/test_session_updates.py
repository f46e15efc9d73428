"""Sessions that speak before they close: step by step what comes, what is corrected, what is taken back."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from unistream.elements import MAX_TIME, Batch
from unistream.errors import InvalidQuery
from unistream.expressions.analysis import expand
from unistream.expressions.schema import CHANGE, Change, EventTime, StreamSchema
from unistream.operators.session_window import SessionWindowSpec
from unistream.operators.window_contents import Aggregation, Top
from unistream.operators.windows import Emit, Session
from unistream.testing import OperatorHarness, Passed
from unistream.testing.bench import OperatorBench

SECOND = 1_000_000
GAP = 10
SCHEMA = StreamSchema(
    pl.Schema({"t": pl.Int64, "k": pl.String, "v": pl.Int64}), event_time=EventTime("t", "s")
)
INSERT, UPDATE, DELETE = Change.INSERT.value, Change.UPDATE_AFTER.value, Change.DELETE.value


def spec(emit: Emit | None = None, lateness: int = 0, by: tuple[str, ...] = ("k",)) -> SessionWindowSpec:
    exprs = expand([], {"n": pl.len()}, SCHEMA.columns, "agg", None, by)
    return SessionWindowSpec(
        window=Session(gap=GAP * SECOND),
        by=by,
        calculation=Aggregation.of(exprs),
        emit=emit or Emit(),
        lateness=lateness * SECOND,
    )


def rows_at(*times: int, key: str = "a") -> Batch:
    return Batch(pl.DataFrame({"t": times, "k": [key] * len(times), "v": [1] * len(times)}))


def changes(bench: OperatorBench) -> list[tuple[Any, ...]]:
    """What came out since the last call, with the change in front."""
    frames = bench.frames.get("", [])
    found = [frame.select(CHANGE, pl.exclude(CHANGE)).rows() for frame in frames]
    frames.clear()  # type: ignore[attr-defined]
    return [row for rows in found for row in rows]


@pytest.mark.parametrize("restores", [False, True])
def test_a_session_that_grows_takes_the_place_of_what_it_was(restores: bool) -> None:
    with OperatorBench(spec(Emit(when="change")), [SCHEMA], restores=restores) as bench:
        bench.process(rows_at(0, 30))
        assert changes(bench) == [(INSERT, "a", 0, 10, 1), (INSERT, "a", 30, 40, 1)]
        bench.process(rows_at(5))
        assert changes(bench) == [(DELETE, "a", 0, 10, 1), (INSERT, "a", 0, 15, 2)]
        bench.process(rows_at(3))
        assert changes(bench) == [(UPDATE, "a", 0, 15, 3)]
        bench.process(rows_at(14, 22))
        assert changes(bench) == [
            (DELETE, "a", 0, 15, 3),
            (DELETE, "a", 30, 40, 1),
            (INSERT, "a", 0, 40, 6),
        ]
        bench.advance_watermark(MAX_TIME)
        assert changes(bench) == []


@pytest.mark.parametrize("restores", [False, True])
def test_by_the_clock_what_was_given_stands_until_what_takes_its_place_is_given(restores: bool) -> None:
    emit = Emit(when="every", every=5 * SECOND)
    with OperatorBench(spec(emit), [SCHEMA], restores=restores) as bench:
        bench.process(rows_at(0))
        assert changes(bench) == []
        bench.pass_time("5s")
        assert changes(bench) == [(INSERT, "a", 0, 10, 1)]
        bench.process(rows_at(4))
        bench.process(rows_at(8))
        assert changes(bench) == []
        bench.pass_time("5s")
        assert changes(bench) == [(DELETE, "a", 0, 10, 1), (INSERT, "a", 0, 18, 3)]
        bench.process(rows_at(9))
        bench.advance_watermark(19 * SECOND)
        assert changes(bench) == [(DELETE, "a", 0, 18, 3), (INSERT, "a", 0, 19, 4)]
        bench.pass_time("5s")
        bench.advance_watermark(MAX_TIME)
        assert changes(bench) == []


@pytest.mark.parametrize("restores", [False, True])
def test_within_the_allowed_lateness_closed_sessions_are_corrected(restores: bool) -> None:
    with OperatorBench(spec(lateness=10), [SCHEMA], restores=restores) as bench:
        bench.process(rows_at(0))
        bench.process(rows_at(25, key="b"))
        bench.advance_watermark(12 * SECOND)
        assert changes(bench) == [(INSERT, "a", 0, 10, 1)]
        bench.process(rows_at(1))
        assert changes(bench) == [(DELETE, "a", 0, 10, 1), (INSERT, "a", 0, 11, 2)]
        bench.process(rows_at(4))  # it is open again
        assert changes(bench) == [(DELETE, "a", 0, 11, 2)]
        bench.advance_watermark(14 * SECOND)
        assert changes(bench) == [(INSERT, "a", 0, 14, 3)]
        bench.advance_watermark(24 * SECOND)
        bench.process(rows_at(2))
        assert changes(bench) == []
        (late,) = bench.frames["late"]
        assert late.select("t", "late_watermark", "late_window_start", "late_window_end").rows() == [
            (2, 24, 2, 12)
        ]
        bench.advance_watermark(MAX_TIME)
        assert changes(bench) == [(INSERT, "b", 25, 35, 1)]


def test_in_every_cut_and_after_every_crash_the_same_table_is_left() -> None:
    rows = pl.concat([rows_at(*times, key=key).frame for times, key in (((0, 25, 12), "a"), ((3, 9), "b"))])
    harness = OperatorHarness(spec(Emit(when="every", every=SECOND)), SCHEMA)
    harness.feeds(rows[:2], Passed("2s"), rows[2:], Passed("2s"))
    expected = pl.DataFrame(
        [("a", 0, 10, 1), ("a", 12, 22, 1), ("a", 25, 35, 1), ("b", 3, 19, 2)],
        schema=spec().schema([SCHEMA]).columns,
        orient="row",
    )
    harness.expects(expected)


def test_only_aggregates_can_be_updated() -> None:
    top = Top(frozenset(["v"]), 1, (pl.col("v"),), (False,))
    asked = SessionWindowSpec(
        window=Session(gap=SECOND), by=("k",), calculation=top, emit=Emit(when="change")
    )
    with pytest.raises(InvalidQuery, match="of nothing else"):
        asked.schema([SCHEMA])
