"""Dying on purpose, at named steps of the engine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from unistream import faults
from unistream.errors import InvalidSettings
from unistream.faults import Crashed


def crash_points() -> tuple[str, ...]:
    """The names that `crash_at` takes, in the order of a run.

    >>> "sink.commit" in crash_points()
    True
    """
    return tuple(faults.POINTS)


@contextmanager
def crash_at(point: str, *, before: bool = True, hit: int = 1) -> Iterator[CrashReport]:
    """Within the body the engine raises `Crashed` the `hit`-th time it reaches this point, and only then.

    `before=False` lets the step be done first. Use it to show that a job resumed from what the crashed one
    left behind gives the same rows. The report tells whether the point was reached.

    >>> import unistream as us
    >>> rows = us.from_frame({"a": [1]})
    >>> with crash_at("sink.write") as crash:
    ...     list(rows.batches())
    Traceback (most recent call last):
    ...
    unistream.faults.Crashed: before sink.write
    >>> crash.happened
    True
    """
    if point not in faults.POINTS:
        raise InvalidSettings.from_unknown("crash point", point, faults.POINTS)
    report = CrashReport(point, before, hit)
    previous = faults.listen(report)
    try:
        yield report
    finally:
        faults.listen(previous)


@contextmanager
def count_points() -> Iterator[Counter[tuple[str, bool]]]:
    """How often the engine reaches each point within the body: those before a step, and those after it."""
    hits: Counter[tuple[str, bool]] = Counter()
    previous = faults.listen(lambda name, before: hits.update([(name, before)]))
    try:
        yield hits
    finally:
        faults.listen(previous)


class CrashReport:
    """How often a point was reached, and whether the engine died there."""

    def __init__(self, point: str, before: bool, hit: int) -> None:
        self.happened = False
        self.hits = 0
        self._point = point
        self._before = before
        self._hit = hit

    def __call__(self, name: str, before: bool) -> None:
        if name != self._point or before is not self._before:
            return
        self.hits += 1
        if self.hits == self._hit:
            self.happened = True
            raise Crashed(f"{'before' if before else 'after'} {name}")
