"""Functions with state and timers against plain Python over a dictionary of states."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import polars as pl
import pytest

import unistream as us
from unistream.clock import Random
from unistream.elements import Batch, Watermark
from unistream.errors import DataError, InvalidQuery, InvalidSettings, StateError, UnistreamError
from unistream.expressions.schema import EventTime, StreamSchema
from unistream.operators import process
from unistream.operators.process import Process, ProcessContext, ProcessFunction
from unistream.operators.process_batches import ProcessBatches
from unistream.testing import verify
from unistream.testing.asserts import assert_same_rows
from unistream.testing.bench import OperatorBench
from unistream.testing.harness import OperatorHarness, Passed

SCHEMA = StreamSchema(
    pl.Schema({"k": pl.String, "t": pl.Int64, "v": pl.Int64}), event_time=EventTime("t", "s")
)
SECOND = 1_000_000
Replay = Callable[..., dict[str, pl.DataFrame]]
Seeds = Callable[[int], range]


class Everything(ProcessFunction):
    """Uses every kind of state, timers that chain and are cancelled, and a side output."""

    output = {"k": pl.String, "what": pl.String, "value": pl.Int64}
    side_outputs = {"large": {"k": pl.String, "v": pl.Int64}}
    last = us.ValueState(pl.Int64)
    total = us.ReducingState(pl.Int64, lambda one, other: one + other)
    recent = us.ListState(pl.Int64)
    counts = us.MapState(pl.Int64, pl.Int64)

    def process(self, key: Any, row: dict[str, Any], ctx: ProcessContext) -> Iterator[dict[str, Any]]:
        value = row["v"] or 0
        if self.last.value is not None:
            yield {"k": key, "what": "step", "value": value - self.last.value}
        self.last.value = value
        self.total.add(value)
        self.recent.append(value)
        self.counts[value] = self.counts.get(value, 0) + 1
        if value > 3:
            ctx.emit_to("large", {"k": key, "v": value})
        if len(self.recent) == 3:
            ctx.emit({"k": key, "what": "three", "value": sum(self.recent)})
            self.recent.clear()
        if self.counts[value] == 3:
            yield {"k": key, "what": "thrice", "value": value}
            del self.counts[value]
        if value == 0:
            ctx.cancel_timer(ctx.time + 5 * SECOND)
            self.last.clear()
            self.total.clear()
        elif value > 0:
            ctx.set_timer(ctx.time + value * SECOND)

    def on_timer(self, key: Any, time: int, ctx: ProcessContext) -> Iterator[dict[str, Any]]:
        yield {"k": key, "what": f"timer {time // SECOND}", "value": self.total.value}
        if time // SECOND % 4 == 0:
            ctx.set_timer(time + SECOND)


def reference(rows: list[tuple[Any, Any, Any]]) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """The same over one dictionary; all rows come before all timers."""
    made: list[tuple[Any, ...]] = []
    large: list[tuple[Any, ...]] = []
    states: dict[Any, dict[str, Any]] = {}
    timers: dict[Any, set[int]] = {}
    for key, time, given in rows:
        value = given or 0
        state = states.setdefault(key, {"last": None, "total": None, "recent": [], "counts": {}})
        if state["last"] is not None:
            made.append((key, "step", value - state["last"]))
        state["last"] = value
        state["total"] = value if state["total"] is None else state["total"] + value
        state["recent"].append(value)
        state["counts"][value] = state["counts"].get(value, 0) + 1
        if value > 3:
            large.append((key, value))
        if len(state["recent"]) == 3:
            made.append((key, "three", sum(state["recent"])))
            state["recent"] = []
        if state["counts"][value] == 3:
            made.append((key, "thrice", value))
            del state["counts"][value]
        if value == 0:
            timers.setdefault(key, set()).discard(time + 5)
            state["last"] = state["total"] = None
        elif value > 0:
            timers.setdefault(key, set()).add(time + value)
    for key, times in timers.items():
        while times:
            time = min(times)
            times.remove(time)
            made.append((key, f"timer {time}", states[key]["total"]))
            if time % 4 == 0:
                times.add(time + 1)
    return made, large


def spec(function: ProcessFunction, by: tuple[str, ...] = ("k",)) -> Process:
    sides = {tag: pl.Schema(columns) for tag, columns in function.side_outputs.items()}
    return Process(by=by, function=function, made=pl.Schema(function.output), sides=sides)


def random_rows(random: Random, count: int) -> list[tuple[Any, Any, Any]]:
    return [
        (random.choice(["a", "b", None]), random.randint(0, 20), random.choice([0, 1, 2, 5, -1, None]))
        for _ in range(count)
    ]


def frame_of(rows: list[tuple[Any, Any, Any]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=SCHEMA.columns, orient="row")


def test_states_and_timers(replay: Replay, seeds: Seeds) -> None:
    for seed in seeds(600):
        rows = random_rows(Random(seed), 25)
        got = replay(spec(Everything()), [SCHEMA], [Batch(frame_of(rows))], seed)
        made, large = reference(rows)
        assert got[""].rows() == made or sorted(map(str, got[""].rows())) == sorted(map(str, made))
        assert got["large"].rows() == large


def test_timers_fire_in_order_when_time_passes(replay: Replay, seeds: Seeds) -> None:
    class Alarm(ProcessFunction):
        output = {"k": pl.String, "t": pl.Int64}

        def process(self, key: Any, row: dict[str, Any], ctx: ProcessContext) -> None:
            ctx.set_timer(row["v"] * SECOND)

        def on_timer(self, key: Any, time: int, ctx: ProcessContext) -> Iterator[dict[str, Any]]:
            assert ctx.time == time
            assert ctx.clock == "event"
            yield {"k": key, "t": time // SECOND}

    rows = [("a", 0, 9), ("b", 0, 3), ("a", 0, 4), ("a", 0, 3), ("a", 0, 4)]
    events = [Batch(frame_of(rows)), Watermark(3 * SECOND), Watermark(8 * SECOND)]
    for seed in seeds(20):
        got = replay(spec(Alarm()), [SCHEMA], events, seed)[""]["t"].to_list()
        assert got == [3, 3, 4, 9]
    harness = OperatorHarness(spec(Alarm()), SCHEMA).feeds(*events)
    harness.expects(pl.DataFrame({"k": ["b", "a", "a", "a"], "t": [3, 3, 4, 9]}), watermarks=["given"])


def test_processing_time_and_ttl() -> None:
    class Visits(ProcessFunction):
        output = {"k": pl.String, "n": pl.Int64}
        n = us.ReducingState(pl.Int64, lambda one, other: one + other, ttl="10s")

        def process(self, key: Any, row: dict[str, Any], ctx: ProcessContext) -> Iterator[dict[str, Any]]:
            self.n.add(1)
            ctx.set_timer(ctx.now + 2 * SECOND, clock="processing")
            yield {"k": key, "n": self.n.value}

        def on_timer(self, key: Any, time: int, ctx: ProcessContext) -> Iterator[dict[str, Any]]:
            assert ctx.clock == "processing"
            yield {"k": key, "n": -(self.n.value or 0)}

    one = frame_of([("a", 1, 1)])
    harness = OperatorHarness(spec(Visits()), SCHEMA)
    harness.feeds(one, Passed("3s"), one, Passed("3s"), Passed("8s"), one)
    expected = pl.DataFrame({"k": ["a"] * 5, "n": [1, -1, 2, -2, 1]})
    harness.expects(expected, watermarks=["given"])


def test_keys_without_state_take_no_room(tmp_path: Any) -> None:
    from unistream.config import Settings
    from unistream.metrics import Metrics
    from unistream.operators.base import Context
    from unistream.state.memory import MemoryBackend
    from unistream.testing import VirtualClock
    from unistream.testing.bench import Gathered

    class Brief(ProcessFunction):
        output = {"k": pl.String}
        last = us.ValueState(pl.Int64, ttl="1s")
        items = us.ListState(pl.Int64)

        def process(self, key: Any, row: dict[str, Any], ctx: ProcessContext) -> None:
            self.last.value = row["v"]
            self.items.append(1)
            self.items.clear()

    clock, store = VirtualClock(), MemoryBackend(tmp_path).store("operator")
    operator = spec(Brief()).build([SCHEMA])
    operator.open(Context("operator", clock, Metrics(), Settings(), store))
    out = Gathered(spec(Brief()).schema([SCHEMA]), Metrics())
    table = store.keyed("states", pl.Schema({"k": pl.String}), operator._kept._table.value_schema)  # type: ignore[attr-defined]
    operator.process(Batch(frame_of([("a", 1, 1), ("b", 1, None)])), out)
    assert table.scan()["k"].to_list() == ["a"]
    clock.advance("3s")
    assert (operator.next_wakeup() or 0) <= clock.now()
    operator.on_processing_time(clock.now(), out)
    assert len(table) == 0
    assert operator.next_wakeup() is None


def test_batch_and_stream_agree() -> None:
    rows = us.from_frame(frame_of(random_rows(Random(4), 30))).with_event_time("t", delay="30s", unit="s")
    verify(rows.group_by("k").process(Everything()), seeds=6, shuffled=False)


def test_several_keys_come_as_a_tuple() -> None:
    class Keys(ProcessFunction):
        def process(self, key: Any, row: dict[str, Any], ctx: ProcessContext) -> Iterator[dict[str, Any]]:
            yield {"key": str(key), "time": ctx.time}

    stream = us.from_frame(frame_of([("a", 1, 2)])).group_by("k", "v")
    made = stream.process(Keys(), schema={"key": pl.String, "time": pl.Int64}).collect()
    assert made.rows() == [("('a', 2)", None)]


def test_what_goes_wrong_is_told() -> None:
    class Wrong(ProcessFunction):
        output = {"a": pl.Int64}
        state = us.ValueState(pl.Int64)

        def __init__(self, how: str) -> None:
            self.how = how

        def open(self, ctx: ProcessContext) -> None:
            if self.how == "early":
                _ = self.state.value

        def process(self, key: Any, row: dict[str, Any], ctx: ProcessContext) -> Any:
            match self.how:
                case "columns":
                    ctx.emit({"b": 1})
                case "type":
                    ctx.emit({"a": "text"})
                case "state":
                    self.state.value = "text"
                case "tag":
                    ctx.emit_to("nowhere", {"a": 1})

    rows = us.from_frame(frame_of([("a", 1, 2)])).group_by("k")
    for how, message in {
        "columns": "declared are",
        "type": "does not have the types",
        "state": "'state' holds Int64 and was given 'text'",
        "tag": "no 'nowhere' in side_outputs",
        "early": "belongs to a key",
    }.items():
        with pytest.raises(UnistreamError, match=message):
            rows.process(Wrong(how)).collect()
    with pytest.raises(StateError):
        _ = Wrong("").state.value
    with pytest.raises(InvalidSettings, match="longer than nothing"):
        us.ValueState(pl.Int64, ttl=0)
    with pytest.raises(InvalidQuery, match="ProcessFunction"):
        rows.process(lambda key, row, ctx: None)  # type: ignore[arg-type]
    with pytest.raises(InvalidQuery, match="does not say what it gives"):
        rows.process(type("Silent", (ProcessFunction,), {"process": lambda *_: None})())
    with pytest.raises(InvalidQuery, match="only added"):
        us.from_frame({"k": [1]}).group_by("k").agg(n=pl.len()).group_by("n").process(Wrong(""))


def test_timers_without_end_are_stopped() -> None:
    class Forever(ProcessFunction):
        output = {"a": pl.Int64}

        def process(self, key: Any, row: dict[str, Any], ctx: ProcessContext) -> None:
            ctx.set_timer(datetime(2026, 1, 1))

        def on_timer(self, key: Any, time: int, ctx: ProcessContext) -> None:
            ctx.set_timer(time + 1)

    rows = us.from_frame(frame_of([("a", 1, 2)])).with_event_time("t", unit="s")
    with pytest.raises(UnistreamError, match="without end"):
        rows.group_by("k").process(Forever()).collect()


class Beats(ProcessFunction):
    """Every minute of the day that a key begins with, and `at_end` times over at the end of the input."""

    output = {"k": pl.String, "at": pl.Int64}
    begun = us.ValueState(pl.Boolean)

    def process(self, key: Any, row: dict[str, Any], ctx: ProcessContext) -> None:
        if not self.begun.value:
            self.begun.value = True
            ctx.set_timer(ctx.time + 60_000_000)

    def on_timer(self, key: Any, time: int, ctx: ProcessContext) -> None:
        if time < 86_400_000_000:
            ctx.set_timer(time + 60_000_000)
        else:
            ctx.emit({"k": key, "at": time})


@pytest.mark.parametrize("hours", [[0], [0, 25]], ids=["at the end", "when time has come"])
def test_many_keys_have_many_timers(monkeypatch: pytest.MonkeyPatch, hours: list[int]) -> None:
    """How many are too many is a question for each key, and none while time goes on."""
    monkeypatch.setattr(process, "_MOST_IN_A_ROW", 1_500 if hours == [0] else 1)
    rows = [(f"key {n}", hour * 3_600, None) for hour in hours for n in range(5)]
    beats = us.from_frame(frame_of(rows)).with_event_time("t", unit="s").group_by("k").process(Beats())
    settings = us.Settings(whole_query=False, tick_rows=5)
    assert beats.collect(settings=settings)["at"].to_list() == [86_400_000_000] * 5


@pytest.mark.parametrize("step", [0, -1])
def test_timers_that_never_get_ahead_are_stopped(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    class Standing(ProcessFunction):
        output = {"a": pl.Int64}

        def process(self, key: Any, row: dict[str, Any], ctx: ProcessContext) -> None:
            ctx.set_timer(ctx.time + 1_000_000)

        def on_timer(self, key: Any, time: int, ctx: ProcessContext) -> None:
            ctx.set_timer(time + step)

    monkeypatch.setattr(process, "_MOST_IN_A_ROW", 1_000)
    bench = OperatorBench(spec(Standing()), [SCHEMA])
    bench.process(Batch(frame_of([("a", 1, 2)])))
    with pytest.raises(DataError, match="without end") as error:
        bench.advance_watermark(3_000_000)
    assert "not later than the one that has come" in str(error.value)


# Batches


def numbered(frame: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The running number and sum of each row of its key; a key is forgotten after a negative value."""
    value = pl.col("v").fill_null(0)
    rows = frame.select(
        "k",
        n=pl.col("n").fill_null(0) + pl.int_range(1, pl.len() + 1).over("k"),
        total=pl.col("total").fill_null(0) + value.cum_sum().over("k"),
    )
    return rows, rows


BATCHES = ProcessBatches(
    by=("k",),
    function=numbered,
    state=pl.Schema({"n": pl.Int64, "total": pl.Int64}),
    made=pl.Schema({"k": pl.String, "n": pl.Int64, "total": pl.Int64}),
)


def test_batches_with_state(replay: Replay, seeds: Seeds) -> None:
    for seed in seeds(300):
        rows = random_rows(Random(seed), 25)
        states: dict[Any, tuple[int, int]] = {}
        expected = []
        for key, _, value in rows:
            n, total = states.get(key, (0, 0))
            states[key] = (n + 1, total + (value or 0))
            expected.append((key, *states[key]))
        got = replay(BATCHES, [SCHEMA], [Batch(frame_of(rows))], seed)[""]
        assert got.rows() == expected


def test_batches_forget_states_of_nulls() -> None:
    def until_zero(frame: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
        rows = frame.select("k", seen=pl.col("seen"))
        last = frame.group_by("k").last()
        return rows, last.select("k", seen=pl.when(pl.col("v") != 0).then("v"))

    made = ProcessBatches(
        by=("k",),
        function=until_zero,
        state=pl.Schema({"seen": pl.Int64}),
        made=pl.Schema({"k": pl.String, "seen": pl.Int64}),
    )
    events = [frame_of([("a", 0, value)]) for value in (4, 0, 7, 2)]
    expected = pl.DataFrame({"k": ["a"] * 4, "seen": [None, 4, None, 7]})
    harness = OperatorHarness(made, SCHEMA)
    for event in events:
        harness.feeds(event, Watermark(0))
    bench = harness.run(next(iter(harness.schedules())))
    assert_same_rows(pl.concat(bench.frames[""]), expected)


def test_batches_check_what_comes_back() -> None:
    rows = us.from_frame({"k": ["a", "a"], "v": [1, 2]}).group_by("k")
    state = {"s": pl.Int64}
    schema = {"k": pl.String}
    with pytest.raises(UnistreamError, match="gave states with columns"):
        rows.process_batches(
            lambda f: (f.select("k"), f.select("k")), state_schema=state, schema=schema
        ).collect()
    with pytest.raises(UnistreamError, match="did not return rows and states"):
        rows.process_batches(lambda f: f, state_schema=state, schema=schema).collect()  # type: ignore[arg-type,return-value]
    with pytest.raises(InvalidQuery, match="column of the rows too"):
        rows.process_batches(numbered, state_schema={"v": pl.Int64})
    with pytest.raises(InvalidQuery, match="asked the function with an empty frame"):
        rows.process_batches(numbered, state_schema={"x": pl.Int64})


def test_batches_know_event_time_when_its_column_stays() -> None:
    rows = us.from_frame({"k": ["a"], "t": [1]}).with_event_time("t", unit="s")
    same = rows.group_by("k").process_batches(
        lambda f: (f.select("k", "t"), f.select("k", s=pl.col("t"))), state_schema={"s": pl.Int64}
    )
    assert same.window(us.tumbling("10s")).agg(n=pl.len()).collect().rows() == [(0, 10, 1)]


def test_data_errors_name_the_function() -> None:
    rows = us.from_frame({"k": ["a"]}).group_by("k")
    with pytest.raises(UnistreamError, match="broken") as caught:
        rows.process_batches(broken, state_schema={"s": pl.Int64}, schema={"k": pl.String}).collect()
    assert isinstance(caught.value.__cause__, DataError)


def broken(frame: pl.DataFrame) -> Any:
    return None
