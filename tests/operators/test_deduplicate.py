"""First and last rows of keys against a dictionary of what was seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import polars as pl
import pytest

import unistream as us
from unistream.clock import Random
from unistream.elements import Batch, Watermark
from unistream.errors import InvalidQuery
from unistream.expressions.schema import EventTime, StreamSchema
from unistream.operators.deduplicate import Unique
from unistream.testing import verify
from unistream.testing.asserts import assert_same_rows
from unistream.testing.harness import OperatorHarness

SCHEMA = StreamSchema(
    pl.Schema({"k": pl.String, "t": pl.Int64, "id": pl.Int64}), event_time=EventTime("t", "s")
)
SECOND = 1_000_000
Replay = Callable[..., dict[str, pl.DataFrame]]
Seeds = Callable[[int], range]


def random_rows(random: Random, count: int = 25) -> list[tuple[Any, ...]]:
    time = 0
    rows = []
    for number in range(count):
        time += random.choice([0, 1, 1, 6])
        rows.append((random.choice(["a", "b", "", None]), time - random.randint(0, 5), number))
    return rows


def frame_of(rows: list[tuple[Any, ...]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=SCHEMA.columns, orient="row")


@pytest.mark.parametrize("subset", [("k",), ("t",), ("k", "t")], ids=", ".join)
def test_the_first_row_of_each_key(replay: Replay, seeds: Seeds, subset: tuple[str, ...]) -> None:
    places = [SCHEMA.columns.names().index(name) for name in subset]
    for seed in seeds(50):
        rows = random_rows(Random(seed))
        seen: set[Any] = set()
        expected = []
        for row in rows:
            key = tuple(row[place] for place in places)
            if key not in seen:
                seen.add(key)
                expected.append(row)
        got = replay(Unique(subset=subset), [SCHEMA], [Batch(frame_of(rows))], seed)[""]
        assert got.rows() == expected


@pytest.mark.parametrize("within", [1, 4, 20])
def test_the_first_row_within_a_time(replay: Replay, seeds: Seeds, within: int) -> None:
    for seed in seeds(60):
        random = Random(seed)
        rows = random_rows(random)
        seen: dict[Any, int] = {}
        events: list[Batch | Watermark] = []
        passed, late, watermark = [], [], -(2**60)
        for start in range(0, len(rows), 5):
            part = rows[start : start + 5]
            for row in part:
                if row[1] < watermark:
                    late.append(row)
                elif row[0] not in seen or row[1] > seen[row[0]] + within:
                    seen[row[0]] = row[1]
                    passed.append(row)
            watermark = max(watermark, max(row[1] for row in part) - random.randint(0, 6))
            events += [Batch(frame_of(part)), Watermark(watermark * SECOND)]
        got = replay(Unique(subset=("k",), within=within * SECOND), [SCHEMA], events, seed)
        assert got[""].rows() == passed
        assert got["late"].rows() == late


def test_a_key_that_passes_often_in_one_batch(replay: Replay) -> None:
    rows = frame_of([("a", time, time) for time in range(20_000)])
    got = replay(Unique(subset=("k",), within=2 * SECOND), [SCHEMA], [Batch(rows)], 1)[""]
    assert got["t"].to_list() == list(range(0, 20_000, 3))


def test_the_last_row_of_each_key(replay: Replay, seeds: Seeds) -> None:
    for seed in seeds(50):
        rows = random_rows(Random(seed))
        last = {row[0]: row for row in rows}
        got = replay(Unique(subset=("k",), keep="last"), [SCHEMA], [Batch(frame_of(rows))], seed)[""]
        assert_same_rows(got, frame_of(list(last.values())), key=("k",))


def test_the_harness_agrees() -> None:
    rows = frame_of([("a", 1, 0), ("a", 2, 1), ("b", 3, 2), ("a", 9, 3)])
    harness = OperatorHarness(Unique(subset=("k",), within=5 * SECOND), SCHEMA)
    harness.feeds(rows[:2], Watermark(SECOND), rows[2:]).expects(
        frame_of([("a", 1, 0), ("b", 3, 2), ("a", 9, 3)]),
        side={"late": rows.clear()},
        conserved=True,
        watermarks=["given"],
    )


def test_keys_are_forgotten_when_time_has_passed(tmp_path: Any) -> None:
    from unistream.config import Settings
    from unistream.metrics import Metrics
    from unistream.operators.base import Context
    from unistream.state.memory import MemoryBackend
    from unistream.testing import VirtualClock
    from unistream.testing.bench import Gathered

    spec = Unique(subset=("k",), within=8 * SECOND)
    operator, store = spec.build([SCHEMA]), MemoryBackend(tmp_path).store("operator")
    operator.open(Context("operator", VirtualClock(), Metrics(), Settings(), store))
    out = Gathered(spec.schema([SCHEMA]), Metrics())
    operator.process(Batch(frame_of([("a", 1, 0), ("b", 5, 1)])), out)
    table = store.keyed("seen", pl.Schema({"k": pl.String}), pl.Schema({"seen": pl.Int64}))
    operator.on_watermark(9 * SECOND, out)
    assert table.scan()["k"].to_list() == ["a", "b"]
    operator.on_watermark(13 * SECOND, out)
    assert table.scan()["k"].to_list() == ["b"]


def test_batch_and_stream_agree() -> None:
    rows = us.from_frame(frame_of(random_rows(Random(2))))
    verify(rows.unique("k"), seeds=5, shuffled=False)
    verify(rows.unique(["k", "t"], keep="last"), seeds=5)
    timed = rows.with_event_time("t", delay="10s", unit="s")
    verify(timed.unique("k", within="3s"), seeds=5, shuffled=False)


def test_what_it_cannot_do() -> None:
    rows = us.from_frame({"k": [1], "t": [1]})
    with pytest.raises(InvalidQuery, match="needs event time"):
        rows.unique("k", within="1s")
    with pytest.raises(InvalidQuery, match='with keep="first" only'):
        rows.with_event_time("t", unit="us").unique("k", keep="last", within="1s")
    with pytest.raises(InvalidQuery, match="only added"):
        rows.unique("k", keep="last").unique("t")
    with pytest.raises(InvalidQuery, match="no keep='any'"):
        rows.unique("k", keep="any")  # type: ignore[arg-type]
