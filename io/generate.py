"""Rows made at a steady rate: for demonstrations, load tests and heartbeats."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import polars as pl

from unistream.clock import Clock
from unistream.errors import InvalidSettings
from unistream.io.base import Backlog, Chunk, Exhausted, Position, Reader, Request, Source, Wait
from unistream.io.steady_time import SteadyTime
from unistream.location import user_location

_SPLIT = "rows"
_PACE = 5_000
"""Microseconds of rows that are gathered into one chunk when the rate is high."""

_TIME = pl.Datetime("us", "UTC")
_SCHEMA = pl.Schema([("timestamp", _TIME), ("value", pl.Int64())])


@dataclass(frozen=True, slots=True)
class RateSource(Source):
    """Rows `timestamp, value` at a steady rate: `value` counts from 0, `timestamp` is when the row was due.

    A row depends only on its number and on when the job began, which the position holds: a restart gives
    the same rows and then catches up with the clock. `start` (microseconds since the epoch) sets the time
    of the first row instead, in the past for rows at full speed. With `total_rows` the source is bounded.

    >>> RateSource(10, total_rows=3, start=0).open({}, Request()).poll(100).frame["value"].to_list()
    [0, 1, 2]
    """

    rows_per_second: float = 1.0
    total_rows: int | None = None
    start: int | None = None

    name = "rate"

    def __post_init__(self) -> None:
        if not 0 < self.rows_per_second <= 1e9:
            problem = f"rows_per_second must lie above 0 and up to 1e9, not {self.rows_per_second}"
            raise InvalidSettings(problem, user_location())
        if self.total_rows is not None and self.total_rows < 0:
            raise InvalidSettings(f"total_rows must not be negative: {self.total_rows}", user_location())

    @property
    def bounded(self) -> bool:
        return self.total_rows is not None

    def schema(self) -> pl.Schema:
        return _SCHEMA

    def open(self, positions: Mapping[str, Position], request: Request) -> Reader:
        position = positions.get(_SPLIT)
        if position is not None:
            return _RateReader(self, request.clock, int(position["start"]), int(position["next"]))
        start = request.clock.now() if self.start is None else self.start
        return _RateReader(self, request.clock, start, 0)

    def describe(self) -> dict[str, str]:
        rows = "no end" if self.total_rows is None else f"{self.total_rows:,} rows"
        return {"rate": f"{self.rows_per_second:g} rows/s", "end": rows}


class _RateReader(Reader):
    def __init__(self, source: RateSource, clock: Clock, start: int, first: int) -> None:
        self._start = start
        self._next = first
        self._total = source.total_rows
        interval = 1_000_000 / Fraction(source.rows_per_second).limit_denominator(1_000_000)
        self._micros, self._rows = (
            interval.numerator,
            interval.denominator,
        )  # so many microseconds, so many rows
        self._company = max(1, _PACE * self._rows // self._micros)
        self._clock = SteadyTime(clock, least=self._time(first - 1) if first else None)

    def poll(self, max_rows: int) -> Chunk | Wait | Exhausted:
        left = max_rows if self._total is None else self._total - self._next
        if left <= 0:
            return Exhausted()
        now = self._clock.now()
        wanted = min(self._company, left, max_rows)
        due = self._due(now) - self._next
        if due < wanted:
            return Wait((self._time(self._next + wanted - 1) - now) / 1_000_000)
        first, count = self._next, min(due, left, max_rows)
        self._next += count
        return Chunk(
            _SPLIT,
            self._frame(first, count),
            position={"start": self._start, "next": self._next},
            nbytes=16 * count,
            ended=self._next == self._total,
        )

    def _due(self, now: int) -> int:
        """How many rows have a time up to `now`."""
        return max(0, ((now - self._start + 1) * self._rows - 1) // self._micros + 1)

    def _time(self, row: int) -> int:
        return self._start + row * self._micros // self._rows

    def _frame(self, first: int, count: int) -> pl.DataFrame:
        whole, rest = divmod(first * self._micros, self._rows)  # in Python, where nothing overflows
        steps = np.arange(count, dtype=np.int64) * self._micros + rest
        return pl.DataFrame(
            {
                "timestamp": pl.Series(self._start + whole + steps // self._rows).cast(_TIME),
                "value": np.arange(first, first + count, dtype=np.int64),
            }
        )

    def backlog(self) -> Backlog:
        if self._total is not None:
            return Backlog(rows=self._total - self._next, total_rows=self._total)
        return Backlog(rows=max(0, self._due(self._clock.now()) - self._next))
