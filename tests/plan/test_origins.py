"""Readers are told which of their columns becomes event time, and only where that is certain."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

import unistream as us
from unistream.graph import Input
from unistream.io.memory import MemorySink
from unistream.plan.lower import lower
from unistream.plan.nodes import Write
from unistream.plan.optimizer import optimize

TICKS = us.Settings(tick_rows=1, whole_query=False)
NOON = datetime(2024, 1, 2, 12)
EARLIER = [datetime(2024, 1, 1, 0), datetime(2024, 1, 1, 20)]

Change = Callable[[us.Stream], us.Stream]


@pytest.fixture
def rows(tmp_path: Path) -> us.Stream:
    """The file that is read last has the earliest rows; `other` is later by two days."""
    for name, times in (("a", [NOON]), ("b", EARLIER)):
        frame = pl.DataFrame({"ts": times, "k": [1] * len(times), "l": [[1, 2]] * len(times)})
        frame.with_columns(other=pl.col("ts") + timedelta(days=2)).write_parquet(tmp_path / f"{name}.parquet")
    return us.scan_parquet(tmp_path)


def told(*streams: us.Stream) -> list[str | None]:
    """The time column asked of each source."""
    roots = optimize(tuple(Write(input=stream._node, sink=MemorySink()) for stream in streams))
    payloads = [vertex.payload for vertex in lower(roots, TICKS)]
    return [payload.request.time_column for payload in payloads if isinstance(payload, Input)]


def known(stream: us.Stream) -> us.Stream:
    table = pl.DataFrame({"k": [1], "name": ["one"]})
    return stream.lookup(table, on="k")


def itself(frame: pl.DataFrame) -> pl.DataFrame:
    return frame


KEPT: dict[str, Change] = {
    "as it is": lambda s: s.with_event_time("ts"),
    "filter": lambda s: s.filter(pl.col("k") > 0).with_event_time("ts"),
    "select": lambda s: s.select("k", "ts").with_event_time("ts"),
    "other column": lambda s: s.with_columns(k=pl.col("k") + 1).with_event_time("ts"),
    "rename": lambda s: s.rename({"ts": "time"}).with_event_time("time"),
    "exchange": lambda s: s.rename({"ts": "other", "other": "ts"}).with_event_time("other"),
    "explode": lambda s: s.explode("l").with_event_time("ts"),
    "unnest": lambda s: s.select("ts", p=pl.struct(x="k")).unnest("p").with_event_time("ts"),
    "lookup": lambda s: known(s).with_event_time("ts"),
    "union": lambda s: s.filter(pl.col("k") > 0).union(s).with_event_time("ts"),
    "renamed later": lambda s: s.with_event_time("ts").rename({"ts": "time", "other": "ts"}),
    "twice": lambda s: s.with_event_time("ts").union(s.with_event_time("ts", delay="1h")),
}
"""All of these take their time from `ts`."""

UNCERTAIN: dict[str, Change] = {
    "computed": lambda s: s.with_columns(ts=pl.col("ts") - timedelta(hours=9)).with_event_time("ts"),
    "computed before": lambda s: (
        s.with_columns(ts=pl.col("ts") - timedelta(hours=9)).rename({"ts": "t"}).with_event_time("t")
    ),
    "function": lambda s: s.map_batches(itself, schema=s.schema).with_event_time("ts"),
    "two columns": lambda s: (
        s.with_event_time("ts").select("k").union(s.with_event_time("other").select("k"))
    ),
    "two names": lambda s: (
        s.select("ts", "k").union(s.select(pl.col("other").alias("ts"), "k")).with_event_time("ts")
    ),
    "computed in one": lambda s: s.union(s.with_columns(ts=pl.lit(NOON))).with_event_time("ts"),
}


@pytest.mark.parametrize("change", KEPT.values(), ids=KEPT)
def test_a_time_that_is_a_column_of_the_source_is_told(rows: us.Stream, change: Change) -> None:
    assert told(change(rows)) == ["ts"]


@pytest.mark.parametrize("change", UNCERTAIN.values(), ids=UNCERTAIN)
def test_a_time_that_is_made_or_not_agreed_on_is_not(rows: us.Stream, change: Change) -> None:
    assert told(change(rows)) == [None]


def test_a_column_of_the_same_name_further_on_does_not_matter(rows: us.Stream) -> None:
    timed = rows.rename({"other": "time"}).with_event_time("time")
    assert told(timed.rename({"time": "ts", "ts": "time"})) == ["other"]
    assert told(rows.rename({"ts": "time", "other": "ts"}).with_event_time("ts")) == ["other"]


def test_steps_behind_rows_that_are_mixed_do_not_matter(rows: us.Stream) -> None:
    counted = rows.with_event_time("ts").window(us.tumbling("1h")).agg(other=pl.col("other").max())
    assert told(counted.with_event_time("other")) == ["ts"]


def test_each_source_by_itself(rows: us.Stream) -> None:
    other = us.from_frame(pl.DataFrame({"t": [NOON]})).with_event_time("t")
    assert told(rows.with_event_time("ts"), other, us.from_frame({"ts": [NOON]})) == ["ts", "t", None]


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.with_columns(ts=pl.col("ts") - timedelta(hours=9)).with_event_time("ts"),
        lambda s: s.drop("other").rename({"ts": "other"}).with_event_time("other"),
        lambda s: s.drop("ts").rename({"other": "ts"}).with_event_time("ts"),
        lambda s: s.select(pl.col("ts") - timedelta(days=3), other="ts").with_event_time("ts"),
    ],
    ids=["computed", "rename", "rename onto", "both"],
)
def test_files_read_in_any_order_lose_nothing(rows: us.Stream, change: Change) -> None:
    counted = change(rows).window(us.tumbling("1h")).agg(n=pl.len())
    assert counted.collect(settings=TICKS)["n"].to_list() == [1, 1, 1]
    assert counted.late().collect(settings=TICKS).height == 0


def test_a_time_behind_an_explode_is_known_to_one_query_too(rows: us.Stream) -> None:
    timed = rows.explode("l").with_event_time("ts", delay="3d").window(us.tumbling("1h")).agg(n=pl.len())
    assert "one Polars streaming query" in timed.explain()
    expected = timed.collect(settings=TICKS).sort("window_start")
    assert timed.collect().sort("window_start").equals(expected)
    assert expected["n"].to_list() == [2, 2, 2]
