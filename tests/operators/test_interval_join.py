"""Joins within an interval against nested loops over all rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import polars as pl
import pytest

from unistream.elements import MIN_TIME, Batch, Watermark
from unistream.errors import InvalidQuery
from unistream.expressions.schema import EventTime, StreamSchema
from unistream.operators import join_buffer, join_matching
from unistream.operators.interval_join import IntervalJoin
from unistream.operators.join_layout import HOWS
from unistream.testing.asserts import assert_same_rows
from unistream.testing.harness import OperatorHarness, Schedule

SECOND = 1_000_000
LEFT = StreamSchema(pl.Schema({"t": pl.Int64, "k": pl.String, "a": pl.Int64}), event_time=EventTime("t", "s"))
RIGHT = StreamSchema(
    pl.Schema({"u": pl.Int64, "k": pl.String, "b": pl.Int64}), event_time=EventTime("u", "s")
)
INTERVALS = [(-3, 2), (0, 0), (1, 4), (-6, -2), (-20, 20)]
ODD_SUM = (pl.col("a") + pl.col("b")) % 2 == 1


def spec(how: str, interval: tuple[int, int], predicate: pl.Expr | None = None) -> IntervalJoin:
    low, high = (bound * SECOND for bound in interval)
    return IntervalJoin(by=("k",), how=how, low=low, high=high, predicate=predicate)  # type: ignore[arg-type]


def random_script(seed: int, count: int = 25) -> list[Any]:
    """Batches of both sides in disorder, with duplicates and nulls; watermarks make some late."""
    rng = np.random.default_rng(seed)
    script: list[Any] = []
    at, mark = int(rng.integers(-30, 30)), MIN_TIME
    for number in range(count):
        port = int(rng.integers(0, 2))
        size = int(rng.integers(1, 5))
        at += int(rng.integers(0, 5))
        times = at - rng.integers(0, 9, size)
        keys = rng.choice(["x", "y", "z", None], size, p=[0.5, 0.3, 0.1, 0.1]).tolist()
        schema = (LEFT, RIGHT)[port].columns
        frame = pl.DataFrame([times.tolist(), keys, list(range(number, number + size))], schema=schema)
        script.append(Batch(frame, port))
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


def fits(left: dict[str, Any], right: dict[str, Any], interval: tuple[int, int], odd: bool) -> bool:
    near = interval[0] <= right["u"] - left["t"] <= interval[1]
    same = left["k"] is not None and left["k"] == right["k"]
    return near and same and (not odd or (left["a"] + right["b"]) % 2 == 1)


def reference(script: Sequence[Any], how: str, interval: tuple[int, int], odd: bool = False) -> pl.DataFrame:
    """Every left row with every right row."""
    lefts, rights, _ = in_time(script)
    pairs = [
        (x, y)
        for x, left in enumerate(lefts)
        for y, right in enumerate(rights)
        if fits(left, right, interval, odd)
    ]
    met = {x for x, _ in pairs}, {y for _, y in pairs}
    if how in ("semi", "anti"):
        kept = [left for x, left in enumerate(lefts) if (x in met[0]) == (how == "semi")]
        return pl.DataFrame(kept, schema=LEFT.columns)
    rows = [lefts[x] | rights[y] | {"join_time": max(lefts[x]["t"], rights[y]["u"])} for x, y in pairs]
    if how in ("left", "full"):
        rows += [row | {"join_time": row["t"]} for x, row in enumerate(lefts) if x not in met[0]]
    if how in ("right", "full"):
        rows += [row | {"join_time": row["u"]} for y, row in enumerate(rights) if y not in met[1]]
    columns = {**LEFT.columns, "u": pl.Int64, "b": pl.Int64, "join_time": pl.Int64}
    return pl.DataFrame(rows, schema=columns)


def check(
    script: Sequence[Any], how: str, interval: tuple[int, int], schedule: Schedule, odd: bool = False
) -> None:
    join = spec(how, interval, ODD_SUM if odd else None)
    harness = OperatorHarness(join, LEFT, RIGHT).feeds(*script)
    bench = harness.run(schedule)
    got = pl.concat([join.schema([LEFT, RIGHT]).empty(), *bench.frames.get("", [])])
    assert_same_rows(got, reference(script, how, interval, odd))
    late = sum(frame.height for frame in bench.frames.get("late", []))
    assert late == bench.metrics.get("late") == in_time(script)[2]


def cases(seeds: range) -> Iterator[tuple[int, str, tuple[int, int], Schedule, bool]]:
    for seed in seeds:
        schedule = Schedule(cuts=seed, restores=seed % 4 == 0, subtasks=1 + 2 * (seed % 3 == 0))
        yield seed, HOWS[seed % 6], INTERVALS[seed // 6 % 5], schedule, seed % 7 == 0


def test_random_scripts_equal_nested_loops() -> None:
    for seed, how, interval, schedule, odd in cases(range(120)):
        check(random_script(seed), how, interval, schedule, odd)


@pytest.mark.nightly
def test_many_random_scripts_equal_nested_loops() -> None:
    for seed, how, interval, schedule, odd in cases(range(120, 20_000)):
        check(random_script(seed, 40), how, interval, schedule, odd)


@pytest.mark.parametrize("how", HOWS)
def test_every_schedule_gives_the_same_rows(how: str) -> None:
    script = [event for event in random_script(3, 12) if isinstance(event, Batch)]
    harness = OperatorHarness(spec(how, (-3, 2)), LEFT, RIGHT)
    harness.feeds(*script).expects(reference(script, how, (-3, 2)))


@pytest.mark.parametrize("how", ["inner", "full", "semi"])
def test_few_pairs_at_a_time_and_narrow_slices(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(join_matching, "MOST_PAIRS", 3)
    monkeypatch.setattr(join_buffer, "MOST_SLICES", 12)
    monkeypatch.setattr(join_buffer, "MOST_MERGED", 4)
    for seed in range(30):
        check(random_script(seed), how, INTERVALS[seed % 5], Schedule(cuts=seed, restores=seed % 10 == 0))


def test_a_key_of_most_rows_is_met_in_pieces() -> None:
    count = 4_000
    rows = pl.DataFrame({"t": np.arange(count), "k": ["hot"] * count, "a": np.arange(count)})
    others = rows.select(u=pl.col("t"), k="k", b="a")
    harness = OperatorHarness(spec("inner", (-600, 600)), LEFT, RIGHT).feeds(Batch(others, 1), Batch(rows, 0))
    frames = harness.run(Schedule()).frames[""]
    expected = sum(min(t + 600, count - 1) - max(t - 600, 0) + 1 for t in range(count))
    assert sum(frame.height for frame in frames) == expected
    assert max(frame.height for frame in frames) <= join_matching.MOST_PAIRS


def test_keys_of_several_columns_and_any_type() -> None:
    columns = {"t": pl.Datetime("ms"), "k": pl.Int32, "day": pl.Date, "x": pl.Float64}
    rng = np.random.default_rng(5)
    frames = [
        pl.DataFrame(
            {
                "t": rng.integers(0, 9_000, 60),
                "k": rng.choice([1, 2, None], 60).tolist(),
                "day": rng.choice([10, 11], 60),
                "x": rng.choice([0.0, -0.0, float("nan"), None], 60).tolist(),
            },
            strict=False,
        ).cast(columns)
        for _ in range(2)
    ]
    right = frames[1].rename({"t": "u"}).with_row_index("n")
    schemas = [
        StreamSchema(frames[0].schema, event_time=EventTime("t")),
        StreamSchema(right.schema, event_time=EventTime("u")),
    ]
    join = IntervalJoin(by=("k", "day", "x"), low=-SECOND, high=SECOND)
    near = (pl.col("u") - pl.col("t")).abs() <= pl.duration(seconds=1)
    pairs = frames[0].join(right, on=["k", "day", "x"]).filter(near)
    expected = pairs.with_columns(join_time=pl.max_horizontal("t", "u"))
    OperatorHarness(join, *schemas).feeds(Batch(frames[0], 0), Batch(right, 1)).expects(
        expected.select(join.schema(schemas).columns.names())
    )


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (pl.Datetime("ns"), pl.Datetime("ms")),
        (pl.Date, pl.Datetime("us", "UTC")),
        (pl.Datetime("us"), pl.Datetime("ns")),
    ],
)
def test_times_of_different_units(left: pl.DataType, right: pl.DataType) -> None:
    days = pl.Series([0, 1, 2]).cast(pl.Date)
    frames = [
        pl.DataFrame({"t": days.cast(left), "k": [1, 1, 1]}),
        pl.DataFrame({"u": days.cast(pl.Datetime("us")).cast(right), "k": [1, 1, 1]}),
    ]
    schemas = [StreamSchema(frame.schema, event_time=EventTime(frame.columns[0])) for frame in frames]
    join = IntervalJoin(by=("k",), low=0, high=86_400 * SECOND)
    bench = OperatorHarness(join, *schemas).feeds(Batch(frames[0], 0), Batch(frames[1], 1)).run(Schedule())
    got = pl.concat(bench.frames[""])
    found = got.select(pl.col("t", "u", "join_time").cast(pl.Date).to_physical()).rows()
    assert sorted(found) == [(0, 0, 0), (0, 1, 1), (1, 1, 1), (1, 2, 2), (2, 2, 2)]


def test_rows_without_partner_come_as_soon_as_time_proves_it() -> None:
    harness = OperatorHarness(spec("left", (-1, 5)), LEFT, RIGHT)
    row = pl.DataFrame({"t": [10], "k": ["x"], "a": [1]})
    harness.feeds(Batch(row, 0), Watermark(15 * SECOND))
    bench = _unfinished(harness)
    assert not bench
    harness.feeds(Watermark(15 * SECOND + 1))
    assert _unfinished(harness) == [(10, "x", 1, None, None, 10)]


def _unfinished(harness: OperatorHarness) -> list[tuple[Any, ...]]:
    """What came out before the end."""
    from unistream.testing.bench import OperatorBench

    with OperatorBench(harness._spec, harness._inputs) as bench:
        for event in harness._script:
            if isinstance(event, Batch):
                bench.process(event)
            else:
                bench.advance_watermark(event.time)
        return [row for frame in bench.frames.get("", []) for row in frame.rows()]


def test_slices_are_forgotten() -> None:
    from unistream.testing.bench import OperatorBench

    with OperatorBench(spec("full", (-3, 2)), [LEFT, RIGHT]) as bench:
        for second in range(200):
            bench.process(Batch(pl.DataFrame({"t": [second], "k": ["x"], "a": [1]}), 0))
            bench.process(Batch(pl.DataFrame({"u": [second], "k": ["y"], "b": [1]}), 1))
            bench.advance_watermark(second * SECOND)
            assert bench.metrics.get("rows_kept") <= 2 * 8


def test_a_row_far_from_all_others_does_not_widen_slices() -> None:
    from unistream.testing.bench import OperatorBench

    with OperatorBench(spec("inner", (-3, 2)), [LEFT, RIGHT]) as bench:
        bench.process(Batch(pl.DataFrame({"t": [10**9], "k": ["x"], "a": [1]}), 0))
        for second in range(1000):
            bench.process(Batch(pl.DataFrame({"t": [second], "k": ["x"], "a": [1]}), 0))
            bench.advance_watermark(second * SECOND)
        assert bench.metrics.get("rows_kept") <= 8


def test_an_interval_that_ends_before_it_begins() -> None:
    with pytest.raises(InvalidQuery, match=r"ends before it begins[\s\S]*within=\('1s', '5s'\)"):
        spec("inner", (5, 1))
