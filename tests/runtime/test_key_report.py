"""What the report of time says of one key: its open windows, what is in them, why they wait."""

from __future__ import annotations

import threading

import polars as pl
import pytest

import unistream as us
from unistream.api.job import Job
from unistream.io.memory import MemorySink
from unistream.plan.nodes import Write
from unistream.runtime.time_report import TimeReport
from unistream.testing import ListSource, Pause, VirtualClock

SCHEMA = pl.Schema({"t": pl.Int64, "k": pl.String, "v": pl.Int64})
ROWS = pl.DataFrame(
    {
        "t": [1, 2, 11, 12, 13, 25],
        "k": ["a", "b", "a", "a", "b", None],
        "v": [1, 2, 3, 4, 5, 6],
    },
    schema=SCHEMA,
)


def timed(**options: str) -> us.Stream:
    source = ListSource(SCHEMA, [ROWS[:3], ROWS[3:], Pause("1d")], bounded=False)
    return us.scan(source).with_event_time("t", unit="s", **options)  # type: ignore[arg-type]


def report(stream: us.Stream, key: object) -> TimeReport:
    runtime = Job((Write(input=stream._node, sink=MemorySink()),)).runtime(
        clock=VirtualClock(), threads=False
    )
    runtime.open()
    for _ in range(4):
        runtime.tick()
    try:
        return runtime.explain_time(key)
    finally:
        runtime.close()


AGGREGATES = {"n": pl.len(), "total": pl.col("v").sum()}


def test_windows_open_for_a_key_their_values_and_what_they_wait_for() -> None:
    found = report(timed(delay="10s").group_by("k").window(us.tumbling("10s")).agg(**AGGREGATES), "a")
    assert found.windows["window-1"].rows() == [("a", 10, 20, 2, 7)]
    text = str(found)
    assert "window-1: a window is open for k='a'" in text
    assert "10 to 20, n=2, total=7 so far: it fires when the watermark has moved 5s further" in text
    assert "as event_time-1 says, held back by list-1/0" in text


@pytest.mark.parametrize("emit", ["close", "change"])
@pytest.mark.parametrize("key", ["a", "b", None])
def test_every_kind_of_aligned_window_against_counting_by_hand(emit: str, key: str | None) -> None:
    for window, size, step in ((us.tumbling("10s"), 10, 10), (us.sliding("20s", every="5s"), 20, 5)):
        stream = timed(delay="20s").group_by("k").window(window, emit=emit).agg(**AGGREGATES)  # type: ignore[arg-type]
        found = report(stream, {"k": key}).windows["window-1"]
        mine = ROWS.filter(pl.col("k").eq_missing(pl.lit(key)))
        wanted = []
        for start in range(-20, 40, step):
            inside = mine.filter(pl.col("t").is_between(start, start + size, closed="left"))
            if inside.height and start + size > 5:  # the watermark
                wanted.append((key, start, start + size, inside.height, inside["v"].sum()))
        assert sorted(found.rows(), key=str) == sorted(wanted, key=str)


@pytest.mark.parametrize("emit", ["close", "change"])
def test_sessions_of_a_key(emit: str) -> None:
    stream = timed(delay="20s").group_by("k").window(us.session("5s"), emit=emit).agg(**AGGREGATES)  # type: ignore[arg-type]
    found = report(stream, "a")
    assert sorted(found.windows["session-1"].rows()) == [("a", 1, 6, 1, 1), ("a", 11, 17, 2, 7)]
    assert "2 windows are open for k='a'" in str(found)
    assert report(stream, {"k": None}).windows["session-1"].rows() == [(None, 25, 30, 1, 6)]
    assert "no window is open for k='z'" in str(report(stream, "z"))


def test_windows_that_keep_their_rows() -> None:
    windows = timed(delay="20s").group_by("k").window(us.tumbling("10s"))
    found = report(windows.agg(middle=pl.col("v").median()), "a").windows["window-1"]
    assert found.rows() == [("a", 0, 10, 1.0), ("a", 10, 20, 3.5)]
    text = str(report(windows.top_k(1, by="v"), "a"))
    assert "2 windows are open for k='a'" in text


def test_a_key_without_windows_and_one_whose_windows_have_fired() -> None:
    stream = timed().group_by("k").window(us.tumbling("10s")).agg(**AGGREGATES)
    assert "no window is open for k='nobody'" in str(report(stream, "nobody"))
    assert "no window is open for k='a'" in str(report(stream, "a"))


def test_windows_that_can_still_be_corrected() -> None:
    stream = timed().group_by("k").window(us.tumbling("10s"), allowed_lateness="1h").agg(**AGGREGATES)
    assert "it has fired, and takes late rows until" in str(report(stream, "a"))


def test_counting_windows_say_how_many_rows_are_missing() -> None:
    found = report(timed().group_by("k").window(us.counting(5, every=2)).agg(**AGGREGATES), "a")
    assert "counting-1: 0 to 5, rows=3 so far: 3 of 5 rows are there: it fires with row 5" in str(found)
    assert found.windows["counting-1"].rows() == [("a", 0, 5, 3), ("a", 2, 7, 1)]


def test_a_step_that_cannot_say_says_so() -> None:
    text = str(report(timed().group_by("k").agg(n=pl.len()).changes(), "a"))
    assert "aggregate-1: this step does not look up what it keeps for one key (k='a')" in text
    assert "run.state('aggregate-1')" in text


def test_several_key_columns() -> None:
    stream = timed(delay="20s").group_by("k", "v").window(us.tumbling("10s")).agg(n=pl.len())
    for key in ({"v": 4, "k": "a"}, ("a", 4)):
        assert report(stream, key).windows["window-1"].rows() == [("a", 4, 10, 20, 1)]


@pytest.mark.parametrize("key", [7, {"x": 1}, ("a", 1)])
def test_a_key_of_no_step_is_refused(key: object) -> None:
    stream = timed().group_by("k").window(us.tumbling("10s")).agg(n=pl.len())
    with pytest.raises(us.InvalidQuery, match="No step of the job has a key like") as caught:
        report(stream, key)
    assert "window-1 by k" in caught.value.hint


def test_it_is_asked_of_a_running_job() -> None:
    there = threading.Event()
    stream = timed(delay="20s")
    both = us.job(
        stream.group_by("k").window(us.tumbling("10s")).agg(n=pl.len()).sink_batches(lambda frame: None),
        stream.sink_batches(lambda frame: there.set() if frame["t"].max() == 25 else None),
    )
    with both.start() as run:
        assert there.wait(30)
        assert run.explain_time("a").windows["window-1"].rows() == [("a", 0, 10, 1), ("a", 10, 20, 2)]
