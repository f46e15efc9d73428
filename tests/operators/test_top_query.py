"""Tops and rows without duplicates as one Polars query: what ticks give, and a sorted list per key."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import polars as pl
import pytest

import unistream as us
from unistream.clock import Random
from unistream.expressions.schema import CHANGE
from unistream.operators.deduplicate import Unique
from unistream.operators.top_k import TopK
from unistream.testing import assert_same_rows, verify

COLUMNS = pl.Schema(
    {"k": pl.String, "f": pl.Float64, "i": pl.Int64, "s": pl.String, "d": pl.Date, "id": pl.Int64}
)
TICKS = us.Settings(whole_query=False, tick_rows=7)
ONE_QUERY = "one Polars streaming query"

ORDERS: list[tuple[list[str], list[bool]]] = [
    (["i"], [False]),
    (["i"], [True]),
    (["f"], [False]),
    (["f"], [True]),
    (["s", "f"], [False, True]),
    (["d", "i", "s"], [True, False, False]),
    (["k", "i"], [True, True]),
]
KEYS = [("k",), ("f",), ("k", "d")]


def random_rows(seed: int, count: int) -> pl.DataFrame:
    random = Random(seed)
    rows = [
        (
            random.choice(["a", "b", "c", None]),
            random.choice([0.5, -0.0, 0.0, -3.0, math.inf, math.nan, None]),
            random.choice([1, 2, 2, -7, None]),
            random.choice(["x", "y", "", None]),
            random.choice([date(2026, 1, 1), date(2026, 1, 2), None]),
            at,
        )
        for at in range(count)
    ]
    return pl.DataFrame(rows, schema=COLUMNS, orient="row")


def as_one_query(stream: us.Stream) -> pl.DataFrame:
    assert ONE_QUERY in stream.explain()
    return stream.collect()


def assert_as_ticks(stream: us.Stream, key: Sequence[str] = ()) -> pl.DataFrame:
    """The rows of the one query, which are those of ticks."""
    got = as_one_query(stream)
    assert_same_rows(got, stream.collect(settings=TICKS))
    assert dict(got.schema) == dict(stream.schema)
    assert got.columns == stream.columns
    return got


def place(value: Any, least: bool) -> tuple[bool, float, Any]:
    """Nulls are last either way, and NaN is greater than any number."""
    if value is None:
        return True, 0, 0
    if isinstance(value, float) and math.isnan(value):
        return False, -1 if not least else 1, 0
    sign = 1 if least else -1
    if isinstance(value, str):  # of one letter at most
        value = ord(value or "\0")
    return False, 0, sign * (value.toordinal() if isinstance(value, date) else value)


def reference(
    frame: pl.DataFrame, keys: Sequence[str], n: int, order: tuple[list[str], list[bool]]
) -> pl.DataFrame:
    """Row by row into a list per key."""
    tops: dict[str, list[dict[str, Any]]] = {}
    for row in frame.to_dicts():
        tops.setdefault(str([0.0 if row[key] == 0 else row[key] for key in keys]), []).append(row)

    def places(row: dict[str, Any]) -> Any:
        return [place(row[name], least) for name, least in zip(*order, strict=True)]

    best = [row for found in tops.values() for row in sorted(found, key=places)[:n]]
    return pl.DataFrame(best, schema=frame.schema)


@pytest.mark.parametrize("keys", KEYS, ids=", ".join)
@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_tops(order: tuple[list[str], list[bool]], keys: tuple[str, ...]) -> None:
    for seed in range(6):
        frame = random_rows(seed, seed * 12)
        n = 1 + seed % 3
        by, least = order
        stream = us.from_frame(frame).group_by(*keys).top_k(n, by=by, reverse=least)
        assert_same_rows(assert_as_ticks(stream), reference(frame, keys, n, order))


def large(keys: int, seed: int = 0, rows: int = 400_000) -> pl.DataFrame:
    """More rows than the engine takes at once, most of them equal in what they are ordered by."""
    random = np.random.default_rng(seed)
    return pl.DataFrame(
        {
            "k": random.integers(0, keys, rows),
            "v": random.integers(0, 3, rows),
            "f": random.choice([0.0, 1.0, math.nan], rows),
            "id": np.arange(rows),
        }
    ).with_columns(pl.when(pl.col("id") % 5 != 0).then("v").alias("v"))


@pytest.mark.parametrize("keys", [5, 3_000, 200_000])
def test_among_equals_those_that_came_first_also_of_many(keys: int) -> None:
    for seed, (by, least) in enumerate([(["v"], [False]), (["f", "v"], [True, False])]):
        frame = large(keys, seed)
        got = as_one_query(us.from_frame(frame).group_by("k").top_k(3, by=by, reverse=least))
        descending = [not flag for flag in least]
        ordered = frame.sort(by, descending=descending, nulls_last=True, maintain_order=True)
        expected = ordered.group_by("k", maintain_order=True).head(3)
        assert got.sort("k", "id").equals(expected.select(got.columns).sort("k", "id"))


def test_behind_filters_and_new_columns_order_is_kept() -> None:
    frame = large(500)
    rows = us.from_frame(frame).filter(pl.col("id") % 7 != 0).with_columns(w=pl.col("id") * 2)
    got = as_one_query(rows.group_by("k").top_k(2, by="v"))
    ordered = frame.filter(pl.col("id") % 7 != 0).sort(
        "v", descending=True, nulls_last=True, maintain_order=True
    )
    expected = ordered.group_by("k", maintain_order=True).head(2).with_columns(w=pl.col("id") * 2)
    assert got.sort("id").equals(expected.select(got.columns).sort("id"))


def test_columns_of_all_types_come_through() -> None:
    stamp = datetime(2026, 1, 1, 12)
    frame = pl.DataFrame(
        {
            "k": [1, 1, 2, None],
            "list": [[1], [], None, [None]],
            "struct": [{"a": 1, "b": ["x"]}, {"a": None, "b": None}, None, {"a": 2, "b": []}],
            "array": pl.Series([[1, 2], [3, 4], None, [5, None]], dtype=pl.Array(pl.Int8, 2)),
            "category": pl.Series(["z", "a", None, "m"], dtype=pl.Categorical()),
            "enum": pl.Series(["z", "a", None, "z"], dtype=pl.Enum(["z", "a"])),
            "decimal": pl.Series(
                [Decimal("1.25"), None, Decimal("-2"), Decimal("3")], dtype=pl.Decimal(9, 2)
            ),
            "bytes": [b"a", b"", None, b"b"],
            "moment": pl.Series([stamp, None, stamp, stamp], dtype=pl.Datetime("ns", "Europe/Berlin")),
            "span": [timedelta(1), None, timedelta(2), timedelta(3)],
            "time": [stamp.time(), None, stamp.time(), stamp.time()],
            "flag": [True, False, None, True],
            "nothing": pl.Series([None] * 4, dtype=pl.Null),
        }
    )
    rows = us.from_frame(frame)
    for name in ("category", "enum", "decimal", "bytes", "moment", "span", "time", "flag", "struct", "list"):
        for reverse in (False, True):
            assert_as_ticks(rows.group_by("k").top_k(1, by=name, reverse=reverse))
    assert_as_ticks(rows.unique("k", keep="last"))


def test_keys_alone() -> None:
    rows = us.from_frame({"k": [1, 1, 2, None, 1, None, None]})
    got = assert_as_ticks(rows.group_by("k").top_k(2, by="k"))
    assert got["k"].sort().to_list() == [None, None, 1, 1, 2]


def test_ordered_by_what_is_computed() -> None:
    rows = us.from_frame(random_rows(3, 50)).group_by("k")
    assert_as_ticks(rows.top_k(3, by=[pl.col("i") % 4, pl.col("id") * -1], reverse=[True, False]))
    assert_as_ticks(rows.top_k(3, by=pl.lit(1)))


def test_no_rows() -> None:
    empty = us.from_frame(random_rows(0, 0))
    assert assert_as_ticks(empty.group_by("k").top_k(2, by="i")).is_empty()
    assert assert_as_ticks(empty.unique("k", keep="last")).is_empty()


def test_tops_of_a_table_that_updates() -> None:
    frame = large(20, rows=300).with_columns(g=pl.col("k") % 3)
    sums = us.from_frame(frame).group_by("g", "k").agg(total=(pl.col("id") ** 2).sum())
    got = assert_as_ticks(
        sums.group_by("g").top_k(4, by="total").group_by(one=1 + pl.lit(1)).top_k(2, by="total")
    )
    assert got["total"].sort().to_list() == sums.collect()["total"].top_k(2).sort().to_list()


def test_verified() -> None:
    rows = us.from_frame(random_rows(1, 20))
    verify(rows.group_by("k").top_k(2, by="id"), seeds=4)
    verify(rows.group_by("k").top_k(2, by="i"), seeds=4, shuffled=False)
    verify(rows.unique(["k", "d"], keep="last"), seeds=4, shuffled=False)


@pytest.mark.parametrize("keep", ["first", "last"])
@pytest.mark.parametrize("subset", KEYS, ids=", ".join)
def test_one_row_for_each_key(subset: tuple[str, ...], keep: Any) -> None:
    for seed in range(6):
        frame = random_rows(seed, seed * 12)
        got = assert_as_ticks(us.from_frame(frame).unique(subset, keep=keep))
        assert_same_rows(got, frame.unique(subset, keep=keep))


@pytest.mark.parametrize("keys", [5, 3_000, 200_000])
def test_the_last_row_of_many(keys: int) -> None:
    frame = large(keys)
    got = as_one_query(us.from_frame(frame).filter(pl.col("id") % 7 != 0).unique("k", keep="last"))
    last = frame.filter(pl.col("id") % 7 != 0).group_by("k").agg(pl.col("id").max())
    assert got.sort("id").equals(frame.join(last, on=["k", "id"], how="semi").sort("id"))


def test_which_row_it_is_counts_only_where_rows_have_an_order() -> None:
    rows = us.from_frame(random_rows(2, 30))
    both = rows.union(us.from_frame(random_rows(4, 30)))
    for keep in ("first", "last"):
        assert ONE_QUERY not in both.unique("k", keep=keep).explain()  # type: ignore[arg-type]
        assert_as_ticks(both.unique(keep=keep))  # type: ignore[arg-type]
    assert_as_ticks(both.group_by("k").top_k(3, by=["i", "s", "f", "d", "id"]))
    # What is left of an updating table stands in no order: a first row behind it is found by ticks.
    assert ONE_QUERY in rows.unique("k", keep="first").unique("i").explain()
    assert ONE_QUERY not in rows.unique("k", keep="last").group_by("i").agg(pl.col("s").first()).explain()


def test_which_specs_ask_for_order() -> None:
    assert Unique(subset=("k",)).by_order
    assert Unique(subset=("k",)).keeps_order
    assert not Unique(subset=("k",), keep="last").keeps_order
    assert not Unique(subset=("k",), whole=True).by_order
    assert not TopK(by=("k",), n=1, order=(pl.col("v"),), reverse=(False,)).by_order


def test_the_fold_of_a_result_leaves_rows_as_they_are() -> None:
    rows = us.from_frame({"k": [1, 1, 1, 2], "v": [5, 5, 4, 1]})
    assert sorted(rows.group_by("k").top_k(2, by="v").collect().rows()) == [(1, 5), (1, 5), (2, 1)]
    assert CHANGE not in rows.unique("k", keep="last").collect().columns
