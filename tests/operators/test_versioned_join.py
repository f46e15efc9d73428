"""join_asof against a look through all versions for every row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import polars as pl
import pytest

from unistream.elements import MIN_TIME, Batch, Watermark
from unistream.errors import InvalidQuery
from unistream.expressions.schema import EventTime, StreamSchema
from unistream.operators.versioned_join import STRATEGIES, VersionedJoin
from unistream.testing.asserts import assert_same_rows
from unistream.testing.bench import OperatorBench
from unistream.testing.harness import OperatorHarness, Schedule

SECOND = 1_000_000
LEFT = StreamSchema(pl.Schema({"t": pl.Int64, "k": pl.String, "a": pl.Int64}), event_time=EventTime("t", "s"))
RIGHT = StreamSchema(
    pl.Schema({"u": pl.Int64, "k": pl.String, "b": pl.Int64}), event_time=EventTime("u", "s")
)
TOLERANCES = [None, 0, 3, 20]


def spec(strategy: str, tolerance: int | None) -> VersionedJoin:
    micros = None if tolerance is None else tolerance * SECOND
    return VersionedJoin(by=("k",), strategy=strategy, tolerance=micros)  # type: ignore[arg-type]


def random_script(seed: int, count: int = 25) -> list[Any]:
    """Batches of both sides in disorder; right rows of one time come in a known order."""
    rng = np.random.default_rng(seed)
    script: list[Any] = []
    at, mark = int(rng.integers(-30, 30)), MIN_TIME
    for number in range(count):
        port = int(rng.integers(0, 2))
        size = int(rng.integers(1, 5))
        at += int(rng.integers(0, 6))
        times = (at - rng.integers(0, 9, size)).tolist()
        keys = rng.choice(["x", "y", "z", None], size, p=[0.5, 0.3, 0.1, 0.1]).tolist()
        values = [10 * number + row for row in range(size)]
        script.append(Batch(pl.DataFrame([times, keys, values], schema=(LEFT, RIGHT)[port].columns), port))
        if rng.random() < 0.5 and (at - 5) * SECOND > mark:
            mark = (at - 5) * SECOND
            script.append(Watermark(mark))
    return script


def in_time(script: Sequence[Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]], int]:
    """The rows of each side that come before the watermark has passed them, and how many do not."""
    rows: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
    mark, late = MIN_TIME, 0
    for event in script:
        if isinstance(event, Watermark):
            mark = event.time
            continue
        for row in event.frame.rows(named=True):
            passed = row["tu"[event.port]] * SECOND < mark
            late += passed
            if not passed:
                rows[event.port].append(row)
    return *rows, late


def version(
    row: dict[str, Any], versions: Sequence[dict[str, Any]], strategy: str, far: float
) -> dict[str, Any]:
    """The version of one row, by looking at all of them; later ones in the list win over equals."""
    best: tuple[float, bool, dict[str, Any]] | None = None
    for one in versions:
        apart = row["t"] - one["u"]
        if row["k"] is None or one["k"] != row["k"] or abs(apart) > far:
            continue
        if (strategy == "backward" and apart < 0) or (strategy == "forward" and apart > 0):
            continue
        rank = (abs(apart), apart < 0)
        if best is None or rank <= best[:2]:
            best = (*rank, one)
    return {"u": None, "b": None} if best is None else {name: best[2][name] for name in ("u", "b")}


def reference(script: Sequence[Any], strategy: str, tolerance: int | None) -> pl.DataFrame:
    lefts, rights, _ = in_time(script)
    far = float("inf") if tolerance is None else tolerance
    rows = [row | version(row, rights, strategy, far) for row in lefts]
    return pl.DataFrame(rows, schema={**LEFT.columns, "u": pl.Int64, "b": pl.Int64})


def check(script: Sequence[Any], strategy: str, tolerance: int | None, schedule: Schedule) -> None:
    join = spec(strategy, tolerance)
    bench = OperatorHarness(join, LEFT, RIGHT).feeds(*script).run(schedule)
    got = pl.concat([join.schema([LEFT, RIGHT]).empty(), *bench.frames.get("", [])])
    assert_same_rows(got, reference(script, strategy, tolerance))
    late = sum(frame.height for frame in bench.frames.get("late", []))
    assert late == bench.metrics.get("late") == in_time(script)[2]


def cases(seeds: range) -> Iterator[tuple[int, str, int | None, Schedule]]:
    for seed in seeds:
        schedule = Schedule(cuts=seed, restores=seed % 4 == 0, subtasks=1 + 2 * (seed % 5 == 0))
        yield seed, STRATEGIES[seed % 3], TOLERANCES[seed // 3 % 4], schedule


def test_random_scripts_equal_a_look_through_all_versions() -> None:
    for seed, strategy, tolerance, schedule in cases(range(90)):
        check(random_script(seed), strategy, tolerance, schedule)


@pytest.mark.nightly
def test_many_random_scripts_equal_a_look_through_all_versions() -> None:
    for seed, strategy, tolerance, schedule in cases(range(90, 20_000)):
        check(random_script(seed, 40), strategy, tolerance, schedule)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_schedule_gives_the_same_rows(strategy: str) -> None:
    script = [event for event in random_script(3, 12) if isinstance(event, Batch)]
    harness = OperatorHarness(spec(strategy, 4), LEFT, RIGHT)
    harness.feeds(*script).expects(reference(script, strategy, 4))


def test_only_versions_that_can_still_count_are_kept() -> None:
    for tolerance, most in ((None, 4), (5, 4)):
        with OperatorBench(spec("backward", tolerance), [LEFT, RIGHT]) as bench:
            for second in range(100):
                bench.process(Batch(pl.DataFrame({"u": [second], "k": ["x"], "b": [1]}), 1))
                bench.process(Batch(pl.DataFrame({"t": [second], "k": ["x"], "a": [1]}), 0))
                bench.advance_watermark(second * SECOND)
                assert bench.metrics.get("rows_kept") <= most
    with OperatorBench(spec("backward", 5), [LEFT, RIGHT]) as bench:
        for second in range(100):
            bench.process(Batch(pl.DataFrame({"u": [second], "k": [f"key {second}"], "b": [1]}), 1))
            bench.advance_watermark(second * SECOND)
            assert bench.metrics.get("rows_kept") <= 10
    with OperatorBench(spec("nearest", 3), [LEFT, RIGHT]) as bench:
        for second in range(100):
            bench.process(Batch(pl.DataFrame({"u": [second], "k": ["x"], "b": [1]}), 1))
            bench.process(Batch(pl.DataFrame({"t": [second], "k": ["x"], "a": [1]}), 0))
            bench.advance_watermark(second * SECOND)
            assert bench.metrics.get("rows_kept") <= 16


def test_waiting_for_a_later_version_needs_a_tolerance_where_there_is_no_end() -> None:
    import dataclasses

    endless = dataclasses.replace(LEFT, bounded=False)
    with pytest.raises(InvalidQuery, match="would have rows wait for ever"):
        spec("forward", None).schema([endless, RIGHT])
    assert spec("forward", 3).schema([endless, RIGHT]).bounded is False
    assert spec("backward", None).schema([endless, RIGHT]).bounded is False


@pytest.mark.parametrize("dtype", [pl.List(pl.Int64), pl.Array(pl.Int64, 2), pl.Struct({"a": pl.Int64})])
def test_versions_have_plain_keys(dtype: pl.DataType) -> None:
    import dataclasses

    left, right = (
        dataclasses.replace(side, columns=pl.Schema({**side.columns, "k": dtype})) for side in (LEFT, RIGHT)
    )
    with pytest.raises(InvalidQuery, match="join_asof cannot go by 'k'") as caught:
        spec("backward", None).schema([left, right])
    assert caught.value.hint
