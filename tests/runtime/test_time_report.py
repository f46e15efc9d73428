"""Jobs whose windows do not close, and what the report says of each."""

from __future__ import annotations

from pathlib import Path

import polars as pl

import unistream as us
from unistream.api.job import Job
from unistream.io.memory import MemorySink
from unistream.plan.nodes import Write
from unistream.runtime.local import LocalRuntime
from unistream.testing import ListSource, Pause, VirtualClock

SCHEMA = pl.Schema({"t": pl.Int64})
DAY = 86_400


def rows(*times: int) -> pl.DataFrame:
    return pl.DataFrame({"t": times}, schema=SCHEMA)


def running(stream: us.Stream, clock: VirtualClock, ticks: int = 12) -> LocalRuntime:
    job = Job((Write(input=stream._node, sink=MemorySink()),))
    runtime = job.runtime(clock=clock, threads=False)
    runtime.open()
    for _ in range(ticks):
        runtime.tick()
    return runtime


def said(stream: us.Stream, now: int = DAY) -> str:
    clock = VirtualClock(now * 1_000_000)
    runtime = running(stream, clock)
    text = str(runtime.explain_time())
    runtime.close()
    return text


def windows(stream: us.Stream) -> us.Stream:
    return stream.window(us.tumbling("10s")).agg(n=pl.len())


def endless(*items: object, **splits: list[object]) -> us.Stream:
    given = {name: [*part, Pause("1d")] for name, part in splits.items()} if splits else [*items, Pause("1d")]
    return us.scan(ListSource(SCHEMA, given, bounded=False))  # type: ignore[arg-type]


def test_no_event_time_at_all() -> None:
    assert "No step keeps event time" in said(endless(rows(1)))


def test_no_rows_at_all() -> None:
    text = said(windows(endless().with_event_time("t", unit="s")))
    assert "event_time-1: held back by list-1/0, which has not been read yet" in text


def test_one_split_is_behind() -> None:
    stream = endless(a=[rows(5)], b=[rows(300)]).with_event_time("t", unit="s")
    text = said(windows(stream))
    assert "held back by list-1/a, 4m55s behind the furthest split" in text
    assert "the next window ends at 1970-01-01 00:00:10" in text
    assert "moved 5s further, as event_time-1 says, held back by list-1/a" in text


def test_a_row_from_the_future() -> None:
    stream = endless(a=[rows(DAY, 400 * DAY)], b=[rows(DAY)]).with_event_time("t", unit="s")
    text = said(windows(stream))
    assert "list-1/a is 57w ahead of the clock" in text
    assert "max_ahead=" in text


def test_a_delay_that_is_too_long() -> None:
    text = said(windows(endless(rows(0, 100)).with_event_time("t", unit="s", delay="1h")))
    assert "rows may come 1h late" in text
    assert "it fires when the watermark has moved 58m30s further" in text


def test_one_input_is_behind_the_other() -> None:
    fast = endless(rows(0, 1000)).with_event_time("t", unit="s")
    slow = endless(rows(0, 3)).with_event_time("t", unit="s")
    text = said(windows(fast.union(slow)))
    assert "as event_time-2 says, held back by list-2/" in text


def test_rows_that_were_late_are_named() -> None:
    text = said(windows(endless(rows(0, 50), rows(1, 51)).with_event_time("t", unit="s")))
    assert "1 rows came after their window was closed" in text


def test_a_watched_folder_that_gets_no_more_files_has_given_rows(tmp_path: Path) -> None:
    rows(10, 50).write_parquet(tmp_path / "1.parquet")
    clock = VirtualClock(2_000_000_000_000_000)  # long after the file was written
    watched = us.scan_parquet(tmp_path, watch=True).with_event_time("t", unit="s", delay="5s")
    runtime = running(watched, clock)
    text = str(runtime.explain_time())
    runtime.close()
    assert "event_time-1: watermark 1970-01-01 00:00:45; rows may come 5s late" in text
    assert "held back by parquet-1, which may give older rows in its next file" in text
    assert "no rows yet" not in text
