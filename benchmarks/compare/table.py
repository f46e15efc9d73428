"""Medians, spreads and ratios of the runs, and the goals they are held against."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.compare.tables import KEYED, NEXMARK, QUERIES


@dataclass(frozen=True)
class Measured:
    """One run of one contender."""

    contender: str
    query: str
    round: int
    seconds: float
    wall_seconds: float
    cpu_seconds: float
    peak_mb: float
    stolen: float | None = None
    """The part of the processors' time that the host gave to others; None where it was not counted."""

    @property
    def cores(self) -> float:
        """Cores in use, on average."""
        return self.cpu_seconds / self.wall_seconds if self.wall_seconds else 0.0


class Runs:
    """All runs of a comparison, by contender and query."""

    def __init__(self, events: int, measured: Sequence[Measured | Mapping[str, Any]]) -> None:
        self.events = events
        self.measured = [one if isinstance(one, Measured) else Measured(**one) for one in measured]

    def of(self, contender: str, query: str) -> dict[int, Measured]:
        """The runs of a query, by round."""
        found = (run for run in self.measured if (run.contender, run.query) == (contender, query))
        return {run.round: run for run in found}

    def has(self, contender: str, query: str) -> bool:
        """Whether it was measured at all."""
        return bool(self.of(contender, query))

    @property
    def queries(self) -> list[str]:
        """Those that were measured, in the usual order."""
        seen = {run.query for run in self.measured}
        return [query for query in QUERIES if query in seen]

    def median(self, contender: str, query: str, figure: Callable[[Measured], float]) -> float:
        """The median of a figure over the rounds."""
        return statistics.median(figure(run) for run in self.of(contender, query).values())

    def rate(self, contender: str, query: str) -> float:
        """Millions of events a second, as a median."""
        return self.events / self.median(contender, query, lambda run: run.seconds) / 1e6

    def spread(self, contender: str, query: str) -> float:
        """How far the slowest and the fastest run lie apart, as a part of the median."""
        seconds = [run.seconds for run in self.of(contender, query).values()]
        return (max(seconds) - min(seconds)) / statistics.median(seconds)

    def ratio(self, ours: str, theirs: str, query: str) -> float | None:
        """How many times as fast we are: the median over rounds in which both ran."""
        mine, other = self.of(ours, query), self.of(theirs, query)
        both = [other[number].seconds / mine[number].seconds for number in mine.keys() & other.keys()]
        return statistics.median(both) if both else None

    def memory_ratio(self, ours: str, theirs: str, query: str) -> float | None:
        """Our memory as a part of theirs: the median over rounds in which both ran."""
        mine, other = self.of(ours, query), self.of(theirs, query)
        both = [mine[number].peak_mb / other[number].peak_mb for number in mine.keys() & other.keys()]
        return statistics.median(both) if both else None

    def ratios(self, ours: str, theirs: str, queries: Sequence[str] = QUERIES) -> dict[str, float]:
        """Ratios of all queries that both ran."""
        found = {query: self.ratio(ours, theirs, query) for query in queries}
        return {query: ratio for query, ratio in found.items() if ratio is not None}


def geometric_mean(ratios: Sequence[float]) -> float:
    """The mean that treats twice as fast and half as fast alike."""
    return math.exp(statistics.fmean(map(math.log, ratios)))


@dataclass(frozen=True)
class Goal:
    """How much faster we want to be than another engine: as a mean, and on every query."""

    ours: str
    theirs: str
    queries: Sequence[str] = QUERIES
    mean: float | None = None
    each: float | None = None


GOALS = (
    Goal("unistream", "flink", NEXMARK, mean=8, each=3),
    Goal("unistream", "flink-heap", NEXMARK, mean=4),
    Goal("unistream", "flink", KEYED, each=10),
    Goal("unistream", "flink-heap", KEYED, each=10),
    Goal("unistream", "spark", each=5),
    Goal("unistream", "bytewax", each=5),
    Goal("unistream", "polars", each=0.5),
    Goal("unistream-bounded", "polars", each=0.8),
)
MEMORY = ("unistream", "flink", 1 / 3)
"""We want at most this part of their memory, on each query."""


@dataclass(frozen=True)
class Miss:
    """A goal that was not reached."""

    ours: str
    theirs: str
    what: str
    wanted: float
    found: float


def misses(runs: Runs) -> list[Miss]:
    """All goals that were missed, and where."""
    found = []
    for goal in GOALS:
        ratios = runs.ratios(goal.ours, goal.theirs, goal.queries)
        if goal.mean and ratios and (mean := geometric_mean(list(ratios.values()))) < goal.mean:
            found.append(Miss(goal.ours, goal.theirs, "geometric mean", goal.mean, mean))
        for query, ratio in ratios.items():
            if goal.each and ratio < goal.each:
                found.append(Miss(goal.ours, goal.theirs, query, goal.each, ratio))
    ours, theirs, part = MEMORY
    for query in runs.queries:
        share = runs.memory_ratio(ours, theirs, query)
        if share is not None and share > part:
            found.append(Miss(ours, theirs, f"memory of {query}", part, share))
    return found


def losses(runs: Runs, ours: Sequence[str], theirs: Sequence[str]) -> list[tuple[str, str, str, float]]:
    """Where another engine is faster: who we are, who they are, the query and the ratio."""
    pairs = [(mine, other) for mine in ours for other in theirs]
    return [
        (mine, other, query, ratio)
        for mine, other in pairs
        for query, ratio in runs.ratios(mine, other).items()
        if ratio < 1
    ]
