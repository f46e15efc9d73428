"""Running tops against a sorted list per key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import polars as pl
import pytest

import unistream as us
from unistream.clock import Random
from unistream.elements import Batch
from unistream.errors import InvalidQuery
from unistream.expressions.schema import CHANGE, Change, Changes, StreamSchema
from unistream.operators.top_k import TopK
from unistream.testing import verify
from unistream.testing.asserts import assert_same_rows
from unistream.testing.harness import OperatorHarness

COLUMNS = pl.Schema({"k": pl.String, "v": pl.Int64, "id": pl.Int64})
APPEND = StreamSchema(COLUMNS)
RETRACT = StreamSchema(COLUMNS, changes=Changes.RETRACT)
TOP = TopK(by=("k",), n=2, order=(pl.col("v"),), reverse=(False,))
LEAST = TopK(by=("k",), n=3, order=(pl.col("v"), pl.col("id")), reverse=(True, False))

Replay = Callable[..., dict[str, pl.DataFrame]]
Seeds = Callable[[int], range]


def reference(rows: list[tuple[Any, ...]], spec: TopK, columns: pl.Schema = COLUMNS) -> pl.DataFrame:
    """Row by row into a sorted list."""

    def place(row: tuple[Any, ...]) -> tuple[tuple[bool, int], ...]:
        values = (row[1], row[2])[: len(spec.order)]
        return tuple(
            (value is None, 0 if value is None else value if least else -value)
            for value, least in zip(values, spec.reverse, strict=True)
        )

    tops: dict[Any, list[tuple[Any, ...]]] = {}
    for row in rows:
        tops.setdefault(row[0], []).append(row)
    best = [row for found in tops.values() for row in sorted(found, key=place)[: spec.n]]
    return pl.DataFrame(best, schema=columns, orient="row")


def random_rows(random: Random, count: int) -> list[tuple[Any, ...]]:
    values = [1, 2, 3, 3, None]
    return [(random.choice(["a", "b", None]), random.choice(values), at) for at in range(count)]


@pytest.mark.parametrize("spec", [TOP, LEAST], ids=["greatest", "least"])
def test_rows_that_are_only_added(replay: Replay, seeds: Seeds, spec: TopK) -> None:
    for seed in seeds(40):
        rows = random_rows(Random(seed), 25)
        frame = pl.DataFrame(rows, schema=COLUMNS, orient="row")
        got = replay(spec, [APPEND], [Batch(frame)], seed)
        assert_same_rows(got[""], reference(rows, spec))


@pytest.mark.parametrize("far", [1, 10**6, 2**60], ids=["near", "far", "too far for one number"])
@pytest.mark.parametrize("spec", [TOP, LEAST], ids=["greatest", "least"])
def test_keys_and_values_that_are_whole_numbers(replay: Replay, seeds: Seeds, spec: TopK, far: int) -> None:
    columns = pl.Schema({**COLUMNS, "k": pl.Int32()})
    for seed in seeds(30):
        random = Random(seed)
        ids = random.sample(range(200), 30)
        rows = [(random.randrange(-2, 2), random.randrange(-3, 3) * far, number) for number in ids]
        frame = pl.DataFrame(rows, schema=columns, orient="row")
        got = replay(spec, [StreamSchema(columns)], [Batch(frame)], seed)
        assert_same_rows(got[""], reference(rows, spec, columns))


def test_the_least_number_has_no_opposite(replay: Replay) -> None:
    columns = pl.Schema({**COLUMNS, "k": pl.Int64()})
    rows = [(1, -(2**63), 0), (1, 5, 1), (1, 2**63 - 1, 2), (1, -5, 3)]
    frame = pl.DataFrame(rows, schema=columns, orient="row")
    got = replay(TOP, [StreamSchema(columns)], [Batch(frame)], 3)
    assert_same_rows(got[""], reference(rows, TOP, columns))


@pytest.mark.parametrize("spec", [TOP, LEAST], ids=["greatest", "least"])
def test_rows_that_go_again(replay: Replay, seeds: Seeds, spec: TopK) -> None:
    for seed in seeds(40):
        random = Random(seed)
        left: list[tuple[Any, ...]] = []
        changes = []
        for row in random_rows(random, 20):
            while left and random.random() < 0.4:
                changes.append((*left.pop(random.randrange(len(left))), Change.DELETE.value))
            left.append(row)
            changes.append((*row, Change.INSERT.value))
        frame = pl.DataFrame(changes, schema=RETRACT.physical, orient="row")
        got = replay(spec, [RETRACT], [Batch(frame)], seed)
        assert_same_rows(got[""], reference(left, spec))


def test_only_changes_of_the_top_are_handed_on(replay: Replay) -> None:
    rows = pl.DataFrame([("a", 5, 0), ("a", 4, 1), ("a", 3, 2)], schema=COLUMNS, orient="row")
    assert replay(TOP, [APPEND], [Batch(rows)], 2)[""].filter(pl.col(CHANGE) != 0).is_empty()


def test_the_harness_agrees() -> None:
    rows = random_rows(Random(7), 15)
    frame = pl.DataFrame(rows, schema=COLUMNS, orient="row")
    OperatorHarness(TOP, APPEND).feeds(frame[:6], frame[6:]).expects(reference(rows, TOP))


def test_behind_a_stream_that_updates() -> None:
    rows = us.from_frame({"k": ["a", "b", "c", "a", "b", "a"], "g": [1, 1, 1, 1, 1, 1]})
    counts = rows.group_by("g", "k").agg(n=pl.len())
    top = counts.group_by("g").top_k(2, by="n")
    assert top.collect().sort("n").rows() == [(1, "b", 2), (1, "a", 3)]
    verify(top, seeds=6)
    assert top.changes().collect()["op"].to_list().count("+I") >= 2


def test_a_top_of_tops() -> None:
    rows = us.from_frame({"k": ["a", "b", "a", "b"], "v": [1, 2, 3, 4]})
    best = rows.group_by("k").top_k(1, by="v").group_by(one=pl.lit(1)).top_k(1, by="v", reverse=True)
    assert best.select("v").collect().to_series().to_list() == [3]


def test_what_it_cannot_order_by() -> None:
    rows = us.from_frame({"k": ["a"], "v": [1]}).group_by("k")
    with pytest.raises(InvalidQuery, match="whole number"):
        rows.top_k(0, by="v")
    with pytest.raises(InvalidQuery, match="'w' not found"):
        rows.top_k(1, by="w")
    with pytest.raises(InvalidQuery, match="orders rows by themselves"):
        rows.top_k(1, by=pl.col("v").sum())
