"""Sessions come in order of their ends, however far time moves at once: what follows may go by order."""

import polars as pl
import pytest

import unistream as us


@pytest.mark.parametrize("rows", [1, 2, 100])
def test_sessions_that_close_together_come_by_their_ends(rows: int) -> None:
    came = us.from_frame({"k": ["a", "b", "c", "a", "b"], "t": [0, 1, 2, 8, 3]})
    sessions = came.with_event_time("t", delay="10s", unit="s").group_by("k").window(us.session("10s"))
    made = sessions.agg(n=pl.len()).collect(settings=us.Settings(whole_query=False, tick_rows=rows))
    assert made.rows() == [("c", 2, 12, 1), ("b", 1, 13, 2), ("a", 0, 18, 2)]


def test_a_count_over_sessions_is_the_same_in_one_tick_and_in_many() -> None:
    rows = us.from_frame({"k": ["a", "b", "a"], "t": [0, 1, 8]}).with_event_time("t", unit="s")
    sessions = rows.group_by("k").window(us.session("10s")).agg(n=pl.len()).with_columns(one=1)
    firsts = sessions.group_by("one").over(rows=1).agg(last=pl.col("n").last())
    for tick in (1, 100):
        made = firsts.collect(settings=us.Settings(whole_query=False, tick_rows=tick))
        assert made["k"].to_list() == ["b", "a"]
