"""Measures queries on this machine: every run in a process of its own, in rounds, in turn."""

from __future__ import annotations

import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import msgspec

import unistream as us
from unistream import errors
from unistream.durations import Duration, seconds
from unistream.nexmark.files import count_events, generate_events
from unistream.nexmark.queries import QUERIES
from unistream.nexmark.trial import Case, Mode, Sample

EVENTS = 1_000_000
COMMAND = (sys.executable, "-m", "unistream.nexmark.worker")
MODES: tuple[Mode, ...] = get_args(Mode)

_FEWER = "the memory may not have sufficed: measure with fewer events (--events)"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to measure. Without `queries` all, without `folder` on events that are generated once.

    With `rate` (events a second, all kinds together) they come live from the generator instead, so that it
    shows how late results are; there is no batch then. `checkpoint` is the time between checkpoints of a
    stream, None for none.

    >>> Plan(queries=("q5",), rate=50_000).modes
    ('stream',)
    """

    queries: tuple[str, ...] = ()
    modes: tuple[Mode, ...] = ()
    events: int | None = None
    folder: str | Path | None = None
    rate: float | None = None
    tick_rows: int = 100_000
    checkpoint: Duration | None = "10s"
    rounds: int = 3

    def __post_init__(self) -> None:
        for query in self.queries:
            if query not in QUERIES:
                raise _unknown(query)
        if self.folder is not None and self.events is not None:
            hint = "leave out the number (--events): all events of the folder are read"
            raise errors.InvalidSettings(
                "Events are either those of a folder or so many generated", hint=hint
            )
        if self.rate is not None and (self.folder is not None or "batch" in self.modes):
            hint = "leave out folder and mode (--input, --mode): events come live from the generator then"
            raise errors.InvalidSettings("A rate is for a live stream", hint=hint)
        if self.rate is not None:
            us.scan_nexmark(rate=self.rate)  # refuses a rate that cannot be
        if min(self.rounds, self.tick_rows, 1 if self.events is None else self.events) < 1:
            raise errors.InvalidSettings(
                "Events, rounds and rows of a tick are counted from 1", hint="see --help"
            )
        if self.checkpoint is not None and seconds(self.checkpoint, "checkpoint") <= 0:
            raise errors.InvalidSettings("The time between checkpoints must be positive", hint='as in "10s"')
        modes = self.modes or (("stream",) if self.rate is not None else MODES)
        object.__setattr__(self, "modes", modes)
        object.__setattr__(self, "queries", tuple(dict.fromkeys(self.queries)) or tuple(QUERIES))


@dataclass(frozen=True, slots=True)
class Step:
    """What is about to be done, for whoever looks on; `number` of `total` counts from 1."""

    what: str
    number: int
    total: int


@dataclass(frozen=True, kw_only=True)
class Result:
    """The rounds of one query in one mode. Figures are medians over them."""

    query: str
    mode: Mode
    samples: tuple[Sample, ...]
    state_bytes: int | None

    @property
    def events_per_second(self) -> tuple[float, float, float]:
        """Median, least and most."""
        rates = [sample.events_per_second for sample in self.samples]
        return statistics.median(rates), min(rates), max(rates)

    def median(self, name: str) -> float | None:
        """Of a number that samples have; None when they have none."""
        values = [value for sample in self.samples if (value := getattr(sample, name)) is not None]
        return statistics.median(values) if values else None

    def medians(self, name: str) -> tuple[float, float] | None:
        """Of `tick_ms` or `latency_ms`: p50 and p99, each the median over the rounds."""
        pairs = [pair for sample in self.samples if (pair := getattr(sample, name)) is not None]
        return (
            (statistics.median(p[0] for p in pairs), statistics.median(p[1] for p in pairs))
            if pairs
            else None
        )


def measure(plan: Plan, watch: Callable[[Step], None] | None = None) -> list[Result]:
    """Run everything and wait; takes rounds x modes x queries runs of a second or so for a million events.

    >>> [result] = measure(Plan(queries=("q2",), modes=("stream",), events=1000, rounds=1))
    >>> result.query, len(result.samples), result.events_per_second[0] > 0
    ('q2', 1, True)
    """
    return results(samples(plan, watch))


def samples(plan: Plan, watch: Callable[[Step], None] | None = None) -> Iterator[Sample]:
    """One sample after another, so that what is there can be kept when it is cut short.

    Each query first runs in round 0, which fills the file cache and, of a stream, tells how large the state
    is; its times do not count.
    """
    watch = watch or (lambda step: None)
    with _scratch() as scratch:
        events = EVENTS if plan.events is None else plan.events
        folder = None if plan.folder is None else str(Path(plan.folder).absolute())
        if folder is not None:
            events = count_events(folder)
        elif plan.rate is None:
            watch(Step(f"generate {events:,} events", 0, 0))
            folder = str(Path(scratch, "events"))
            for _ in generate_events(folder, events, progress=False):
                pass
        cases = list(_cases(plan, events, folder, scratch))
        for number, case in enumerate(cases, 1):
            what = f"{case.query} {case.mode}, " + (f"round {case.round}" if case.round else "warm-up")
            watch(Step(what, number, len(cases)))
            yield run_apart(case)


def _cases(plan: Plan, events: int, folder: str | None, scratch: str) -> Iterator[Case]:
    interval = None if plan.checkpoint is None else seconds(plan.checkpoint)
    for query in plan.queries:
        stated = Case(
            query=query,
            mode=plan.modes[-1],
            events=events,
            folder=folder,
            rate=plan.rate,
            tick_rows=plan.tick_rows,
            checkpoint=interval,
            scratch=scratch,
        )
        yield replace(stated, round=0, sizes=stated.mode == "stream")
        for number in range(1, plan.rounds + 1):
            for mode in plan.modes:
                yield replace(stated, mode=mode, round=number)


def results(taken: Iterable[Sample]) -> list[Result]:
    """Samples by query and mode, in the order in which they came."""
    groups: dict[tuple[str, Mode], list[Sample]] = {}
    states: dict[tuple[str, Mode], int] = {}
    for sample in taken:
        key = (sample.query, sample.mode)
        if sample.state_bytes is not None:
            states[key] = max(sample.state_bytes, states.get(key, 0))
        if sample.round:
            groups.setdefault(key, []).append(sample)
    return [
        Result(query=query, mode=mode, samples=tuple(group), state_bytes=states.get((query, mode)))
        for (query, mode), group in groups.items()
    ]


def run_apart(case: Case) -> Sample:
    """Run a case in a fresh interpreter; its errors are raised here.

    >>> run_apart(Case(query="q0", mode="batch", events=1000)).rows_out
    920
    """
    pipe = subprocess.PIPE
    with subprocess.Popen(COMMAND, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        try:
            said, complaint = process.communicate(msgspec.json.encode(case))
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        raise _died(case, process.returncode, complaint.decode(errors="replace"))
    answer = msgspec.json.decode(said)
    if "error" in answer:
        raise getattr(errors, answer["error"]["kind"])(*answer["error"]["arguments"])
    return msgspec.convert(answer["sample"], Sample)


def machine() -> dict[str, Any]:
    """What is measured on and with: versions, processors, memory, and how busy it is already.

    Ask before measuring: afterwards the load is one's own.
    """
    import os
    from importlib.metadata import version

    import polars as pl

    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "system": platform.platform(),
        "python": platform.python_version(),
        "unistream": version("unistream"),
        "polars": version("polars"),
        "cores": os.cpu_count(),
        "usable_cores": usable,
        "polars_threads": pl.thread_pool_size(),
        "load_before": os.getloadavg()[0],
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    }


@contextmanager
def _scratch() -> Iterator[str]:
    """A folder for events and checkpoints, gone at the end."""
    try:
        scratch = tempfile.TemporaryDirectory(prefix="unistream-nexmark-")
    except OSError as error:
        hint = "set TMPDIR to a folder that you may write to, with some GB free"
        raise errors.ConnectorError(f"There is no place for temporary files: {error}", hint=hint) from error
    with scratch as folder:
        yield folder


def _unknown(query: str) -> errors.InvalidQuery:
    near = errors.nearest(query, [*QUERIES, "generate"])
    hint = f"did you mean {near!r}?" if near else f"they are {next(iter(QUERIES))} to {list(QUERIES)[-1]}"
    return errors.InvalidQuery(f"There is no Nexmark query {query!r}", hint=hint)


def _died(case: Case, code: int, complaint: str) -> errors.JobFailed:
    what = f"{case.query} as a {case.mode}: its process"
    if code < 0:
        return errors.JobFailed(f"{what} was ended by signal {-code}", hint=_FEWER)
    last = "\n  ".join(complaint.strip().splitlines()[-3:])
    return errors.JobFailed(
        f"{what} failed with exit code {code}: {last}", hint="unistream doctor looks for what is missing"
    )
