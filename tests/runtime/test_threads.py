"""Jobs with their threads: bounded queues, prompt ends, interrupts, nothing left behind."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import unistream as us
from unistream.clock import SystemClock
from unistream.errors import JobFailed
from unistream.io.base import Chunk, Exhausted, Position, Reader, Request, Source, Wait
from unistream.io.memory import MemorySink
from unistream.runtime.feed import ThreadedFeed
from unistream.testing import ListSource

ROW = pl.DataFrame({"n": [1]})
EVERYTHING = 1 << 40


def eventually(true: Callable[[], bool], seconds: float = 20) -> None:
    """Poll until something holds; a deadline, so that a fault ends the test."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "did not happen"
        time.sleep(0.001)


class Endless(Source):
    """As many one-row chunks as anybody asks for, or `chunks` of them."""

    name = "endless"

    def __init__(self, chunks: int | None = None, nbytes: int = 8) -> None:
        self.reader = EndlessReader(chunks, nbytes)

    @property
    def bounded(self) -> bool:
        return self.reader.chunks is not None

    def schema(self) -> pl.Schema:
        return ROW.schema

    def open(self, positions: Mapping[str, Position], request: Request) -> Reader:
        return self.reader


class EndlessReader(Reader):
    def __init__(self, chunks: int | None, nbytes: int) -> None:
        self.chunks = chunks
        self.nbytes = nbytes
        self.polls = 0
        self.closed = 0
        self.acknowledged: list[Any] = []

    def poll(self, max_rows: int) -> Chunk | Wait | Exhausted:
        if self.polls == self.chunks:
            return Exhausted()
        self.polls += 1
        return Chunk("0", ROW, self.polls, self.nbytes)

    def acknowledge(self, positions: Mapping[str, Position]) -> None:
        self.acknowledged.append((positions, threading.current_thread().name))

    def close(self) -> None:
        self.closed += 1


def feed_of(reader: Reader, **settings: int) -> ThreadedFeed:
    return ThreadedFeed("test", reader, us.Settings(**settings), SystemClock(), threading.Event())


# Queues


@pytest.mark.parametrize(
    ("settings", "held"),
    [({"queue_chunks": 4}, 4), ({"queue_bytes": 3000}, 3), ({"queue_chunks": 2, "queue_bytes": 9000}, 2)],
)
def test_a_full_queue_makes_the_reader_wait(settings: dict[str, int], held: int) -> None:
    reader = EndlessReader(None, 1000)
    feed = feed_of(reader, **settings)
    try:
        for taken in range(50):
            # What was taken, what is queued, and the one the reader holds while it waits.
            eventually(lambda taken=taken: reader.polls == taken + held + 1)  # type: ignore[misc]
            assert (feed.backlog().rows, feed.backlog().total_rows) == (held, None)
            assert len(feed.take(1, EVERYTHING)) == 1
            assert reader.polls <= taken + 1 + held + 1
    finally:
        feed.close()
    assert reader.closed == 1


def test_a_chunk_larger_than_the_queue_still_passes() -> None:
    reader = EndlessReader(3, 10_000)
    feed = feed_of(reader, queue_bytes=1)
    got: list[Chunk] = []
    eventually(lambda: bool(got.extend(feed.take(1, EVERYTHING)) or len(got) == 3))
    eventually(lambda: feed.status().exhausted)
    feed.close()
    assert [chunk.position for chunk in got] == [1, 2, 3]


def test_nothing_is_exhausted_before_the_queue_is_empty() -> None:
    reader = EndlessReader(3, 8)
    feed = feed_of(reader)
    eventually(lambda: reader.polls == 3)
    for _ in range(3):
        assert not feed.status().exhausted
        assert len(feed.take(1, EVERYTHING)) == 1
    eventually(lambda: feed.status().exhausted)
    feed.close()


def test_chunks_before_an_error_are_given_first() -> None:
    class Fails(EndlessReader):
        def poll(self, max_rows: int) -> Chunk | Wait | Exhausted:
            if self.polls == 2:
                raise ValueError("third")
            return super().poll(max_rows)

    feed = feed_of(Fails(None, 8))
    got: list[Chunk] = []
    with pytest.raises(ValueError, match="third"):
        eventually(lambda: bool(got.extend(feed.take(1, EVERYTHING)) or False))
    feed.close()
    assert len(got) == 2


def test_an_acknowledgement_is_passed_on_by_the_reader_s_own_thread() -> None:
    reader = EndlessReader(None, 8)
    feed = feed_of(reader, queue_chunks=1)
    feed.acknowledge({"0": 1})
    eventually(lambda: bool(feed.take(1, EVERYTHING) and reader.acknowledged))
    feed.acknowledge({"0": 7})
    feed.close()
    assert reader.acknowledged[0] == ({"0": 1}, "unistream-test")
    assert reader.acknowledged[-1][0] == {"0": 7}


def test_a_slow_sink_keeps_the_reader_back() -> None:
    source, written, ahead = Endless(), 0, []

    def slow(frame: pl.DataFrame) -> None:
        nonlocal written
        ahead.append(source.reader.polls - written)
        written += frame.height
        if written == frame.height:  # the first call: let the reader run as far as it may
            eventually(lambda: source.reader.polls >= written + 5)

    settings = us.Settings(queue_chunks=4, tick_rows=3)
    with us.scan(source).sink_batches(slow).start(settings=settings) as run:
        eventually(lambda: written > 300)
        assert run.status == "running"
    # Four queued, three in the tick, and one in the reader's hands.
    assert max(ahead) <= 8


# Ends


def test_a_running_job_stops_within_two_seconds() -> None:
    sink, source = MemorySink(), Endless()
    run = us.scan(source).sink(sink).start()
    eventually(lambda: bool(sink.take()))
    assert run.stop(timeout=2)
    assert run.status == "stopped"
    assert run.wait(1)
    assert source.reader.closed == 1
    rows = sink.result().height
    assert run.progress.rows_out >= rows


def test_a_job_that_waits_stops_within_two_seconds() -> None:
    waiting = us.scan(ListSource({"n": pl.Int64}, [Wait(3600, "for ever")], bounded=False))
    run = waiting.sink(MemorySink()).start()
    eventually(lambda: run.progress.sources["list-1"].waiting_for != "")
    assert run.stop(timeout=2)


def test_wait_says_whether_the_end_came() -> None:
    with us.scan(Endless()).sink(MemorySink()).start() as run:
        assert run.wait(0.01) is False
        assert run.status == "running"
    assert run.status == "stopped"


def test_a_finished_job_says_so_and_stopping_it_is_harmless() -> None:
    run = us.scan(Endless(5)).sink(MemorySink()).start()
    assert run.wait(20)
    assert run.status == "finished"
    assert run.stop()
    assert run.status == "finished"
    assert run.error is None
    assert run.progress.done is None
    assert "5 rows in, 5 out" in repr(run)


def test_a_failed_job_says_so_everywhere() -> None:
    def fail(frame: pl.DataFrame) -> pl.DataFrame:
        raise ValueError("no")

    job = us.scan(Endless()).map_batches(fail, schema=ROW.schema).sink(MemorySink())
    run = job.start()
    with pytest.raises(JobFailed, match="ValueError: no"):
        run.wait(20)
    assert run.status == "failed"
    assert isinstance(run.error, JobFailed)
    with pytest.raises(JobFailed), job.start() as other:
        eventually(lambda: other.status == "failed")


def test_an_error_in_the_body_is_not_replaced_by_that_of_the_job() -> None:
    def fail(frame: pl.DataFrame) -> pl.DataFrame:
        raise ValueError("no")

    job = us.scan(Endless()).map_batches(fail, schema=ROW.schema).sink(MemorySink())
    with pytest.raises(KeyError, match="mine"), job.start() as run:
        eventually(lambda: run.status == "failed")
        raise KeyError("mine")


@pytest.fixture
def interruptible() -> Iterator[None]:
    """What runs in the background of a shell ignores interrupts; nobody else's handler stays away."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_ends_the_job_cleanly(interruptible: None) -> None:
    source, sink = Endless(), MemorySink()
    main = threading.main_thread().ident
    assert main is not None

    def interrupt() -> None:
        eventually(lambda: bool(sink.take()))
        signal.pthread_kill(main, signal.SIGINT)

    helper = threading.Thread(target=interrupt)
    helper.start()
    with pytest.raises(KeyboardInterrupt):
        us.scan(source).sink(sink).run(progress=False)
    helper.join()
    assert source.reader.closed == 1


@pytest.mark.parametrize("begun", [True, False])
@pytest.mark.parametrize("how", ["run", "start"])
def test_an_interrupt_while_the_job_s_thread_begins_ends_the_job(
    monkeypatch: pytest.MonkeyPatch, begun: bool, how: str
) -> None:
    source, original = Endless(), threading.Thread.start

    def start(thread: threading.Thread) -> None:
        interrupted = thread.name == "unistream-memory"
        if begun or not interrupted:
            original(thread)
        if interrupted:
            raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(KeyboardInterrupt):
        getattr(us.scan(source).sink(MemorySink()), how)()
    eventually(lambda: not threads())
    assert source.reader.closed == 1


# Nothing is left behind


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("unistream")}


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").is_dir() else 0


def test_fifty_starts_leave_no_thread_and_no_file_open() -> None:
    us.scan(Endless(2)).sink(MemorySink()).start().wait(20)  # whatever is opened once is open now
    eventually(lambda: not threads())
    files = open_files()
    for number in range(50):
        run = us.scan(Endless(None if number % 2 else 3)).sink(MemorySink()).start()
        assert run.stop(timeout=5)
    eventually(lambda: not threads())
    assert open_files() <= files + 2


def test_a_failed_start_leaves_no_thread() -> None:
    class Refuses(MemorySink):
        def open(self, context: object) -> Any:
            raise us.ConnectorError("no")

    source = Endless()
    for _ in range(5):
        with pytest.raises(us.ConnectorError):
            us.scan(source).sink(Refuses()).start()
    assert not threads()
    assert source.reader.polls == 0
