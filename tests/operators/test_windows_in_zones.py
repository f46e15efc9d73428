"""Windows of a few seconds or minutes of a zone, as `dt.truncate` lays them: in ticks and at once."""

from __future__ import annotations

from datetime import datetime, timedelta

import polars as pl
import pytest

import unistream as us
from unistream import Settings

WAYS = [Settings(), Settings(whole_query=False), Settings(whole_query=False, tick_rows=7)]
START = datetime(2024, 6, 1, 12)


def minutes(zone: str, start: datetime = START, count: int = 60) -> pl.DataFrame:
    times = pl.datetime_range(
        start, start + timedelta(minutes=count - 1), "1m", time_zone="UTC", eager=True
    ).alias("t")
    return times.dt.convert_time_zone(zone).to_frame()


@pytest.mark.parametrize("settings", WAYS, ids=["query", "ticks", "small ticks"])
@pytest.mark.parametrize("zone", ["Europe/Berlin", "Asia/Kathmandu"])
@pytest.mark.parametrize("size", ["2m", "4m", "6m", "10m", "12m", "20m", "40s"])
def test_tumbling_windows(size: str, zone: str, settings: Settings) -> None:
    rows = minutes(zone)
    windows = us.from_frame(rows).with_event_time("t").window(us.tumbling(size)).agg(n=pl.len())
    starts = pl.col("t").dt.truncate(size)
    expected = rows.group_by(window_start=starts).agg(n=pl.len()).sort("window_start")
    found = windows.collect(settings=settings)
    assert found.select("window_start", "n").equals(expected)
    assert (found["window_end"] == found["window_start"].dt.offset_by(size)).all()


@pytest.mark.parametrize("settings", WAYS, ids=["query", "ticks", "small ticks"])
@pytest.mark.parametrize(("size", "every"), [("1h", "10m"), ("30m", "20m"), ("10m", "4m")])
def test_sliding_windows(size: str, every: str, settings: Settings) -> None:
    rows = minutes("Europe/Berlin")
    windows = us.from_frame(rows).with_event_time("t").window(us.sliding(size, every=every)).agg(n=pl.len())
    starts = pl.datetime_range(
        START - timedelta(hours=2), START + timedelta(hours=3), "1m", time_zone="Europe/Berlin", eager=True
    )
    starts = starts.filter(starts == starts.dt.truncate(every)).alias("window_start")
    inside = (pl.col("t") >= pl.col("window_start")) & (
        pl.col("t") < pl.col("window_start").dt.offset_by(size)
    )
    pairs = rows.join(starts.to_frame(), how="cross").filter(inside)
    expected = pairs.group_by("window_start").agg(n=pl.len()).sort("window_start")
    assert windows.collect(settings=settings).select("window_start", "n").equals(expected)


@pytest.mark.parametrize("settings", WAYS, ids=["query", "ticks", "small ticks"])
def test_cumulating_windows(settings: Settings) -> None:
    rows = minutes("Europe/Berlin")
    windows = us.from_frame(rows).with_event_time("t").window(us.cumulating("1h", step="10m")).agg(n=pl.len())
    found = windows.collect(settings=settings)
    assert found["n"].to_list() == [10, 20, 30, 40, 50, 60] * (found.height // 6)


@pytest.mark.parametrize("settings", WAYS, ids=["query", "ticks", "small ticks"])
def test_a_join_of_windows(settings: Settings) -> None:
    rows = minutes("Europe/Berlin").with_columns(k=pl.lit(1))
    left = us.from_frame(rows).with_event_time("t")
    right = us.from_frame(rows.rename({"t": "u"})).with_event_time("u")
    joined = left.join(right, on="k", window=us.tumbling("10m"))
    found = joined.collect(settings=settings)
    assert found.height == 6 * 10 * 10
    assert (found["t"].dt.truncate("10m") == found["window_start"]).all()
    assert (found["u"].dt.truncate("10m") == found["window_start"]).all()


@pytest.mark.parametrize("month", [3, 10])
@pytest.mark.parametrize("size", ["7m", "10m", "25m", "2h"])
def test_ticks_agree_with_the_query_where_the_clock_is_set(size: str, month: int) -> None:
    rows = minutes("Europe/Berlin", datetime(2024, month, 31 if month == 3 else 27), 300)
    windows = us.from_frame(rows).with_event_time("t").window(us.tumbling(size)).agg(n=pl.len())
    first, *others = (windows.collect(settings=settings) for settings in WAYS)
    assert first["n"].sum() == rows.height
    assert all(other.equals(first) for other in others)
