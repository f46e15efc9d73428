"""Aggregates that a type does not have are refused where they are asked for, in every verb."""

from __future__ import annotations

import polars as pl
import pytest

import unistream as us
from unistream.errors import InvalidQuery
from unistream.expressions.analysis import output_schema

X = pl.col("x")
NAMES = {
    "categorical": pl.Series(["a", "b"], dtype=pl.Categorical),
    "enum": pl.Series(["a", "b"], dtype=pl.Enum(["a", "b"])),
}
TIMES = {
    "date": pl.Series([1, 2]).cast(pl.Int32).cast(pl.Date),
    "time": pl.Series([1, 2]).cast(pl.Time),
    "datetime": pl.Series([1, 2]).cast(pl.Datetime("us", "UTC")),
}
NESTED = {
    "list": pl.Series([[1], [2]]),
    "array": pl.Series([[1], [2]], dtype=pl.Array(pl.Int64, 1)),
    "struct": pl.Series([{"a": 1}, {"a": 2}]),
}
TEXT = {"string": pl.Series(["a", "b"]), "binary": pl.Series([b"a", b"b"])}
ABSENT = [
    *((X.sum(), values) for values in (NAMES | TIMES).values()),
    *((expr, values) for expr in (X.min(), X.max(), X.nan_max()) for values in NESTED.values()),
    *((expr, values) for expr in (X.any(), X.all()) for values in TEXT.values()),
    *((expr, values) for expr in (X.skew(), X.quantile(0.5)) for values in (NAMES | NESTED | TEXT).values()),
    (X.quantile(0.5), pl.Series([True, False])),
    (X.filter(X.is_not_null()).max(), NESTED["list"]),
    (X.first() == X.max(), NESTED["struct"]),
]
PRESENT = [
    *((expr, values) for expr in (X.min(), X.max()) for values in (NAMES | TIMES | TEXT).values()),
    *((X.mean(), values) for values in TIMES.values()),
    *((expr, values) for expr in (X.first(), X.n_unique(), X.arg_max()) for values in NESTED.values()),
    (X.sum(), pl.Series([1, 2]).cast(pl.Duration("us"))),
    (X.sum(), pl.Series([True, False])),
    (X.list.max().max(), NESTED["list"]),
    (X.list.eval(pl.element().max()).first(), NESTED["list"]),
    (X.struct.field("a").sum(), NESTED["struct"]),
    (X.cast(pl.Int64).sum(), TIMES["date"]),
    ((X == "a").any(), TEXT["string"]),
]


def planned(expr: pl.Expr, values: pl.Series) -> pl.Schema:
    schema = pl.Schema({"k": pl.Int64(), "x": values.dtype})
    return output_schema("agg", [expr.alias("found")], schema, where="job.py:3", keys=["k"])


@pytest.mark.parametrize(("expr", "values"), ABSENT)
def test_what_a_type_does_not_have_is_refused(expr: pl.Expr, values: pl.Series) -> None:
    with pytest.raises(InvalidQuery, match="agg cannot work") as caught:
        planned(expr, values)
    assert caught.value.where == "job.py:3"
    assert caught.value.hint
    with pytest.raises((pl.exceptions.PolarsError, pl.exceptions.PanicException)):
        pl.DataFrame({"x": values}).select(expr)


@pytest.mark.parametrize(("expr", "values"), PRESENT)
def test_what_a_type_has_is_not_refused(expr: pl.Expr, values: pl.Series) -> None:
    assert "found" in planned(expr, values)
    assert pl.DataFrame({"x": values}).select(expr).height == 1


def test_every_verb_that_aggregates_refuses_it() -> None:
    rows = us.from_frame({"k": [1, 1], "t": [1, 2], "x": [[1], [2]]}).with_event_time("t", unit="s")
    keyed = rows.group_by("k")
    for grouped in (
        keyed,
        keyed.window(us.tumbling("1m")),
        keyed.window(us.session("1m")),
        keyed.over(rows=2),
    ):
        with pytest.raises(InvalidQuery, match="no max of List"):
            grouped.agg(most=pl.col("x").max())
