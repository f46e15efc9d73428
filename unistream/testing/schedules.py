"""The rows of a stream's sources and the ways they can arrive without the result being another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import polars as pl

from unistream.clock import Random
from unistream.elements import MIN_TIME
from unistream.expressions.schema import EventTime
from unistream.expressions.time import microseconds_of
from unistream.io.base import Wait
from unistream.testing.list_source import Item, ListSource, Rejected

Splits = Mapping[str, pl.DataFrame]
"""Rows of one source by split, in order."""


@dataclass(frozen=True, slots=True)
class SourceRows:
    """What one source gave: rows and rejected rows by split, and how far its rows may be out of order."""

    splits: Splits
    rejected: Splits
    delay: Delay | None = None

    @property
    def height(self) -> int:
        """Rows of all splits."""
        return sum(frame.height for frame in self.splits.values())

    @property
    def schema(self) -> pl.Schema:
        """Columns of its rows."""
        return next(iter(self.splits.values())).schema


@dataclass(frozen=True, slots=True)
class Delay:
    """Rows of a split may come this many microseconds of event time out of order."""

    time: EventTime
    micros: int


@dataclass(frozen=True, slots=True)
class Schedule:
    """One way for all rows to arrive. `cuts`: "rows" (one at a time), "whole" or "random"."""

    seed: int
    cuts: str
    shuffled: bool = False

    def __str__(self) -> str:
        how = {"rows": "one row at a time", "whole": "each split at once", "random": "random cuts"}[self.cuts]
        return f"{how}{', another order within the delay' if self.shuffled else ''} (seed {self.seed})"

    def sources(self, rows: Sequence[SourceRows]) -> list[ListSource]:
        """The sources that give the rows this way; the same for the same seed."""
        random = Random(self.seed)
        return [self._source(one, random) for one in rows]

    def _source(self, rows: SourceRows, random: Random) -> ListSource:
        items: dict[str, list[Item]] = {}
        for split, frame in rows.splits.items():
            ordered = _shuffled(frame, rows.delay, random) if self.shuffled and rows.delay else frame
            items[split] = self._items(ordered, rows.rejected.get(split), random)
        order = [name for name, listed in items.items() for _ in listed]
        if self.cuts != "whole":
            random.shuffle(order)
        return ListSource(rows.schema, items, order=order)

    def _items(self, frame: pl.DataFrame, rejected: pl.DataFrame | None, random: Random) -> list[Item]:
        items: list[Item] = list(self._parts(frame, random))
        if rejected is not None and rejected.height:
            items.insert(random.randint(0, len(items)), Rejected(rejected))
        if self.cuts == "random":
            # A source that has nothing for a tick falls behind the others.
            for _ in range(random.randint(0, len(items) // 2)):
                items.insert(random.randint(0, len(items)), Wait(0.01))
        return items

    def _parts(self, frame: pl.DataFrame, random: Random) -> list[pl.DataFrame]:
        if self.cuts == "whole":
            return [frame]
        if self.cuts == "rows":
            return [frame.slice(row, 1) for row in range(frame.height)]
        return cut_at_random(frame, random)


def cut_at_random(frame: pl.DataFrame, random: Random) -> list[pl.DataFrame]:
    """The rows in slices of random lengths, small ones more often.

    >>> [part.height for part in cut_at_random(pl.DataFrame({"n": range(10)}), Random(1))]
    [1, 1, 8]
    """
    parts: list[pl.DataFrame] = []
    row = 0
    while row < frame.height:
        length = random.randint(1, random.choice((1, 2, 5, max(1, frame.height))))
        parts.append(frame.slice(row, length))
        row += length
    return parts


def schedules(seeds: int, shuffled: bool) -> Iterator[Schedule]:
    """The extremes first, then random cuts; half of them with rows in another order where that is allowed."""
    yield Schedule(0, "whole")
    yield Schedule(0, "rows")
    for seed in range(1, seeds + 1):
        yield Schedule(seed, "random", shuffled and seed % 2 == 0)


def in_order(frame: pl.DataFrame, delay: Delay) -> bool:
    """Whether no row is later than the delay allows, so that every order within it gives the same rows."""
    times = _times(frame, delay).drop_nulls().to_list()
    newest = accumulate(times, max, initial=MIN_TIME)
    return all(time >= before - delay.micros for time, before in zip(times, newest, strict=False))


def _shuffled(frame: pl.DataFrame, delay: Delay, random: Random) -> pl.DataFrame:
    """Rows displaced by a random part of the delay: none overtakes another by more than the delay."""
    if not in_order(frame, delay):
        return frame
    times = _times(frame, delay).fill_null(strategy="forward").fill_null(strategy="backward")
    if times.null_count():
        return frame
    places = [time + random.randint(0, delay.micros) for time in times]
    return frame[pl.Series(places, dtype=pl.Int64).arg_sort().to_list()] if frame.height else frame


def _times(frame: pl.DataFrame, delay: Delay) -> pl.Series:
    return frame.select(microseconds_of(delay.time, frame.schema)).to_series()
