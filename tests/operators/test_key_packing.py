"""Grouping by packed keys gives what `group_by` over the key columns gives."""

from __future__ import annotations

import datetime as dt

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from unistream.operators.key_packing import PackedKeys, aggregated

BYS = (["s", "e", "k"], ["s", "e"], ["s"], ["k"], ["k", "s"], ["d", "k"])


def rows(seed: int, count: int, key: type[pl.DataType], nulls: bool = False) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    frame = pl.DataFrame(
        {
            "s": np.full(count, 10),
            "e": rng.integers(-3, 1 + count // 20, count),
            "k": rng.integers(0, 5, count),
            "d": [dt.date(2026, 1, 1) + dt.timedelta(days=int(day)) for day in rng.integers(0, 4, count)],
            "v": rng.random(count),
        },
        schema={"s": pl.Int64, "e": pl.Int64, "k": pl.Int64, "d": pl.Date, "v": pl.Float64},
    ).cast({"k": key})
    holes = pl.when(pl.Series(rng.random(count) < 0.8)).then(pl.col("e")).alias("e")
    return frame.with_columns(holes) if nulls else frame


@pytest.mark.parametrize("by", BYS, ids="-".join)
@pytest.mark.parametrize("key", [pl.Int64, pl.Int8, pl.UInt64, pl.String])
def test_aggregates_by_packed_keys(key: type[pl.DataType], by: list[str]) -> None:
    for count in (0, 1, 60):
        for nulls in (False, True):
            frame = rows(count, count, key, nulls)
            exprs = [pl.col("v").median(), pl.len()]
            assert_frame_equal(
                aggregated(frame, by, exprs), frame.group_by(by, maintain_order=True).agg(exprs)
            )


def test_runs_are_in_order_of_the_keys_and_of_arrival() -> None:
    frame = rows(1, 200, pl.Int64)
    packed = PackedKeys.of(frame, ["e", "d", "k"])
    assert packed is not None
    order, first, keys = packed.runs()
    numbered = frame.with_row_index("at").sort("e", "d", "k", maintain_order=True)
    assert order.tolist() == numbered["at"].to_list()
    assert keys.rows() == numbered.select("e", "d", "k").unique(maintain_order=True).rows()
    assert frame.select("e", "d", "k")[order[first]].rows() == keys.rows()


@pytest.mark.parametrize(
    "column",
    [[0, 2**62], [None, 1], ["a", "b"], [1.5, 2.5]],
    ids=["too far apart", "null", "text", "floats"],
)
def test_what_is_not_packed(column: list[object]) -> None:
    frame = pl.DataFrame({"k": column, "n": [1, 2]})
    assert PackedKeys.of(frame, ["k", "n"]) is None
