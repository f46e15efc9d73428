"""Whether a stream gives the same rows as a batch and as a stream, however its input arrives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import wraps

import polars as pl

from unistream.api.stream import Stream
from unistream.durations import spelled
from unistream.testing.asserts import assert_same_rows, fold
from unistream.testing.experiment import Experiment, sorted_within
from unistream.testing.schedules import Schedule, SourceRows, in_order, schedules
from unistream.testing.shrink import MOST_RUNS, shrink
from unistream.testing.ways import Way, crash_and_resume, run_with_crashes, tick_through

_MORE_SEEDS = 3
"""Random schedules tried beside the failing one while the input is made smaller."""

_FEWER_RUNS = 40
"""Tries at a smaller input when each takes restarts."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """What `verify` tried, with the same result each time.

    `whole_query`: one Polars query gave the result to compare with. `crashed`: runs in which something died.
    """

    rows: int
    sources: tuple[str, ...]
    result_rows: int
    seeds: int
    whole_query: bool
    shuffled: int = 0
    delays: tuple[str, ...] = ()
    sorted_splits: tuple[str, ...] = ()
    ways: tuple[str, ...] = ("tick_through",)
    crashed: int = 0

    def __str__(self) -> str:
        batch = "one Polars query, " if self.whole_query else ""
        seeds = f"{self.seeds} random cuts (seeds 1 to {self.seeds})"
        lines = [
            f"Verified: {self.rows:,} rows of {', '.join(self.sources)}",
            f"  give the same {self.result_rows:,} rows",
            f"  as {batch}one tick, one row at a time, and {seeds}",
        ]
        if self.shuffled:
            lines.append(f"  {self.shuffled} of these with rows out of order within {', '.join(self.delays)}")
        if self.sorted_splits:
            lines.append(
                f"  after sorting {', '.join(self.sorted_splits)}, whose rows are later than the delay allows"
            )
        if self.crashed:
            lines.append(f"  {self.crashed} of these also with crashes and restarts from checkpoints")
        if self.ways != ("tick_through",):
            lines.append(f"  run by {', '.join(self.ways)}")
        return "\n".join(lines)

    __repr__ = __str__


class VerificationFailed(AssertionError):
    """A stream that depends on how its input arrives, with the smallest input found that shows it.

    `inputs` are the rows by source and split, `expected` what the batch gave and `got` what the stream
    gave (None when it failed), under `schedule`, whose `seed` and cuts make it happen again.
    """

    def __init__(
        self,
        difference: str,
        schedule: Schedule,
        arrival: str,
        inputs: dict[str, pl.DataFrame],
        expected: pl.DataFrame,
        got: pl.DataFrame | None,
    ) -> None:
        super().__init__(difference, schedule, arrival, inputs, expected, got)
        self.difference = difference
        self.schedule = schedule
        self.seed = schedule.seed
        self.arrival = arrival
        self.inputs = inputs
        self.expected = expected
        self.got = got

    def __str__(self) -> str:
        rows = sum(frame.height for frame in self.inputs.values())
        parts = [f"the stream differs from the batch: {self.schedule}"]
        parts += [f"smallest differing input ({rows} rows):"]
        parts += [f"{name}\n{frame}" for name, frame in self.inputs.items() if frame.height]
        parts += [f"arriving as: {self.arrival}", f"batch (left) and stream (right): {self.difference}"]
        parts += [f"batch:\n{self.expected}", f"stream:\n{'failed' if self.got is None else self.got}"]
        return "\n".join(parts)


def verify(
    stream: Stream,
    seeds: int = 20,
    *,
    ordered: bool = False,
    shuffled: bool = True,
    tolerance: float = 1e-9,
    max_rows: int = 100_000,
    crashes: int = 3,
    ways: Sequence[Way] = (tick_through,),
) -> Certificate:
    """Run a bounded stream as a batch and as a stream in many ways; raise unless all give the same rows.

    The sources are read once. Their rows then arrive in one tick, one by one, and cut at random, splits and
    sources taking turns at random; where the stream has event time, also in other orders within its delay
    (leave that out with `shuffled=False` for streams that mean the order of arrival, such as `unique`; with
    several splits or sources these have no one result).
    Under `crashes` of the random cuts it is also run with checkpoints and dies at random points in between.
    Rows are compared as multisets (in order with `ordered`), floats to `tolerance`, changelogs folded.
    On a difference the input is made smaller as long as it shows, and `VerificationFailed` holds the rest.

    >>> import unistream as us
    >>> rows = us.from_frame({"a": [1, 2, 3]})
    >>> verify(rows.filter(pl.col("a") > 1), seeds=5, crashes=0)
    Verified: 3 rows of frame-1
      give the same 2 rows
      as one Polars query, one tick, one row at a time, and 5 random cuts (seeds 1 to 5)
    """
    check = _Check(Experiment(stream, max_rows), ordered, tolerance)
    rows, late = _made_comparable(check.experiment)
    shuffled = shuffled and any(one.delay is not None for one in rows)
    expected, whole_query = check.experiment.batch(rows)
    tried = list(schedules(seeds, shuffled))
    random_cuts = [schedule.seed for schedule in tried if schedule.cuts == "random"]
    dying = set(random_cuts[-crashes:] if crashes else ())
    died: set[int] = set()

    @wraps(crash_and_resume)
    def crash_and_note(stream: Stream, schedule: Schedule) -> pl.DataFrame:
        got, happened = run_with_crashes(stream, schedule.seed)
        if happened:
            died.add(schedule.seed)
        return got

    for schedule in tried:
        extra = (crash_and_note,) if schedule.seed in dying else ()
        for way in (*ways, *extra):
            if check.difference(rows, schedule, expected, way) is not None:
                raise check.smallest(rows, schedule, way)
    delays = {f"{spelled(one.delay.micros)} of {one.delay.time.column!r}" for one in rows if one.delay}
    return Certificate(
        rows=sum(one.height for one in rows),
        sources=tuple(check.experiment.names),
        result_rows=fold(expected, check.experiment.key).height,
        seeds=seeds,
        whole_query=whole_query,
        shuffled=sum(schedule.shuffled for schedule in tried),
        delays=tuple(sorted(delays)),
        sorted_splits=late,
        ways=tuple(way.__name__ for way in ways),
        crashed=len(died),
    )


def _made_comparable(experiment: Experiment) -> tuple[list[SourceRows], tuple[str, ...]]:
    """Late rows are dropped or kept as the cut decides, rightly so: such splits are sorted by time first."""
    rows: list[SourceRows] = []
    names: list[str] = []
    for name, one in zip(experiment.names, experiment.rows, strict=True):
        late = [s for s, frame in one.splits.items() if one.delay and not in_order(frame, one.delay)]
        rows.append(sorted_within(one, late))
        names += [f"{name}/{split}" for split in late]
    return rows, tuple(names)


@dataclass(frozen=True, slots=True)
class _Check:
    """Runs the stream over rows and compares."""

    experiment: Experiment
    ordered: bool
    tolerance: float

    def difference(
        self, rows: Sequence[SourceRows], schedule: Schedule, expected: pl.DataFrame, way: Way
    ) -> tuple[str, pl.DataFrame | None] | None:
        """How the stream differs from the batch, and what it gave; None when it does not."""
        got: pl.DataFrame | None = None
        try:
            got = way(self.experiment.over(rows, schedule), schedule)
            assert_same_rows(
                expected, got, ordered=self.ordered, key=self.experiment.key, tolerance=self.tolerance
            )
        except AssertionError as error:
            return str(error), got
        except Exception as error:
            return f"the stream failed: {type(error).__name__}: {error}", got
        return None

    def smallest(self, rows: list[SourceRows], schedule: Schedule, way: Way) -> VerificationFailed:
        """The failure over as few rows as can be found."""
        more = [Schedule(0, "rows"), *(replace(schedule, seed=seed) for seed in range(_MORE_SEEDS))]

        def failing(kept: list[_Row]) -> VerificationFailed | None:
            part = _only(rows, kept)
            try:
                expected, _ = self.experiment.batch(part)
            except Exception:  # a smaller input on which the batch itself fails shows nothing
                return None
            for tried in (schedule, *more):
                found = self.difference(part, tried, expected, way)
                if found is not None:
                    return self._failure(part, tried, expected, way, *found)
            return None

        failure = shrink(_every_row(rows), failing, MOST_RUNS if way is tick_through else _FEWER_RUNS)
        if failure is None:
            raise RuntimeError(
                f"the difference under {schedule} did not show again: the stream is not repeatable"
            )
        return failure

    def _failure(
        self,
        rows: Sequence[SourceRows],
        schedule: Schedule,
        expected: pl.DataFrame,
        way: Way,
        difference: str,
        got: pl.DataFrame | None,
    ) -> VerificationFailed:
        inputs: dict[str, pl.DataFrame] = {}
        arrival: list[str] = []
        for name, one, source in zip(self.experiment.names, rows, schedule.sources(rows), strict=True):
            inputs |= {f"{name}/{split}": frame for split, frame in one.splits.items()}
            arrival += [f"{name} {source.describe_arrival()}"]
        text = "; ".join(arrival) + ("" if way is tick_through else f"; run by {way.__name__}")
        return VerificationFailed(difference, schedule, text, inputs, expected, got)


_Row = tuple[int, str, int]
"""Source, split and number of a row."""


def _every_row(rows: Sequence[SourceRows]) -> list[_Row]:
    return [
        (source, split, row)
        for source, one in enumerate(rows)
        for split, frame in one.splits.items()
        for row in range(frame.height)
    ]


def _only(rows: Sequence[SourceRows], kept: Sequence[_Row]) -> list[SourceRows]:
    """The input with these rows alone; splits stay, as empty ones."""
    numbers: dict[tuple[int, str], list[int]] = {}
    for source, split, row in kept:
        numbers.setdefault((source, split), []).append(row)
    return [
        replace(
            one, splits={name: frame[numbers.get((source, name), [])] for name, frame in one.splits.items()}
        )
        for source, one in enumerate(rows)
    ]
