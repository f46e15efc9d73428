"""Failed jobs that start again: when, how often, and with which rows."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl
import pytest

import unistream as us
from unistream.clock import SystemClock
from unistream.io.base import Chunk, Exhausted, Position, Reader, Request, Source, Wait
from unistream.runtime.recovery import Failure
from unistream.testing import CommittedSink

SETTINGS = us.Settings(checkpoint_interval="1ms", tick_rows=1)


@dataclass(frozen=True, eq=False)
class Flaky(Source):
    """Numbers from 0, one a poll; before some of them it fails, each time once."""

    rows: int
    failures: dict[int, Exception]
    opened_at: list[int] = field(default_factory=list)

    @property
    def bounded(self) -> bool:
        return True

    def schema(self) -> pl.Schema:
        return pl.Schema({"n": pl.Int64})

    def open(self, positions: Mapping[str, Position], request: Request) -> Reader:
        start = positions.get("0", 0)
        self.opened_at.append(start)
        return _FlakyReader(self, start)


class _FlakyReader(Reader):
    def __init__(self, source: Flaky, start: int) -> None:
        self._source = source
        self._next = start

    def poll(self, max_rows: int) -> Chunk | Wait | Exhausted:
        if self._next in self._source.failures:
            raise self._source.failures.pop(self._next)
        if self._next == self._source.rows:
            return Exhausted()
        self._next += 1
        return Chunk(
            "0", pl.DataFrame({"n": [self._next - 1]}), self._next, ended=self._next == self._source.rows
        )


class Impatient(SystemClock):
    """Does not wait for restarts, and remembers how long it should have."""

    def __init__(self) -> None:
        self.delays: list[float] = []

    def wait(self, event: threading.Event, seconds: float) -> bool:
        if seconds >= 1:
            self.delays.append(seconds)
            return event.is_set()
        return super().wait(event, seconds)


def refused(retry_after: float | None) -> us.ConnectorError:
    return us.ConnectorError("the server is away", retry_after=retry_after)


def run(
    source: Flaky, checkpoint: Path, restart: us.Exponential | us.FixedDelay | us.FailureRate | None = None
) -> tuple[us.Run, CommittedSink, list[float]]:
    sink, clock = CommittedSink(), Impatient()
    job = us.scan(source).with_columns(double=pl.col("n") * 2).sink(sink)
    run = job.start(checkpoint=checkpoint, settings=SETTINGS, clock=clock, restart=restart)
    run._execution.wait(60)
    return run, sink, clock.delays


@pytest.mark.parametrize(
    "restart", [None, us.FixedDelay(2, "1s"), us.Exponential("1s"), us.FailureRate(2, "1m", "1s")], ids=str
)
def test_a_source_that_fails_twice(restart: us.FixedDelay | None, tmp_path: Path) -> None:
    source = Flaky(40, {10: refused(2.0), 25: refused(7.0)})
    run_, sink, delays = run(source, tmp_path, restart)
    assert run_.status == "finished"
    assert run_.wait(0)
    assert run_.restarts == 2
    assert delays == [2.0, 7.0], "as long as the source asked for"
    assert sink.result()["n"].to_list() == list(range(40))
    assert len(source.opened_at) == 3
    assert source.opened_at == sorted(source.opened_at)


def test_the_strategy_may_wait_longer_than_asked(tmp_path: Path) -> None:
    source = Flaky(9, {2: refused(1.0), 5: refused(1.0)})
    _, _, delays = run(source, tmp_path, us.Exponential(first="4s"))
    assert delays == [4.0, 8.0]


def test_too_many_failures_end_the_job_with_the_last_error(tmp_path: Path) -> None:
    source = Flaky(40, {n: refused(1.0) for n in range(0, 40, 5)})
    run_, sink, delays = run(source, tmp_path, us.FixedDelay(3, "1s"))
    assert (run_.status, run_.restarts, len(delays)) == ("failed", 3, 3)
    with pytest.raises(us.JobFailed, match="the server is away"):
        run_.wait(0)
    run_, again, _ = run(source, tmp_path, us.FixedDelay(9, "1s"))
    assert run_.status == "finished"
    committed = pl.concat([sink.result(pl.Schema({"n": pl.Int64, "double": pl.Int64})), again.result()])
    assert sorted(set(committed["n"])) == list(range(40))


@pytest.mark.parametrize(
    "error",
    [refused(None), us.DataError("row 3 is not a number"), us.InvalidQuery("no"), us.StateError("no")],
)
def test_errors_that_no_restart_mends_end_it_at_once(error: Exception, tmp_path: Path) -> None:
    run_, _, delays = run(Flaky(9, {3: error}), tmp_path)
    assert (run_.status, run_.restarts, delays) == ("failed", 0, [])


def test_an_error_of_the_program_is_not_repeated_for_ever(tmp_path: Path) -> None:
    def fail(frame: pl.DataFrame) -> pl.DataFrame:
        raise KeyError("typo")

    clock = Impatient()
    stream = us.from_frame({"a": [1]}).map_batches(fail, schema={"a": pl.Int64})
    run_ = stream.sink(CommittedSink()).start(checkpoint=tmp_path, clock=clock)
    assert run_._execution.wait(60)
    assert (run_.status, run_.restarts) == ("failed", 2)
    with pytest.raises(us.JobFailed, match="typo"):
        run_.wait(0)


def test_without_checkpoints_nothing_is_started_again() -> None:
    job = us.scan(Flaky(9, {3: refused(1.0)})).sink(CommittedSink())
    with pytest.raises(us.JobFailed, match="the server is away"):
        job.run(progress=False)


def test_a_stop_during_the_wait_ends_it(tmp_path: Path) -> None:
    run_ = us.scan(Flaky(9, {3: refused(3600.0)})).sink(CommittedSink()).start(checkpoint=tmp_path)
    while run_.status != "restarting":
        assert not run_._execution.wait(0.002)
    assert run_.stop(timeout=60)
    assert run_.status == "failed"
    assert isinstance(run_.error, us.JobFailed)


def test_the_outside_world_is_never_given_up() -> None:
    attempts = us.Exponential(first="1s", most="8s").begin()
    delays = [attempts.next_delay(Failure(float(n), outside=True, progressed=False)) for n in range(50)]
    assert delays[:5] == [1.0, 2.0, 4.0, 8.0, 8.0]
    assert None not in delays


def test_calm_begins_anew() -> None:
    attempts = us.Exponential(first="1s", calm="10m").begin()
    assert [attempts.next_delay(Failure(now)) for now in (0.0, 1.0, 2.0, 700.0)] == [1.0, 2.0, 4.0, 1.0]


def test_a_rate_allows_failures_that_are_far_apart() -> None:
    attempts = us.FailureRate(2, interval="1m", delay="1s").begin()
    assert [attempts.next_delay(Failure(now)) for now in (0.0, 50.0, 100.0, 105.0, 106.0)] == [
        1.0, 1.0, 1.0, None, None,
    ]  # fmt: skip
