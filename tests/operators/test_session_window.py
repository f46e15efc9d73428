"""Sessions against a row-by-row reference, under disorder, lateness and restores."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from unistream.elements import MAX_TIME, Batch, Watermark
from unistream.expressions.analysis import expand
from unistream.expressions.schema import EventTime, StreamSchema
from unistream.operators.session_window import SessionWindowSpec
from unistream.operators.window_contents import Aggregation, Top
from unistream.operators.windows import Session
from unistream.testing.bench import OperatorBench
from unistream.testing.harness import OperatorHarness

SECOND = 1_000_000
GAP = 5
SCHEMA = StreamSchema(
    pl.Schema({"t": pl.Int64, "k": pl.String, "v": pl.Int64}), event_time=EventTime("t", "s")
)
AGGREGATES = {
    "n": pl.len(),
    "total": pl.col("v").sum(),
    "most": pl.col("v").max(),
    "mean": pl.col("v").mean(),
    "first": pl.col("v").first(),
    "last": pl.col("v").last(),
}
ALL_ROWS = {"median": pl.col("v").median(), "values": pl.col("v").implode()}


def spec(aggregates: dict[str, pl.Expr] = AGGREGATES, by: tuple[str, ...] = ("k",)) -> SessionWindowSpec:
    exprs = expand([], aggregates, SCHEMA.columns, "agg", None, by)
    return SessionWindowSpec(window=Session(gap=GAP * SECOND), by=by, calculation=Aggregation.of(exprs))


def reference(
    rows: pl.DataFrame, aggregates: dict[str, pl.Expr], by: tuple[str, ...] = ("k",)
) -> pl.DataFrame:
    """Sessions by going through the times of each key in order; values in order of arrival."""
    marked = []
    for _, group in rows.with_row_index("row").group_by(by or pl.lit(0), maintain_order=True):
        session: list[dict[str, Any]] = []
        for row in group.sort("t").to_dicts():
            if session and row["t"] - session[-1]["t"] >= GAP:
                marked += closed(session)
                session = []
            session.append(row)
        marked += closed(session)
    columns = {"row": pl.UInt32, **rows.schema, "window_start": pl.Int64, "window_end": pl.Int64}
    ordered = pl.DataFrame(marked, schema=columns).sort("row")
    names = [*by, "window_start", "window_end"]
    return ordered.group_by(names).agg(**aggregates).select(*names, *aggregates)


def closed(session: list[dict[str, Any]]) -> list[dict[str, Any]]:
    bounds = {"window_start": session[0]["t"], "window_end": session[-1]["t"] + GAP}
    return [{**row, **bounds} for row in session]


def random_rows(seed: int, count: int = 40, disorder: int = 12) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    times = np.sort(rng.integers(0, 80, count)) - rng.integers(0, disorder, count)
    keys = rng.choice(["a", "b", None], count).tolist()
    columns = {"t": times, "k": keys, "v": rng.integers(0, 100, count)}
    return pl.DataFrame(columns, schema=SCHEMA.columns, strict=False)


def in_parts(rows: pl.DataFrame, size: int, disorder: int = 12) -> list[Any]:
    events: list[Any] = []
    seen = 0
    for part in rows.iter_slices(size):
        seen += part.height
        highest = int(rows["t"].head(seen).max())  # type: ignore[arg-type]
        events += [part, Watermark((highest - disorder) * SECOND)]
    return events


@pytest.mark.parametrize("aggregates", [AGGREGATES, ALL_ROWS], ids=["folded", "all rows"])
def test_sessions_equal_the_reference(aggregates: dict[str, pl.Expr]) -> None:
    rows = random_rows(1)
    harness = OperatorHarness(spec(aggregates), SCHEMA)
    harness.feeds(*in_parts(rows, 9)).expects(reference(rows, aggregates))


def test_sessions_without_a_key() -> None:
    rows = random_rows(2, count=15)
    harness = OperatorHarness(spec(by=()), SCHEMA)
    harness.feeds(*in_parts(rows, 4)).expects(reference(rows, AGGREGATES, by=()))


@pytest.mark.parametrize("seed", range(30))
def test_random_sessions_in_random_parts(seed: int) -> None:
    """More data than the harness replays: all orders within the disorder, folded and with all rows."""
    rows = random_rows(seed, count=120, disorder=1 + seed)
    for aggregates in (AGGREGATES, ALL_ROWS):
        bench = OperatorBench(spec(aggregates), [SCHEMA])
        for event in in_parts(rows, 1 + seed % 13, disorder=1 + seed):
            feed(bench, event)
        feed(bench, Watermark(MAX_TIME))
        got = pl.concat(bench.frames[""])
        expected = reference(rows, aggregates)
        by = ["k", "window_start"]
        assert got.sort(by).equals(expected.sort(by))


def feed(bench: OperatorBench, event: Any) -> None:
    if isinstance(event, Watermark):
        bench.advance_watermark(event.time)
    else:
        bench.process(Batch(event))


def test_late_rows_say_what_they_missed_and_rows_that_extend_an_open_session_are_in_time() -> None:
    with OperatorBench(spec({"n": pl.len()}), [SCHEMA]) as bench:
        rows = pl.DataFrame({"t": [0, 8, 11], "k": ["a", "a", "a"], "v": [1, 2, 3]})
        feed(bench, rows)
        feed(bench, Watermark(14 * SECOND))
        # 5 is within the gap of the open session [8, 16); 9 is in it; -1 is in the one that has closed; 0 of
        # another key has a window of its own, which would have closed.
        feed(bench, pl.DataFrame({"t": [5, 9, -1, 0], "k": ["a", "a", "a", "b"], "v": [4, 5, 6, 7]}))
        feed(bench, Watermark(MAX_TIME))
        assert pl.concat(bench.frames[""]).rows() == [("a", 0, 5, 1), ("a", 5, 16, 4)]
        (late,) = bench.frames["late"]
        reason = "all its windows have closed"
        assert late.select("t", "k").rows() == [(-1, "a"), (0, "b")]
        assert late.select(pl.exclude("t", "k", "v")).rows() == [(reason, 14, -1, 4), (reason, 14, 0, 5)]
        assert bench.metrics.get("late") == 2


def test_times_too_far_apart_for_one_number() -> None:
    rows = pl.DataFrame({"t": [0, 2**61, 3, 2**61 + 1], "k": ["a", "b", "a", "b"], "v": [1, 2, 3, 4]})
    schema = StreamSchema(SCHEMA.columns, event_time=EventTime("t", "us"))
    exprs = expand([], {"total": pl.col("v").sum()}, SCHEMA.columns, "agg", None, ["k"])
    far = SessionWindowSpec(window=Session(gap=GAP), by=("k",), calculation=Aggregation.of(exprs))
    expected = pl.DataFrame(
        {"k": ["a", "b"], "window_start": [0, 2**61], "window_end": [8, 2**61 + 6], "total": [4, 6]}
    )
    OperatorHarness(far, schema).feeds(rows).expects(expected)


def test_the_best_rows_of_a_session() -> None:
    top = Top(frozenset(SCHEMA.columns), 2, (pl.col("v"),), (False,))
    best = SessionWindowSpec(window=Session(gap=GAP * SECOND), by=("k",), calculation=top)
    rows = pl.DataFrame({"t": [0, 1, 2, 20], "k": ["a"] * 4, "v": [5, 9, 7, 1]}, schema=SCHEMA.columns)
    expected = {"k": ["a"] * 3, "window_start": [0, 0, 20], "window_end": [7, 7, 25]}
    expected |= {"t": [1, 2, 20], "v": [9, 7, 1]}
    OperatorHarness(best, SCHEMA).feeds(rows).expects(pl.DataFrame(expected))


TOPS = {
    "value": (pl.col("v"),),
    "key and value": (pl.col("k").fill_null("").str.len_chars() * pl.col("v"),),
    "key": (pl.col("k"),),
}


def best_of_each(by: tuple[pl.Expr, ...], n: int) -> SessionWindowSpec:
    top = Top(frozenset(SCHEMA.columns), n, by, (False,) * len(by))
    return SessionWindowSpec(window=Session(gap=GAP * SECOND), by=("k",), calculation=top)


def best_by_row(rows: pl.DataFrame, by: tuple[pl.Expr, ...], n: int) -> pl.DataFrame:
    """The rows of each session of the reference, sorted one session after the other."""
    names = ["k", "window_start", "window_end"]
    lists = reference(rows, {"t": pl.col("t").implode(), "v": pl.col("v").implode()})
    sessions = lists.explode("t", "v").partition_by(names, maintain_order=True)
    best = [one.sort(by, descending=True, nulls_last=True, maintain_order=True).head(n) for one in sessions]
    return pl.concat(best).select(*names, "t", "v")


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("by", TOPS.values(), ids=TOPS)
def test_the_best_rows_of_random_sessions(by: tuple[pl.Expr, ...], seed: int) -> None:
    rows = random_rows(seed, count=80, disorder=1 + 5 * seed)
    for size in (4 + 3 * seed, 80):
        bench = OperatorBench(best_of_each(by, 1 + seed), [SCHEMA])
        for event in in_parts(rows, size, disorder=1 + 5 * seed):
            feed(bench, event)
        feed(bench, Watermark(MAX_TIME))
        order = ["k", "window_start", "t", "v"]
        expected = best_by_row(rows, by, 1 + seed)
        assert pl.concat(bench.frames[""]).select(expected.columns).sort(order).equals(expected.sort(order))


def test_the_best_rows_of_sessions_over_restores() -> None:
    rows, by = random_rows(3, count=20), TOPS["key and value"]
    harness = OperatorHarness(best_of_each(by, 2), SCHEMA)
    harness.feeds(*in_parts(rows, 9)).expects(best_by_row(rows, by, 2))
