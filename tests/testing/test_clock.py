"""The clock of tests moves only as told."""

from __future__ import annotations

import threading

import polars as pl
import pytest

import unistream as us
from unistream.io.memory import MemorySink
from unistream.testing import ListSource, Pause, VirtualClock


def test_waiting_moves_it_and_a_set_event_does_not() -> None:
    clock, event = VirtualClock(start=10), threading.Event()
    assert clock.wait(event, 2) is False
    assert (clock.now(), clock.steady()) == (2_000_010, 2.0)
    event.set()
    assert clock.wait(event, 2) is True
    assert clock.now() == 2_000_010


def test_a_clock_that_does_not_move_by_itself() -> None:
    clock = VirtualClock(moves=False)
    assert clock.wait(threading.Event(), 3600) is False
    assert clock.now() == 0
    clock.advance("1h")
    assert clock.steady() == 3600


def test_it_never_goes_back() -> None:
    with pytest.raises(ValueError, match="cannot go back"):
        VirtualClock().advance("-1s")


def test_half_an_hour_passes_in_an_instant_and_the_same_way_each_time() -> None:
    def run() -> tuple[list[int], int, int]:
        clock, sink = VirtualClock(), MemorySink()
        source = ListSource({"n": pl.Int64}, [(1,), Pause("30m"), (2,)])
        settings = us.Settings(whole_query=False)
        runtime = us.scan(source).sink(sink).runtime(clock=clock, threads=False, settings=settings)
        runtime.open()
        assert runtime.run()
        progress = runtime.progress("finished")
        return sink.result()["n"].to_list(), clock.now(), progress.ticks

    first, second = run(), run()
    assert first == second
    assert first[0] == [1, 2]
    assert first[1] >= 1_800_000_000
