"""Panes in their buckets and windows put together from them, on every path that size decides."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from unistream.elements import MAX_TIME, Batch
from unistream.expressions.analysis import expand
from unistream.expressions.schema import EventTime, StreamSchema
from unistream.operators import pane_merger, pane_store
from unistream.operators.window_aggregate import AlignedWindowSpec
from unistream.operators.window_contents import Aggregation, Top
from unistream.operators.windows import AlignedWindow, Cumulating, Sliding, Span, Tumbling
from unistream.testing import assert_same_rows
from unistream.testing.bench import OperatorBench

SCHEMA = StreamSchema(
    pl.Schema({"t": pl.Int64, "k": pl.Int64, "v": pl.Int64}), event_time=EventTime("t", "us")
)
AGGREGATES = {"n": pl.len(), "total": pl.col("v").sum(), "most": pl.col("v").max()}
MEDIAN = {"median": pl.col("v").median(), "values": pl.col("v").implode()}
SLIDING = Sliding(size=Span(micros=120), every=Span(micros=10))
CUMULATING = Cumulating(size=Span(micros=100), step=Span(micros=10))


def rows_of(count: int, spread: int, disorder: int, keys: int = 4) -> pl.DataFrame:
    rng = np.random.default_rng(1)
    times = np.sort(rng.integers(0, spread, count)) - rng.integers(0, disorder, count)
    return pl.DataFrame({"t": times, "k": rng.integers(0, keys, count), "v": rng.integers(0, 1000, count)})


def run(
    window: AlignedWindow,
    aggregates: dict[str, pl.Expr],
    rows: pl.DataFrame,
    part: int,
    disorder: int,
    **options: Any,
) -> pl.DataFrame:
    exprs = expand([], aggregates, SCHEMA.columns, "agg", None, ["k"])
    spec = AlignedWindowSpec(window=window, by=("k",), calculation=Aggregation.of(exprs))
    with OperatorBench(spec, [SCHEMA], **options) as bench:
        highest = rows["t"].cum_max()
        for start in range(0, rows.height, part):
            bench.process(Batch(rows.slice(start, part)))
            bench.advance_watermark(int(highest[min(start + part, rows.height) - 1]) - disorder)
        bench.advance_watermark(MAX_TIME)
        return pl.concat(bench.frames[""])


def reference(window: AlignedWindow, aggregates: dict[str, pl.Expr], rows: pl.DataFrame) -> pl.DataFrame:
    """A join of rows with all windows that there could be."""
    low, high = int(rows["t"].min()) - 200, int(rows["t"].max()) + 200  # type: ignore[arg-type]
    size = window.size.micros
    match window:
        case Sliding():
            starts = [at for at in range(low, high) if at % window.every.micros == 0]
            bounds = [(start, start + size) for start in starts]
        case Cumulating():
            starts = [at for at in range(low, high) if at % size == 0]
            bounds = [(at, at + step) for at in starts for step in range(10, size + 1, 10)]
        case _:
            bounds = [(at, at + size) for at in range(low, high) if at % size == 0]
    windows = pl.DataFrame(bounds, schema={"window_start": pl.Int64, "window_end": pl.Int64}, orient="row")
    inside = (pl.col("window_start") <= pl.col("t")) & (pl.col("t") < pl.col("window_end"))
    names = ["k", "window_start", "window_end"]
    pairs = rows.join(windows, how="cross", maintain_order="left_right").filter(inside)
    return pairs.group_by(names).agg(**aggregates).select(*names, *aggregates)


@pytest.mark.parametrize("aggregates", [AGGREGATES, MEDIAN], ids=["folded", "all rows"])
@pytest.mark.parametrize("window", [SLIDING, CUMULATING], ids=lambda window: window.kind)
@pytest.mark.parametrize("part", [7, 90])
def test_windows_one_by_one_equal_all_at_once(
    window: AlignedWindow, aggregates: dict[str, pl.Expr], part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Copying panes into their windows, and the two stacks: with gaps, disorder and restores."""
    rows = pl.concat([rows_of(150, 400, 25), rows_of(60, 100, 25).with_columns(pl.col("t") + 900)])
    expected = reference(window, aggregates, rows)
    assert_same_rows(run(window, aggregates, rows, part, 25), expected)
    monkeypatch.setattr(pane_merger.PaneMerger, "_worth_copying", lambda *_: -1)
    assert_same_rows(run(window, aggregates, rows, part, 25), expected)
    assert_same_rows(run(window, aggregates, rows, part, 25, restores=part == 90), expected)


def test_the_stacks_are_made_anew_when_a_row_falls_into_an_old_pane(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row behind the watermark belongs to the windows that are still open, and to no other."""
    monkeypatch.setattr(pane_merger.PaneMerger, "_worth_copying", lambda *_: -1)
    exprs = expand([], {"n": pl.len()}, SCHEMA.columns, "agg", None, ["k"])
    spec = AlignedWindowSpec(window=SLIDING, by=("k",), calculation=Aggregation.of(exprs))
    with OperatorBench(spec, [SCHEMA]) as bench:
        for times, watermark in (([5, 40, 60], 65), ([12, 130], 130), ([50], MAX_TIME)):
            bench.process(Batch(pl.DataFrame({"t": times, "k": [1] * len(times), "v": [0] * len(times)})))
            bench.advance_watermark(watermark)
        got = dict(pl.concat(bench.frames[""]).select("window_end", "n").rows())
    # 12 came at 65, when the windows up to 60 had closed; 50 came at 130, when those up to 130 had.
    seen = {5: 0, 40: 0, 60: 0, 12: 65, 130: 65, 50: 130}
    for end, n in got.items():
        assert n == sum(end - 120 <= t < end and end > came for t, came in seen.items()), end
    assert bench.metrics.get("late") == 0


def test_very_many_open_windows_share_buckets() -> None:
    """A thousand windows are open at once; Python must not run for each of them."""
    rows = rows_of(3000, 10_000, 9_000)
    window = Tumbling(size=Span(micros=5))
    assert pane_store.MOST_BUCKETS < 1000
    expected = reference(window, AGGREGATES, rows)
    for restores in (False, True):
        assert_same_rows(run(window, AGGREGATES, rows, 500, 9_000, restores=restores), expected)


@pytest.mark.parametrize("window", [Tumbling(size=Span(micros=50)), SLIDING], ids=lambda window: window.kind)
def test_folding_often_changes_nothing(window: AlignedWindow, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = rows_of(300, 300, 40)
    monkeypatch.setattr(pane_store, "FOLD_ROWS", 11)
    for aggregates in (AGGREGATES, MEDIAN):
        assert_same_rows(run(window, aggregates, rows, 20, 40), reference(window, aggregates, rows))


def test_the_best_rows_of_overlapping_windows() -> None:
    rows = rows_of(120, 300, 20).with_columns(pl.col("v") % 5)
    top = Top(frozenset(SCHEMA.columns), 2, (pl.col("v"),), (False,))
    spec = AlignedWindowSpec(window=SLIDING, by=("k",), calculation=top)
    expected = reference(
        SLIDING,
        {"rows": pl.struct("t", "v").sort_by("v", descending=True, maintain_order=True).head(2)},
        rows,
    )
    expected = expected.explode("rows").unnest("rows")
    for part in (1, 50, 120):
        with OperatorBench(spec, [SCHEMA]) as bench:
            for frame in rows.iter_slices(part):
                bench.process(Batch(frame))
            bench.advance_watermark(MAX_TIME)
            assert_same_rows(pl.concat(bench.frames[""]), expected)
