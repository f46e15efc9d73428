"""Rows beside rules that change, against a loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import polars as pl
import pytest

import unistream as us
from unistream.clock import Random
from unistream.elements import Batch
from unistream.errors import InvalidQuery, UnistreamError
from unistream.expressions.schema import CHANGE, Change, Changes, EventTime, StreamSchema
from unistream.io.memory import MemorySink
from unistream.operators.broadcast import ROWS, RULES, Broadcast
from unistream.testing import ListSource, Pause, VirtualClock

COLUMNS = pl.Schema({"item": pl.String, "amount": pl.Int64})
LIMITS = pl.Schema({"item": pl.String, "most": pl.Int64})
MADE = pl.Schema({"item": pl.String, "amount": pl.Int64, "most": pl.Int64})
APPEND, UPSERT, RETRACT = (
    StreamSchema(LIMITS),
    StreamSchema(LIMITS, changes=Changes.UPSERT, key=("item",)),
    StreamSchema(LIMITS, changes=Changes.RETRACT),
)
Replay = Callable[..., dict[str, pl.DataFrame]]
Seeds = Callable[[int], range]


def with_limits(frame: pl.DataFrame, limits: pl.DataFrame) -> pl.DataFrame:
    return frame.join(limits, on="item", maintain_order="left_right").select(MADE.names())


SPEC = Broadcast(function=with_limits, made=MADE)


@pytest.mark.parametrize("rules", [APPEND, UPSERT, RETRACT], ids=["append", "upsert", "retract"])
def test_rows_see_the_rules_before_them(replay: Replay, seeds: Seeds, rules: StreamSchema) -> None:
    for seed in seeds(70):
        random = Random(seed)
        table: list[tuple[str, int]] = []
        events, expected = [], []
        for _ in range(12):
            item = random.choice("abc")
            if random.random() < 0.5:
                events.append(Batch(change(random, rules, table, item), RULES))
                continue
            row = (item, random.randint(0, 9))
            events.append(Batch(pl.DataFrame([row], schema=COLUMNS, orient="row"), ROWS))
            expected += [(*row, most) for name, most in table if name == item]
        got = replay(SPEC, [rules, StreamSchema(COLUMNS)], events, seed)[""]
        assert sorted(got.rows()) == sorted(expected)


def change(random: Random, rules: StreamSchema, table: list[tuple[str, int]], item: str) -> pl.DataFrame:
    """One change of the rules, also made in `table`."""
    rule, marks = (item, random.randint(0, 3)), Change.INSERT
    if rules.changes is Changes.UPSERT:
        table[:] = [one for one in table if one[0] != item]
        marks = random.choice([Change.UPDATE_AFTER, Change.DELETE])
    if rules.changes is Changes.RETRACT and table and random.random() < 0.5:
        rule, marks = table.pop(random.randrange(len(table))), Change.DELETE
    elif marks is not Change.DELETE:
        table.append(rule)
    frame = pl.DataFrame([rule], schema=LIMITS, orient="row")
    if rules.changes is Changes.APPEND:
        return frame
    return frame.with_columns(pl.lit(marks.value, pl.Int8).alias(CHANGE))


def test_rules_of_the_same_tick_come_first() -> None:
    orders = us.from_frame({"item": ["a", "b"], "amount": [1, 2]})
    limits = us.from_frame({"item": ["b", "b"], "most": [4, 5]})
    assert rows_of_one_thread(orders.broadcast(limits, with_limits)) == [("b", 2, 4), ("b", 2, 5)]
    latest = limits.unique("item", keep="last")
    assert rows_of_one_thread(orders.broadcast(latest, with_limits)) == [("b", 2, 5)]


def rows_of_one_thread(stream: us.Stream) -> list[tuple[Any, ...]]:
    """Results when each tick takes what there is."""
    sink = MemorySink()
    runtime = stream.sink(sink).runtime(threads=False, clock=VirtualClock())
    runtime.open()
    runtime.run()
    runtime.close()
    return [row for frame in sink.frames() for row in frame.rows()]


def test_rules_that_are_there_come_before_any_row() -> None:
    """However long they take, and through whatever steps they come."""
    orders = us.scan(ListSource(COLUMNS, [pl.DataFrame({"item": ["a", "b"], "amount": [1, 2]})]))
    first, second = ({"item": [item], "most": [most]} for item, most in (("b", 4), ("b", 5)))
    limits = us.scan(ListSource(LIMITS, [pl.DataFrame(first), pl.DataFrame(second)]))  # one a tick
    assert rows_of_one_thread(orders.broadcast(limits, with_limits)) == [("b", 2, 4), ("b", 2, 5)]
    for _ in range(20):  # and with a thread for each reader
        both = us.from_frame({"item": ["b"], "most": [4]}).union(us.from_frame({"item": ["b"], "most": [5]}))
        told = us.from_frame({"item": ["b"], "amount": [2]}).broadcast(both, with_limits).collect()
        assert sorted(told["most"]) == [4, 5]


def test_what_waits_for_rules_says_so_and_goes_on_with_them() -> None:
    orders = us.scan(ListSource(COLUMNS, [pl.DataFrame({"item": ["a"], "amount": [1]})], bounded=False))
    rules = [pl.DataFrame({"item": [item], "most": [1]}) for item in "bca"]
    limits = us.scan(ListSource(LIMITS, [*rules, Pause("1h")], bounded=False))
    sink = MemorySink()
    runtime = orders.broadcast(limits, with_limits).sink(sink).runtime(threads=False, clock=VirtualClock())
    runtime.open()
    runtime.step()
    waiting = [source.waiting_for for source in runtime.progress("running").sources.values()]
    assert any("has not given its first rows" in text for text in waiting), waiting
    for _ in range(6):
        runtime.step()
    assert [frame.rows() for frame in sink.frames()] == [[("a", 1, 1)]]
    runtime.close()


def test_two_streams_that_are_each_others_rules_do_not_wait_for_ever() -> None:
    orders = us.from_frame({"item": ["a"], "amount": [1]})
    limits = us.from_frame({"item": ["a"], "most": [1]})
    seen: list[pl.DataFrame] = []
    one = orders.broadcast(limits, with_limits).sink_batches(seen.append)
    other = limits.broadcast(orders, lambda rows, table: rows).sink_batches(seen.append)
    us.job(one, other).run(progress=False)
    assert ("a", 1) in [row[:2] for frame in seen for row in frame.rows()]


def test_rules_without_time_hold_no_window_open() -> None:
    frame = pl.DataFrame({"item": ["a", "b"], "amount": [1, 20]})
    rows = us.scan(ListSource(COLUMNS, [frame], bounded=False)).with_event_time("amount", unit="s")
    rules = us.scan(ListSource(LIMITS, [pl.DataFrame({"item": ["a"], "most": [1]})], bounded=False))
    counts = rows.broadcast(rules, lambda frame, limits: frame).window(us.tumbling("10s")).agg(n=pl.len())
    sink = MemorySink()
    runtime = counts.sink(sink).runtime(threads=False, clock=VirtualClock())
    runtime.open()
    for _ in range(5):
        runtime.step()
    assert [frame.rows() for frame in sink.frames()] == [[(0, 10, 1)]]
    runtime.close()


def test_event_time_stays_with_its_column() -> None:
    rows = StreamSchema(COLUMNS, event_time=EventTime("amount"))
    assert SPEC.schema([APPEND, rows]).event_time == EventTime("amount")
    without = Broadcast(function=with_limits, made=LIMITS)
    assert without.schema([APPEND, rows]).event_time is None


def test_what_it_cannot_do() -> None:
    orders = us.from_frame({"item": ["a"], "amount": [1]})
    limits = us.from_frame({"item": ["b"], "most": [4]})
    with pytest.raises(InvalidQuery, match="takes a stream of rules"):
        orders.broadcast(pl.DataFrame({"a": [1]}), with_limits)  # type: ignore[arg-type]
    with pytest.raises(InvalidQuery, match="only added"):
        orders.unique("item", keep="last").broadcast(limits, with_limits)
    with pytest.raises(UnistreamError, match="promised"):
        orders.broadcast(limits, with_limits, schema={"a": pl.Int64}).collect()

    def raises(frame: pl.DataFrame, rules: pl.DataFrame) -> Any:
        raise ValueError("no rows")

    with pytest.raises(InvalidQuery, match="empty frame and it raised ValueError"):
        orders.broadcast(limits, raises)
