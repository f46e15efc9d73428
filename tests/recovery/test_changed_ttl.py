"""A function whose states are given a life, another one, or none, between two runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import unistream as us
from unistream.io.memory import MemorySink
from unistream.testing import ListSource, Pause, VirtualClock

SECOND = 1_000_000
NAMES = ["value", "sum", "list", "map", "struct"]


class Job:
    """A function that counts the rows of each key in every kind of state, run again and again."""

    def __init__(self, checkpoint: Path) -> None:
        self.checkpoint = checkpoint
        self.clock = VirtualClock(1_700_000_000 * SECOND)
        self._given: dict[str, list[Any]] = {}

    def run(self, life: str | None, *items: Any) -> list[tuple[Any, ...]]:
        """What it gives for these keys and pauses, after those of the runs before."""
        self._given[str(len(self._given))] = [(item,) if isinstance(item, str) else item for item in items]
        rows = us.scan(ListSource({"k": pl.String}, self._given)).named("rows")
        sink = MemorySink()
        runtime = (
            rows.group_by("k")
            .process(counting(life))
            .named("count")
            .sink(sink)
            .runtime(checkpoint=self.checkpoint, clock=self.clock, threads=False)
        )
        runtime.open()
        assert runtime.run()
        runtime.close()
        return [row for frame in sink.frames() for row in frame.rows()]

    def kept(self) -> list[str]:
        """The keys that have state in the newest checkpoint."""
        return sorted(us.read_state(self.checkpoint, "count", "states")["k"])


def counting(life: str | None) -> us.ProcessFunction:
    class Count(us.ProcessFunction):
        output = {"k": pl.String, **dict.fromkeys(NAMES, pl.Int64)}
        value = us.ValueState(pl.Int64, default=0, ttl=life)
        sum = us.ReducingState(pl.Int64, lambda one, other: one + other, ttl=life)
        list = us.ListState(pl.Int64, ttl=life)
        map = us.MapState(pl.String, pl.Int64, ttl=life)
        struct = us.ValueState(pl.Struct({"n": pl.Int64}), default={"n": 0}, ttl=life)

        def process(self, key: Any, row: dict[str, Any], ctx: us.ProcessContext) -> Iterator[dict[str, Any]]:
            self.value.value += 1
            self.sum.add(1)
            self.list.append(1)
            self.map["n"] = self.map.get("n", 0) + 1
            self.struct.value = {"n": self.struct.value["n"] + 1}
            counts = (self.value.value, self.sum.value, len(self.list), self.map["n"], self.struct.value["n"])
            yield {"k": key, **dict(zip(NAMES, counts, strict=True))}

    return Count()


def counts(*rows: tuple[str, int]) -> list[tuple[Any, ...]]:
    return [(key, *[n] * len(NAMES)) for key, n in rows]


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(tmp_path)


def test_a_life_that_is_new_begins_with_the_run_that_brings_it(job: Job) -> None:
    job.run(None, "ann", "bob")
    job.clock.advance("1d")
    assert job.run("10s", "ann", Pause("5s"), "bob") == counts(("ann", 2), ("bob", 2))
    assert job.run("10s", Pause("7s"), "ann", "bob") == counts(("ann", 1), ("bob", 3))


def test_what_nobody_touches_goes_too_when_a_life_is_new(job: Job) -> None:
    job.run(None, "ann", "bob")
    assert job.run("10s", "bob", Pause("8s"), "bob", Pause("8s")) == counts(("bob", 2), ("bob", 3))
    assert job.kept() == ["bob"]


def test_a_run_that_is_stopped_before_its_first_tick_has_not_begun_a_life(job: Job, tmp_path: Path) -> None:
    job.run(None, "ann")
    rows = us.scan(ListSource({"k": pl.String}, {"0": [("ann",)]})).named("rows")
    stream = rows.group_by("k").process(counting("10s")).named("count")
    runtime = stream.sink(MemorySink()).runtime(checkpoint=tmp_path, clock=job.clock, threads=False)
    runtime.open()
    runtime.stop()
    runtime.run()
    runtime.close()
    job.clock.advance("1m")
    assert job.run("10s", "ann", Pause("20s")) == counts(("ann", 2))
    assert job.kept() == []


def test_a_longer_life_holds_for_what_is_there(job: Job) -> None:
    job.run("10s", "ann", "bob")
    assert job.run("30s", Pause("20s"), "ann") == counts(("ann", 2))
    assert job.kept() == ["ann", "bob"]
    job.run("30s", Pause("15s"))
    assert job.kept() == ["ann"]
    job.run("30s", Pause("20s"))
    assert job.kept() == []


def test_a_shorter_life_holds_for_what_is_there(job: Job) -> None:
    job.run("1h", "ann", "bob", "cat", Pause("8s"))
    assert job.run("10s", "ann", Pause("4s"), "bob") == counts(("ann", 2), ("bob", 1))
    assert job.kept() == ["ann", "bob"]
    job.run("10s", Pause("8s"))
    assert job.kept() == ["bob"]


def test_without_a_life_everything_stays_and_it_may_come_back(job: Job) -> None:
    job.run("10s", "ann", "bob")
    assert job.run(None, Pause("1m"), "ann") == counts(("ann", 2))
    assert job.kept() == ["ann", "bob"]
    assert job.run("10s", "ann", Pause("9s"), "bob") == counts(("ann", 3), ("bob", 2))
    job.run("10s", Pause("8s"))
    assert job.kept() == ["bob"]
