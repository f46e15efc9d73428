"""Keys of which there is one at a time, of values that are not equal to themselves or not of 64 bits."""

from __future__ import annotations

import math
from typing import Any

import polars as pl
import pytest

import unistream as us

ODD = {
    "nan": (pl.Float64(), math.nan),
    "narrow nan": (pl.Float32(), math.nan),
    "wide": (pl.Int128(), 2**100),
    "wide unsigned": (pl.UInt128(), 2**100),
    "none": (pl.Int64(), None),
    "text": (pl.String(), ""),
}
ROW_BY_ROW = us.Settings(whole_query=False, tick_rows=1)


@pytest.fixture(params=ODD.values(), ids=ODD)
def rows(request: pytest.FixtureRequest) -> us.Stream:
    dtype, value = request.param
    schema = {"k": dtype, "t": pl.Int64, "v": pl.Float64}
    frame = pl.DataFrame({"k": [value] * 3, "t": [1, 2, 200], "v": [1.0, 2.0, 4.0]}, schema=schema)
    return us.from_frame(frame).with_event_time("t", unit="s", delay="1s")


def counts(stream: us.Stream) -> list[Any]:
    return sorted(stream.collect(settings=ROW_BY_ROW)["n"].to_list())


def test_running_aggregates(rows: us.Stream) -> None:
    assert counts(rows.group_by("k").agg(n=pl.len())) == [3]
    assert counts(rows.group_by("k").agg(n=pl.col("v").rank().max())) == [3.0]


def test_rows_that_are_taken_back(rows: us.Stream) -> None:
    standing = rows.group_by("k").agg(m=pl.len()).filter(pl.col("m") < 3)
    assert counts(standing.group_by("k").agg(n=pl.len())) == []
    assert counts(standing.group_by("k").agg(n=pl.col("m").rank().max())) == []


@pytest.mark.parametrize(
    ("window", "expected"),
    [
        (us.tumbling("1m"), [1, 2]),
        (us.session("1m"), [1, 2]),
        (us.counting(2), [1, 2]),
        (us.counting(4, every=2), [1, 3]),
        (us.global_window(), [3]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_windows(rows: us.Stream, window: Any, expected: list[int]) -> None:
    assert counts(rows.group_by("k").window(window).agg(n=pl.len())) == expected


@pytest.mark.parametrize("how", ["inner", "left", "right", "full", "semi", "anti"])
def test_joins_see_nulls_in_nested_keys_as_the_query_does(how: Any) -> None:
    pairs = pl.Series("k", [{"a": 1}, {"a": None}, None, {"a": 2}], dtype=pl.Struct({"a": pl.Int64}))
    lists = pl.Series("k", [[1], [None], None, []], dtype=pl.List(pl.Int64))
    for keys in (pairs, lists):
        left, right = (
            us.from_frame(some.to_frame().with_row_index(name))
            for some, name in ((keys, "a"), (keys[:3], "b"))
        )
        joined = left.join(right, on="k", how=how)
        found, expected = (joined.collect(settings=settings) for settings in (ROW_BY_ROW, us.Settings()))
        assert sorted(map(str, found.rows())) == sorted(map(str, expected.rows()))
