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
from unistream.runtime.local import LocalRuntime
from unistream.testing.clock import VirtualClock
from unistream.testing.committed import CommittedSink
from unistream.testing.crash import count_points, crash_at
from unistream.testing.schedules import Schedule

BY_TICKS = Settings(whole_query=False)
AS_QUERY = Settings(whole_query=True)
CHECKPOINTED = Settings(whole_query=False, checkpoint_interval=1)
_CHECKPOINT_SHARE = 0.25
"""Share of the ticks after which the clock advances by the interval, so that a checkpoint follows."""

MOST_CRASHES = 4

Way = Callable[[Stream, Schedule], pl.DataFrame]
"""Runs a bounded stream and gives its rows, or its changelog; `schedule` names the seed for its choices."""


def tick_through(stream: Stream, schedule: Schedule) -> pl.DataFrame:
    """One poll of each source per tick, in one thread, on a clock of its own."""
    return run_once(stream, BY_TICKS)


def crash_and_resume(stream: Stream, schedule: Schedule) -> pl.DataFrame:
    """With checkpoints, dying at a few random points; what was committed in the end.

    Which points is decided by the schedule's seed. Each run goes on from what the dead one left behind.
    """
    return run_with_crashes(stream, schedule.seed)[0]


def run_with_crashes(stream: Stream, seed: int) -> tuple[pl.DataFrame, int]:
    """What was committed in the end, and how many crashes there were on the way.

    A run without any comes first, to find out what the others come to: the first of them dies there.
    """
    random, sink, crashes = Random(seed), CommittedSink(), 0
    pace = random.getrandbits(32)
    with count_points() as hits, folder_in_memory() as folder:
        run_checkpointed(stream, CommittedSink(), folder, Random(pace))
    due = Random(pace)
    with folder_in_memory() as folder:
        for _ in range(random.randint(1, MOST_CRASHES)):
            name, before = random.choice(list(hits))
            hit = random.randint(1, hits[name, before])
            try:
                with crash_at(name, before=before, hit=hit):
                    run_checkpointed(stream, sink, folder, due)
            except Crashed:
                crashes += 1
                continue
            break
        else:
            run_checkpointed(stream, sink, folder, due)
    return sink.result(stream._node.schema.physical), crashes


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
    return _run(stream, settings)[0]


def run_as_query(stream: Stream) -> tuple[pl.DataFrame, bool]:
    """All rows of a stream, and whether one Polars query gave them: ticks do where it has none for them."""
    rows, runtime = _run(stream, AS_QUERY)
    return rows, not runtime.tasks


def _run(stream: Stream, settings: Settings) -> tuple[pl.DataFrame, LocalRuntime]:
    sink = MemorySink()
    runtime = job_of(stream, sink).runtime(settings=settings, clock=VirtualClock(), threads=False)
    try:
        runtime.open()
        runtime.run()
    finally:
        runtime.close()
    return sink.result(), runtime


def job_of(stream: Stream, sink: Sink) -> Job:
    """The stream into a sink."""
    return Job((Write(input=stream._node, sink=sink),))
