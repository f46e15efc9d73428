"""Rows at a rate: a function of their number, paced by the clock, the same again after a restart."""

from __future__ import annotations

import threading
from fractions import Fraction

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unistream.clock import Clock
from unistream.errors import InvalidSettings
from unistream.io.base import Chunk, Exhausted, Request, Wait
from unistream.io.generate import RateSource


class HandClock(Clock):
    """Moves only by hand; `step` is what was put right in the time of day."""

    def __init__(self, now: int = 0) -> None:
        self.time = now
        self.step = 0

    def now(self) -> int:
        return self.time + self.step

    def steady(self) -> float:
        return self.time / 1e6

    def wait(self, event: threading.Event, seconds: float) -> bool:
        self.time += round(seconds * 1e6)
        return event.is_set()


def times(frame: pl.DataFrame) -> list[int]:
    return frame["timestamp"].to_physical().to_list()


def test_rows_come_when_they_are_due() -> None:
    clock = HandClock(1_000_000)
    reader = RateSource(4).open({}, Request(clock=clock))
    seen: list[tuple[int, int]] = []
    while clock.time < 3_000_000:
        match reader.poll(100):
            case Chunk() as chunk:
                assert times(chunk.frame) == [clock.time]
                seen.append((clock.time, chunk.frame["value"].item()))
            case Wait(seconds):
                clock.wait(threading.Event(), seconds)
    assert seen == [(1_000_000 + 250_000 * i, i) for i in range(8)]


@given(
    rate=st.fractions(Fraction(1, 100), 10**6, max_denominator=100).map(float),
    steps=st.lists(st.integers(0, 3_000_000), min_size=1, max_size=20),
    most=st.integers(1, 5_000),
    total=st.none() | st.integers(0, 2_000),
)
def test_every_row_once_with_its_own_time_whatever_the_schedule(
    rate: float, steps: list[int], most: int, total: int | None
) -> None:
    clock = HandClock(77)
    source = RateSource(rate, total_rows=total)
    reader = source.open({}, Request(clock=clock))
    frames, position = [], {}
    for step in steps:
        clock.time += step
        polled = reader.poll(most)
        if isinstance(polled, Chunk):
            assert polled.frame.height <= most
            assert times(polled.frame)[-1] <= clock.time
            frames.append(polled.frame)
            position = {"rows": polled.position}
            reader = source.open(position, Request(clock=clock))
        elif isinstance(polled, Exhausted):
            assert total is not None
            assert sum(frame.height for frame in frames) == total
    if frames:
        rows = pl.concat(frames)
        interval = 1_000_000 / Fraction(rate).limit_denominator(1_000_000)
        assert rows["value"].to_list() == list(range(rows.height))
        assert times(rows) == [77 + int(i * interval) for i in range(rows.height)]
        assert rows.schema == source.schema()


def test_it_catches_up_after_a_pause() -> None:
    clock = HandClock()
    reader = RateSource(1_000).open({}, Request(clock=clock))
    clock.time = 10_000_000
    assert reader.backlog().rows == 10_001
    first, second = reader.poll(6_000), reader.poll(6_000)
    assert isinstance(first, Chunk)
    assert isinstance(second, Chunk)
    assert (first.frame.height, second.frame.height) == (6_000, 4_001)
    assert isinstance(reader.poll(6_000), Wait)


@pytest.mark.parametrize("step", [-3_600_000_000, 3_600_000_000])
def test_the_pace_does_not_hang_on_the_time_of_day(step: int) -> None:
    clock = HandClock(1_000_000)
    reader = RateSource(4).open({}, Request(clock=clock))
    assert isinstance(reader.poll(100), Chunk)
    clock.step = step
    clock.time += 500_000
    assert reader.backlog().rows == 2
    chunk = reader.poll(100)
    assert isinstance(chunk, Chunk)
    assert times(chunk.frame) == [1_250_000, 1_500_000]
    assert reader.poll(100) == Wait(0.25)


def test_it_goes_on_after_a_restart_on_a_clock_put_back() -> None:
    clock = HandClock(7_200_000_000)
    source = RateSource(4)
    clock.step = -3_600_000_000
    reader = source.open({"rows": {"start": 7_200_000_000, "next": 3}}, Request(clock=clock))
    assert reader.poll(100) == Wait(0.25)
    clock.time += 250_000
    chunk = reader.poll(100)
    assert isinstance(chunk, Chunk)
    assert times(chunk.frame) == [7_200_750_000]


def test_a_start_to_come_is_waited_for() -> None:
    reader = RateSource(4, start=10_000_000).open({}, Request(clock=HandClock(1_000_000)))
    assert reader.poll(100) == Wait(9.0)


def test_high_rates_come_in_few_chunks() -> None:
    clock = HandClock()
    reader = RateSource(1_000_000).open({}, Request(clock=clock))
    polls = rows = 0
    while clock.time < 1_000_000:
        polls += 1
        polled = reader.poll(250_000)
        if isinstance(polled, Wait):
            clock.wait(threading.Event(), polled.seconds)
        elif isinstance(polled, Chunk):
            rows += polled.frame.height
    assert rows >= 995_000
    assert polls <= 410


def test_large_numbers_do_not_overflow() -> None:
    clock = HandClock(4_000_000_000_000_000)
    far = 10**15
    reader = RateSource(1e6 / 3).open({"rows": {"start": 0, "next": far}}, Request(clock=clock))
    chunk = reader.poll(1_000)
    assert isinstance(chunk, Chunk)
    interval = 1_000_000 / Fraction(1e6 / 3).limit_denominator(1_000_000)
    assert times(chunk.frame) == [int((far + i) * interval) for i in range(1_000)]


def test_boundedness_and_refusals() -> None:
    assert not RateSource().bounded
    assert RateSource(total_rows=3).bounded
    assert isinstance(RateSource(total_rows=0).open({}, Request(clock=HandClock())).poll(10), Exhausted)
    for wrong in ({"rows_per_second": 0}, {"rows_per_second": -1}, {"total_rows": -1}):
        with pytest.raises(InvalidSettings):
            RateSource(**wrong)  # type: ignore[arg-type]
