"""Plans of hundreds of steps, and steps that are read many times, are planned at once."""

import polars as pl

import unistream as us
from unistream.graph import Kind

A = pl.col("a")


def test_a_chain_of_a_thousand_steps_runs():
    stream = us.from_frame({"a": [1, 2]})
    for step in range(1000):
        stream = stream.with_columns(a=A + 1) if step % 2 else stream.filter(A > 0)
    assert stream.collect().rows() == [(501,), (502,)]


def test_a_plan_that_polars_would_take_long_to_optimize_runs_step_by_step():
    stream = us.from_frame({"a": [1, 2]})
    for _ in range(120):
        stream = stream.with_columns(a=A + 1)
    kinds = [vertex.kind for vertex in stream.sink_parquet("unused").graph()]
    assert kinds == [Kind.SOURCE, Kind.OPERATOR, Kind.SINK]


def test_diamonds_do_not_multiply():
    stream = us.from_frame({"a": list(range(16))})
    for _ in range(24):
        stream = stream.filter(A % 2 == 0).union(stream.filter(A % 2 == 1))
    assert stream.collect()["a"].sort().to_list() == list(range(16))
