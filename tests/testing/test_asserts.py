"""Rows compared as multisets; changelogs as the tables they build."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unistream.expressions.schema import CHANGE
from unistream.testing import assert_same_rows, fold

NAN = float("nan")


def log(rows: list[tuple[int, int]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema={"n": pl.Int64, CHANGE: pl.Int8}, orient="row")


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ({"a": [1, 2, 2]}, {"a": [2, 1, 2]}),
        ({"a": [0.1 + 0.2, NAN, -0.0]}, {"a": [NAN, 0.0, 0.3]}),
        ({"a": [None, 1.0]}, {"a": [1.0 + 1e-12, None]}),
        ({"a": [[1.0, 2.0], []]}, {"a": [[], [1.0, 2.0 + 1e-13]]}),
        ({"a": [{"x": 1.0, "y": None}]}, {"a": [{"x": 1.0 + 1e-13, "y": None}]}),
        ({"a": [1e300, 1.0]}, {"a": [1.0, 1e300 * (1 + 1e-12)]}),
    ],
)
def test_the_same_rows(left: dict[str, list[object]], right: dict[str, list[object]]) -> None:
    assert_same_rows(pl.DataFrame(left), pl.DataFrame(right))


@pytest.mark.parametrize(
    ("left", "right", "message"),
    [
        ({"a": [1, 2, 2]}, {"a": [1, 1, 2]}, "only left"),
        ({"a": [1, 2]}, {"a": [1]}, r"only right \(0\)"),
        ({"a": [1.0]}, {"a": [1.001]}, "rows differ"),
        ({"a": [None]}, {"a": [NAN]}, "schemas differ"),
        ({"a": [0.0, None]}, {"a": [0.0, NAN]}, "rows differ"),
        ({"a": [1]}, {"b": [1]}, "schemas differ"),
        ({"a": [True]}, {"a": [1]}, "schemas differ"),
    ],
)
def test_other_rows(left: dict[str, list[object]], right: dict[str, list[object]], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        assert_same_rows(pl.DataFrame(left), pl.DataFrame(right))


def test_order_counts_only_when_asked() -> None:
    left, right = pl.DataFrame({"a": [1, 2]}), pl.DataFrame({"a": [2, 1]})
    assert_same_rows(left, right)
    with pytest.raises(AssertionError, match="row 0 differs"):
        assert_same_rows(left, right, ordered=True)
    with pytest.raises(AssertionError, match="left has 2 rows, right 1"):
        assert_same_rows(left, left.head(1), ordered=True)


def test_a_changelog_is_folded() -> None:
    assert fold(log([(1, 0), (2, 0), (1, 3), (3, 2)])).rows() == [(2,), (3,)]
    assert_same_rows(log([(1, 0), (1, 1), (5, 2)]), pl.DataFrame({"n": [5]}))
    with pytest.raises(AssertionError, match="takes back"):
        fold(log([(1, 3)]))


def test_the_last_row_of_a_key_stands() -> None:
    changes = pl.DataFrame(
        [("a", 1, 0), ("b", 2, 0), ("a", 1, 1), ("a", 3, 2), ("b", 2, 3)],
        schema={"k": pl.String, "n": pl.Int64, CHANGE: pl.Int8},
        orient="row",
    )
    assert fold(changes, ["k"]).rows() == [("a", 3)]


@given(st.lists(st.tuples(st.integers(0, 2), st.booleans())), st.randoms())
def test_folding_counts_like_a_bag(steps: list[tuple[int, bool]], random: object) -> None:
    bag: list[int] = []
    rows: list[tuple[int, int]] = []
    for n, add in steps:
        if add:
            bag.append(n)
            rows.append((n, 0))
        elif n in bag:
            bag.remove(n)
            rows.append((n, 3))
    assert sorted(fold(log(rows))["n"]) == sorted(bag)
