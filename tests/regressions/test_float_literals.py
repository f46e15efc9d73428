"""NaN and the infinities are numbers like others in expressions."""

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import unistream as us

NAN, INF = float("nan"), float("inf")
FRAME = pl.DataFrame(
    {
        "f": [1.5, NAN, None, INF, -INF],
        "g": pl.Series([1, 2, 3, 4, 5], dtype=pl.Float32),
        "k": [1, 1, 2, 2, 2],
    }
)
F, G = pl.col("f"), pl.col("g")

QUERIES = {
    "equal to NaN": lambda rows: rows.filter(NAN == F),
    "below infinity": lambda rows: rows.filter(F < INF),
    "between both infinities": lambda rows: rows.filter(F.is_between(-INF, INF)),
    "NaN where nothing is": lambda rows: rows.select(F.fill_null(NAN)),
    "the type of the column stays": lambda rows: rows.select(G.clip(-INF, INF)),
    "a column of infinity": lambda rows: rows.with_columns(x=INF, y=pl.lit(NAN, dtype=pl.Float32)),
    "beside a set": lambda rows: rows.filter((F < INF) & pl.col("k").is_in([1, 2])),
    "beside bytes": lambda rows: rows.select(pl.struct("k", b=pl.lit(b"\xff"), x=INF)),
    "a filter that moves to the source": lambda rows: rows.with_columns(z=F).filter(pl.col("z") < INF),
}


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
@pytest.mark.parametrize("whole", [True, False])
def test_literals_that_json_does_not_have_mean_what_they_mean_in_polars(query, whole):
    expected = query(FRAME.lazy()).collect()
    assert_frame_equal(query(us.from_frame(FRAME)).collect(settings=us.Settings(whole_query=whole)), expected)


def test_they_stand_in_aggregates_too():
    found = us.from_frame(FRAME).group_by("k").agg(n=(F < INF).sum(), most=F.fill_null(INF).max()).collect()
    assert sorted(found.rows()) == [(1, 1, 1.5), (2, 1, INF)]
