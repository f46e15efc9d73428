"""One query run once, in this process, and what it took."""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import numpy as np

import unistream as us
from unistream.clock import Clock, SystemClock
from unistream.nexmark.files import FIRST_EVENT, from_files
from unistream.nexmark.lateness import WINDOWED, Counter, CountingSink, Lateness
from unistream.nexmark.queries import QUERIES
from unistream.nexmark.sources import Sources, generated
from unistream.runtime.local import LocalRuntime
from unistream.runtime.task import SourceTask

Mode = Literal["batch", "stream"]

AHEAD = timedelta(milliseconds=500)
"""The first event is due so long after a trial at a rate begins: by then sources and state are open."""

SIZED_TICKS = 16
"""At least so many looks at the state while it is sized."""

ALL_KEPT = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Case:
    """What to run: a query, how, and on which events.

    `folder` holds the events as files; without it they come from the generator, live where there is a
    `rate`. With `sizes` a checkpoint is taken after every tick: for the size of the state, not for the time.
    """

    query: str
    mode: Mode
    events: int
    folder: str | None = None
    rate: float | None = None
    tick_rows: int = 100_000
    checkpoint: str | float | None = "10s"
    sizes: bool = False
    round: int = 1
    scratch: str | None = None


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What one trial took. Rows out are those of the answer in a batch, and in a stream all changes to it:
    of an updating query their number differs with how rows fall into ticks.

    `state_bytes` is the largest checkpoint, as a restore would read it; `checkpoint_bytes` is what all of
    them wrote. `tick_ms` and `latency_ms` are p50 and p99.
    """

    query: str
    mode: Mode
    round: int
    events: int
    seconds: float
    cpu_seconds: float
    peak_bytes: int
    rows_out: int
    ticks: int = 0
    tick_ms: tuple[float, float] | None = None
    latency_ms: tuple[float, float] | None = None
    state_bytes: int | None = None
    checkpoints: int = 0
    checkpoint_bytes: int | None = None

    @property
    def events_per_second(self) -> float:
        """Events of all kinds, whether the query reads them or not."""
        return self.events / self.seconds

    @property
    def cores(self) -> float:
        """Seconds of processors in a second."""
        return self.cpu_seconds / self.seconds


def run_case(case: Case, clock: Clock | None = None) -> Sample:
    """Run it here and now; memory is that of the whole process so far.

    >>> run_case(Case(query="q2", mode="batch", events=1000)).events
    1000
    """
    clock = clock or SystemClock()
    run = _batch if case.mode == "batch" else _stream
    return run(case, clock)


def _batch(case: Case, clock: Clock) -> Sample:
    began, cpu = clock.steady(), time.process_time()
    settings = us.Settings.load({"tick_rows": case.tick_rows})
    rows = QUERIES[case.query](_sources(case, clock)[0]).collect(settings=settings).height
    return Sample(
        query=case.query,
        mode=case.mode,
        round=case.round,
        events=case.events,
        seconds=clock.steady() - began,
        cpu_seconds=time.process_time() - cpu,
        peak_bytes=peak_bytes(),
        rows_out=rows,
    )


def _stream(case: Case, clock: Clock) -> Sample:
    with ExitStack() as stack:
        kept: str | None = None
        if case.sizes or case.checkpoint is not None:
            kept = stack.enter_context(tempfile.TemporaryDirectory(dir=case.scratch, prefix="checkpoints-"))
        began, cpu = clock.steady(), time.process_time()
        sources, start = _sources(case, clock)
        if start:
            began += AHEAD.total_seconds()
        counter = Counter(clock)
        job = QUERIES[case.query](sources).sink(CountingSink(counter))
        runtime = job.runtime(checkpoint=kept, settings=_settings(case), clock=clock, threads=not case.sizes)
        lateness = Lateness(start, case.rate) if case.rate and case.query not in WINDOWED else None
        ticks = _drive(runtime, counter, lateness, clock)
        seconds, cpu_seconds, peak = clock.steady() - began, time.process_time() - cpu, peak_bytes()
        state, checkpoints, written = (None, 0, None) if kept is None else _sizes(kept)
        return Sample(
            query=case.query,
            mode=case.mode,
            round=case.round,
            events=case.events,
            seconds=seconds,
            cpu_seconds=cpu_seconds,
            peak_bytes=peak,
            rows_out=counter.rows,
            ticks=len(ticks),
            tick_ms=_percentiles(ticks),
            latency_ms=None if lateness is None or case.sizes else lateness.percentiles(),
            state_bytes=state,
            checkpoints=checkpoints,
            checkpoint_bytes=written,
        )


def _settings(case: Case) -> us.Settings:
    """All checkpoints are kept, so that their sizes can be read when the clock no longer runs."""
    rows, interval = case.tick_rows, case.checkpoint
    if case.sizes:
        rows, interval = min(rows, case.events // SIZED_TICKS + 1), 0
    given = {"tick_rows": rows, "checkpoints_kept": ALL_KEPT, "whole_query": False}
    return us.Settings.load(given if interval is None else {**given, "checkpoint_interval": interval})


def _sources(case: Case, clock: Clock) -> tuple[Sources, int]:
    """Where the events come from, and when the first is due in microseconds."""
    if case.folder is not None:
        return from_files(case.folder), 0
    if case.rate is None:
        return generated(case.events), 0
    if case.sizes:
        return generated(case.events, rate=case.rate, start=FIRST_EVENT), 0
    first = clock.now() + AHEAD // timedelta(microseconds=1)
    start = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=first)
    return generated(case.events, rate=case.rate, start=start), first


def _drive(runtime: LocalRuntime, counter: Counter, lateness: Lateness | None, clock: Clock) -> list[float]:
    """Run to the end; seconds of every tick that took rows."""
    ticks, more = [], True
    try:
        runtime.open()
        while more:
            rows, began = counter.rows, clock.steady()
            more = runtime.step()
            took = clock.steady() - began
            if any(task.took for task in runtime.tasks.values() if isinstance(task, SourceTask)):
                ticks.append(took)
            if lateness is not None:
                lateness.ticked(runtime.tasks.values(), counter.last if counter.rows > rows else None)
        runtime.conclude()
    finally:
        runtime.close()
    return ticks


def _sizes(folder: str) -> tuple[int, int, int]:
    """Bytes of the largest checkpoint, how many there are, and bytes of all they wrote."""
    from unistream.state.checkpoint_reader import CheckpointReader
    from unistream.state.checkpoint_tables import listing

    found = listing(CheckpointReader(folder))
    return int(found["bytes"].max() or 0), found.height, int(found["new_bytes"].sum())  # type: ignore[arg-type]


def _percentiles(seconds: list[float]) -> tuple[float, float] | None:
    if not seconds:
        return None
    p50, p99 = np.percentile(seconds, [50, 99]) * 1000
    return float(p50), float(p99)


def peak_bytes() -> int:
    """Most memory of this process; where the system tells, without what the process that started it had."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
