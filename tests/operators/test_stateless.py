"""Chains of stateless steps and unions: the same rows however they are cut, and none unaccounted for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unistream.api.steps import explode, filter, map_batches, select, unnest, with_columns  # noqa: A004
from unistream.elements import Batch
from unistream.errors import DataError
from unistream.expressions.schema import CHANGE, Changes, EventTime, StreamSchema
from unistream.operators.stateless import RowStep
from unistream.operators.stateless_chain import StatelessChain
from unistream.operators.union import UnionSpec
from unistream.testing import OperatorHarness

ROWS = pl.DataFrame(
    {
        "a": [1, 2, None, 4, 5, 5],
        "b": [0.5, None, float("nan"), 2.0, 2.0, -1.0],
        "words": [["x", "y"], [], None, ["z"], ["x"], ["x"]],
        "point": [{"x": n, "y": str(n)} for n in range(6)],
    }
)
SCHEMA = StreamSchema(ROWS.schema)


def step(make: Callable[..., RowStep], *given: Any, schema: StreamSchema = SCHEMA) -> RowStep:
    return make(schema, *given, None)


def harness(*steps: RowStep, schema: StreamSchema = SCHEMA) -> OperatorHarness:
    return OperatorHarness(StatelessChain(steps=steps), schema)


STEPS: dict[str, tuple[RowStep, pl.DataFrame]] = {
    "select": (
        step(select, ["a"], {"twice": pl.col("b") * 2}),
        ROWS.select("a", twice=pl.col("b") * 2),
    ),
    "with_columns": (
        step(with_columns, [pl.col("a") + 1], {"new": pl.lit("x")}),
        ROWS.with_columns(pl.col("a") + 1, new=pl.lit("x")),
    ),
    "filter": (step(filter, [pl.col("a") > 1], {}), ROWS.filter(pl.col("a") > 1)),
    "filter all": (step(filter, [pl.col("a") > 100], {}), ROWS.clear()),
    "explode": (step(explode, ["words"]), ROWS.explode("words")),
    "unnest": (step(unnest, ["point"]), ROWS.unnest("point")),
    "map_batches": (
        step(map_batches, lambda frame: frame.select("a", c=pl.col("a") * 3), None),
        ROWS.select("a", c=pl.col("a") * 3),
    ),
}


@pytest.mark.parametrize("name", STEPS)
def test_each_step_under_every_schedule(name: str) -> None:
    one, expected = STEPS[name]
    harness(one).feeds(ROWS).expects(expected, ordered=True)


def test_a_chain_of_steps_counts_what_it_drops() -> None:
    first = step(filter, [pl.col("a").is_not_null()], {})
    second = step(with_columns, [], {"big": pl.col("a") > 3})
    wide = second.derive(SCHEMA)
    third = step(filter, [pl.col("big")], {}, schema=wide)
    fourth = step(select, ["a"], {}, schema=wide)
    chain = harness(first, second, third, fourth).feeds(ROWS, ROWS.head(2), ROWS.clear(), ROWS.tail(1))
    chain.expects(pl.DataFrame({"a": [4, 5, 5, 5]}), ordered=True)
    for schedule in chain.schedules():
        assert chain.run(schedule).metrics.get("filtered") == 5


def test_an_empty_input_gives_nothing() -> None:
    for one, expected in STEPS.values():
        harness(one).expects(expected.clear())


def test_rows_of_an_upsert_that_no_longer_pass_are_deleted() -> None:
    upsert = StreamSchema(pl.Schema({"k": pl.String, "n": pl.Int64}), changes=Changes.UPSERT, key=("k",))
    log = pl.DataFrame(
        [("a", 1, 0), ("b", 5, 0), ("a", 9, 2), ("b", 2, 2), ("c", 7, 0), ("c", 7, 3)],
        schema=upsert.physical,
        orient="row",
    )
    passing = step(filter, [pl.col("n") > 3], {}, schema=upsert)
    table = pl.DataFrame({"k": ["a"], "n": [9]})
    harness(passing, schema=upsert).feeds(log).expects(table)


def test_a_retraction_passes_as_its_row_does() -> None:
    retract = StreamSchema(pl.Schema({"n": pl.Int64}), changes=Changes.RETRACT)
    log = pl.DataFrame([(1, 0), (5, 0), (5, 1), (6, 2), (1, 3)], schema=retract.physical, orient="row")
    passing = step(filter, [pl.col("n") > 3], {}, schema=retract)
    chosen = step(select, [], {"m": pl.col("n") * 2}, schema=retract)
    harness(passing, chosen, schema=retract).feeds(log).expects(pl.DataFrame({"m": [12]}))


def test_rows_keep_their_split() -> None:
    seen: list[str] = []

    class Out:
        def emit(self, frame: pl.DataFrame, split: str = "") -> None:
            seen.append(split)

    chain = harness(step(filter, [pl.col("a") > 0], {}))
    bench = chain.run(next(iter(chain.schedules())))
    operator = bench._subtasks[0].operator
    operator.process(Batch(ROWS, split="file-7"), Out())  # type: ignore[arg-type]
    assert seen == ["file-7"]


def test_event_time_and_key_follow_their_columns() -> None:
    schema = StreamSchema(
        pl.Schema({"t": pl.Int64, "k": pl.String}),
        event_time=EventTime("t", "s"),
        changes=Changes.UPSERT,
        key=("k",),
    )
    renamed = select(schema, [pl.col("t").alias("time"), pl.col("k")], {}, None).derive(schema)
    assert (renamed.event_time, renamed.key) == (EventTime("time", "s"), ("k",))
    computed = with_columns(schema, [pl.col("t") + 1, pl.col("k") + "!"], {}, None).derive(schema)
    assert (computed.event_time, computed.key) == (None, ())
    assert filter(schema, [pl.col("t") > 1], {}, None).derive(schema).event_time == EventTime("t", "s")


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda frame: 7, "returned int, not a Polars DataFrame"),
        (lambda frame: frame.select(pl.col("a").cast(pl.String)), "does not return what was promised"),
    ],
)
def test_a_function_that_breaks_its_promise_is_named(function: Any, message: str) -> None:
    def made(frame: pl.DataFrame) -> Any:
        return function(frame)

    one = step(map_batches, made, {"a": pl.Int64})
    with pytest.raises(DataError, match=message) as caught:
        harness(one).feeds(ROWS).expects(ROWS)
    assert "made" in caught.value.message


@pytest.mark.parametrize("changes", [Changes.APPEND, Changes.RETRACT])
def test_union_forwards_every_input(changes: Changes) -> None:
    columns = pl.Schema({"n": pl.Int64})
    inputs = (StreamSchema(columns), StreamSchema(columns, changes=changes))
    result = StreamSchema(columns, changes=changes)
    second = pl.DataFrame({"n": [3, 4]})
    if changes is Changes.RETRACT:
        second = second.with_columns(pl.Series(CHANGE, [0, 0], pl.Int8))
    union = OperatorHarness(UnionSpec(result=result), *inputs)
    union.feeds(pl.DataFrame({"n": [1, 2]}), Batch(second, port=1), pl.DataFrame({"n": [3]}))
    union.expects(pl.DataFrame({"n": [1, 2, 3, 3, 4]}))


PREDICATES = st.sampled_from(
    [pl.col("a") > 2, pl.col("a").is_null(), pl.col("b").is_nan(), ~(pl.col("a") == 5), pl.lit(True)]
)
COMPUTED = st.sampled_from(
    [pl.col("a") * 2, (pl.col("b") + pl.col("a")).alias("b"), pl.col("a").fill_null(0).alias("c")]
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.one_of(PREDICATES.map(lambda p: ("filter", p)), COMPUTED.map(lambda e: ("add", e)))))
def test_random_chains_equal_polars(verbs: list[tuple[str, pl.Expr]]) -> None:
    schema, expected, steps = SCHEMA, ROWS, []
    for verb, expr in verbs:
        made = step(filter if verb == "filter" else with_columns, [expr], {}, schema=schema)
        expected = expected.filter(expr) if verb == "filter" else expected.with_columns(expr)
        schema = made.derive(schema)
        steps.append(made)
    if steps:
        harness(*steps).feeds(ROWS).expects(expected, ordered=True)
