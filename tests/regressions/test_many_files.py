"""Work does not grow with the square of the number of files that wait."""

import polars as pl
import pytest

import unistream as us
from unistream.runtime.task import SourceTask


@pytest.fixture
def many(tmp_path):
    for number in range(1200):
        (tmp_path / f"{number:04}.csv").write_text(f"n,t\n{number},{number}\n")
    return us.scan_csv(tmp_path)


def test_what_waits_is_told_anew_now_and_then_only(many):
    runtime = many.sink_batches(lambda frame: None).runtime(threads=False)
    runtime.open()
    (source,) = (task for task in runtime.tasks.values() if isinstance(task, SourceTask))
    told = []
    while runtime.tick():
        pending = source.feed.pending()
        if not told or pending is not told[-1]:
            told.append(pending)
    runtime.close()
    assert sum(len(pending) for pending in told if len(pending) >= 1000) < 10_000
    assert told[-1] == {}


def test_only_operators_that_keep_time_per_split_are_told(many):
    runtime = many.filter(pl.col("n") > 0).sink_batches(lambda frame: None).runtime(threads=False)
    runtime.open()
    assert [task.listeners for task in runtime.tasks.values() if isinstance(task, SourceTask)] == [[]]
    runtime.close()


def test_many_waiting_files_hold_time_back(many):
    late = many.with_event_time("t", unit="s").window(us.tumbling("10s")).agg(n=pl.len())
    found = late.collect(settings=us.Settings(whole_query=False, tick_rows=1))
    assert found["n"].to_list() == [10] * 120
