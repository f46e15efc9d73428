"""Rows with those before them as one Polars query: what ticks give, and a loop over all rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from test_running_query import AGGREGATES, as_one_query, random_rows

import unistream as us
from unistream.clock import Random
from unistream.testing import assert_same_rows, verify

TICKS = us.Settings(whole_query=False, tick_rows=7)
ONE_QUERY = "one Polars streaming query"
KEYS = [("k",), ("kf",), ("k", "kd")]
MADE = {
    f"{name} {kind}": expr
    for kind, made in AGGREGATES.items()
    for name, expr in made.items()
    if name != "kinds"  # distinct values of a window come in no order
}
TIMES: dict[str, tuple[Any, int]] = {
    "seconds": (pl.Int64, 1),
    "milliseconds": (pl.Datetime("ms"), 1_000),
    "microseconds": (pl.Datetime("us", "Europe/Berlin"), 1_000_000),
    "nanoseconds": (pl.Datetime("ns"), 1_000_000_000),
    "days": (pl.Date, 1),
}


def assert_as_ticks(stream: us.Stream, *, ordered: bool = True) -> pl.DataFrame:
    got = as_one_query(stream)
    assert_same_rows(got, stream.collect(settings=TICKS), ordered=ordered)
    assert dict(got.schema) == dict(stream.schema)
    assert got.columns == stream.columns
    return got


@pytest.mark.parametrize("keys", KEYS, ids=", ".join)
def test_the_last_rows(keys: tuple[str, ...]) -> None:
    for seed in range(5):
        rows = us.from_frame(random_rows(seed, seed * 12)).group_by(*keys)
        assert_as_ticks(rows.over(rows=1 + seed % 3).agg(**MADE))


def timed_rows(seed: int, count: int, kind: str) -> us.Stream:
    """Rows in order of their time, many of them at the same one."""
    random = Random(seed)
    dtype, second = TIMES[kind]
    times = sorted(random.randint(0, count // 2) for _ in range(count))
    stamps = pl.Series("at", [20_000 + time * second for time in times], dtype=pl.Int64)
    frame = us.from_frame(random_rows(seed, count).with_columns(stamps.cast(dtype)))
    unit = {"unit": "s"} if kind == "seconds" else {}
    return frame.with_event_time("at", delay="0s", **unit)


@pytest.mark.parametrize("kind", TIMES)
def test_the_last_while(kind: str) -> None:
    for seed in range(5):
        length = f"{1 + seed % 4}{'d' if kind == 'days' else 's'}"
        rows = timed_rows(seed, seed * 12, kind).group_by(*KEYS[seed % 3])
        assert_as_ticks(rows.over(range=length).agg(**MADE))


def test_rows_out_of_order_are_put_in_order() -> None:
    frame = random_rows(3, 60).with_columns(at=pl.Series([at // 2 - at % 5 + 10 for at in range(60)]))
    stream = us.from_frame(frame).with_event_time("at", unit="s", delay="20s").group_by("k")
    got = assert_as_ticks(stream.over(range="4s").agg(n=pl.len(), first=pl.col("i").first()))
    expected = [
        sum(1 for k, at in zip(frame["k"], frame["at"], strict=True) if k == key and time - 4 < at <= time)
        for key, time in got.select("k", "at").rows()
    ]
    assert got["n"].to_list() == expected
    assert got["at"].is_sorted()


@pytest.mark.parametrize("keys", [5, 20_000])
def test_many_rows_stay_in_order(keys: int) -> None:
    random = np.random.default_rng(keys)
    count = 300_000
    frame = pl.DataFrame({"k": random.integers(0, keys, count), "v": random.integers(0, 9, count)})
    frame = frame.with_columns(id=pl.int_range(pl.len()))
    stream = us.from_frame(frame).filter(pl.col("v") > 0).group_by("k").over(rows=3)
    got = as_one_query(stream.agg(total=pl.col("v").sum(), before=pl.col("id").first()))
    shifted = [pl.col("v").shift(back, fill_value=0).over("k") for back in range(3)]
    known = pl.coalesce(*(pl.col("id").shift(back).over("k") for back in (2, 1, 0)))
    expected = frame.filter(pl.col("v") > 0).with_columns(total=pl.sum_horizontal(shifted), before=known)
    assert got.equals(expected)


def test_where_rows_have_no_order_the_last_are_found_by_ticks() -> None:
    rows = us.from_frame(random_rows(2, 30))
    both = rows.union(us.from_frame(random_rows(4, 30))).group_by("k")
    assert ONE_QUERY not in both.over(rows=2).agg(n=pl.len()).explain()
    behind = rows.group_by("k").over(rows=2).agg(n=pl.len()).group_by("k").agg(pl.col("s").last())
    assert_as_ticks(behind, ordered=False)


def test_verified() -> None:
    verify(
        us.from_frame(random_rows(1, 20)).group_by("k").over(rows=3).agg(n=pl.col("i").sum()),
        seeds=4,
        shuffled=False,
    )
    verify(timed_rows(1, 20, "seconds").group_by("k").over(range="3s").agg(n=pl.col("i").sum()), seeds=4)


@pytest.mark.parametrize("ddof", [0, 1])
def test_a_row_that_is_null_has_no_spread(ddof: int) -> None:
    rows = us.from_frame({"k": ["a", "a", "a", "b"], "t": [1, 2, 9, 9], "v": [None, 1, None, None]})
    v = pl.col("v")
    made = {"var": v.var(ddof=ddof), "std": v.std(ddof=ddof) + 1, "some": v.filter(v != 5).var(ddof=ddof)}
    timed = rows.with_event_time("t", unit="s").group_by("k").over(range="2s").agg(**made)
    for found in (*(rows.group_by("k").over(rows=length).agg(**made) for length in (1, 2)), timed):
        got = assert_as_ticks(found)
        one_by_one = us.Settings(whole_query=False, tick_rows=1)
        assert_same_rows(found.collect(settings=one_by_one), got)
        assert got.sort("k", "t")["var"].to_list()[0] is None
