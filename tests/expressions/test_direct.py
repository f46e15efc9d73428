"""Expressions without a query give what a query gives, to the type and the last bit."""

from __future__ import annotations

from datetime import date, datetime

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_series_equal

from unistream.expressions.direct import direct

SCHEMA = pl.Schema(
    {
        "i": pl.Int64,
        "j": pl.Int64,
        "f": pl.Float64,
        "g": pl.Float64,
        "s": pl.String,
        "b": pl.Boolean,
        "c": pl.Boolean,
        "t": pl.Datetime("us"),
        "u": pl.Datetime("us"),
        "n": pl.Int32,
    }
)
WHOLE = st.one_of(st.integers(-5, 5), st.sampled_from([2**63 - 1, -(2**63), 2**53 + 1, -(2**53) - 1]))
FLOATS = st.one_of(
    st.integers(-3, 3).map(float), st.sampled_from([0.5, -0.0, float("nan"), float("inf"), -1e308, 5e-324])
)
TEXTS = st.sampled_from(["", "a", "b", "ab", "ä", "a longer text than fits into a view"])
TIMES = st.sampled_from([datetime(2026, 1, 1), datetime(1969, 1, 1), datetime(2026, 1, 1, 0, 0, 0, 1)])
VALUES = {
    **dict.fromkeys("ij", WHOLE),
    **dict.fromkeys("fg", FLOATS),
    "s": TEXTS,
    **dict.fromkeys("bc", st.booleans()),
    **dict.fromkeys("tu", TIMES),
    "n": st.integers(-3, 3),
}
COMPARE = ["__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__"]
CALCULATE = ["__add__", "__sub__", "__mul__", "__mod__"]


@st.composite
def numbers(draw: st.DrawFn, depth: int = 2) -> pl.Expr:
    if depth == 0 or draw(st.booleans()):
        return pl.col(draw(st.sampled_from("ijfgn")))
    left = draw(numbers(depth - 1))
    right = draw(st.one_of(numbers(depth - 1), WHOLE, FLOATS))
    op = draw(st.sampled_from([*CALCULATE, "__radd__", "__rmul__"]))
    return getattr(left, op)(right)


@st.composite
def conditions(draw: st.DrawFn, depth: int = 2) -> pl.Expr:
    if depth and draw(st.booleans()):
        left, right = draw(conditions(depth - 1)), draw(conditions(depth - 1))
        return left & right if draw(st.booleans()) else left | right
    op = draw(st.sampled_from(COMPARE))
    match draw(st.integers(0, 4)):
        case 0:
            return getattr(draw(numbers()), op)(draw(st.one_of(numbers(), WHOLE, FLOATS)))
        case 1:
            return getattr(pl.col("s"), op)(draw(TEXTS))
        case 2:
            return pl.col("s").is_in(draw(st.lists(TEXTS, max_size=10)))
        case 3:
            return getattr(pl.col("t"), op)(pl.col("u"))
        case _:
            return pl.col(draw(st.sampled_from("bc")))


@st.composite
def frames(draw: st.DrawFn) -> pl.DataFrame:
    height = draw(st.integers(0, 6))
    columns = {
        name: draw(st.lists(st.one_of(st.none(), values), min_size=height, max_size=height))
        for name, values in VALUES.items()
    }
    return pl.DataFrame(columns, schema=SCHEMA)


@settings(max_examples=500, deadline=None)
@given(st.one_of(numbers(), conditions()), frames())
def test_the_same_as_a_query(expr: pl.Expr, frame: pl.DataFrame) -> None:
    compute = direct(expr.alias("x"), SCHEMA)
    if compute is None:
        return
    found, wanted = compute(frame), frame.select(x=expr).to_series()
    assert_series_equal(found, wanted, check_exact=True)
    # Bit for bit: the sign of zeros too.
    if wanted.dtype == pl.Float64:
        assert found.reinterpret(signed=True).equals(wanted.reinterpret(signed=True))


@pytest.mark.parametrize(
    "expr",
    [
        pl.col("i") % 100_000,
        pl.col("f") * 1.19,
        0.908 * pl.col("i"),
        pl.col("i") % 123 == 0,
        (0.908 * pl.col("i") > 1_000_000) & (0.908 * pl.col("i") < 50_000_000),
        pl.col("s").is_in(["OR", "ID", "CA"]),
        pl.col("t") <= pl.col("u"),
        pl.col("i") < 5,
        pl.col("b") | (pl.col("s") == "a"),
    ],
)
def test_what_is_common_needs_no_query(expr: pl.Expr) -> None:
    assert direct(expr, SCHEMA) is not None


@pytest.mark.parametrize(
    "expr",
    [
        pl.col("i").sum(),
        pl.col("i") // 2,
        pl.col("i") % 0,
        pl.col("n") + 1,
        pl.col("i") > 1.5,
        pl.col("i") + pl.col("f"),
        pl.col("i") == pl.lit(1, pl.Int8),
        pl.col("s") + "a",
        pl.col("f") > float("nan"),
        pl.col("s").is_in(["a", None]),
        pl.col("s").is_in([]),
        pl.col("t") > datetime(2026, 1, 1),
        pl.col("t").dt.date() == date(2026, 1, 1),
        pl.lit(1) + pl.lit(2),
        pl.lit(5) - pl.col("i"),
        pl.col("missing"),
        pl.col("i", "j"),
        pl.col("i").map_batches(lambda values: values),
    ],
)
def test_what_is_not_known_to_be_the_same_is_left_to_a_query(expr: pl.Expr) -> None:
    assert direct(expr, SCHEMA) is None
