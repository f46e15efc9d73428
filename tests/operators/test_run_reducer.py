"""Partial aggregates of runs are those of a `group_by` over the same rows."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from unistream.expressions.aggregates import Decomposition, decompose
from unistream.operators.run_reducer import RunReducer

SCHEMA = pl.Schema(
    {
        "k": pl.Int64(),
        "v": pl.Float64(),
        "f": pl.Float32(),
        "i": pl.Int32(),
        "n": pl.Int8(),
        "u": pl.UInt64(),
        "b": pl.Boolean(),
        "t": pl.Datetime("us"),
        "d": pl.Date(),
        "s": pl.String(),
    }
)
KNOWN = {
    "rows": pl.len(),
    "sum": pl.col("v").sum(),
    "narrow": pl.col("f").sum(),
    "whole": pl.col("i").sum(),
    "bytes": pl.col("n").sum(),
    "wraps": pl.col("u").sum(),
    "true": pl.col("b").sum(),
    "made": (pl.col("v") * 2 + pl.col("i")).sum(),
    "condition": (pl.col("i") > 3).sum(),
    "count": pl.col("s").count(),
    "mean": pl.col("v").mean(),
    "least": pl.col("v").min(),
    "most": pl.col("f").max(),
    "first day": pl.col("d").min(),
    "last moment": pl.col("t").max(),
}
UNKNOWN = {
    "text": pl.col("s").max(),
    "first": pl.col("v").first(),
    "chosen": pl.col("v").filter(pl.col("b")).sum(),
    "distinct": pl.col("i").n_unique(),
    "variance": pl.col("v").var(),
}


def rows(seed: int, nulls: bool) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 200))
    frame = pl.DataFrame(
        {
            "k": rng.integers(0, 20, count),
            "v": np.where(rng.random(count) < 0.1, np.nan, rng.integers(-9, 9, count) / 2),
            "f": np.where(rng.random(count) < 0.1, np.nan, rng.integers(-9, 9, count) / 2),
            "i": rng.integers(-(2**31), 2**31, count),
            "n": rng.integers(-128, 128, count),
            "u": rng.integers(0, 2**64, count, dtype=np.uint64),
            "b": rng.random(count) < 0.5,
            "t": rng.integers(0, 10**15, count),
            "d": rng.integers(0, 10**4, count),
            "s": [str(n) for n in rng.integers(0, 9, count)],
        }
    ).cast(dict(SCHEMA))
    if not nulls:
        return frame
    holes = [pl.when(pl.Series(rng.random(count) < 0.8)).then(pl.col(name)).alias(name) for name in SCHEMA]
    return frame.with_columns(holes[1:])


def reduced(frame: pl.DataFrame, aggregates: dict[str, pl.Expr]) -> tuple[pl.DataFrame, pl.DataFrame] | None:
    """Of the runs of equal keys, and of `group_by`; None when it is not for the reducer to say."""
    parts = decompose([expr.alias(name) for name, expr in aggregates.items()], SCHEMA, ["k"])
    assert isinstance(parts, Decomposition)
    reducer = RunReducer.of(parts, SCHEMA)
    assert reducer is not None
    keys = frame["k"].to_numpy()
    order = np.argsort(keys, kind="stable")
    first = np.flatnonzero(np.append(True, np.diff(keys[order]) != 0))
    values = reducer.values_of(frame)
    if values is None:
        return None
    grouped = frame.group_by("k").agg(parts.partial).sort("k").drop("k")
    return reducer.reduce(values, order, first), grouped


@pytest.mark.parametrize("nulls", [False, True])
@pytest.mark.parametrize("name", KNOWN)
def test_as_group_by(name: str, nulls: bool) -> None:
    least_or_most = name in ("least", "most", "first day", "last moment")
    for seed in range(20):
        found = reduced(rows(seed, nulls), {name: KNOWN[name]})
        if found is None:
            assert nulls and least_or_most
        else:
            assert_frame_equal(found[0], found[1])


def test_all_at_once() -> None:
    for seed in range(20):
        found = reduced(rows(seed, nulls=False), KNOWN)
        assert found is not None
        assert_frame_equal(found[0], found[1])


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_is_left_to_group_by(name: str) -> None:
    parts = decompose([UNKNOWN[name].alias("x")], SCHEMA, ["k"])
    assert isinstance(parts, Decomposition)
    assert RunReducer.of(parts, SCHEMA) is None
