"""Rows with those before them against a loop over all rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import polars as pl
import pytest

import unistream as us
from unistream.clock import Random
from unistream.elements import Batch, Watermark
from unistream.errors import InvalidQuery
from unistream.expressions.analysis import expand
from unistream.expressions.schema import EventTime, StreamSchema
from unistream.operators.over import Over
from unistream.testing import verify
from unistream.testing.asserts import assert_same_rows
from unistream.testing.harness import OperatorHarness

SCHEMA = StreamSchema(
    pl.Schema({"k": pl.String, "t": pl.Int64, "v": pl.Float64, "id": pl.Int64}),
    event_time=EventTime("t", "s"),
)
SECOND = 1_000_000
AGGREGATES = {
    "n": pl.len(),
    "total": pl.col("v").sum(),
    "most": pl.col("v").max(),
    "spread": pl.col("v").max() - pl.col("v").min(),
    "ids": pl.col("id").max(),
}
Replay = Callable[..., dict[str, pl.DataFrame]]
Seeds = Callable[[int], range]


def spec(*, rows: int | None = None, range: int | None = None) -> Over:
    exprs = expand([], AGGREGATES, SCHEMA.columns, "agg", None, ["k"])
    return Over(by=("k",), exprs=tuple(exprs), rows=rows, range=range)


def random_rows(random: Random, count: int, disorder: int = 0) -> list[tuple[Any, ...]]:
    time, rows = 0, []
    for number in range(count):
        time += random.choice([0, 0, 1, 2, 7])
        key, value = random.choice(["a", "b", None]), random.choice([1.0, 2.5, -3.0, None])
        rows.append((key, time - random.randint(0, disorder), value, number))
    return rows


def frame_of(rows: list[tuple[Any, ...]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=SCHEMA.columns, orient="row")


def answered(rows: list[tuple[Any, ...]], windows: list[list[tuple[Any, ...]]]) -> pl.DataFrame:
    """Each row with its window's aggregates in plain Python."""
    made = []
    for row, window in zip(rows, windows, strict=True):
        values = [one[2] for one in window if one[2] is not None]
        most = max(values, default=None)
        spread = None if most is None else most - min(values)
        made.append((*row, len(window), float(sum(values)), most, spread, max(one[3] for one in window)))
    return pl.DataFrame(made, schema=spec(rows=1).schema([SCHEMA]).columns, orient="row")


@pytest.mark.parametrize("length", [1, 2, 5])
def test_the_last_rows(replay: Replay, seeds: Seeds, length: int) -> None:
    for seed in seeds(35):
        rows = random_rows(Random(seed), 25)
        windows = [
            [one for one in rows[: at + 1] if one[0] == row[0]][-length:] for at, row in enumerate(rows)
        ]
        got = replay(spec(rows=length), [SCHEMA], [Batch(frame_of(rows))], seed)[""]
        assert_same_rows(got, answered(rows, windows), ordered=True)


@pytest.mark.parametrize("seconds", [1, 3, 10])
def test_the_last_seconds(replay: Replay, seeds: Seeds, seconds: int) -> None:
    for seed in seeds(35):
        random = Random(seed)
        rows = random_rows(random, 25, disorder=4)
        events: list[Batch | Watermark] = []
        for start in range(0, 25, 5):
            part = rows[start : start + 5]
            highest = max(one[1] for one in rows[: start + 5])
            events += [Batch(frame_of(part)), Watermark((highest - 4 - 7) * SECOND)]
        windows = [
            [one for one in rows if one[0] == row[0] and row[1] - seconds < one[1] <= row[1]] for row in rows
        ]
        got = replay(spec(range=seconds * SECOND), [SCHEMA], events, seed)[""]
        assert_same_rows(got, answered(rows, windows))


def test_rows_come_out_in_the_order_of_time(replay: Replay) -> None:
    rows = [("a", 5, 1.0, 0), ("b", 3, 2.0, 1), ("a", 1, 4.0, 2)]
    got = replay(spec(range=10 * SECOND), [SCHEMA], [Batch(frame_of(rows))], 3)[""]
    assert got.select("t", "total").rows() == [(1, 4.0), (3, 2.0), (5, 5.0)]


def test_late_rows_are_told() -> None:
    rows = us.from_frame(frame_of([("a", 9, 1.0, 0), ("a", 1, 1.0, 1)]))
    harness = OperatorHarness(spec(range=SECOND), SCHEMA)
    late = frame_of([("a", 1, 1.0, 1)])
    first = frame_of([("a", 9, 1.0, 0)])
    answer = answered([("a", 9, 1.0, 0)], [[("a", 9, 1.0, 0)]])
    harness.feeds(first, Watermark(9 * SECOND), late).expects(
        answer, side={"late": late}, watermarks=["given"], conserved=True
    )
    assert rows.with_event_time("t", unit="s").group_by("k").over(range=1).agg(n=pl.len()).late().columns


def test_keys_that_do_not_come_again_are_forgotten(tmp_path: Any) -> None:
    from unistream.config import Settings
    from unistream.metrics import Metrics
    from unistream.operators.base import Context
    from unistream.state.memory import MemoryBackend
    from unistream.testing import VirtualClock
    from unistream.testing.bench import Gathered

    operator = spec(range=2 * SECOND).build([SCHEMA])
    store = MemoryBackend(tmp_path).store("operator")
    operator.open(Context("operator", VirtualClock(), Metrics(), Settings(), store))
    out = Gathered(spec(range=2 * SECOND).schema([SCHEMA]), Metrics())
    operator.process(Batch(frame_of([("a", 1, 1.0, 0), ("b", 9, 1.0, 1)])), out)
    operator.on_watermark(10 * SECOND, out)
    assert operator._last.scan()["k"].to_list() == ["b"]  # type: ignore[attr-defined]
    operator.on_watermark(12 * SECOND, out)
    assert len(operator._last) == 0  # type: ignore[attr-defined]


def test_batch_and_stream_agree() -> None:
    rows = us.from_frame(frame_of(random_rows(Random(1), 30, disorder=3))).with_event_time(
        "t", delay="12s", unit="s"
    )
    verify(rows.group_by("k").over(range="5s").agg(pl.col("v").mean().alias("m"), n=pl.len()), seeds=5)
    verify(rows.group_by("k").over(rows=3).agg(r=pl.col("v").rank().max()), seeds=5, shuffled=False)


def test_what_it_cannot_do() -> None:
    rows = us.from_frame({"k": ["a"], "v": [1]})
    with pytest.raises(InvalidQuery, match="rows= or range="):
        rows.group_by("k").over()
    with pytest.raises(InvalidQuery, match="whole number of rows"):
        rows.group_by("k").over(rows=0)
    with pytest.raises(InvalidQuery, match="not longer than nothing"):
        rows.group_by("k").over(range="0s")
    with pytest.raises(InvalidQuery, match="needs event time"):
        rows.group_by("k").over(range="1s").agg(n=pl.len())
    with pytest.raises(InvalidQuery, match="which is there already"):
        rows.group_by("k").over(rows=2).agg(pl.col("v").sum())
    with pytest.raises(InvalidQuery, match="only added"):
        rows.group_by("k").agg(n=pl.len()).group_by("n").over(rows=2).agg(m=pl.len())
    assert "the last 2 rows" in rows.group_by("k").over(rows=2).agg(n=pl.len()).explain()
