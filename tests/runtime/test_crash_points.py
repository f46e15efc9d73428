"""Dying before and after every step of the protocol: what is committed in the end is right, each row once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import polars as pl
import pytest

import unistream as us
from unistream.clock import Random
from unistream.elements import Batch
from unistream.expressions.schema import StreamSchema
from unistream.operators.base import Operator, OperatorSpec, Output
from unistream.testing import CommittedSink, Crashed, ListSource, assert_same_rows, crash_at, crash_points
from unistream.testing.ways import BY_TICKS, folder_in_memory, run_checkpointed, run_once

SECOND = 1_000_000

ELSEWHERE = {"ownership.close"}
"""Points that a single owner never comes to."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Woken(OperatorSpec):
    """Forwards rows and asks to be woken every second."""

    name: ClassVar[str] = "woken"
    stateful: ClassVar[bool] = False

    def schema(self, inputs: Sequence[StreamSchema]) -> StreamSchema:
        return inputs[0]

    def build(self, inputs: Sequence[StreamSchema]) -> Operator:
        return WokenOperator()


class WokenOperator(Operator):
    due = SECOND

    def process(self, batch: Batch, out: Output) -> None:
        out.emit(batch.frame)

    def next_wakeup(self) -> int | None:
        return self.due

    def on_processing_time(self, now: int, out: Output) -> None:
        self.due = now + SECOND


ROWS = ListSource(
    {"k": pl.Int64, "n": pl.Int64},
    {"x": [(i % 4, i) for i in range(9)], "y": [(i % 7, i + 100) for i in range(7)]},
)


@pytest.fixture
def folder() -> Iterator[Path]:
    with folder_in_memory() as path:
        yield path


def stateless() -> us.Stream:
    return us.scan(ROWS).filter(pl.col("n") % 2 == 0).apply(Woken())


def keyed() -> us.Stream:
    # Which row of a key comes first depends on how splits take turns: the key alone does not.
    return us.scan(ROWS).unique("k").select("k")


def survives(stream: us.Stream, folder: Path, point: str, before: bool, hit: int) -> bool:
    """Die there, go on, compare; whether the point was reached."""
    sink = CommittedSink()
    try:
        with crash_at(point, before=before, hit=hit) as crash:
            run_checkpointed(stream, sink, folder, Random(hit))
    except Crashed:
        assert crash.happened
        run_checkpointed(stream, sink, folder, Random(7))
    expected = run_once(stream, BY_TICKS)
    assert_same_rows(expected, sink.result(expected.schema))
    return crash.happened


@pytest.mark.parametrize("point", [name for name in crash_points() if name not in ELSEWHERE])
def test_every_point_is_reached_and_survived(point: str, folder: Path) -> None:
    reached = [survives(stream(), folder / stream.__name__, point, True, 1) for stream in (stateless, keyed)]
    assert any(reached), "a point that nothing reaches tests nothing"


@pytest.mark.slow
@pytest.mark.parametrize("hit", [1, 2, 3, 5, 9])
@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("point", crash_points())
def test_every_point_at_every_time(point: str, before: bool, hit: int, folder: Path) -> None:
    for stream in (stateless, keyed):
        survives(stream(), folder / stream.__name__, point, before, hit)


def test_a_finished_job_started_again_adds_nothing(folder: Path) -> None:
    sink = CommittedSink()
    for _ in range(3):
        run_checkpointed(keyed(), sink, folder, Random(1))
    assert_same_rows(run_once(keyed(), BY_TICKS), sink.result())


@pytest.mark.parametrize("seed", range(3))
def test_dying_again_and_again(seed: int, folder: Path) -> None:
    random, sink = Random(seed), CommittedSink()
    crashes = 0
    for _ in range(8):
        point = random.choice(crash_points())
        try:
            with crash_at(point, before=random.random() < 0.5, hit=random.randint(1, 4)):
                run_checkpointed(keyed(), sink, folder, random)
        except Crashed:
            crashes += 1
    run_checkpointed(keyed(), sink, folder, random)
    assert crashes
    assert_same_rows(run_once(keyed(), BY_TICKS), sink.result())
