"""Random stateless plans: Polars, whole query, ticks, and ticks without the optimizer give the same rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import unistream as us
from unistream.io.frames import FrameSource
from unistream.io.memory import MemorySink
from unistream.plan.lower import lower
from unistream.plan.nodes import Node, Write
from unistream.plan.optimizer import RULES, optimize
from unistream.plan.tree import Roots, walk
from unistream.runtime.local import LocalRuntime
from unistream.runtime.surroundings import Surroundings
from unistream.state.backend import StateStore
from unistream.testing import VirtualClock, assert_same_rows
from unistream.testing.strategies import frames

SCHEMA = pl.Schema({"a": pl.Int64, "b": pl.Int64, "s": pl.String, "l": pl.List(pl.Int64)})


@dataclass(frozen=True)
class Pair:
    """A stream and the same query in plain Polars."""

    stream: us.Stream
    query: pl.LazyFrame

    def both(self, verb: Callable[..., object]) -> Pair:
        stream, query = verb(self.stream), verb(self.query)
        assert isinstance(stream, us.Stream)
        assert isinstance(query, pl.LazyFrame)
        return Pair(stream, query)


def numbers(pair: Pair) -> list[str]:
    return [name for name, dtype in pair.stream.schema.items() if dtype == pl.Int64]


@st.composite
def expressions(draw: st.DrawFn, pair: Pair) -> pl.Expr:
    """An expression over one row that gives an integer."""
    names = numbers(pair)
    if not names:
        return pl.lit(draw(st.integers(0, 3)))
    column = pl.col(draw(st.sampled_from(names)))
    other = pl.col(draw(st.sampled_from(names)))
    return draw(
        st.sampled_from(
            [
                column,
                column + 1,
                column * other,
                column.fill_null(0),
                pl.lit(3),
                pl.col(pair.stream.columns[0]).is_null().cast(pl.Int64),
            ]
        )
    )


@st.composite
def predicates(draw: st.DrawFn, pair: Pair) -> pl.Expr:
    expr = draw(expressions(pair))
    return draw(st.sampled_from([expr > 1, expr == 3, expr.is_null(), expr.is_between(0, 5), ~(expr < 0)]))


@st.composite
def one_verb(draw: st.DrawFn, pair: Pair) -> Pair:
    """The pair with one more verb, the same on both sides."""
    names = pair.stream.columns
    verb = draw(
        st.sampled_from(
            ["select", "with_columns", "filter", "rename", "drop", "explode", "map", "shuffle", "narrow"]
        )
    )
    match verb:
        case "select":
            chosen = draw(st.lists(st.sampled_from(names), min_size=1, unique=True))
            extra = draw(expressions(pair)).alias("new")
            exprs = draw(st.permutations([*chosen, extra] if "new" not in chosen else chosen))
            return pair.both(lambda x: x.select(exprs))
        case "with_columns":
            target = draw(st.sampled_from([*names, "new"]))
            expr = draw(expressions(pair)).alias(target)
            return pair.both(lambda x: x.with_columns(expr))
        case "filter":
            predicate = draw(predicates(pair))
            return pair.both(lambda x: x.filter(predicate))
        case "rename":
            old = draw(st.sampled_from(names))
            mapping = {old: "new"} if "new" not in names else {old: old}
            return pair.both(lambda x: x.rename(mapping))
        case "narrow":
            name = draw(st.sampled_from([n for n in names if n == "new"] or names))
            return pair.both(lambda x: x.select(name))
        case "drop" if len(names) > 1:
            gone = draw(st.sampled_from(names))
            return pair.both(lambda x: x.drop(gone))
        case "explode" if pair.stream.schema.get("l") == pl.List(pl.Int64):
            return pair.both(lambda x: x.explode("l"))
        case "map":
            made = pair.stream.schema
            return Pair(pair.stream.map_batches(lambda frame: frame.clone(), schema=made), pair.query)
    order = draw(st.permutations(names))
    return pair.both(lambda x: x.select(order))


@st.composite
def plans(draw: st.DrawFn) -> list[Pair]:
    """One to three outputs over one or two sources, some steps and unions shared between them."""
    known = []
    for _ in range(draw(st.integers(1, 2))):
        frame = draw(frames(SCHEMA, max_rows=8))
        known.append(Pair(us.from_frame(frame), frame.lazy()))
    for _ in range(draw(st.integers(0, 7))):
        pair = draw(st.sampled_from(known))
        alike = [
            other for other in known if list(other.stream.schema.items()) == list(pair.stream.schema.items())
        ]
        if draw(st.integers(0, 3)) == 0:
            other = draw(st.sampled_from(alike))
            known.append(Pair(pair.stream.union(other.stream), pl.concat([pair.query, other.query])))
        elif draw(st.integers(0, 5)) == 0:
            predicate = draw(predicates(pair))
            parts = pair.stream.split({"yes": predicate}, rest="no")
            known.append(Pair(parts["yes"], pair.query.filter(predicate)))
            known.append(Pair(parts["no"], pair.query.filter(~predicate.fill_null(False))))
        else:
            known.append(draw(one_verb(pair)))
    return draw(st.lists(st.sampled_from(known), min_size=1, max_size=3))


def no_store(operator: str) -> StateStore:
    raise AssertionError(f"{operator} asks for state")


def run(outputs: list[Pair], rewrite: Callable[[Roots], Roots], config: us.Settings) -> list[pl.DataFrame]:
    """The rows of every output under one rewrite of the plan."""
    sinks = [MemorySink() for _ in outputs]
    roots: Roots = tuple(
        Write(input=pair.stream._node, sink=sink) for pair, sink in zip(outputs, sinks, strict=True)
    )
    graph = lower(rewrite(roots), config)
    surroundings = Surroundings(store=no_store, settings=config, clock=VirtualClock(), threads=False)
    runtime = LocalRuntime(graph, surroundings)
    try:
        runtime.open()
        assert runtime.run()
    finally:
        runtime.close()
    return [sink.result() for sink in sinks]


def unchanged(roots: Roots) -> Roots:
    return roots


RELAXED = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


@RELAXED
@given(plans(), st.sampled_from([1, 2, 3, 1000]))
def test_every_way_gives_the_rows_of_polars(outputs: list[Pair], tick_rows: int) -> None:
    expected = [pair.query.collect(engine="in-memory") for pair in outputs]
    ticks = us.Settings(whole_query=False, tick_rows=tick_rows)
    ways = {
        "whole query": run(outputs, optimize, us.Settings()),
        "ticks": run(outputs, optimize, ticks),
        "not optimized": run(outputs, unchanged, ticks),
        "not optimized, whole": run(outputs, unchanged, us.Settings()),
    }
    for name, results in ways.items():
        for frame, result, pair in zip(expected, results, outputs, strict=True):
            assert result.schema == pair.stream.schema, name
            assert_same_rows(frame, result)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_each_rule_alone_changes_no_row(rule: Callable[[Roots], Roots]) -> None:
    @RELAXED
    @given(plans())
    def check(outputs: list[Pair]) -> None:
        ticks = us.Settings(whole_query=False, tick_rows=3)
        for before, after in zip(run(outputs, unchanged, ticks), run(outputs, rule, ticks), strict=True):
            assert_same_rows(before, after)

    check()


@RELAXED
@given(plans())
def test_optimizing_twice_is_optimizing_once_and_leaves_the_plan_alone(outputs: list[Pair]) -> None:
    roots: Roots = tuple(Write(input=pair.stream._node, sink=MemorySink()) for pair in outputs)
    before = [(id(node), type(node), node.schema) for node in walk(roots)]
    once = optimize(roots)
    assert [_shape(node) for node in walk(optimize(once))] == [_shape(node) for node in walk(once)]
    assert [(id(node), type(node), node.schema) for node in walk(roots)] == before
    sources = {id(node.source) for node in walk(once) if hasattr(node, "source")}
    assert sources <= {
        id(node.source) for node in walk(roots) if isinstance(getattr(node, "source", None), FrameSource)
    }


def _shape(node: Node) -> tuple[str, list[str]]:
    return type(node).__name__, node.schema.columns.names()
