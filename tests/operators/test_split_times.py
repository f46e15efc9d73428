"""Who holds the watermark back: splits, pending ones, and sources whose next split nobody knows."""

from __future__ import annotations

import polars as pl

import unistream as us
from unistream.elements import MIN_TIME
from unistream.operators.watermarks import SplitTimes
from unistream.testing import ListSource


def times(*sources: str) -> SplitTimes:
    found = SplitTimes(delay=10)
    for source in sources:
        found.news(source, {}, [], now=0)
    return found


def test_the_least_split_counts() -> None:
    t = times("a")
    t.saw("a/1", 100, now=0)
    t.saw("a/2", 50, now=0)
    assert t.watermark() == 40
    assert t.holder() == "a/2"


def test_a_source_that_gave_nothing_yet_holds_everything() -> None:
    t = times("a", "b")
    t.saw("a/1", 100, now=0)
    assert t.watermark() == MIN_TIME
    assert t.holder() == "b"
    t.saw("b/1", 70, now=0)
    assert t.watermark() == 60


def test_a_source_between_two_files_holds_where_it_came_to() -> None:
    t = times("files", "socket")
    t.saw("files/1", 100, now=0)
    t.saw("socket/x", 500, now=0)
    t.news("files", {}, ["files/1"], now=0)
    t.watermark()
    assert t.watermark() == 90
    assert t.holder() == "files"
    t.saw("files/2", 300, now=0)
    assert t.watermark() == 290


def test_a_source_that_is_over_holds_nobody() -> None:
    t = times("files", "socket")
    t.saw("files/1", 100, now=0)
    t.saw("socket/x", 500, now=0)
    t.news("files", {}, ["files/1", "files"], now=0)
    t.watermark()
    assert t.watermark() == 490
    t.news("socket", {}, ["socket/x", "socket"], now=0)
    t.watermark()
    assert t.watermark() == 490


def test_idle_splits_and_sources_are_released_and_come_back() -> None:
    t = times("files", "socket")
    t.saw("files/1", 100, now=0)
    t.saw("socket/x", 500, now=0)
    t.news("files", {}, ["files/1"], now=0)
    t.watermark()
    assert t.next_idle(1000) == 1000
    t.saw("socket/x", 600, now=900)
    t.fall_idle(1000, 1000)
    assert t.watermark() == 590
    t.saw("files/2", 150, now=1100)
    assert t.watermark() == 140


def test_pending_splits_hold_at_what_they_can_hold() -> None:
    t = times("files")
    t.news("files", {"files/1": 20, "files/2": 5}, [], now=0)
    t.saw("files/1", 100, now=0)
    assert t.watermark() == 5
    t.news("files", {"files/2": None}, [], now=0)
    assert t.watermark() == MIN_TIME


def test_what_is_stored_goes_on() -> None:
    t = times("files", "socket")
    t.saw("files/1", 100, now=0)
    t.news("files", {}, ["files/1"], now=0)
    t.saw("socket/x", 500, now=0)
    t.watermark()
    again = SplitTimes(delay=10)
    again.load(t.to_json(), now=7)
    assert again.watermark() == t.watermark() == 90


def test_time_assigned_behind_a_union_waits_for_both() -> None:
    """Rows of the slow source are not late, although the fast one is far ahead."""
    schema = pl.Schema({"t": pl.Int64})
    fast = us.scan(ListSource(schema, [pl.DataFrame({"t": [n]}) for n in range(0, 1000, 50)]))
    slow = us.scan(ListSource(schema, [pl.DataFrame({"t": [n]}) for n in range(0, 1000, 5)]))
    both = fast.union(slow).with_event_time("t", unit="s").window(us.tumbling("100s"))
    counts = both.agg(n=pl.len()).collect().sort("window_start")
    assert counts["n"].to_list() == [22] * 10
