"""Iterators as sources: every kind of item, exact restarts, bad rows by policy, no waiting for slow ones."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from unistream.clock import Clock
from unistream.errors import ConnectorError, DataError, InvalidQuery, InvalidSettings
from unistream.io.base import Chunk, Exhausted, Reader, Request, Wait
from unistream.io.iterable import IterableSource

SCHEMA = {"n": pl.Int64, "t": pl.String}


def chunks(reader: Reader, max_rows: int = 1_000, seconds: float = 20) -> Iterator[Chunk]:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        polled = reader.poll(max_rows)
        if isinstance(polled, Chunk):
            yield polled
        elif isinstance(polled, Exhausted):
            reader.close()
            return
    raise AssertionError("the source did not end in time")


def rows(reader: Reader, max_rows: int = 1_000) -> list[tuple[Any, ...]]:
    return [row for chunk in chunks(reader, max_rows) for row in chunk.frame.rows()]


class HandClock(Clock):
    """Moves only when asked; nothing may wait for it."""

    def now(self) -> int:
        return 0

    def steady(self) -> float:
        return 0.0

    def wait(self, event: threading.Event, seconds: float) -> bool:
        raise AssertionError("waits for a clock that stands still")


REQUESTS = [Request(), Request(clock=HandClock())]


def dicts(count: int) -> list[dict[str, Any]]:
    return [{"n": i, "t": str(i)} for i in range(count)]


@pytest.mark.parametrize(
    "factory",
    [
        lambda: iter(dicts(7)),
        lambda: ((i, str(i)) for i in range(7)),
        lambda: (pl.DataFrame([row]) for row in dicts(7)),
        lambda: pa.Table.from_pylist(dicts(7)).to_batches(max_chunksize=3),
        dicts(7),
        tuple(dicts(7)),
        dict.fromkeys(range(0)) or [pl.DataFrame(dicts(4)), pl.DataFrame(dicts(7)[4:])],
    ],
)
@pytest.mark.parametrize("request_", REQUESTS)
def test_every_kind_of_item(factory: Any, request_: Request) -> None:
    source = IterableSource(factory, SCHEMA)
    assert rows(source.open({}, request_)) == [(i, str(i)) for i in range(7)]


@given(
    count=st.integers(0, 60), stop=st.integers(0, 60), most=st.integers(1, 30), kind=st.sampled_from("lfs")
)
def test_a_restart_goes_on_behind_the_items_taken(count: int, stop: int, most: int, kind: str) -> None:
    def from_start(start: int) -> Iterator[dict[str, Any]]:
        return iter(dicts(count)[start:])

    factory: Any = {"l": dicts(count), "f": lambda: iter(dicts(count)), "s": from_start}[kind]
    source = IterableSource(factory, SCHEMA)
    seen, positions = [], {}
    reader = source.open({}, Request())
    for chunk in chunks(reader, most):
        assert chunk.frame.height <= most
        seen += chunk.frame["n"].to_list()
        positions = {chunk.split: chunk.position}
        if len(seen) >= stop:
            break
    reader.close()
    seen += [row[0] for row in rows(source.open(positions, Request()))]
    assert seen == list(range(count))


def test_many_rows_keep_their_order_and_come_in_large_frames() -> None:
    source = IterableSource(lambda: ({"n": i, "t": None} for i in range(200_000)), SCHEMA)
    found = list(chunks(source.open({}, Request()), 250_000))
    assert pl.concat(chunk.frame for chunk in found)["n"].to_list() == list(range(200_000))
    assert len(found) < 200


def test_a_clock_moved_by_hand_gives_the_same_cuts_every_time() -> None:
    for _ in range(3):
        reader = IterableSource(lambda: iter(dicts(25)), SCHEMA).open({}, Request(clock=HandClock()))
        assert [chunk.frame.height for chunk in chunks(reader, 10)] == [10, 10, 5]


def test_a_row_is_handed_on_while_the_iterator_waits() -> None:
    gate = threading.Event()

    def slow() -> Iterator[dict[str, Any]]:
        yield {"n": 1, "t": "first"}
        gate.wait(30)
        yield {"n": 2, "t": "second"}

    reader = IterableSource(slow, SCHEMA).open({}, Request())
    found = chunks(reader)
    assert next(found).frame.rows() == [(1, "first")]
    assert isinstance(reader.poll(10), Wait)
    gate.set()
    assert next(found).frame.rows() == [(2, "second")]


def test_reading_ahead_is_bounded_and_close_ends_the_iterator() -> None:
    drawn, closed = [0], threading.Event()

    def endless() -> Iterator[dict[str, Any]]:
        try:
            while True:
                drawn[0] += 1
                yield {"n": drawn[0], "t": ""}
        finally:
            closed.set()

    reader = IterableSource(endless, SCHEMA, bounded=False).open({}, Request())
    before, deadline = -1, time.monotonic() + 20
    while drawn[0] != before and time.monotonic() < deadline:
        before = drawn[0]
        closed.wait(0.05)
    assert drawn[0] < 200_000
    reader.close()
    assert closed.wait(20)


def good_and_bad() -> list[dict[str, Any]]:
    mixed = dicts(100)
    mixed[17] = {"n": "x", "t": "17"}
    mixed[64] = {"n": 64, "t": "64", "extra": 1}
    return mixed


@pytest.mark.parametrize("as_function", [True, False])
def test_bad_rows_by_policy(as_function: bool) -> None:
    def source(policy: str) -> IterableSource:
        return IterableSource(
            (lambda: iter(good_and_bad())) if as_function else good_and_bad(), SCHEMA, on_error=policy
        )

    with pytest.raises(DataError, match=r"Row (17|64) of the iterator"):
        rows(source("fail").open({}, Request()))
    good = [(i, str(i)) for i in range(100) if i not in (17, 64)]
    for policy in ("skip", "collect"):
        found = list(chunks(source(policy).open({}, Request())))
        assert [row for chunk in found for row in chunk.frame.rows()] == good
        assert sum(chunk.scanned_rows or 0 for chunk in found) == 100
        rejected = [chunk.rejected for chunk in found if chunk.rejected is not None]
        if policy == "skip":
            assert rejected == []
        else:
            bad = pl.concat(rejected)
            assert bad["position"].to_list() == [17, 64]
            assert "extra" in bad["reason"][1]
            assert bad["raw"][0] == repr({"n": "x", "t": "17"})


def test_a_frame_of_another_schema_is_refused_by_item() -> None:
    source = IterableSource([pl.DataFrame(dicts(2)), pl.DataFrame({"n": ["x"], "t": ["y"]})], SCHEMA)
    with pytest.raises(DataError, match="'n' of item 1 of the iterator is String, not Int64"):
        rows(source.open({}, Request()))


@pytest.mark.parametrize("request_", REQUESTS)
def test_an_error_of_the_iterator_comes_behind_the_rows_before_it(request_: Request) -> None:
    def broken() -> Iterator[dict[str, Any]]:
        yield from dicts(3)
        raise KeyError("lost")

    found = chunks(IterableSource(broken, SCHEMA).open({}, request_))
    assert pl.concat([next(found).frame])["n"].to_list() == [0, 1, 2]
    with pytest.raises(ConnectorError, match="failed behind item 3: KeyError") as raised:
        next(found)
    assert isinstance(raised.value.__cause__, KeyError)


@pytest.mark.parametrize("factory", [dicts(2), lambda: iter(dicts(2))])
def test_fewer_items_than_the_checkpoint_are_refused(factory: Any) -> None:
    with pytest.raises(ConnectorError, match="behind item 5 of an iterator that has only 2"):
        rows(IterableSource(factory, SCHEMA).open({"items": 5}, Request()))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: IterableSource(iter([]), SCHEMA), InvalidQuery, "pass a function that makes it"),
        (lambda: IterableSource((x for x in []), SCHEMA), InvalidQuery, "only once"),
        (lambda: IterableSource(5, SCHEMA), InvalidQuery, "neither called nor iterated"),  # type: ignore[arg-type]
        (lambda: IterableSource([], {"n": "int"}), InvalidQuery, "cannot be read"),
        (lambda: IterableSource([], SCHEMA, on_error="drop"), InvalidSettings, "drop"),
    ],
)
def test_refusals(make: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_empty_and_described() -> None:
    source = IterableSource([], SCHEMA)
    assert rows(source.open({}, Request())) == []
    assert source.schema() == pl.Schema(SCHEMA)
    assert source.bounded
    assert IterableSource(dicts, SCHEMA).describe()["items"] == "dicts"
    assert_frame_equal(pl.DataFrame(schema=source.schema()), pl.DataFrame(schema=SCHEMA))
