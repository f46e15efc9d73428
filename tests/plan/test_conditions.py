"""Bounded runs that are one query as long as their rows are for one, and ticks otherwise: the same rows."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

import unistream as us
from unistream.one_query import Conditions, Unmet
from unistream.operators.time_axis import TimeAxis
from unistream.operators.time_order import TimeOrder

ONE = "one Polars streaming query"
TICKS = us.Settings(whole_query=False)
ROWS = 100_000


def rows(late: bool) -> pl.DataFrame:
    """A second between rows, and one of them an hour late."""
    seconds = list(range(ROWS))
    if late:
        seconds[ROWS * 3 // 4] -= 3600
    return pl.DataFrame({"t": seconds, "k": [second % 7 for second in seconds]})


def frame(rows: pl.DataFrame, folder: Path) -> us.Stream:
    return us.from_frame(rows)


def parquet(rows: pl.DataFrame, folder: Path) -> us.Stream:
    folder = folder / "in"
    folder.mkdir()
    for number in range(2):
        half = rows.slice(number * ROWS // 2, ROWS // 2)
        half.write_parquet(folder / f"{number}.parquet", row_group_size=1000)
    return us.scan_parquet(folder)


def csv(rows: pl.DataFrame, folder: Path) -> us.Stream:
    rows.write_csv(folder / "x.csv")
    return us.scan_csv(folder / "x.csv")


def ndjson(rows: pl.DataFrame, folder: Path) -> us.Stream:
    rows.write_ndjson(folder / "x.ndjson")
    return us.scan_ndjson(folder / "x.ndjson")


def counted(stream: us.Stream) -> us.Stream:
    return stream.group_by("k").window(us.tumbling("1h")).agg(n=pl.len())


def unkeyed(stream: us.Stream) -> us.Stream:
    return stream.window(us.tumbling("10m")).agg(n=pl.len(), k=pl.col("k").sum())


@pytest.mark.parametrize("source", [frame, parquet, csv, ndjson])
@pytest.mark.parametrize("query", [counted, unkeyed])
@pytest.mark.parametrize("late", [True, False])
def test_late_rows_are_left_out_as_in_ticks(
    source: Callable[..., us.Stream], query: Callable[[us.Stream], us.Stream], late: bool, tmp_path: Path
) -> None:
    made = query(source(rows(late), tmp_path).with_event_time("t", unit="s", delay="10s"))
    assert ONE in made.explain()
    assert "or else: ticks" in made.explain()
    cut = us.Settings(tick_rows=1000)
    one, ticks = (made.collect(settings=cut.override(whole_query=whole)) for whole in (True, False))
    assert one.sort(one.columns).equals(ticks.sort(ticks.columns))
    assert one["n"].sum() == ROWS - late


@pytest.mark.parametrize("late", [True, False])
def test_progress_says_how_it_ran(late: bool, tmp_path: Path) -> None:
    made = counted(parquet(rows(late), tmp_path).with_event_time("t", unit="s", delay="10s"))
    settings = us.Settings(tick_rows=1000)
    progress = made.sink_parquet(tmp_path / "out").run(progress=False, settings=settings)
    assert progress.rows_in == ROWS
    assert progress.late == late
    assert (progress.ticks > 0) == late


def test_time_is_followed_to_the_source_through_plain_columns(tmp_path: Path) -> None:
    stream = parquet(rows(False), tmp_path)
    moved = stream.filter(pl.col("k") > 1).select(time="t", k="k").with_columns(double=2 * pl.col("k"))
    timed = counted(moved.with_event_time("time", unit="s"))
    assert ONE in timed.explain()
    assert (
        timed.collect()
        .sort("k", "window_start")
        .equals(timed.collect(settings=TICKS).sort("k", "window_start"))
    )
    made = stream.with_columns(t=pl.col("t") + 1).with_event_time("t", unit="s")
    assert ONE not in counted(made).explain()


def test_what_does_not_fit_into_memory_runs_in_ticks(tmp_path: Path) -> None:
    timed = counted(parquet(rows(False), tmp_path).with_event_time("t", unit="s"))
    assert ONE in timed.explain()
    assert ONE not in timed.explain(settings=us.Settings(memory_budget_bytes=100_000))


@pytest.mark.parametrize("source", [frame, parquet, csv, ndjson])
def test_a_filter_may_read_what_nothing_else_needs(source: Callable[..., us.Stream], tmp_path: Path) -> None:
    stream = source(rows(False), tmp_path).filter(pl.col("k") == 3)
    for query in (stream.select("t"), stream.with_event_time("t", unit="s").select("t")):
        assert ONE in query.explain()
        assert query.collect()["t"].to_list() == list(range(3, ROWS, 7))


def test_steps_that_do_not_mind_time_do_not_mind_late_rows(tmp_path: Path) -> None:
    timed = csv(rows(True), tmp_path).with_event_time("t", unit="s")
    job = timed.select("k").sink_parquet(tmp_path / "out")
    assert job.run(progress=False).ticks == 0
    assert pl.read_parquet(tmp_path / "out" / "*.parquet").height == ROWS


def test_stopping_while_the_query_runs(tmp_path: Path) -> None:
    stream = csv(rows(True), tmp_path).with_event_time("t", unit="s", delay="1s")
    run = counted(stream).sink_parquet(tmp_path / "out").start()
    assert run.stop(timeout=20)
    shown = list((tmp_path / "out").glob("*.parquet"))
    assert (run.status == "finished") == bool(shown)


@pytest.mark.parametrize("seed", range(20))
def test_order_is_judged_as_row_by_row(seed: int) -> None:
    draw = random.Random(seed)
    times = [number * 10 - draw.choice([0, 0, 0, 5, 20, 60]) for number in range(200)]
    delay = draw.choice([0, 15, 40, 70])
    highest, late = times[0], False
    for time in times:
        late = late or time < highest - delay
        highest = max(highest, time)
    axis = TimeAxis("t", pl.Int64(), "us")
    conditions = Conditions()
    order = TimeOrder(axis, (-(2**60), 2**60), delay, conditions)
    cuts = sorted({0, 200, *(draw.randrange(200) for _ in range(draw.randrange(8)))})
    pieces = list(itertools.pairwise(cuts))
    draw.shuffle(pieces)
    found = False
    try:
        for start, end in pieces:
            order.see(start, pl.DataFrame({"t": times[start:end]}))
        order.finish()
    except Unmet:
        found = True
    assert found == late == (conditions.unmet is not None)
