"""The event stream of the Nexmark benchmark: an auction house with its persons, auctions and bids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import polars as pl

from unistream.errors import InvalidSettings
from unistream.io.base import Backlog, Chunk, Exhausted, Position, Reader, Request, Source, Wait
from unistream.io.nexmark_draws import Draws
from unistream.io.nexmark_events import KINDS, TIME, Timing
from unistream.io.steady_time import SteadyTime
from unistream.location import user_location
from unistream.of_columns import frame_of

EVENT_RATE = 10_000
"""Events in a second of event time where no rate is given."""

START = 1_436_918_400_000_000
"""2015-07-15, when the first event happens where nothing else is said."""

_SPLIT = "events"
_PACE = 5_000
"""Microseconds of events that are gathered into one chunk when the rate is high."""

_BLOCK = 1 << 16
"""Most events of one chunk: columns being computed stay in the processor's cache."""

_ALL = pl.Schema(
    {
        "event_type": pl.String(),
        "dateTime": TIME,
        **{name: pl.Struct(dict(kind.schema)) for name, kind in KINDS.items()},
    }
)


@dataclass(frozen=True, slots=True)
class NexmarkSource(Source):
    """One person, three auctions and 46 bids of every fifty events; all of them, or only `which`.

    An event depends only on its number, the seed and the times: any part can be made again at once, and
    several sources with equal settings are parts of one history. Without `rate` (events a second, all
    kinds together) they come as fast as they can be used, 10,000 to a second of event time. `start`
    (microseconds since the epoch) is when the first happened; with a rate the moment the job began, which
    the position holds. With `events`, which counts all kinds, the source is bounded.

    >>> NexmarkSource(100, which="auction").open({}, Request()).poll(100).frame["id"].to_list()
    [1000, 1001, 1002, 1003, 1004, 1005]
    """

    events: int | None = None
    rate: float | None = None
    seed: int = 0
    start: int | None = None
    which: str | None = None

    name = "nexmark"

    def __post_init__(self) -> None:
        if self.which is not None and self.which not in KINDS:
            raise InvalidSettings.from_unknown("kind of event", str(self.which), KINDS, user_location())
        if self.rate is not None and not 0.001 <= self.rate <= 1e9:
            problem = f"rate must lie between 0.001 and 1e9 events a second, not {self.rate}"
            raise InvalidSettings(problem, user_location(), "leave it out for as fast as possible")
        if self.events is not None and self.events < 0:
            raise InvalidSettings(f"events must not be negative: {self.events}", user_location())

    @property
    def bounded(self) -> bool:
        return self.events is not None

    @property
    def pushes(self) -> frozenset[str]:
        return frozenset({"columns"})

    def schema(self) -> pl.Schema:
        return _ALL if self.which is None else KINDS[self.which].schema

    def open(self, positions: Mapping[str, Position], request: Request) -> Reader:
        position = positions.get(_SPLIT)
        if position is not None:
            return _NexmarkReader(self, request, int(position["start"]), int(position["next"]))
        start = self.start
        if start is None:
            start = START if self.rate is None else request.clock.now()
        return _NexmarkReader(self, request, start, 0)

    def describe(self) -> dict[str, str]:
        events = "no end" if self.events is None else f"{self.events:,}"
        rate = "as fast as possible" if self.rate is None else f"{self.rate:g} events/s"
        return {"events": events, "kind": self.which or "all", "rate": rate, "seed": str(self.seed)}


class _NexmarkReader(Reader):
    def __init__(self, source: NexmarkSource, request: Request, start: int, first: int) -> None:
        rate = Fraction(source.rate or EVENT_RATE).limit_denominator(1_000_000)
        interval = 1_000_000 / rate
        self._timing = Timing(start, interval.numerator, interval.denominator)
        self._clock: SteadyTime | None = None
        if source.rate is not None:
            self._clock = SteadyTime(request.clock, least=self._time(first - 1) if first else None)
        self._company = max(1, _PACE * interval.denominator // interval.numerator)
        self._draws = Draws(source.seed)
        self._which = source.which
        self._columns = tuple(source.schema()) if request.columns is None else request.columns
        self._total = source.events
        self._next = first

    def poll(self, max_rows: int) -> Chunk | Wait | Exhausted:
        # Counted in events, so that sources of several kinds keep step in event time.
        count = min(max_rows, _BLOCK)
        if self._total is not None:
            count = min(count, self._total - self._next)
        if count <= 0:
            return Exhausted()
        if self._clock is not None:
            now = self._clock.now()
            due = self._due(now) - self._next
            wanted = min(self._company, count)
            if due < wanted:
                return Wait((self._time(self._next + wanted - 1) - now) / 1_000_000)
            count = min(due, count)
        first, self._next = self._next, self._next + count
        frame = self._frame(first, self._next)
        return Chunk(
            _SPLIT,
            frame,
            position={"start": self._timing.start, "next": self._next},
            nbytes=int(frame.estimated_size()),
            ended=self._next == self._total,
        )

    def _due(self, now: int) -> int:
        """How many events have a time up to `now`."""
        timing = self._timing
        return max(0, ((now - timing.start + 1) * timing.rows - 1) // timing.micros + 1)

    def _time(self, event: int) -> int:
        return self._timing.start + event * self._timing.micros // self._timing.rows

    def _frame(self, first: int, stop: int) -> pl.DataFrame:
        if self._which is not None:
            return self._part(self._which, self._columns, first, stop)
        return frame_of([self._whole(name, first, stop) for name in self._columns])

    def _part(self, which: str, columns: Sequence[str], first: int, stop: int) -> pl.DataFrame:
        kind = KINDS[which]
        return kind.frame(kind.rows(self._draws, self._timing, first, stop), columns)

    def _whole(self, column: str, first: int, stop: int) -> pl.Series:
        """A column of the stream of all kinds; those of one kind are null in the others' rows."""
        if column == "dateTime":
            times = self._timing.of(first, np.arange(first, stop, dtype=np.int64))
            return pl.Series(column, times).cast(TIME)
        if column == "event_type":
            return pl.Series(column, list(KINDS)).gather(self._numbers_of_kinds(first, stop))
        kind = KINDS[column]
        rows = kind.rows(self._draws, self._timing, first, stop)
        places = np.full(stop - first, len(rows.event), dtype=np.int64)
        places[rows.event - first] = np.arange(len(rows.event))
        structs = kind.frame(rows, list(kind.schema)).to_struct(column)
        return structs.extend_constant(None, 1).gather(places)

    def _numbers_of_kinds(self, first: int, stop: int) -> np.ndarray:
        numbers = np.empty(stop - first, dtype=np.int64)
        for number, kind in enumerate(KINDS.values()):
            numbers[kind.rows(self._draws, self._timing, first, stop).event - first] = number
        return numbers

    def backlog(self) -> Backlog:
        due = self._total if self._clock is None else self._due(self._clock.now())
        if due is None:
            return Backlog()
        due = due if self._total is None else min(due, self._total)
        total = None if self._total is None else self._rank(self._total)
        return Backlog(rows=max(0, self._rank(due) - self._rank(self._next)), total_rows=total)

    def _rank(self, event: int) -> int:
        """How many rows the events before this one give."""
        return event if self._which is None else KINDS[self._which].rank(event)
