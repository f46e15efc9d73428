"""Rows as they come into a join by time: late ones leave by the side, the others are put in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import polars as pl

from unistream.elements import MAX_TIME, MIN_TIME
from unistream.graph import LATE
from unistream.operators.base import Context, Output
from unistream.operators.join_layout import Pairing
from unistream.operators.join_matching import TICK, in_order, key_code
from unistream.operators.stored_time import StoredTime
from unistream.operators.time_axis import least

NO_TIME = "no event time"
PASSED = "time has passed it: rows it should meet may be forgotten"


class Axis(Protocol):
    """Event times of both sides as whole ticks."""

    def ticks(self, frame: pl.DataFrame, side: int) -> pl.Series:
        """The event time of each row of one side."""

    def tick(self, micros: int) -> int:
        """A moment in microseconds."""

    def after(self, tick: int) -> int:
        """The least moment in microseconds that lies behind a tick."""


class Arrivals:
    """Knows where time stands. A row that time has passed is late, on whichever side it comes.

    `horizon` tells the earliest tick that is not passed when the watermark is at one; by default the same.
    """

    def __init__(
        self,
        axis: Axis,
        pairing: Pairing,
        context: Context,
        horizon: Callable[[int], int] = lambda tick: tick,
        reason: str = PASSED,
    ) -> None:
        self._axis, self._pairing = axis, pairing
        self._horizon, self._reason = horizon, reason
        self._context = context
        self._time = StoredTime(context.state.cell("time"))

    @property
    def watermark(self) -> int:
        """Where time stands, in microseconds."""
        return self._time.now

    def advance(self, watermark: int, kept: Iterable[int | None]) -> None:
        """Time moves on. The end of the input leaves behind what is kept, up to the last of these ticks."""
        if watermark == MAX_TIME:
            ticks = [tick for tick in kept if tick is not None]
            self._time.settle(max(map(self._axis.after, ticks), default=MIN_TIME))
        self._time.advance(watermark)

    @property
    def tick(self) -> int:
        """The watermark on the axis of both sides."""
        return self._axis.tick(self.watermark)

    def in_time(self, frame: pl.DataFrame, side: int, by: Sequence[str], out: Output) -> pl.DataFrame:
        """The rows that time has not passed, in order of time, with it and (of keys `by`) their code."""
        ticks = self._axis.ticks(frame, side).alias(TICK)
        rows = frame.hstack([key_code(frame, by), ticks] if by else [ticks])
        horizon = self._horizon(self.tick)
        first = least(ticks)
        if first is not None and first >= horizon and not ticks.null_count():
            return in_order(rows)
        for reason, wrong in ((NO_TIME, ticks.is_null()), (self._reason, (ticks < horizon).fill_null(False))):
            if wrong.any():
                late = frame.filter(wrong)
                self._context.metrics.add("late", late.height)
                out.emit_to(LATE, self._pairing.late(late, side, reason, self.watermark))
        return in_order(rows.filter(ticks >= horizon))

    def store(self) -> None:
        """Put the watermark where a checkpoint finds it."""
        self._time.store()
