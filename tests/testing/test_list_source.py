"""The listed source: every kind of item, exact positions, splits in turn, pushed columns and filters."""

from __future__ import annotations

import pickle
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import unistream as us
from unistream.errors import ConnectorError, InvalidQuery
from unistream.io.base import Chunk, Exhausted, Reader, Request, Wait
from unistream.one_query import Terms
from unistream.testing import Crash, Crashed, ListSource, Pause, Reject, VirtualClock

SCHEMA = {"n": pl.Int64}


def polls(reader: Reader, max_rows: int = 100) -> list[Chunk]:
    """All chunks to the end."""
    found: list[Chunk] = []
    while not isinstance(polled := reader.poll(max_rows), Exhausted):
        if isinstance(polled, Chunk):
            found.append(polled)
    return found


def numbers(chunks: list[Chunk]) -> list[int]:
    return [n for chunk in chunks for n in chunk.frame["n"].to_list()]


def test_each_item_is_one_poll_of_at_most_so_many_rows() -> None:
    source = ListSource(SCHEMA, [(1,), {"n": 2}, pl.DataFrame({"n": [3, 4, 5]})])
    assert [chunk.frame["n"].to_list() for chunk in polls(source.open({}, Request()), 2)] == [
        [1],
        [2],
        [3, 4],
        [5],
    ]


def test_splits_take_turns_or_follow_the_order() -> None:
    splits = {"a": [(1,), (2,)], "b": [(3,), (4,)]}
    assert numbers(polls(ListSource(SCHEMA, splits).open({}, Request()))) == [1, 3, 2, 4]
    ordered = ListSource(SCHEMA, splits, order=["b", "b", "a"])
    assert numbers(polls(ordered.open({}, Request()))) == [3, 4, 1, 2]


@given(
    st.dictionaries(
        st.sampled_from("abc"),
        st.lists(st.one_of(st.integers(0, 9).map(lambda n: pl.DataFrame({"n": [n] * n}, schema=SCHEMA)))),
    ),
    st.integers(1, 5),
    st.data(),
)
def test_reading_goes_on_exactly_at_any_position(
    splits: dict[str, list[Any]], max_rows: int, data: st.DataObject
) -> None:
    source = ListSource(SCHEMA, splits)
    chunks = polls(source.open({}, Request()), max_rows)
    cut = data.draw(st.integers(0, len(chunks)))
    positions = {chunk.split: chunk.position for chunk in chunks[:cut]}
    rest = polls(source.open(positions, Request()), max_rows)
    assert sorted(numbers(chunks[:cut]) + numbers(rest)) == sorted(numbers(chunks))
    assert sorted(numbers(chunks)) == sorted(source.frame()["n"])


def test_every_split_says_that_it_has_ended_and_is_pending_until_it_begins() -> None:
    reader = ListSource(SCHEMA, {"a": [(1,)], "empty": [], "b": [(2,), Wait(1)]}).open({}, Request())
    assert reader.pending() == {"a": None, "empty": None, "b": None}
    chunks = polls(reader)
    assert {chunk.split for chunk in chunks if chunk.ended} == {"a", "empty", "b"}
    assert reader.pending() == {}


def test_a_pause_lasts_until_the_clock_has_moved() -> None:
    clock = VirtualClock()
    reader = ListSource(SCHEMA, [Pause("5s"), (1,)]).open({}, Request(clock=clock))
    assert reader.poll(1) == Wait(5.0, "the end of a pause")
    clock.advance("4s")
    assert reader.poll(1) == Wait(1.0, "the end of a pause")
    clock.advance("1s")
    assert isinstance(reader.poll(1), Wait)
    assert isinstance(reader.poll(1), Chunk)


def test_a_crash_happens_once() -> None:
    source = ListSource(SCHEMA, [(1,), Crash(), (2,)])
    reader = source.open({}, Request())
    first = reader.poll(1)
    assert isinstance(first, Chunk)
    with pytest.raises(Crashed, match="item 2 of split '0'"):
        reader.poll(1)
    assert numbers(polls(source.open({"0": first.position}, Request()))) == [2]


def test_rejected_rows_come_out_of_rejected() -> None:
    stream = us.scan(ListSource(SCHEMA, [(1,), Reject("x", "not a number")]))
    assert stream.collect().rows() == [(1,)]
    assert stream.rejected().collect().rows() == [("list", "0", 1, "not a number", "x")]


def test_columns_and_filters_are_pushed_and_counted() -> None:
    frame = pl.DataFrame({"a": [1, 2, 3], "b": [4, 5, 6]})
    source = ListSource(frame.schema, [frame])
    reader = source.open({}, Request(columns=("a",), predicate=pl.col("b") > 4))
    (chunk,) = polls(reader)
    assert chunk.frame.rows() == [(2,), (3,)]
    assert chunk.scanned_rows == 3


def test_an_unbounded_list_waits_at_its_end() -> None:
    reader = ListSource(SCHEMA, [(1,)], bounded=False).open({}, Request())
    polled = [reader.poll(1) for _ in range(3)]
    assert [type(result) for result in polled] == [Chunk, Wait, Wait]


def test_it_pickles_and_goes_as_one_query_where_it_is_only_rows() -> None:
    source = ListSource(SCHEMA, [(1,), Pause("1s"), (2,)])
    again = pickle.loads(pickle.dumps(source))
    lazy = again.lazy(Terms())
    assert lazy is not None
    assert lazy.collect().rows() == [(1,), (2,)]
    assert ListSource(SCHEMA, [Reject("x")]).lazy(Terms()) is None


def test_mistakes_are_refused() -> None:
    with pytest.raises(InvalidQuery, match="no items"):
        ListSource(SCHEMA, {"a": []}, order=["b"])
    with pytest.raises(ConnectorError, match="item 7 of 0"):
        ListSource(SCHEMA).open({"0": [7, 0, 7]}, Request())
