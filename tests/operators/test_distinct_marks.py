"""Running counts of distinct values, against Polars over all rows up to each tick."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import polars as pl
import pytest

import unistream as us
from unistream.clock import Random
from unistream.elements import Batch
from unistream.expressions.aggregates import Decomposition, decompose
from unistream.expressions.analysis import expand
from unistream.expressions.schema import StreamSchema
from unistream.operators.distinct_marks import DistinctMarks
from unistream.operators.running_aggregate import RunningAggregate
from unistream.state.hot_table import HotTable
from unistream.state.store import TableStore
from unistream.testing import verify
from unistream.testing.asserts import assert_same_rows
from unistream.testing.bench import OperatorBench

Replay = Callable[..., dict[str, pl.DataFrame]]

VALUES: dict[str, tuple[pl.DataType, Sequence[Any]]] = {
    "small": (pl.Int64(), [0, 1, 2, 3, None]),
    "large": (pl.Int64(), [0, -1, 2**31 - 1, 2**31, 2**32, 2**63 - 1, -(2**63), None]),
    "narrow": (pl.Int8(), [-128, -1, 0, 127, None]),
    "unsigned": (pl.UInt64(), [0, 1, 2**63, 2**64 - 1, None]),
    "wide": (pl.Int128(), [0, 2**100, -(2**100), None]),
    "float": (pl.Float64(), [0.0, -0.0, 1.5, math.nan, math.inf, None]),
    "text": (pl.String(), ["", "a", "ä", "a longer text than fits", None]),
    "boolean": (pl.Boolean(), [True, False, None]),
    "date": (pl.Date(), [date(2026, 1, 1), date(1900, 1, 1), None]),
    "moment": (pl.Datetime("us"), [datetime(2026, 1, 1), datetime(1960, 1, 1), None]),
    "decimal": (pl.Decimal(20, 2), [Decimal("1.50"), Decimal("-2.25"), None]),
    "list": (pl.List(pl.Int64), [[1], [1, 2], [], None]),
    "struct": (pl.Struct({"a": pl.Int64}), [{"a": 1}, {"a": None}, {"a": 2}]),
    "category": (pl.Enum(["x", "y"]), ["x", "y", None]),
    "nothing": (pl.Null(), [None]),
}
KEYS: dict[str, tuple[pl.DataType, Sequence[Any]]] = {
    "number": (pl.Int64(), [1, -5, 2**40, None]),
    "text": (pl.String(), ["a", "b", None]),
    "float": (pl.Float64(), [0.0, -0.0, math.nan, None]),
}


def rows_of(
    random: Random, count: int, dtype: pl.DataType, values: Sequence[Any], key: str = "number"
) -> pl.DataFrame:
    kind, keys = KEYS[key]
    return pl.DataFrame(
        {
            "k": pl.Series([random.choice(keys) for _ in range(count)], dtype=kind),
            "v": pl.Series([random.choice(values) for _ in range(count)], dtype=dtype),
            "p": pl.Series([random.choice([True, False, None]) for _ in range(count)], dtype=pl.Boolean),
        }
    )


def running(aggregates: dict[str, pl.Expr], schema: StreamSchema) -> RunningAggregate:
    exprs = expand([], aggregates, schema.columns, "agg", None, ["k"])
    return RunningAggregate(by=("k",), exprs=tuple(exprs))


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("kind", VALUES)
def test_after_each_tick_it_is_what_polars_counts(kind: str, key: str) -> None:
    v = pl.col("v")
    aggregates = {"all": v.n_unique(), "some": v.filter("p").n_unique(), "known": v.drop_nulls().n_unique()}
    rows = rows_of(Random(7), 200, *VALUES[kind], key)
    schema = StreamSchema(rows.schema)
    ends = [1, 20, 21, 100, 200]
    with OperatorBench(running(aggregates, schema), [schema]) as bench:
        for start, end in zip([0, *ends], ends, strict=False):
            bench.process(Batch(rows[start:end]))
            expected = rows[:end].group_by("k").agg(**aggregates)
            assert_same_rows(pl.concat(bench.frames[""]), expected, key=("k",))


@pytest.mark.parametrize("kind", ["small", "large", "float", "text", "list"])
def test_it_goes_on_after_restores(kind: str, replay: Replay) -> None:
    aggregates = {"all": pl.col("v").n_unique(), "some": pl.col("v").filter("p").n_unique(), "n": pl.len()}
    for seed in range(5):
        rows = rows_of(Random(seed), 60, *VALUES[kind])
        schema = StreamSchema(rows.schema)
        found = replay(running(aggregates, schema), [schema], [Batch(rows)], seed)[""]
        assert_same_rows(found, rows.group_by("k").agg(**aggregates), key=("k",))


def test_batch_stream_and_crashes_agree() -> None:
    rows = us.from_frame(rows_of(Random(3), 60, *VALUES["large"]))
    verify(rows.group_by("k").agg(kinds=pl.col("v").n_unique(), most=pl.col("v").max()), seeds=5)


def test_more_filters_than_there_are_bits_beside_the_values() -> None:
    v = pl.col("v")
    rows = pl.DataFrame(
        {"k": [n % 300 for n in range(2_000)], "v": [n * n % 1_013 + 2**40 for n in range(2_000)]}
    )
    aggregates = {f"of {n}": v.filter(v % n == 0).n_unique() for n in range(1, 70)}
    result = us.from_frame(rows).group_by("k").agg(**aggregates)
    settings = us.Settings(tick_rows=150, whole_query=False)
    expected = rows.group_by("k").agg(**aggregates)
    assert_same_rows(result.collect(settings=settings), expected, key=("k",))


def test_counts_of_expressions_and_what_is_made_of_them() -> None:
    rows = rows_of(Random(4), 500, *VALUES["small"])
    v = pl.col("v")
    aggregates = {
        "halves": (v // 2).n_unique(),
        "part": v.n_unique() / pl.len(),
        "others": v.filter(pl.col("p").is_null() & (v > 0)).n_unique() + 1,
        "none": v.filter(v > 100).n_unique(),
    }
    found = us.from_frame(rows).group_by("k").agg(**aggregates)
    settings = us.Settings(tick_rows=60, whole_query=False)
    assert_same_rows(found.collect(settings=settings), rows.group_by("k").agg(**aggregates), key=("k",))


def test_explain_names_the_values_that_are_kept() -> None:
    rows = us.from_frame({"k": [1], "v": [1]}).group_by("k")
    text = rows.agg(
        pl.len(), kinds=pl.col("v").n_unique(), some=pl.col("v").filter(pl.col("v") > 1).n_unique()
    )
    assert '3 running values per key, and the different values of col("v")' in text.explain()


def test_what_a_tick_writes_is_what_it_brings() -> None:
    rows = pl.DataFrame({"k": ["a"] * 1_000 + ["b"] * 1_000, "v": [*range(1_000)] * 2, "p": [True] * 2_000})
    store = TableStore("operator")
    marks = DistinctMarks(store, pl.Schema({"k": pl.String}), _counted(rows))
    assert marks.marked(rows).select(pl.col("^__s.*$").sum()).row(0) == (2_000, 2_000)
    pairs, values, groups = (_table(store, name) for name in ("pairs", "values", "numbers"))
    assert (len(pairs), len(values), len(groups)) == (2_000, 0, 2)
    pairs.mark_stored(pairs.rows())
    again = pl.concat([rows, pl.DataFrame({"k": ["b"], "v": [-1], "p": [False]})])
    assert marks.marked(again).select(pl.col("^__s.*$").sum()).row(0) == (1, 0)
    assert (pairs.changed, len(values)) == (1, 1), "what was there is written again"


def test_values_that_no_filter_lets_pass_are_not_kept() -> None:
    rows = pl.DataFrame({"k": ["a"] * 4, "v": [-1, -2, -3, -4], "p": [True, None, False, False]})
    store = TableStore("operator")
    marks = DistinctMarks(store, pl.Schema({"k": pl.String}), _counted(rows)[1:])
    assert marks.marked(rows).select(pl.col("^__s.*$").sum()).row(0) == (1,)
    assert marks.marked(rows[1:]).select(pl.col("^__s.*$").sum()).row(0) == (0,)
    assert (len(_table(store, "pairs")), len(_table(store, "values"))) == (1, 1)


def _counted(rows: pl.DataFrame) -> Sequence[Any]:
    exprs = [pl.col("v").n_unique().alias("all"), pl.col("v").filter(pl.col("p")).n_unique().alias("some")]
    found = decompose(exprs, rows.schema, ["k"], marked=True)
    assert isinstance(found, Decomposition)
    return found.distinct


def _table(store: TableStore, name: str) -> HotTable:
    found = [record for full, record in store.records.items() if full.startswith(name)]
    assert len(found) == 1
    return found[0].table  # type: ignore[attr-defined, no-any-return]
