"""A function may lose the event time of a row: the row is late, and nothing else changes."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl
import pytest

import unistream as us
from unistream.api.stream import Stream

TICKS = us.Settings(whole_query=False, tick_rows=2)
STEPS: dict[str, Callable[[Stream], Stream]] = {
    "tumbling": lambda rows: rows.window(us.tumbling("10s")).agg(n=pl.len()),
    "sliding": lambda rows: rows.window(us.sliding("20s", every="10s")).agg(n=pl.len()),
    "session": lambda rows: rows.window(us.session("10s")).agg(n=pl.len()),
    "unique": lambda rows: rows.unique("k", within="10s"),
    "over": lambda rows: rows.group_by("k").over(range="10s").agg(n=pl.len()),
}


def lost(frame: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The rows with the times of those that have a value."""
    rows = frame.select("k", t=pl.when(pl.col("v") > 0).then(pl.col("t")))
    return rows, frame.select("k").unique().with_columns(n=pl.lit(1, pl.Int64))


def rows(times: list[int], values: list[int]) -> Stream:
    keys = [f"{number}" for number in range(len(times))]
    timed = us.from_frame({"k": keys, "t": times, "v": values}).with_event_time("t", unit="s")
    return timed.group_by("k").process_batches(lost, state_schema={"n": pl.Int64})


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("times", [[1, 2, 3, 4], [50, 60, 70, 8]])
def test_they_are_late(name: str, times: list[int]) -> None:
    late = STEPS[name](rows(times, [1, 0, 1, 1])).late().collect(settings=TICKS)
    assert late.filter(pl.col("t").is_null())["k"].to_list() == ["1"]
    others = late.filter(pl.col("t").is_not_null())["k"].to_list()
    assert others == (["3"] if times[-1] == 8 else [])
