"""Answers of engines are compared with the reference: what is wrong is seen."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from benchmarks.compare import check, inputs
from benchmarks.compare.protocol import write_rows
from benchmarks.compare.tables import TABLES

TIME = datetime(2015, 7, 15)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return inputs.prepared(tmp_path_factory.mktemp("input"), 3_000, rate=50)


def read_back(frame: pl.DataFrame, path: Path, like: pl.DataFrame) -> pl.DataFrame:
    write_rows(str(path), frame.columns, frame.iter_rows())
    return check.received(path, like)


@pytest.mark.parametrize("query", ["q0", "q1", "q5", "q11", "q16", "q19", "count", "tumbling"])
def test_the_reference_agrees_with_itself_in_any_order(query: str, folder: Path, tmp_path: Path) -> None:
    expected = check.expected(query, folder)
    got = read_back(expected.sample(fraction=1, shuffle=True, seed=1), tmp_path / "rows", expected)
    assert check.difference(query, got, expected) == ""


@pytest.mark.parametrize("query", ["q0", "q4", "q5", "count", "tumbling"])
def test_a_row_too_few_or_too_many_is_seen(query: str, folder: Path) -> None:
    expected = check.expected(query, folder)
    assert "rows instead of" in check.difference(query, expected.head(-1), expected)
    assert "rows instead of" in check.difference(query, pl.concat([expected, expected.head(1)]), expected)


@pytest.mark.parametrize(
    ("query", "column", "wrong"),
    [
        ("q0", "extra", pl.lit("other")),
        ("q4", "average", pl.col("average") * 1.0001),
        ("q5", "num", pl.col("num") + 1),
        ("q11", "window_end", pl.col("window_end") + timedelta(milliseconds=1)),
        ("q19", "price", pl.col("price") - 1),
        ("count", "n", pl.col("n") + 1),
    ],
)
def test_one_wrong_value_is_seen(query: str, column: str, wrong: pl.Expr, folder: Path) -> None:
    expected = check.expected(query, folder)
    first = pl.int_range(pl.len()) == 0
    got = expected.with_columns(pl.when(first).then(wrong).otherwise(pl.col(column)).alias(column))
    assert check.difference(query, got, expected)


def test_a_column_that_is_missing_is_seen(folder: Path) -> None:
    expected = check.expected("q0", folder)
    assert check.difference("q0", expected.drop("extra"), expected) == "columns are missing: extra"


def test_an_input_without_answers_checks_nothing() -> None:
    empty = pl.DataFrame(schema={"auction": pl.Int64, "price": pl.Int64})
    assert "too small" in check.difference("q2", empty, empty)


def test_windows_of_the_clock_are_added_up() -> None:
    expected = pl.DataFrame({"bidder": [1, 2], "bids": [3, 4]})
    cut = pl.DataFrame({"bidder": [1, 1, 2], "bids": [1, 2, 4], "window": [0, 1, 0]})
    assert check.difference("q12", cut, expected) == ""
    assert check.difference("q12", cut.head(-1), expected)


def test_only_windows_behind_the_watermark_are_closed(folder: Path) -> None:
    answer = check.expected("q5", folder)
    last = inputs.table(folder, "bid")["dateTime"].max()
    assert isinstance(last, datetime)
    closed = check.closed("q5", folder, answer)
    assert 0 < closed.height < answer.height
    assert closed["window_end"].max() <= last - timedelta(seconds=4)  # type: ignore[operator]


def test_both_layouts_hold_the_same_rows(folder: Path) -> None:
    for table in TABLES:
        whole = (folder / "whole" / table / "0.csv").read_text().splitlines()
        lanes = [(folder / "lanes" / table / f"{lane}.csv").read_text().splitlines() for lane in range(2)]
        assert whole
        assert sorted(whole) == sorted(lanes[0] + lanes[1])
        assert abs(len(lanes[0]) - len(lanes[1])) <= 1 + len(whole) // 1000
        assert all("," in line and '"' not in line for line in whole)
