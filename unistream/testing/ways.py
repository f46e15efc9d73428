"""Ways to run a bounded stream to its end: in ticks, and with crashes in between."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl

from unistream.api.job import Job
from unistream.api.stream import Stream
from unistream.clock import Random
from unistream.config import Settings
from unistream.faults import Crashed
from unistream.io.base import Sink
from unistream.io.memory import MemorySink
from unistream.plan.nodes import Write
from unistream.testing.clock import VirtualClock
from unistream.testing.committed import CommittedSink
from unistream.testing.crash import crash_at, crash_points
from unistream.testing.schedules import Schedule

BY_TICKS = Settings(whole_query=False)
AS_QUERY = Settings(whole_query=True)
CHECKPOINTED = Settings(whole_query=False, checkpoint_interval=1)
_CHECKPOINT_SHARE = 0.25
"""Share of the ticks after which the clock advances by the interval, so that a checkpoint follows."""

MOST_CRASHES = 4
_LATEST_HIT = 12

Way = Callable[[Stream, Schedule], pl.DataFrame]
"""Runs a bounded stream and gives its rows, or its changelog; `schedule` names the seed for its choices."""


def tick_through(stream: Stream, schedule: Schedule) -> pl.DataFrame:
    """One poll of each source per tick, in one thread, on a clock of its own."""
    return run_once(stream, BY_TICKS)


def crash_and_resume(stream: Stream, schedule: Schedule) -> pl.DataFrame:
    """With checkpoints, dying at a few random points; what was committed in the end.

    Which points is decided by the schedule's seed. Each run goes on from what the dead one left behind.
    """
    random = Random(schedule.seed)
    sink = CommittedSink()
    with folder_in_memory() as folder:
        for _ in range(random.randint(1, MOST_CRASHES)):
            name, before = random.choice(crash_points()), random.random() < 0.5
            try:
                with crash_at(name, before=before, hit=random.randint(1, _LATEST_HIT)):
                    run_checkpointed(stream, sink, folder, random)
            except Crashed:
                continue
            break
        else:
            run_checkpointed(stream, sink, folder, random)
    return sink.result(stream._node.schema.physical)


@contextmanager
def folder_in_memory() -> Iterator[Path]:
    """A folder in memory where the system has one: what dies within the process loses no written page."""
    shared = Path("/dev/shm")
    where = shared if shared.is_dir() and os.access(shared, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="unistream-verify-", dir=where) as folder:
        yield Path(folder)


def run_checkpointed(stream: Stream, sink: Sink, folder: Path, random: Random) -> None:
    """Run to the end, or to a crash, from what is in `folder`; `random` says when checkpoints are due."""
    clock = VirtualClock()
    runtime = job_of(stream, sink).runtime(
        checkpoint=folder, settings=CHECKPOINTED, clock=clock, threads=False
    )
    try:
        runtime.open()
        while runtime.step():
            if random.random() < _CHECKPOINT_SHARE:
                clock.advance(CHECKPOINTED.checkpoint_interval)
        runtime.conclude()
    finally:
        runtime.close()


def run_once(stream: Stream, settings: Settings) -> pl.DataFrame:
    """All rows of a stream, run in one thread."""
    sink = MemorySink()
    runtime = job_of(stream, sink).runtime(settings=settings, clock=VirtualClock(), threads=False)
    try:
        runtime.open()
        runtime.run()
    finally:
        runtime.close()
    return sink.result()


def job_of(stream: Stream, sink: Sink) -> Job:
    """The stream into a sink."""
    return Job((Write(input=stream._node, sink=sink),))
