"""Filters move towards the source as far as they keep their meaning, and into it."""

from __future__ import annotations

import polars as pl
import pytest

import unistream as us
from unistream.io.memory import MemorySink
from unistream.plan.nodes import Scan, Stateless, Write
from unistream.plan.optimizer import optimize
from unistream.plan.tree import Roots, walk

FRAME = pl.DataFrame({"a": [1, 2, 3, None], "b": [4, 5, 6, 7], "l": [[1], [], [2, 3], None]})


def plan(*streams: us.Stream) -> Roots:
    return optimize(tuple(Write(input=stream._node, sink=MemorySink()) for stream in streams))


def pushed(*streams: us.Stream) -> list[str | None]:
    """The filter in each scan of the optimized plan."""
    scans = [node for node in walk(plan(*streams)) if isinstance(node, Scan)]
    return [None if scan.request.predicate is None else str(scan.request.predicate) for scan in scans]


def steps(*streams: us.Stream) -> list[str]:
    """The verbs left in the optimized plan, inputs first."""
    return [node.step.verb for node in walk(plan(*streams)) if isinstance(node, Stateless)]


@pytest.fixture
def rows() -> us.Stream:
    return us.from_frame(FRAME)


ABOVE = pl.col("a") > 1


def test_into_the_scan(rows: us.Stream) -> None:
    stream = rows.filter(ABOVE)
    assert (pushed(stream), steps(stream)) == ([str(ABOVE)], [])
    assert stream.collect().rows() == FRAME.filter(ABOVE).rows()


def test_several_become_one(rows: us.Stream) -> None:
    stream = rows.filter(ABOVE).filter(pl.col("b") < 6)
    assert steps(stream) == []
    assert pushed(stream) == [str(ABOVE & (pl.col("b") < 6))]
    assert stream.collect().rows() == [(2, 5, [])]


def test_one_that_may_fail_stays_behind_the_one_that_guards_it() -> None:
    rows = us.from_frame({"s": ["1", "2", "bad"], "good": [True, True, False]})
    number = pl.col("s").cast(pl.Int64) > 1
    guarded = rows.filter(pl.col("good")).filter(number)
    behind = rows.filter(pl.col("good")).with_columns(z=pl.lit(1)).filter(number)
    alone = rows.filter(pl.col("s").cast(pl.Int64, strict=False) > 1)
    assert pushed(guarded) == pushed(behind) == [str(pl.col("good"))]
    assert len(pushed(alone)) == 1
    for settings in (us.Settings(), us.Settings(whole_query=False)):
        assert guarded.collect(settings=settings)["s"].to_list() == ["2"]
        assert behind.collect(settings=settings)["s"].to_list() == ["2"]


def test_through_columns_that_it_does_not_read(rows: us.Stream) -> None:
    stream = rows.with_columns(c=pl.col("b") * 2).filter(ABOVE)
    assert (pushed(stream), steps(stream)) == ([str(ABOVE)], ["with_columns"])


def test_not_through_a_column_that_it_reads(rows: us.Stream) -> None:
    stream = rows.with_columns(a=pl.col("b") * 2).filter(ABOVE)
    assert (pushed(stream), steps(stream)) == ([None], ["with_columns", "filter"])
    assert stream.collect().height == 4


def test_through_names(rows: us.Stream) -> None:
    stream = rows.rename({"a": "b", "b": "a"}).filter(ABOVE)
    assert pushed(stream) == [str(pl.col("b").alias("a") > 1)]
    assert stream.collect().height == 4


def test_through_a_union_into_every_part(rows: us.Stream) -> None:
    other = us.from_frame(FRAME.clone()).with_columns(a=pl.col("b") + 0)
    stream = rows.union(other).filter(ABOVE)
    assert pushed(stream) == [str(ABOVE), None]
    assert stream.collect().height == 2 + 4


@pytest.mark.parametrize(
    "between",
    [
        lambda s: s.explode("l"),
        lambda s: s.map_batches(lambda frame: frame, schema=s.schema),
    ],
    ids=["explode", "map_batches"],
)
def test_not_through_steps_that_make_rows(rows: us.Stream, between: object) -> None:
    stream = between(rows).filter(ABOVE)  # type: ignore[operator]
    assert pushed(stream) == [None]
    assert steps(stream)[-1] == "filter"


def test_not_into_what_somebody_else_reads(rows: us.Stream) -> None:
    assert pushed(rows.filter(ABOVE), rows) == [None]
    assert pushed(rows.filter(ABOVE), rows.filter(pl.col("b") > 4)) == [None]
    shared = rows.with_columns(c=pl.col("b"))
    assert steps(shared.filter(ABOVE), shared) == ["with_columns", "filter"]


@pytest.mark.parametrize("guard", [pl.col("a") > 0, pl.col("c") > 0], ids=["moves too", "stays"])
def test_a_step_that_two_read_runs_once_whatever_moves_below_it(rows: us.Stream, guard: pl.Expr) -> None:
    below = rows.with_columns(c=pl.col("a") + 1).filter(guard)
    shared = below.with_columns(d=pl.col("a") * 2).named("doubled")
    both = shared.union(shared.filter(ABOVE))
    assert steps(both).count("with_columns") == 2
    for settings in (us.Settings(), us.Settings(whole_query=False)):
        assert sorted(both.collect(settings=settings)["d"]) == [2, 4, 4, 6, 6]


def test_one_that_asks_for_the_type_of_its_column_stays_above_a_new_name(rows: us.Stream) -> None:
    next_one = pl.col("z").map_batches(
        lambda column: column + 1, return_dtype=pl.dtype_of("z"), is_elementwise=True
    )
    stream = rows.rename({"a": "z"}).filter(next_one > 2)
    assert (pushed(stream), steps(stream)) == ([None], ["select", "filter"])
    for settings in (us.Settings(), us.Settings(whole_query=False)):
        assert stream.collect(settings=settings)["z"].to_list() == [2, 3]


def test_not_into_a_source_whose_rejected_rows_are_asked_for(rows: us.Stream) -> None:
    assert pushed(rows.filter(ABOVE), rows.rejected()) == [None]
