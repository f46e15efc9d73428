"""Look-ups in any order: against those in order, with answers that come when a seeded schedule says so."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import unistream as us
from unistream.config import Settings
from unistream.elements import MAX_TIME, MIN_TIME, Batch
from unistream.expressions.schema import StreamSchema
from unistream.faults import Crashed
from unistream.operators import lookup_calls
from unistream.operators.lookup_calls import CalledAnswers
from unistream.operators.lookup_tables import Answer, AskedTable, Calls
from unistream.operators.lookup_unordered import UnorderedLookup, UnorderedLookupOperator
from unistream.testing import ListSource, VirtualClock, crash_at, verify
from unistream.testing.asserts import assert_same_rows
from unistream.testing.bench import OperatorBench
from unistream.testing.committed import CommittedSink

ROWS = StreamSchema(pl.Schema({"k": pl.Int64, "n": pl.Int64}))
TABLE = pl.DataFrame({"k": [2, 3, 4, 4, 6], "v": ["b", "c", "d", "dd", "f"]})


class Scripted:
    """Answers from a table; each call is answered after as many looks (`ready`) as chance says."""

    def __init__(self, rng: np.random.Generator, table: pl.DataFrame = TABLE, batch: int = 2) -> None:
        self._rng, self._table, self._batch = rng, table, batch
        self._calls: list[list[Any]] = []
        self.longest = 4
        self.questions: list[list[int]] = []
        self.waited = 0
        self.closed = False

    def ask(self, keys: pl.DataFrame) -> None:
        self.questions.append(keys["k"].to_list())
        outstanding = pl.concat([call[1]["k"] for call in self._calls] or [keys["k"].clear()])
        assert not keys["k"].is_in(outstanding.implode()).any(), "a key is asked for twice at once"
        for part in keys.iter_slices(self._batch):
            self._calls.append([int(self._rng.integers(0, self.longest + 1)), part])

    @property
    def ready(self) -> bool:
        for call in self._calls:
            call[0] -= 1
        return any(call[0] <= 0 for call in self._calls)

    def arrived(self, wait: bool) -> list[Answer]:
        if wait and self._calls:
            self.waited += 1
            self._calls[int(self._rng.integers(len(self._calls)))][0] = 0
        found = [keys for left, keys in self._calls if left <= 0]
        self._calls = [call for call in self._calls if call[0] > 0]
        assert found or not wait, "waits for nothing"
        return [Answer(keys, self._table.join(keys, on="k", how="semi")) for keys in found]

    def answer(self, *keys: int) -> None:
        """These are there at the next look, and no others."""
        for call in self._calls:
            call[0] = 0 if set(call[1]["k"]) & set(keys) else 10**6

    def close(self) -> None:
        self.closed = True


def unordered(scripted: Scripted, how: str = "left", **options: Any) -> UnorderedLookup:
    table = AskedTable(
        columns=TABLE.schema,
        open=lambda _: pytest.fail("nobody waits for all answers"),
        begin=lambda wake: scripted,
        text="scripted",
        keep=options.pop("keep", 0),
        most_keys=options.pop("most_keys", 100),
    )
    return UnorderedLookup(by=("k",), table_by=("k",), adds={"v": "v"}, table=table, how=how, **options)  # type: ignore[arg-type]


def operator_of(bench: OperatorBench) -> UnorderedLookupOperator:
    operator = bench._subtasks[0].operator
    assert isinstance(operator, UnorderedLookupOperator)
    return operator


def rows_of(keys: list[int | None], first: int = 0) -> pl.DataFrame:
    return pl.DataFrame({"k": keys, "n": range(first, first + len(keys))}, schema=ROWS.columns)


def numbers_out(bench: OperatorBench) -> list[int]:
    return pl.concat(bench.frames[""])["n"].to_list() if bench.frames else []


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., list[Scripted]]]:
    """Have every function of a job answered by a schedule; gives the list of those that were begun."""
    begun: list[Scripted] = []

    def use(seed: int, table: pl.DataFrame = TABLE, longest: int = 4, batch: int = 2) -> list[Scripted]:
        rng = np.random.default_rng(seed)

        def begin(calls: Calls, wake: Callable[[], object]) -> Scripted:
            begun.append(Scripted(rng, table, batch))
            begun[-1].longest = longest
            return begun[-1]

        monkeypatch.setattr(lookup_calls, "CalledAnswers", begin)
        return begun

    yield use
    assert all(scripted.closed for scripted in begun)


async def from_table(keys: pl.DataFrame) -> pl.DataFrame:
    return TABLE.join(keys, on="k", how="semi")


# Order and time


@pytest.mark.parametrize("how", ["left", "inner"])
@pytest.mark.parametrize(("keep", "most_waiting"), [(0, 1000), (0, 3), (10**9, 1000), (10**9, 1), (1, 7)])
def test_the_same_rows_as_in_order(how: str, keep: int, most_waiting: int) -> None:
    overtaken = 0
    for seed in range(6):
        rng = np.random.default_rng(seed)
        rows = rows_of(rng.choice([1, 2, 3, 4, 5, None], 60).tolist())
        spec = unordered(Scripted(rng), how, keep=keep, most_keys=3, most_waiting=most_waiting)
        with OperatorBench(spec, [ROWS]) as bench:
            start = 0
            while start < rows.height:
                count = int(rng.integers(1, 20))
                bench.process(Batch(rows[start : start + count]))
                bench.pass_time("1us")
                start += count
                assert len(operator_of(bench)._waiting) <= most_waiting
            bench.finish()
            assert not operator_of(bench).busy()
        expected = rows.join(TABLE, on="k", how=how, maintain_order="left_right")  # type: ignore[arg-type]
        got = pl.concat(bench.frames[""])
        assert_same_rows(got, expected, ordered=False)
        overtaken += not got["n"].is_sorted()
        assert got.group_by("k").agg(pl.col("n").diff().min() >= 0)["n"].all(), (
            "a row overtook one of its key"
        )
        filtered = rows.height - expected["n"].n_unique()
        assert bench.metrics.get("filtered") == (filtered if how == "inner" else 0)
        assert bench.metrics.get("rows_waiting") == 0
    assert overtaken or most_waiting == 1


def test_a_slow_key_holds_up_no_others() -> None:
    others_are_out = threading.Event()
    seen: list[int] = []

    async def answer(keys: pl.DataFrame) -> pl.DataFrame:
        if keys["k"][0] == 0:
            assert await asyncio.to_thread(others_are_out.wait, 30)
        return keys.with_columns(v=pl.col("k") * 10)

    def note(frame: pl.DataFrame) -> None:
        seen.extend(frame["v"].to_list())
        if len(seen) == 9:
            others_are_out.set()

    rows = us.from_frame({"k": list(range(10))})
    schema = {"k": pl.Int64, "v": pl.Int64}
    stream = rows.lookup(answer, on="k", schema=schema, batch=1, concurrency=2, ordered=False)
    stream.sink_batches(note).run(progress=False)
    assert seen[-1] == 0 and sorted(seen) == [key * 10 for key in range(10)]


def test_time_does_not_overtake_a_row() -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        scripted, told, first = Scripted(rng, batch=1), MIN_TIME, 0
        behind: dict[int, int] = {}
        with OperatorBench(unordered(scripted), [ROWS]) as bench:
            operator = operator_of(bench)
            for watermark in [*range(10, 200, 10), MAX_TIME]:
                keys = rng.integers(1, 12, int(rng.integers(1, 6))).tolist()
                behind |= dict.fromkeys(range(first, first + len(keys)), watermark - 10)
                bench.process(Batch(rows_of(keys, first)))
                first += len(keys)
                bench.advance_watermark(watermark)
                out = set(numbers_out(bench))
                # What is not out yet came behind the watermark that was handed on, or behind a later one.
                handed_on = operator.output_watermark(watermark)
                waiting = [time for number, time in behind.items() if number not in out]
                assert told <= handed_on <= min([watermark, *(max(time, 0) for time in waiting)])
                assert waiting or handed_on == watermark
                told = handed_on
            bench.finish()
            assert operator.output_watermark(MAX_TIME) == MAX_TIME


def test_a_watermark_goes_on_with_the_rows_it_waited_for() -> None:
    scripted = Scripted(np.random.default_rng(0), batch=1)
    with OperatorBench(unordered(scripted), [ROWS]) as bench:
        operator, out = operator_of(bench), bench._out
        operator.on_watermark(5, out)
        operator.process(Batch(rows_of([1])), out)
        operator.on_watermark(10, out)
        operator.process(Batch(rows_of([2, 3], 1)), out)
        operator.on_watermark(20, out)
        held = []
        for key in (3, 1, 2):
            scripted.answer(key)
            operator.on_processing_time(0, out)
            held.append(operator.output_watermark(20))
            assert ("held_by" in operator.explain_time()) is (key != 2)
        assert held == [5, 10, 20] and numbers_out(bench) == [2, 0, 1]


def runtime_of(job: us.Job, **options: Any) -> Any:
    settings = options.pop("settings", Settings(checkpoint_interval=1))
    runtime = job.runtime(clock=VirtualClock(), threads=False, settings=settings, **options)
    runtime.open()
    return runtime


def timed(rows: pl.DataFrame) -> us.Stream:
    return us.from_frame(rows).with_event_time("t", unit="s", delay="20s")


def windowed(stream: us.Stream) -> us.Stream:
    return stream.group_by(pl.col("v")).window(us.tumbling("10s")).agg(n=pl.len(), first=pl.col("t").min())


def timed_rows(seed: int, count: int = 60) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    times = np.arange(count) + rng.integers(0, 20, count)
    return pl.DataFrame({"k": rng.integers(1, 8, count), "t": times})


def test_windows_behind_it_stay_right(script: Callable[..., list[Scripted]]) -> None:
    for seed in range(4):
        script(seed, longest=30)
        rows = timed_rows(seed)
        looked_up = timed(rows).lookup(from_table, on="k", ordered=False, schema=TABLE.schema)
        sink = CommittedSink()
        runtime = runtime_of(windowed(looked_up).sink(sink), settings=Settings(tick_rows=5))
        assert runtime.run()
        runtime.close()
        expected = windowed(timed(rows.join(TABLE, on="k", how="left"))).collect()
        assert_same_rows(sink.result(), expected, ordered=False)
        assert runtime.progress("").late == 0


def test_the_same_windows_however_rows_arrive_and_wherever_it_dies(
    script: Callable[..., list[Scripted]],
) -> None:
    script(1, longest=6)
    looked_up = timed(timed_rows(9, 30)).lookup(from_table, on="k", ordered=False, schema=TABLE.schema)
    verify(looked_up, seeds=4, crashes=3)
    verify(windowed(looked_up), seeds=4, crashes=3)


# Checkpoints


def waiting_in(runtime: Any) -> list[int]:
    frames = runtime.tasks["lookup-1"].operator._waiting.frames
    return pl.concat(frames)["n"].to_list() if frames else []


def test_rows_that_wait_are_in_the_checkpoint_and_asked_for_again(
    tmp_path: Path, script: Callable[..., list[Scripted]]
) -> None:
    rows = rows_of([1, 2, 3, 4, 5, 6, None, 4, 2])
    sink = CommittedSink()
    source = us.scan(ListSource(ROWS.columns, [rows[:4], rows[4:]]))
    job = source.lookup(from_table, on="k", schema=TABLE.schema, ordered=False).sink(sink)

    begun = script(0, longest=10**6, batch=1)
    first = runtime_of(job, checkpoint=tmp_path)
    for key in (None, None, 2):
        begun[0].answer(*[key] if key else [])
        first._with.clock.advance("1s")
        first.step()
    first._with.clock.advance("1s")
    first.step()
    committed = sink.result()
    assert sorted(committed["n"].to_list()) == [1, 6, 8] and waiting_in(first) == [0, 2, 3, 4, 5, 7]
    begun[0].answer(4)  # handed on, and not in a checkpoint any more
    with pytest.raises(Crashed), crash_at("checkpoint.snapshot"):
        first._with.clock.advance("1s")
        first.step()
    assert waiting_in(first) == [0, 2, 4, 5]
    first.close()
    assert sink.result().equals(committed)

    script(1, longest=3, batch=1)
    second = runtime_of(job, checkpoint=tmp_path)
    assert waiting_in(second) == [0, 2, 3, 4, 5, 7] and begun[1].questions == [[1, 3, 4, 5, 6]]
    assert second.run()
    second.close()
    assert_same_rows(sink.result(), rows.join(TABLE, on="k", how="left"), ordered=False)


def test_a_stop_keeps_the_rows_that_wait(tmp_path: Path, script: Callable[..., list[Scripted]]) -> None:
    rows, sink = rows_of([1, 2, 3]), CommittedSink()
    source = us.scan(ListSource(ROWS.columns, [rows]))
    job = source.lookup(from_table, on="k", schema=TABLE.schema, ordered=False).sink(sink)
    script(0, longest=10**6)
    first = runtime_of(job, checkpoint=tmp_path)
    first.step()
    first.stop()
    assert not first.run()
    first.close()
    assert sink.result(pl.Schema({"n": pl.Int64})).is_empty()
    script(0, longest=0)
    second = runtime_of(job, checkpoint=tmp_path)
    assert second.run()
    second.close()
    assert_same_rows(sink.result(), rows.join(TABLE, on="k", how="left"), ordered=False)


# The end


@pytest.mark.parametrize("until", ["end", "available"])
def test_a_run_waits_for_what_is_outstanding(script: Callable[..., list[Scripted]], until: str) -> None:
    rows, sink = rows_of([1, 2, 3, 3, 6]), CommittedSink()
    source = us.scan(ListSource(ROWS.columns, [rows], bounded=until == "end"))
    job = source.lookup(from_table, on="k", schema=TABLE.schema, ordered=False).sink(sink)
    script(3, longest=50, batch=1)
    runtime = runtime_of(job, until=until)
    runtime.run()
    runtime.close()
    assert_same_rows(sink.result(), rows.join(TABLE, on="k", how="left"), ordered=False)


def test_a_stop_that_drains_waits_for_what_is_outstanding(script: Callable[..., list[Scripted]]) -> None:
    rows, sink = rows_of([1, 2, 3, 3, 6]), CommittedSink()
    source = us.scan(ListSource(ROWS.columns, [rows], bounded=False))
    job = source.lookup(from_table, on="k", schema=TABLE.schema, ordered=False).sink(sink)
    script(3, longest=50, batch=1)
    runtime = runtime_of(job)
    runtime.step()
    runtime.stop(drain=True)
    runtime.run()
    runtime.close()
    assert_same_rows(sink.result(), rows.join(TABLE, on="k", how="left"), ordered=False)


# What is asked, kept and bounded


def test_a_key_is_asked_for_once_while_it_is_outstanding_and_again_when_its_answer_is_old() -> None:
    scripted = Scripted(np.random.default_rng(0))
    with OperatorBench(unordered(scripted, keep=10_000_000), [ROWS]) as bench:
        scripted.longest = 10**6
        for keys in ([1, 2, 2], [2, 3, None], [1, 2, 3]):
            bench.process(Batch(rows_of(keys)))
        assert scripted.questions == [[1, 2], [3]]
        scripted.answer(1, 2, 3)
        bench.pass_time("1us")
        bench.process(Batch(rows_of([3, 2, 1])))
        assert scripted.questions == [[1, 2], [3]] and not operator_of(bench).busy()
        bench.pass_time("10s")
        bench.process(Batch(rows_of([3, 1])))
        assert scripted.questions[2:] == [[3, 1]]
        assert bench.metrics.get("keys_asked") == 5 and bench.metrics.get("keys_known") == 3


def test_no_more_rows_wait_than_allowed() -> None:
    scripted, most = Scripted(np.random.default_rng(0), batch=1), 5
    scripted.longest = 10**6
    with OperatorBench(unordered(scripted, most_waiting=most), [ROWS]) as bench:
        operator = operator_of(bench)
        bench.process(Batch(rows_of([1, 2, 3, 4, 5])))
        assert scripted.waited == 0 and len(operator._waiting) == most
        bench.process(Batch(rows_of([6, 7, 8], 5)))
        assert scripted.waited == 3 and len(operator._waiting) == most
        bench.process(Batch(rows_of([None, None], 8)))
        assert scripted.waited == 3 and numbers_out(bench)[-2:] == [8, 9]
        assert bench.metrics.get("rows_waiting") == len(operator._waiting)
        asked = operator.explain_time()
        assert asked["rows_waiting"] == len(operator._waiting) and "wait for answers" in asked["held_by"]
        bench.finish()
    assert sorted(set(numbers_out(bench))) == list(range(10))


def test_only_so_many_answers_are_kept() -> None:
    table = pl.DataFrame({"k": range(1000), "v": ["x"] * 1000})
    scripted = Scripted(np.random.default_rng(0), table, batch=10)
    with OperatorBench(unordered(scripted, keep=10**12, most_keys=100), [ROWS]) as bench:
        for start in range(0, 1000, 50):
            bench.process(Batch(rows_of(list(range(start, start + 50)), start)))
            assert operator_of(bench).explain_time()["keys_known"] <= 100
        bench.finish()
    assert sorted(numbers_out(bench)) == list(range(1000))


# Functions


class Calling:
    """A caller of a function, with its answers as they come."""

    def __init__(self, function: Any, **options: Any) -> None:
        self.woken = threading.Semaphore(0)
        self.answers = CalledAnswers(Calls(function=function, **options), self.woken.release)

    def ask(self, *keys: int) -> None:
        self.answers.ask(pl.DataFrame({"k": keys}))

    def keys(self, calls: int) -> list[list[int]]:
        """The keys of so many calls, in the order in which they were answered."""
        found: list[Answer] = []
        while len(found) < calls:
            found += self.answers.arrived(wait=True)
            for answer in found:
                assert answer.error is None and answer.rows is not None
        for _ in range(calls):
            assert self.woken.acquire(timeout=30)
        return [answer.keys["k"].to_list() for answer in found]

    def __enter__(self) -> Calling:
        return self

    def __exit__(self, *_: object) -> None:
        self.answers.close()
        assert not self.answers._thread.is_alive()


def test_keys_that_find_no_call_free_are_gathered() -> None:
    begun, released = threading.Event(), threading.Event()

    def slow(keys: pl.DataFrame) -> pl.DataFrame:
        begun.set()
        assert released.wait(30)
        return keys

    with Calling(slow, batch=3, concurrency=1) as calling:
        calling.ask(0)
        assert begun.wait(30)
        for key in range(1, 6):
            calling.ask(key)
        released.set()
        assert calling.keys(3) == [[0], [1, 2, 3], [4, 5]]


@pytest.mark.parametrize("plain", [True, False])
def test_no_more_calls_at_once_than_allowed(plain: bool) -> None:
    running, most = 0, 0
    together = threading.Barrier(3, timeout=30)

    def answer(keys: pl.DataFrame) -> pl.DataFrame:
        nonlocal running, most
        running += 1
        most = max(most, running)
        together.wait()
        running -= 1
        together.wait()
        return keys

    async def awaited(keys: pl.DataFrame) -> pl.DataFrame:
        return await asyncio.to_thread(answer, keys)

    with Calling(answer if plain else awaited, batch=2, concurrency=3) as calling:
        calling.ask(*range(24))
        assert sorted(chain.from_iterable(calling.keys(12))) == list(range(24))
    assert most == 3


def test_asynchronous_calls_share_one_loop() -> None:
    loops: set[asyncio.AbstractEventLoop] = set()

    async def answer(keys: pl.DataFrame) -> pl.DataFrame:
        loops.add(asyncio.get_running_loop())
        return keys

    with Calling(answer, batch=1) as calling:
        for key in range(5):
            calling.ask(key)
            calling.keys(1)
    assert len(loops) == 1


@pytest.mark.parametrize("plain", [True, False])
def test_a_call_that_fails_is_tried_again(plain: bool) -> None:
    seen: list[int] = []

    def flaky(keys: pl.DataFrame) -> pl.DataFrame:
        seen.append(keys["k"][0])
        if seen.count(3) == 1 and seen[-1] == 3:
            raise OSError("no connection")
        return keys

    async def awaited(keys: pl.DataFrame) -> pl.DataFrame:
        return flaky(keys)

    with Calling(flaky if plain else awaited, batch=1, concurrency=1, retries=1) as calling:
        calling.ask(1, 3, 4)
        assert calling.keys(3) == [[1], [3], [4]]
    assert seen == [1, 3, 3, 4]


async def never(keys: pl.DataFrame) -> pl.DataFrame:
    return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]


async def broken(keys: pl.DataFrame) -> pl.DataFrame:
    raise OSError("no route")


async def gives_up(keys: pl.DataFrame) -> pl.DataFrame:
    raise asyncio.CancelledError


def no_frame(keys: pl.DataFrame) -> Any:
    return [1]


def leaves(keys: pl.DataFrame) -> pl.DataFrame:
    raise SystemExit(3)


@pytest.mark.parametrize(
    ("function", "options", "message"),
    [
        (never, {"timeout": "10ms", "retries": 0}, "did not answer within 10ms (1 tries)"),
        (broken, {"retries": 1}, "raised OSError: no route (2 tries)"),
        (gives_up, {"retries": 0}, "raised CancelledError"),
        (no_frame, {}, "returned list, not a frame"),
        (leaves, {"retries": 0}, "raised SystemExit: 3"),
        (lambda keys: keys.rename({"k": "key"}), {}, "gave no column 'k'"),
    ],
)
def test_a_call_that_fails_for_good_fails_the_job(
    function: Any, options: dict[str, Any], message: str
) -> None:
    rows = us.from_frame({"k": [1, 2]})
    stream = rows.lookup(function, on="k", schema={"k": pl.Int64, "v": pl.Int64}, ordered=False, **options)
    with pytest.raises(us.JobFailed) as caught:
        stream.collect()
    assert "lookup-1 failed" in str(caught.value) and message in str(caught.value)
    assert "test_lookup_unordered.py" in str(caught.value)


def test_plain_calls_that_hang_take_no_place_from_those_that_follow() -> None:
    released = threading.Event()
    tries: list[int] = []

    def hangs(keys: pl.DataFrame) -> pl.DataFrame:
        tries.append(keys["k"][0])
        if len(tries) <= 2:
            released.wait(30)
        return keys

    with Calling(hangs, batch=1, concurrency=2, timeout=50_000, retries=1) as calling:
        try:
            calling.ask(1, 2)
            assert sorted(calling.keys(2)) == [[1], [2]]
        finally:
            released.set()
    assert sorted(tries) == [1, 1, 2, 2]


class UntilWoken(VirtualClock):
    """A job on it goes on when it is woken, and not by itself."""

    waits = 0

    def wait(self, event: threading.Event, seconds: float) -> bool:
        self.waits += 1
        assert event.wait(30), "nobody woke the job"
        return True


def test_an_answer_wakes_the_job() -> None:
    rows, clock, seen = rows_of([1, 2, 3]), UntilWoken(), list[int]()
    stream = us.from_frame(rows).lookup(
        from_table, on="k", schema=TABLE.schema, batch=1, concurrency=1, ordered=False
    )
    runtime = stream.sink_batches(lambda frame: seen.extend(frame["n"])).runtime(clock=clock, threads=False)
    runtime.open()
    while runtime.step():
        pass
    runtime.close()
    assert sorted(seen) == [0, 1, 2] and clock.waits <= 4


def test_windows_say_whom_they_wait_for(script: Callable[..., list[Scripted]]) -> None:
    begun = script(0, longest=10**6)
    stream = timed(timed_rows(0)).lookup(from_table, on="k", schema=TABLE.schema, ordered=False)
    runtime = runtime_of(windowed(stream).sink_batches(lambda frame: None), settings=Settings(tick_rows=30))
    runtime.step()
    begun[0].answer(*range(8))
    runtime.step()
    said = str(runtime.explain_time())
    runtime.close()
    waiting = len(runtime.tasks["lookup-1"].operator._waiting)
    assert f"as lookup-1 says, held back by {waiting} rows that wait for answers" in said, said


def test_rows_of_keys_that_another_call_asked_for_do_not_count() -> None:
    scripted = Scripted(np.random.default_rng(0), batch=1)
    rows = rows_of([2, 3, 4, 5])
    with OperatorBench(unordered(scripted), [ROWS]) as bench:
        scripted.longest = 10**6
        bench.process(Batch(rows))
        calls = [keys for _, keys in scripted._calls]
        assert len(calls) == 4
        scripted.arrived = lambda wait: [Answer(keys, TABLE) for keys in calls]  # type: ignore[method-assign]
        bench.finish()
    assert_same_rows(pl.concat(bench.frames[""]), rows.join(TABLE, on="k", how="left"), ordered=False)


def test_a_job_with_reader_threads() -> None:
    rows = rows_of([n % 7 for n in range(5000)])
    stream = us.from_frame(rows).lookup(
        from_table, on="k", schema=TABLE.schema, ordered=False, batch=3, waiting_rows=50, cache="1m"
    )
    seen: list[pl.DataFrame] = []
    stream.sink_batches(seen.append).run(progress=False, settings=Settings(tick_rows=400))
    assert_same_rows(pl.concat(seen), rows.join(TABLE, on="k", how="left"), ordered=False)


# What is said and refused


def test_explain_says_so() -> None:
    rows = us.from_frame({"k": [1]})
    stream = rows.lookup(from_table, on="k", schema=TABLE.schema, ordered=False, waiting_rows=500)
    assert "in any order, at most 500 rows waiting" in stream.explain()
    assert "in any order" not in rows.lookup(from_table, on="k", schema=TABLE.schema).explain()


ONE = us.from_frame({"k": [1], "n": [1]})


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (lambda: ONE.lookup(TABLE, on="k", ordered=False), "ordered=False is for functions"),
        (
            lambda: ONE.unique("n", keep="last").lookup(
                from_table, on="k", schema=TABLE.schema, ordered=False
            ),
            "lets rows overtake each other, and this stream updates its rows",
        ),
        (
            lambda: ONE.lookup(from_table, on="k", schema=TABLE.schema, ordered=False, waiting_rows=0),
            "waiting_rows must be a whole number from 1",
        ),
    ],
)
def test_mistakes(mistake: Any, message: str) -> None:
    with pytest.raises(us.UnistreamError) as caught:
        mistake()
    assert message in str(caught.value) and "test_lookup_unordered.py" in str(caught.value)
    assert caught.value.hint or "whole number" in message
