"""The Nexmark queries give what SQL gives over all events: as batch, in ticks, and through crashes."""

from __future__ import annotations

from contextlib import nullcontext
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import unistream as us
from benchmarks.nexmark.reference import SQL, answer
from unistream.clock import Random
from unistream.expressions.changelog import fold_changes
from unistream.nexmark import sources
from unistream.nexmark.queries import QUERIES
from unistream.testing import CommittedSink, Crashed, VirtualClock, crash_at, verify

SLOW: dict[str, Any] = {"rate": 500, "start": datetime(2015, 7, 15)}
"""Few events a second of event time, so that some thousands of them fill several windows."""

LATER = 1_500_000_000_000_000
"""A moment at which all of them are due."""

EVENTS = 20_000
WAYS = {
    "batch": us.Settings(),
    "one tick": us.Settings(whole_query=False),
    "ticks": us.Settings(whole_query=False, tick_rows=1_000),
}


@pytest.fixture(scope="module")
def tables() -> dict[str, pl.DataFrame]:
    made = sources.frames(EVENTS, **SLOW)
    return {**made, "side_input": sources.side_input()}


@pytest.fixture(scope="module")
def answers(tables: dict[str, pl.DataFrame]) -> dict[str, pl.DataFrame]:
    return {name: answer(name, tables) for name in SQL}


def assert_same(query: str, got: pl.DataFrame, expected: pl.DataFrame) -> None:
    if query == "q12":  # the clock cuts the windows, wherever it stands
        assert ((got["window_end"] - got["window_start"]) == timedelta(seconds=10)).all()
        got = got.group_by("bidder").agg(pl.col("bids").sum())
    assert set(expected.columns) <= set(got.columns)
    got = got.select(expected.columns)
    assert got.height
    assert_frame_equal(got, expected.cast(dict(got.schema)), check_row_order=False)


def test_all_queries_are_there() -> None:
    assert set(QUERIES) == set(SQL) == {f"q{number}" for number in range(23)}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("query", QUERIES)
def test_the_answer_is_that_of_sql(
    query: str, way: str, tables: dict[str, pl.DataFrame], answers: dict[str, pl.DataFrame]
) -> None:
    got = QUERIES[query](sources.in_memory(tables)).collect(settings=WAYS[way])
    assert_same(query, got, answers[query])


@pytest.mark.parametrize("query", QUERIES)
def test_read_from_the_generator(query: str, answers: dict[str, pl.DataFrame]) -> None:
    stream = QUERIES[query](sources.generated(EVENTS, **SLOW))
    assert_same(query, stream.collect(settings=us.Settings(tick_rows=7_000)), answers[query])


POINTS = ["operator.process", "sink.prepare", "sink.commit", "checkpoint.snapshot", "checkpoint.publish"]


def crashing(stream: us.Stream, folder: Path, seed: int) -> pl.DataFrame:
    """What is committed by a job that dies three times around checkpoints and is started again."""
    sink, random, died = CommittedSink(), Random(seed), 0
    points = random.sample(POINTS, 3)
    for name in [*points, None]:
        dying = crash_at(name, hit=random.randint(1, 2)) if name else nullcontext()
        clock = VirtualClock(LATER)
        runtime = stream.sink(sink).runtime(
            checkpoint=folder, settings=us.Settings(tick_rows=1_000), clock=clock, threads=False
        )
        try:
            with dying:
                runtime.open()
                while runtime.step():
                    clock.advance("4s")
                runtime.conclude()
        except Crashed:
            died += 1
            continue
        finally:
            runtime.close()
        break
    assert died == len(points)
    return fold_changes(sink.result(stream._node.schema.physical), stream._node.schema)


@pytest.mark.parametrize("query", ["q0", "q3", "q4", "q5", "q9", "q11", "q13", "q16", "q19"])
def test_crashes_lose_and_repeat_nothing(
    query: str, answers: dict[str, pl.DataFrame], tmp_path: Path
) -> None:
    """The generator goes on behind each checkpoint, and with it the state of the query."""
    stream = QUERIES[query](sources.generated(EVENTS, **SLOW))
    assert_same(query, crashing(stream, tmp_path, seed=int(query[1:])), answers[query])


@pytest.mark.parametrize("query", ["q2", "q3", "q4", "q5", "q7", "q8", "q9", "q17", "q20"])
def test_however_events_arrive(query: str) -> None:
    few = sources.frames(300, rate=20, start=datetime(2015, 7, 15))
    verify(QUERIES[query](sources.in_memory(few)), seeds=3, crashes=2)


@pytest.mark.parametrize("query", ["q6", "q18", "q19"])
def test_in_order_of_arrival(query: str) -> None:
    few = sources.frames(300, rate=20, start=datetime(2015, 7, 15))
    verify(QUERIES[query](sources.in_memory(few)), seeds=3, crashes=2, shuffled=False)


@pytest.mark.nightly
@pytest.mark.parametrize("query", QUERIES)
def test_a_million_events(query: str) -> None:
    tables = {**sources.frames(1_000_000), "side_input": sources.side_input()}
    expected = answer(query, tables)
    for settings in (us.Settings(), us.Settings(whole_query=False, tick_rows=50_000)):
        got = QUERIES[query](sources.in_memory(tables)).collect(settings=settings)
        assert_same(query, got, expected)
