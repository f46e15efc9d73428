"""Windows as users write them: batch equals stream, nothing vanishes, mistakes are refused at their line."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

import unistream as us
from unistream.testing import ListSource, VirtualClock, verify

AGGREGATES = {
    "n": pl.len(),
    "total": pl.col("v").sum(),
    "most": pl.col("v").max(),
    "middle": pl.col("v").median(),
    "spread": (pl.col("v").max() - pl.col("v").mean()).round(6),
}
PARTS = {name: AGGREGATES[name] for name in ("n", "total", "most")}


def disordered(seed: int = 1, count: int = 60) -> pl.DataFrame:
    """Rows up to four seconds out of order."""
    rng = np.random.default_rng(seed)
    times = np.sort(rng.integers(0, 70, count)) - rng.integers(0, 5, count)
    keys = rng.choice(["a", "b", None], count).tolist()
    return pl.DataFrame({"t": times, "k": keys, "v": rng.integers(0, 50, count).astype(float)})


def timed(seed: int = 1) -> us.Stream:
    return us.from_frame(disordered(seed)).with_event_time("t", delay="4s", unit="s")


WINDOWS = [
    us.tumbling("10s"),
    us.tumbling("10s", offset="3s"),
    us.sliding("15s", every="5s"),
    us.cumulating("20s", step="5s"),
    us.session("3s"),
]


@pytest.mark.parametrize("window", WINDOWS, ids=lambda window: window.text)
def test_batch_is_stream(window: Any) -> None:
    for stream in (timed().group_by("k").window(window), timed().window(window)):
        verify(stream.agg(**AGGREGATES), seeds=3, crashes=1)


@pytest.mark.parametrize("options", [{"emit": "change"}, {"allowed_lateness": "30s"}], ids=str)
def test_updates_fold_to_the_same_table(options: dict[str, Any]) -> None:
    windows = timed().group_by("k").window(us.sliding("10s", "5s"), **options)
    verify(windows.agg(**PARTS), seeds=3, crashes=1)
    final = timed().group_by("k").window(us.sliding("10s", "5s")).agg(**PARTS)
    order = ["window_start", "k"]
    assert windows.agg(**PARTS).collect().sort(order).equals(final.collect().sort(order))


def test_the_best_rows_and_functions_over_rows() -> None:
    keyed = timed().group_by("k").window(us.tumbling("10s"))
    verify(keyed.apply(lambda rows: rows.select(pl.col("v").sort().head(2))), seeds=3, crashes=1)
    top = keyed.top_k(2, by=["v", "t"], reverse=[False, True])
    rows = disordered().with_columns(w=pl.col("t") // 10 * 10)
    ordered = rows.sort("v", "t", descending=[True, False], maintain_order=True)
    expected = ordered.group_by("k", "w").head(2).select("k", "w", "t", "v")
    got = top.select("k", "window_start", "t", "v").collect()
    assert sorted(got.rows(), key=str) == sorted(expected.rows(), key=str)


def test_the_top_of_a_windowed_count() -> None:
    counts = timed().group_by("k").window(us.sliding("20s", "10s")).agg(n=pl.len())
    best = counts.window().top_k(1, by="n")
    verify(best.drop("k"), seeds=3, crashes=1)
    table = counts.collect()
    expected = table.group_by("window_start", "window_end").agg(pl.col("n").max())
    order = ["window_start", "window_end", "n"]
    assert best.select(order).collect().sort(order).equals(expected.select(order).sort(order))


def test_a_window_of_windows_goes_by_their_last_moment() -> None:
    minutes = timed().window(us.tumbling("10s")).agg(n=pl.len())
    hours = minutes.window(us.tumbling("30s")).agg(pl.col("n").sum())
    direct = timed().window(us.tumbling("30s")).agg(n=pl.len())
    assert (
        hours.select("window_start", "n").collect().rows()
        == direct.select("window_start", "n").collect().rows()
    )
    verify(hours, seeds=3, crashes=1)


@pytest.mark.parametrize("dtype", [pl.Datetime("ms"), pl.Datetime("ns", "Asia/Tokyo"), pl.Date], ids=str)
def test_bounds_have_the_type_of_event_time(dtype: Any) -> None:
    frame = pl.DataFrame({"t": [date(2024, 1, 31), date(2024, 2, 1)]}).cast({"t": pl.Datetime("us")})
    local = pl.col("t").dt.replace_time_zone(getattr(dtype, "time_zone", None))
    frame = frame.with_columns(local.cast(dtype))
    days = us.from_frame(frame).with_event_time("t").window(us.tumbling("1mo")).agg(n=pl.len())
    assert days.schema["window_start"] == days.schema["window_end"] == frame.schema["t"]
    found = days.collect()
    starts = frame.select(pl.col("t").dt.truncate("1mo")).to_series().to_list()
    assert found["window_start"].to_list() == starts
    assert found["window_end"].to_list()[0] == starts[1]


def test_days_of_a_time_zone() -> None:
    """The day on which clocks go back has 25 hours."""
    start = datetime(2024, 10, 26, 22, tzinfo=UTC)
    frame = pl.DataFrame({"t": [start + timedelta(hours=n) for n in range(49)]})
    days = us.from_frame(frame).with_event_time("t")
    berlin = days.window(us.tumbling("1d", time_zone="Europe/Berlin")).agg(n=pl.len()).collect()
    assert berlin["n"].to_list() == [25, 24]
    assert days.window(us.tumbling("1d")).agg(n=pl.len()).collect()["n"].to_list() == [2, 24, 23]


THREE_ROWS = us.Settings(tick_rows=3)


def in_threes(*times: int | None) -> us.Stream:
    """A stream of which three rows come in a tick, when it is run with the settings above."""
    rows = pl.DataFrame({"t": times, "v": range(len(times))})
    return us.scan(ListSource(rows.schema, [rows])).with_event_time("t", delay="2s", unit="s")


@pytest.mark.parametrize("window", [WINDOWS[0], WINDOWS[3], us.session("8s")], ids=lambda window: window.text)
def test_nothing_vanishes(window: Any) -> None:
    """Rows in are rows in windows, late rows and rejected rows; each of them can be had as a stream."""
    stream = in_threes(1, 8, None, 50, 2, 51, 3, 95, 9, 49, None, 99)
    counted = stream.window(window).agg(n=pl.len())
    table = counted.collect(settings=THREE_ROWS)
    if window.kind == "cumulating":  # counts a row again in each step; the widest windows count each row once
        table = table.filter(pl.col("window_end") - pl.col("window_start") == 20)
    late = counted.late().collect(settings=THREE_ROWS)
    rejected = counted.rejected().collect(settings=THREE_ROWS)
    assert late["t"].to_list() == [3, 9, 49]
    assert rejected["reason"].to_list() == ["no event time"] * 2
    assert table["n"].sum() + late.height + rejected.height == 12
    assert (late["late_window_end"] <= late["late_watermark"]).all()


def test_late_rows_are_counted_in_progress() -> None:
    windows = in_threes(1, 2, 30, 2, 3, None).window(us.tumbling("10s")).agg(n=pl.len())
    progress = windows.sink_batches(lambda frame: None).run(progress=False, settings=THREE_ROWS)
    assert (progress.late, progress.rejected) == (2, 1)


def test_late_rows_have_all_their_columns_though_the_window_needs_few() -> None:
    late = in_threes(1, 2, 30, 2).window(us.tumbling("10s")).agg(n=pl.len()).late()
    assert late.collect(settings=THREE_ROWS).select("t", "v").rows() == [(2, 3)]


def test_arrival_as_event_time() -> None:
    frames = [pl.DataFrame({"v": [n]}) for n in range(5)]
    stream = us.scan(ListSource({"v": pl.Int64}, frames)).with_ingestion_time("at")
    seen: list[pl.DataFrame] = []
    job = stream.window(us.tumbling("10s")).agg(pl.col("v").sum()).sink_batches(seen.append)
    clock = VirtualClock()
    runtime = job.runtime(clock=clock, threads=False)
    runtime.open()
    while runtime.tick():
        clock.advance("4s")
    runtime.close()
    assert pl.concat(seen)["v"].to_list() == [0 + 1 + 2, 3 + 4]


def test_keys_may_be_computed() -> None:
    stream = timed().group_by(half=pl.col("v") // 25).window(us.tumbling("10s")).agg(n=pl.len())
    assert stream.columns == ["half", "window_start", "window_end", "n"]
    assert stream.collect()["n"].sum() == disordered().height


def test_explain_says_what_is_kept() -> None:
    windows = timed().group_by("k").window(us.tumbling("10s"))
    assert "running values" in windows.agg(pl.col("v").sum()).explain()
    assert "all rows, because of `col(" in windows.agg(pl.col("v").rank().max()).explain()
    assert "needs every value" in windows.agg(pl.len(), m=pl.col("v").median()).explain()
    sliding = timed().window(us.sliding("10s", "5s"))
    assert "running values" in sliding.agg(pl.col("v").sum()).explain()
    assert "windows overlap" in sliding.agg(pl.col("v").first()).explain()


def test_operators_know_where_time_stands() -> None:
    """What a running job is asked for: the watermark, who holds it, and what fires next."""
    source = ListSource({"t": pl.Int64, "k": pl.String}, {"a": [(10, "x"), (31, "x")], "b": [(20, "y")]})
    times = us.scan(source).with_event_time("t", delay="2s", unit="s").group_by("k")
    for window, emit, end in (
        (us.tumbling("10s"), "close", 20),
        (us.sliding("10s", "5s"), "close", 15),
        (us.sliding("10s", "5s"), "change", 15),
        (us.session("9s"), "close", 19),
    ):
        counts = times.window(window, emit=emit).agg(n=pl.len())
        job = counts.changes().sink_batches(lambda frame: None)
        runtime = job.runtime(threads=False)
        runtime.open()
        runtime.tick()
        runtime.tick()
        knows = {name.split("-")[0]: task.operator.explain_time() for name, task in operators(runtime)}
        runtime.close()
        assert knows["event_time"]["watermark"] == 8_000_000
        assert knows["event_time"]["held_by"].endswith("/a")
        (windows,) = (known for name, known in knows.items() if known and name != "event_time")
        assert windows["watermark"] == 8_000_000
        assert windows["next_window_end"] == end * 1_000_000


def operators(runtime: Any) -> list[tuple[str, Any]]:
    return [(name, task) for name, task in runtime.tasks.items() if hasattr(task, "operator")]


def refused(make: Any) -> str:
    with pytest.raises(us.UnistreamError) as error:
        make()
    assert "test_windows.py" in str(error.value)
    return str(error.value)


def test_mistakes_are_refused_at_their_line() -> None:
    plain = us.from_frame(disordered())
    assert "with_event_time" in refused(lambda: plain.window(us.tumbling("10s")).agg(pl.len()))
    assert "did you mean 't'" in refused(lambda: plain.with_event_time("T"))
    assert "to_datetime" in refused(lambda: plain.with_event_time("k"))
    assert "is no event time" in refused(lambda: plain.with_event_time("v"))
    assert "leave out rows" in refused(lambda: timed().window(us.sliding("1s", "2s")).agg(pl.len()))
    assert "takes a window" in refused(lambda: timed().window("10s"))  # type: ignore[arg-type]
    assert "results of a window" in refused(lambda: timed().window().agg(pl.len()))
    assert "at least one key" in refused(lambda: timed().group_by())
    assert "at least one aggregate" in refused(lambda: timed().window(us.tumbling("10s")).agg())
    assert "late" in refused(lambda: plain.late())
    changing = timed().window(us.tumbling("10s"), emit="change").agg(n=pl.len())
    assert "rows that stay" in refused(lambda: changing.window(us.tumbling("1m")).agg(pl.len()))
