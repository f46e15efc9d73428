"""Which aggregates mind the order of rows: told from the expression, and tried with rows in many orders."""

from __future__ import annotations

from threading import Lock

import polars as pl
import pytest

from unistream.clock import Random
from unistream.expressions.arrival_order import is_settled
from unistream.expressions.order_shape import asks_for_order
from unistream.testing import assert_same_rows

V, W = pl.col("v"), pl.col("w")

ORDERLESS = {
    "length": pl.len(),
    "constant": pl.lit(1),
    "sum": V.sum(),
    "sum of a condition": (V > 2).sum(),
    "mean": V.mean(),
    "extremes": V.max() - V.min(),
    "latest": W.cast(pl.Datetime).max().dt.strftime("%H:%M"),
    "spread": V.std(),
    "count": V.count(),
    "filtered length": V.filter(W > 1).len(),
    "distinct": V.drop_nulls().n_unique(),
    "distinct of some": V.filter(W > 1).n_unique(),
    "median": V.median(),
    "quantile": V.quantile(0.9),
    "any": (V > 2).any(),
    "all": (V > 2).all(),
    "nulls": V.null_count(),
    "has nulls": V.has_nulls(),
    "product": V.product(),
    "bits": V.bitwise_xor(),
    "ratio": V.sum() / pl.len(),
    "distinct structs": pl.struct("v", "w").n_unique(),
    "in": V.is_in([1, 2]).sum(),
    "distances": (V - V.mean()).max(),
    "at the greatest": W.filter(V.max() == V).sum(),
    "choice": pl.when(V.sum() > 1).then(pl.len()).otherwise(V.max()),
}
ORDERED = {
    "first": V.first(),
    "last": V.last(),
    "last known": V.last(ignore_nulls=True),
    "first of some": V.filter(W > 1).first(),
    "values": V,
    "pairs of some": (V.filter(W > 1) - W.filter(V > 1)).sum(),
    "list": V.implode(),
    "at the first": W.filter(V.first() == V).sum(),
    "first at the greatest": W.filter(V.max() == V).first(),
}
CHOSEN = {
    "at the greatest": W.max_by("v"),
    "first in order": W.sort_by("v").first(),
    "place": V.arg_max(),
    "distinct values": V.unique(),
    "frequent": V.mode(),
    "running": V.cum_sum().max(),
    "head": V.head(2),
    "rank": V.rank("ordinal").max(),
    "differences": V.diff().sum(),
    "sample": V.sample(1).sum(),
    "joined": V.cast(pl.String).str.join(","),
}


@pytest.mark.parametrize("name", ORDERLESS)
def test_those_that_do_not(name: str) -> None:
    expr = ORDERLESS[name]
    assert not asks_for_order([expr.alias("x")])
    assert is_settled(expr.alias("x"))
    rows = pl.DataFrame({"v": [5, 1, None, 5, 2, 2, 7, 1], "w": [1, 2, 3, 4, 5, 6, 7, 8]})
    expected = rows.group_by(one=pl.lit(1)).agg(x=expr)
    for seed in range(20):
        order = Random(seed).sample(range(rows.height), rows.height)
        assert_same_rows(rows[order].group_by(one=pl.lit(1)).agg(x=expr), expected)


@pytest.mark.parametrize("name", ORDERED)
def test_those_that_do(name: str) -> None:
    assert asks_for_order([ORDERED[name].alias("x")])
    assert is_settled(ORDERED[name].alias("x"))


@pytest.mark.parametrize("name", CHOSEN)
def test_those_in_which_order_may_not_say_it_all(name: str) -> None:
    assert asks_for_order([CHOSEN[name].alias("x")])
    assert not is_settled(CHOSEN[name].alias("x"))


def test_what_cannot_be_read_minds_order() -> None:
    lock = Lock()
    unpicklable = V.map_batches(lambda series: series.sum() if lock else None)
    assert asks_for_order([unpicklable])
    assert not is_settled(unpicklable)
