"""Column names that the engine or Polars keeps for itself are refused, not dropped or expanded."""

import polars as pl
import pytest

import unistream as us

ROWS = us.from_frame({"a": [1], "s": [{"__change": 1}]})

WAYS = {
    "select": lambda name: ROWS.select("s", pl.col("a").alias(name)),
    "with_columns": lambda name: ROWS.with_columns(pl.col("a").alias(name)),
    "rename": lambda name: ROWS.rename({"a": name}),
    "a key": lambda name: ROWS.group_by(pl.col("a").alias(name)).agg(n=pl.len()),
    "an aggregate": lambda name: ROWS.group_by("a").agg(pl.len().alias(name)),
    "a source": lambda name: us.scan_iterable([(1,)], schema={name: pl.Int64}),
    "map_batches": lambda name: ROWS.map_batches(lambda f: f.select("a").rename({"a": name})),
}


@pytest.mark.parametrize("name", ["__change", "*", "^a.*$"])
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_reserved_name_is_refused_before_a_row_flows(way, name):
    with pytest.raises(us.InvalidQuery, match="rename"):
        _ = way(name).schema


def test_so_is_a_field_that_becomes_a_column():
    with pytest.raises(us.InvalidQuery, match="__change"):
        _ = ROWS.unnest("s").schema


@pytest.mark.parametrize("name", ["", "a b", "op", "a.b", "^a", "a$", "_", "ü'\"\\"])
def test_any_other_name_is_fine(name):
    stream = us.from_frame({"x": [1, 2]}).rename({"x": name}).filter(pl.lit(True)).with_columns(y=1)
    for whole in (True, False):
        assert stream.select(name).collect(settings=us.Settings(whole_query=whole)).rows() == [(1,), (2,)]
