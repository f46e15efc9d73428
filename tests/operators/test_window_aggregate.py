"""Tumbling, sliding and cumulating windows against a row-by-row reference."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl
import pytest

from unistream.elements import MAX_TIME, Batch, Watermark
from unistream.expressions.analysis import expand
from unistream.expressions.schema import EventTime, StreamSchema
from unistream.operators.window_aggregate import AlignedWindowSpec
from unistream.operators.window_contents import Aggregation
from unistream.operators.windows import AlignedWindow, Cumulating, Sliding, Span, Tumbling
from unistream.testing import assert_same_rows
from unistream.testing.bench import OperatorBench
from unistream.testing.harness import OperatorHarness

SECOND = 1_000_000
SCHEMA = StreamSchema(
    pl.Schema({"t": pl.Int64, "k": pl.String, "v": pl.Float64}), event_time=EventTime("t", "s")
)
AGGREGATES = {
    "n": pl.len(),
    "known": pl.col("v").count(),
    "total": pl.col("v").sum(),
    "most": pl.col("v").max(),
    "mean": pl.col("v").mean(),
}
IN_ORDER = {"first": pl.col("v").first(), "last": pl.col("v").last(), "values": pl.col("v").implode()}
MEDIAN = {"median": pl.col("v").median(), "spread": (pl.col("v").max() - pl.col("v").min())}

TUMBLING = Tumbling(size=Span.parse("10s", "size"))
SLIDING = Sliding(size=Span.parse("15s", "size"), every=Span.parse("5s", "every"))
UNEVEN = Sliding(size=Span.parse("10s", "size"), every=Span.parse("4s", "every"))
CUMULATING = Cumulating(size=Span.parse("20s", "size"), step=Span.parse("5s", "step"))
OFFSET = Tumbling(size=Span.parse("10s", "size"), offset=3 * SECOND)


def spec(
    window: AlignedWindow,
    aggregates: dict[str, pl.Expr] = AGGREGATES,
    by: tuple[str, ...] = ("k",),
    schema: StreamSchema = SCHEMA,
) -> AlignedWindowSpec:
    exprs = expand([], aggregates, schema.columns, "agg", None, by)
    return AlignedWindowSpec(window=window, by=by, calculation=Aggregation.of(exprs))


def bounds(window: AlignedWindow, t: int) -> list[tuple[int, int]]:
    """The windows a second is in, found by trying all of them."""
    size = (window.size.fixed or 0) // SECOND
    offset = window.offset // SECOND
    match window:
        case Tumbling():
            starts = [(s, s + size) for s in range(t - size, t + 1) if (s - offset) % size == 0]
        case Sliding():
            every = (window.every.fixed or 0) // SECOND
            starts = [(s, s + size) for s in range(t - size, t + 1) if (s - offset) % every == 0]
        case Cumulating():
            step = (window.step.fixed or 0) // SECOND
            begin = (t - offset) // size * size + offset
            starts = [(begin, begin + step * n) for n in range(1, size // step + 1)]
    return [(start, end) for start, end in starts if start <= t < end]


def reference(
    rows: pl.DataFrame, window: AlignedWindow, aggregates: dict[str, pl.Expr], by: tuple[str, ...] = ("k",)
) -> pl.DataFrame:
    """Each row copied into each of its windows by plain Python, and one group_by."""
    copies = [
        {**row, "window_start": start, "window_end": end}
        for row in rows.rows(named=True)
        for start, end in bounds(window, row["t"])
    ]
    schema = {**rows.schema, "window_start": pl.Int64, "window_end": pl.Int64}
    grouped = pl.DataFrame(copies, schema=schema).group_by(*by, "window_start", "window_end")
    return grouped.agg(**aggregates).select(*by, "window_start", "window_end", *aggregates)


def random_rows(seed: int, count: int = 22, spread: int = 45, disorder: int = 8) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    times = np.sort(rng.integers(-20, spread, count)) - rng.integers(0, disorder, count)
    values = rng.choice([1.0, 2.5, -3.0, math.nan, None], count)
    keys = rng.choice(["a", "b", None], count)
    return pl.DataFrame(
        {"t": times, "k": keys.tolist(), "v": values.tolist()}, schema=SCHEMA.columns, strict=False
    )


def in_parts(rows: pl.DataFrame, size: int, disorder: int = 8) -> list[Any]:
    """Frames with the watermark that the rows so far allow behind each."""
    events: list[Any] = []
    for part in rows.iter_slices(size):
        highest = rows["t"].head(_rows(events) + part.height).max()
        events += [part, Watermark((highest - disorder) * SECOND)]  # type: ignore[operator]
    return events


def _rows(events: list[Any]) -> int:
    return sum(event.height for event in events if isinstance(event, pl.DataFrame))


@pytest.mark.parametrize("aggregates", [AGGREGATES, MEDIAN], ids=["folded", "buffered"])
@pytest.mark.parametrize(
    "window", [TUMBLING, SLIDING, UNEVEN, CUMULATING, OFFSET], ids=lambda window: window.text
)
def test_windows_equal_the_reference(window: AlignedWindow, aggregates: dict[str, pl.Expr]) -> None:
    rows = random_rows(1)
    harness = OperatorHarness(spec(window, aggregates), SCHEMA)
    harness.feeds(*in_parts(rows, 7)).expects(reference(rows, window, aggregates))


@pytest.mark.parametrize("window", [TUMBLING, SLIDING, CUMULATING], ids=lambda window: window.text)
def test_first_and_last_are_those_that_came_first_and_last(window: AlignedWindow) -> None:
    rows = random_rows(4, count=40)
    for size in (1, 6, 40):
        with OperatorBench(spec(window, IN_ORDER), [SCHEMA]) as bench:
            for event in in_parts(rows, size):
                if isinstance(event, Watermark):
                    bench.advance_watermark(event.time)
                else:
                    bench.process(Batch(event))
            bench.advance_watermark(MAX_TIME)
            assert_same_rows(pl.concat(bench.frames[""]), reference(rows, window, IN_ORDER))


@pytest.mark.parametrize("window", [TUMBLING, SLIDING, CUMULATING], ids=lambda window: window.text)
def test_windows_without_a_key(window: AlignedWindow) -> None:
    rows = random_rows(3)
    expected = reference(rows, window, AGGREGATES, by=())
    OperatorHarness(spec(window, by=()), SCHEMA).feeds(*in_parts(rows, 11)).expects(expected)
