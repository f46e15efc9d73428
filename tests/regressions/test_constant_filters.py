"""A filter that says the same of all rows works on frames of any size."""

import polars as pl
import pytest

import unistream as us

TRUE, FALSE, NEITHER = pl.lit(True), pl.lit(False), pl.lit(None, dtype=pl.Boolean)


@pytest.mark.parametrize("rows", [1, 5, 50_000])
@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize(
    ("predicate", "passes"),
    [(TRUE, True), (FALSE, False), (NEITHER, False), (TRUE & FALSE, False), (pl.lit(2) > 1, True)],
)
@pytest.mark.parametrize("behind", [False, True])
def test_all_rows_or_none(rows, whole, predicate, passes, behind):
    stream = us.from_frame(pl.DataFrame({"a": range(rows)}))
    if behind:
        stream = stream.with_columns(b=pl.col("a") + 1)
    found = stream.filter(predicate).collect(settings=us.Settings(whole_query=whole))
    assert found.height == (rows if passes else 0)
