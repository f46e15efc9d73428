"""Running aggregates as one Polars query: what ticks give, whether they mind the order of rows or not."""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

import unistream as us
from unistream.clock import Random
from unistream.testing import assert_same_rows, verify

TICKS = us.Settings(whole_query=False, tick_rows=7)
ONE_QUERY = "one Polars streaming query"
N, F, S, T = pl.col("i"), pl.col("f"), pl.col("s"), pl.col("t")

AGGREGATES: dict[str, dict[str, pl.Expr]] = {
    "numbers": {"n": pl.len(), "sum": N.sum(), "mean": F.mean(), "std": N.std(), "least": F.min()},
    "distinct": {"all": S.n_unique(), "some": N.filter(F > 0).n_unique(), "known": S.drop_nulls().n_unique()},
    "middles": {"median": N.median(), "high": F.quantile(0.9), "most": T.max().dt.strftime("%H:%M")},
    "edges": {"first": S.first(), "last": F.last(), "since": T.last() - T.first()},
    "edges of some": {"first": S.filter(N > 1).first(), "last": N.drop_nulls().last()},
    "known edges": {"first": S.first(ignore_nulls=True), "last": F.last(ignore_nulls=True)},
    "lists": {"all": S, "some": N.filter(F > 0), "twice": N.implode().list.sum() * 2},
    "best": {"best": S.max_by("i"), "least": S.filter(F > 0).min_by(F.filter(F > 0)), "n": S.n_unique()},
    "sorted": {"first": S.sort_by("i", "t").first(), "last": F.sort_by("s", descending=True).last()},
    "places": {"most": N.arg_max(), "least": F.arg_min()},
    "sets": {"kinds": S.unique(), "three": N.top_k(3), "heads": S.head(2)},
    "of whole groups": {"steps": N.diff().sum(), "rank": F.rank().max(), "runs": S.rle_id().max()},
    "by others": {"at most": S.filter(N.max() == N).first(), "far": (N - N.mean()).max()},
    "functions": {"own": N.map_batches(lambda s: s.head(1), returns_scalar=True, return_dtype=pl.Int64)},
}
KEYS = [("k",), ("kf",), ("k", "kd")]


def random_rows(seed: int, count: int) -> pl.DataFrame:
    random = Random(seed)
    start = datetime(2026, 1, 1)
    rows = [
        {
            "k": random.choice(["a", "b", "c", None]),
            "kf": random.choice([0.5, -0.0, 0.0, math.nan, None]),
            "kd": random.choice([start, start + timedelta(1), None]),
            "i": random.choice([1, 2, 2, -7, None]),
            "f": random.choice([0.5, 2.5, -3.0, math.nan, None]),
            "s": random.choice(["x", "y", "", None]),
            "t": random.choice([start + timedelta(seconds=at), start, None]),
        }
        for at in range(count)
    ]
    columns = {"k": pl.String, "kf": pl.Float64, "kd": pl.Datetime("ms"), "i": pl.Int64, "f": pl.Float64}
    return pl.DataFrame(rows, schema={**columns, "s": pl.String, "t": pl.Datetime("us", "UTC")})


def as_one_query(stream: us.Stream) -> pl.DataFrame:
    assert ONE_QUERY in stream.explain()
    return stream.collect()


@pytest.mark.parametrize("keys", KEYS, ids=", ".join)
@pytest.mark.parametrize("name", AGGREGATES)
def test_as_in_ticks(name: str, keys: tuple[str, ...]) -> None:
    for seed in range(6):
        stream = us.from_frame(random_rows(seed, seed * 12)).group_by(*keys).agg(**AGGREGATES[name])
        got = as_one_query(stream)
        assert dict(got.schema) == dict(stream.schema)
        assert got.columns == stream.columns
        assert_same_rows(got, stream.collect(settings=TICKS))


def large(keys: int, rows: int = 300_000) -> pl.DataFrame:
    """More rows than the engine takes at once, most of them equal."""
    random = np.random.default_rng(keys)
    return pl.DataFrame(
        {
            "k": random.integers(0, keys, rows),
            "v": random.integers(0, 3, rows),
            "id": np.arange(rows),
        }
    ).with_columns(known=pl.when(pl.col("v") != 1).then("id"))


@pytest.mark.parametrize("keys", [5, 3_000, 100_000])
def test_order_is_kept_in_groups_of_many_rows(keys: int) -> None:
    frame = large(keys).filter(pl.col("id") % 7 != 0)
    number, known, v = pl.col("id"), pl.col("known"), pl.col("v")
    stream = us.from_frame(large(keys)).filter(pl.col("id") % 7 != 0).group_by("k")
    edges = stream.agg(
        first=number.first(),
        last=number.last(),
        first_known=known.first(ignore_nulls=True),
        last_known=known.last(ignore_nulls=True),
        of_some=number.filter(v == 2).first(),
    )
    got = as_one_query(edges).sort("k")
    expected = frame.group_by("k").agg(
        first=number.min(),
        last=number.max(),
        first_known=known.min(),
        last_known=known.max(),
        of_some=number.filter(v == 2).min(),
    )
    assert got.equals(expected.sort("k"))
    best = as_one_query(stream.agg(best=number.max_by("v"), least=number.sort_by("v").first())).sort("k")
    most = frame.group_by("k").agg(
        best=number.filter(v == v.max()).min(), least=number.filter(v == v.min()).min()
    )
    assert best.equals(most.sort("k"))
    lists = as_one_query(stream.agg("id")).sort("k")
    assert lists.equals(frame.sort("id").group_by("k", maintain_order=True).agg("id").sort("k"))


def test_those_that_mind_the_order_ask_for_it() -> None:
    rows = us.from_frame(random_rows(2, 30))
    both = rows.union(us.from_frame(random_rows(4, 30))).group_by("k")
    for name in ("numbers", "distinct", "middles"):
        stream = both.agg(**AGGREGATES[name])
        assert_same_rows(as_one_query(stream), stream.collect(settings=TICKS))
    for name in ("edges", "lists", "best", "sets", "functions"):
        assert ONE_QUERY not in both.agg(**AGGREGATES[name]).explain()


def test_narrow_floats_are_added_up_wide() -> None:
    frame = large(3).select("k", f=(pl.col("id") / 7).cast(pl.Float32))
    got = as_one_query(us.from_frame(frame).group_by("k").agg(sum=F.sum(), mean=F.mean()))
    wide = frame.group_by("k").agg(sum=F.cast(pl.Float64).sum(), mean=F.cast(pl.Float64).mean())
    assert_same_rows(got, wide.cast({"sum": pl.Float32, "mean": pl.Float32}))


def test_over_a_table_that_updates() -> None:
    sums = us.from_frame(random_rows(5, 60)).group_by("k", "s").agg(total=N.sum(), n=pl.len())
    stream = sums.group_by("k").agg(pl.col("total").max(), kinds=pl.col("n").n_unique())
    assert_same_rows(as_one_query(stream), stream.collect(settings=TICKS))
    # Rows that are there in the end do not tell in which order they came to be what they are.
    assert ONE_QUERY not in sums.group_by("k").agg(pl.col("s").first()).explain()


def test_verified() -> None:
    rows = us.from_frame(random_rows(1, 20))
    ordered: dict[str, Any] = {**AGGREGATES["edges"], **AGGREGATES["best"]}
    verify(rows.group_by("k").agg(**ordered), seeds=4, shuffled=False)
    verify(rows.group_by("k").agg(**AGGREGATES["distinct"]), seeds=4)
