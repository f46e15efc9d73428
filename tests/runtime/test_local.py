"""The tick, with everything in one thread: time, ends, side outputs, sharing, commits, failures."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import polars as pl
import pytest

import unistream as us
from unistream.elements import MAX_TIME, Batch
from unistream.errors import ConnectorError, JobFailed
from unistream.expressions.schema import StreamSchema
from unistream.io.base import Position, Reader, Request, Sink, Source, Token, Writer, WriterContext
from unistream.io.frames import FrameSource
from unistream.io.memory import MemorySink
from unistream.operators.base import Operator, OperatorSpec, Output
from unistream.runtime.local import LocalRuntime
from unistream.testing import ListSource, Pause, Reject, VirtualClock

SCHEMA = {"n": pl.Int64}
TICKS = us.Settings(whole_query=False)


def opened(job: us.Job, **options: Any) -> LocalRuntime:
    runtime = job.runtime(threads=False, clock=VirtualClock(), settings=TICKS, **options)
    runtime.open()
    return runtime


@dataclass(frozen=True, eq=False)
class Counting(Source):
    """Counts how often a source is opened, polled and closed."""

    inner: Source
    counts: dict[str, int] = field(default_factory=lambda: {"opens": 0, "polls": 0, "closes": 0})
    name: ClassVar[str] = "counting"  # type: ignore[misc]

    @property
    def bounded(self) -> bool:
        return self.inner.bounded

    def schema(self) -> pl.Schema:
        return self.inner.schema()

    def open(self, positions: Mapping[str, Position], request: Request) -> Reader:
        self.counts["opens"] += 1
        return CountingReader(self.inner.open(positions, request), self.counts)


class CountingReader(Reader):
    def __init__(self, inner: Reader, counts: dict[str, int]) -> None:
        self.inner = inner
        self.counts = counts

    def poll(self, max_rows: int) -> Any:
        self.counts["polls"] += 1
        return self.inner.poll(max_rows)

    def close(self) -> None:
        self.counts["closes"] += 1
        self.inner.close()


@dataclass(frozen=True, eq=False, kw_only=True)
class Probe(OperatorSpec):
    """An operator made of functions, with what it was told written to `told`."""

    name: ClassVar[str] = "probe"
    stateful: ClassVar[bool] = False
    told: list[Any] = field(default_factory=list)
    process: Callable[[pl.DataFrame, Output], None] | None = None
    tags: Mapping[str, pl.Schema] = field(default_factory=dict)

    def schema(self, inputs: Sequence[StreamSchema]) -> StreamSchema:
        return StreamSchema(inputs[0].columns, bounded=inputs[0].bounded, side_outputs=self.tags)

    def build(self, inputs: Sequence[StreamSchema]) -> Operator:
        return ProbeOperator(self)


class ProbeOperator(Operator):
    def __init__(self, spec: Probe) -> None:
        self.spec = spec

    def process(self, batch: Batch, out: Output) -> None:
        self.spec.told.append(batch.frame["n"].to_list())
        if self.spec.process is None:
            out.emit(batch.frame, batch.split)
        else:
            self.spec.process(batch.frame, out)

    def on_watermark(self, watermark: int, out: Output) -> None:
        self.spec.told.append(watermark)

    def finish(self, out: Output) -> None:
        self.spec.told.append("finish")

    def close(self) -> None:
        self.spec.told.append("close")


def test_an_operator_is_told_rows_then_time_then_the_end() -> None:
    probe = Probe()
    runtime = opened(us.scan(ListSource(SCHEMA, [(1,), (2,)])).apply(probe).sink(MemorySink()))
    assert runtime.run() is True
    runtime.close()
    assert probe.told == [[1], [2], MAX_TIME, "finish", "close"]


def test_rows_emitted_at_the_end_reach_the_sink() -> None:
    class AtEnd(Probe):
        def build(self, inputs: Sequence[StreamSchema]) -> Operator:
            class Last(ProbeOperator):
                def finish(self, out: Output) -> None:
                    out.emit(pl.DataFrame({"n": [99]}))

            return Last(self)

    sink = MemorySink()
    opened(us.scan(ListSource(SCHEMA, [(1,)])).apply(AtEnd()).filter(pl.col("n") > 0).sink(sink)).run()
    assert sink.result()["n"].to_list() == [1, 99]


def test_a_shared_source_is_opened_and_polled_once_for_several_sinks() -> None:
    source = Counting(FrameSource(pl.DataFrame({"n": range(10)}), chunk_rows=3))
    rows = us.scan(source)
    sinks = [MemorySink(), MemorySink(), MemorySink()]
    jobs = [
        rows.sink(sinks[0]),
        rows.filter(pl.col("n") > 4).sink(sinks[1]),
        us.scan(source).select("n").sink(sinks[2]),
    ]
    runtime = opened(us.job(*jobs))
    runtime.run()
    runtime.close()
    assert [sink.result().height for sink in sinks] == [10, 5, 10]
    assert source.counts == {"opens": 1, "polls": 5, "closes": 1}
    assert runtime.progress("finished").rows_in == 10


def test_side_outputs_go_where_they_are_asked_for() -> None:
    def split(frame: pl.DataFrame, out: Output) -> None:
        out.emit(frame.filter(pl.col("n") % 2 == 0))
        out.emit_to("odd", frame.filter(pl.col("n") % 2 == 1))

    from unistream.plan.nodes import SideOutput

    probe = Probe(process=split, tags={"odd": pl.Schema(SCHEMA)})
    even = us.scan(ListSource(SCHEMA, [(n,) for n in range(6)])).apply(probe)
    odd = us.Stream(SideOutput(origin=even._node, tag="odd"))
    sinks = [MemorySink(), MemorySink()]
    opened(us.job(even.sink(sinks[0]), odd.sink(sinks[1]))).run()
    assert [sink.result()["n"].to_list() for sink in sinks] == [[0, 2, 4], [1, 3, 5]]


def test_rejected_rows_are_counted_and_conserved() -> None:
    rows = us.scan(ListSource(SCHEMA, [(1,), Reject("x", "why"), (5,), Reject("y"), (7,)]))
    sinks = [MemorySink(), MemorySink()]
    runtime = opened(us.job(rows.filter(pl.col("n") > 1).sink(sinks[0]), rows.rejected().sink(sinks[1])))
    runtime.run()
    now = runtime.progress("finished")
    assert sinks[1].result()["raw"].to_list() == ["x", "y"]
    assert (now.rows_in, now.filtered, now.rejected) == (5, 1, 2)
    assert now.rows_in == sinks[0].result().height + now.filtered + now.late + now.rejected


def test_a_filter_in_the_source_is_counted_too() -> None:
    runtime = opened(us.from_frame({"n": range(10)}).filter(pl.col("n") > 6).sink(MemorySink()))
    runtime.run()
    now = runtime.progress("finished")
    assert (now.rows_in, now.rows_out, now.filtered) == (10, 3, 7)


def test_until_available_ends_when_nothing_is_left_now() -> None:
    endless = us.scan(ListSource(SCHEMA, [(1,), (2,)], bounded=False))
    assert endless.collect(until="available")["n"].to_list() == [1, 2]
    sink = MemorySink()
    runtime = opened(endless.sink(sink), until="available")
    assert runtime.run() is True
    assert sink.result().height == 2


def test_until_available_does_not_wait_out_a_pause() -> None:
    endless = us.scan(ListSource(SCHEMA, [(1,), Pause("1h"), (2,)], bounded=False))
    sink = MemorySink()
    opened(endless.sink(sink), until="available").run()
    assert sink.result()["n"].to_list() == [1]


def test_progress_is_right_at_every_tick() -> None:
    source = ListSource(SCHEMA, [pl.DataFrame({"n": range(10)})] * 4)
    clock = VirtualClock()
    runtime = us.scan(source).sink(MemorySink()).runtime(threads=False, clock=clock, settings=TICKS)
    runtime.open()
    assert runtime.progress("running").done == 0
    assert runtime.progress("running").seconds_left is None
    for tick in range(1, 4):
        clock.advance("1s")
        assert runtime.tick()
        now = runtime.progress("running")
        assert (now.rows_in, now.rows_out, now.ticks) == (10 * tick, 10 * tick, tick)
        assert now.done == pytest.approx(tick / 4)
        assert now.seconds_left == pytest.approx(4 - tick)
        assert now.rows_per_second == pytest.approx(10)
        assert now.sources["list-1"].backlog_rows == 40 - 10 * tick
    runtime.run()
    assert runtime.progress("finished").done == 1
    assert runtime.progress("finished").seconds_left == 0
    assert runtime.progress("finished").sources["list-1"].ended


def test_time_stands_when_the_job_is_over() -> None:
    clock = VirtualClock()
    runtime = (
        us.scan(ListSource(SCHEMA, [(1,)]))
        .sink(MemorySink())
        .runtime(threads=False, clock=clock, settings=TICKS)
    )
    runtime.open()
    clock.advance("2s")
    runtime.run()
    runtime.close()
    before = runtime.progress("finished").seconds
    clock.advance("1h")
    assert runtime.progress("finished").seconds == before >= 2


# Sinks


@dataclass(frozen=True, eq=False)
class Recording(Sink):
    """Writes down every call; `fails` names the one that raises."""

    calls: list[str] = field(default_factory=list)
    fails: str = ""
    name: ClassVar[str] = "recording"  # type: ignore[misc]

    def did(self, call: str) -> None:
        self.calls.append(call)
        if call == self.fails:
            raise ConnectorError(f"{call} was refused", hint="ask again")

    def prepare_target(self, restored: bool) -> None:
        self.did("target")

    def open(self, context: WriterContext) -> Writer:
        self.did("open")
        return RecordingWriter(self)

    def commit(self, tokens: Sequence[Token]) -> None:
        self.did("commit")

    def abort(self, context: WriterContext) -> None:
        self.did("abort")


class RecordingWriter(Writer):
    def __init__(self, sink: Recording) -> None:
        self.sink = sink

    def write(self, frame: pl.DataFrame) -> None:
        self.sink.did("write")

    def prepare(self, checkpoint_id: int) -> Token | None:
        self.sink.did("prepare")
        return checkpoint_id

    def close(self) -> None:
        self.sink.did("close")


ROWS = us.scan(ListSource(SCHEMA, [(1,), (2,)]))


def test_a_bounded_job_commits_once_at_its_end() -> None:
    sink = Recording()
    runtime = opened(ROWS.sink(sink))
    runtime.run()
    runtime.close()
    assert sink.calls == ["target", "open", "write", "write", "prepare", "commit", "close", "abort"]


def test_a_stopped_bounded_job_commits_nothing() -> None:
    sink = Recording()
    runtime = opened(ROWS.sink(sink))
    runtime.tick()
    runtime.stop()
    assert runtime.run() is False
    runtime.close()
    assert "commit" not in sink.calls
    assert sink.calls[-1] == "abort"


@pytest.mark.parametrize("fails", ["write", "prepare", "commit"])
def test_a_failing_sink_fails_the_job_and_is_cleaned_up(fails: str) -> None:
    sink = Recording(fails=fails)
    with pytest.raises(JobFailed, match=f"recording-1 failed: {fails} was refused") as caught:
        ROWS.sink(sink).run(progress=False)
    assert caught.value.operator == "recording-1"
    assert caught.value.hint == "ask again"
    assert "test_local.py" in (caught.value.where or "")
    assert sink.calls[-2:] == ["close", "abort"]


@pytest.mark.parametrize("fails", ["target", "open"])
def test_a_target_that_cannot_be_used_is_said_before_a_row_is_read(fails: str) -> None:
    source = Counting(ListSource(SCHEMA, [(1,)]))
    with pytest.raises(ConnectorError, match=f"{fails} was refused"):
        us.scan(source).sink(Recording(fails=fails)).start()
    assert source.counts["polls"] == 0


# Failures


@dataclass(frozen=True, eq=False)
class Broken(Source):
    """Gives a row, then fails."""

    error: Exception
    name: ClassVar[str] = "broken"  # type: ignore[misc]

    @property
    def bounded(self) -> bool:
        return True

    def schema(self) -> pl.Schema:
        return pl.Schema(SCHEMA)

    def open(self, positions: Mapping[str, Position], request: Request) -> Reader:
        return BrokenReader(ListSource(SCHEMA, [(1,)]).open(positions, request), self.error)


class BrokenReader(Reader):
    def __init__(self, inner: Reader, error: Exception) -> None:
        self.inner = inner
        self.error = error

    def poll(self, max_rows: int) -> Any:
        polled = self.inner.poll(max_rows)
        if hasattr(polled, "frame"):
            return polled
        raise self.error


@pytest.mark.parametrize("threads", [True, False])
@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ConnectorError("the server is away", hint="start it"), "broken-1 failed: the server is away"),
        (ValueError("boom"), "broken-1 failed: ValueError: boom"),
    ],
)
def test_a_failing_reader_names_itself(error: Exception, message: str, threads: bool) -> None:
    job = us.scan(Broken(error)).sink(MemorySink())
    with pytest.raises(JobFailed, match=message) as caught:
        if threads:
            job.run(progress=False)
        else:
            opened(job).run()
    assert caught.value.operator == "broken-1"
    assert caught.value.__cause__ is error
    assert "us.scan(Broken(error))" in (caught.value.where or "")


def test_a_failing_function_is_shown_without_data() -> None:
    def divide(frame: pl.DataFrame) -> pl.DataFrame:
        raise ZeroDivisionError("secret-free message")

    rows = pl.DataFrame({"name": ["TOPSECRET"], "n": [1]})
    stream = us.from_frame(rows).map_batches(divide, schema={"n": pl.Int64})
    with pytest.raises(JobFailed) as caught:
        stream.collect()
    text = str(caught.value)
    assert caught.value.operator == "stateless-1"
    assert "ZeroDivisionError" in text
    assert re.search("batch of 1 rows with columns .*name.*String.*n.*Int64", text)
    assert "map_batches(divide" in text
    assert "TOPSECRET" not in text
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_failure_survives_pickling() -> None:
    failed = JobFailed("what", "where", "hint", "operator-1")
    again = pickle.loads(pickle.dumps(failed))
    assert str(again) == str(failed)
    assert again.operator == "operator-1"
    later = pickle.loads(pickle.dumps(ConnectorError("what", "where", "hint", 2.5)))
    assert (later.retry_after, str(later)) == (2.5, "what\n  at where\nHint: hint")


def test_one_failing_close_leaves_nothing_else_open() -> None:
    source = Counting(ListSource(SCHEMA, [(1,)]))
    sink = Recording(fails="close")
    both = us.job(ROWS.sink(sink), us.scan(source).sink(MemorySink()))
    with pytest.raises(ConnectorError, match="close was refused"):
        both.run(progress=False)
    assert source.counts["closes"] == 1
    assert sink.calls[-1] == "abort"


def test_two_steps_cannot_have_one_name() -> None:
    rows = us.from_frame({"n": [1]}).map_batches(lambda frame: frame, schema=SCHEMA)
    twice = rows.filter(pl.col("n") > 0).named("x").union(rows.filter(pl.col("n") > 1).named("x"))
    with pytest.raises(us.InvalidQuery, match="'x'"):
        twice.collect(settings=TICKS)


def test_a_number_given_by_the_engine_avoids_the_names_of_the_user() -> None:
    rows = us.from_frame({"n": [1]}).map_batches(lambda frame: frame, schema=SCHEMA).named("stateless-1")
    both = rows.filter(pl.col("n") > 0).union(rows)
    assert both.collect(settings=TICKS).height == 2
    assert "stateless-2" in both.explain(settings=TICKS)
