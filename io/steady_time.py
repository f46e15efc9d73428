"""The time of day as one clock tells it from a beginning on, whatever is put right in it meanwhile."""

from __future__ import annotations

from unistream.clock import Clock


class SteadyTime:
    """Microseconds since the epoch, moved on by the steady clock: a step of the wall clock does not show.

    `least` is a time that has been before, as the rows of a position tell: it does not come again.

    >>> from unistream.testing import VirtualClock
    >>> clock = VirtualClock(5_000_000)
    >>> time = SteadyTime(clock)
    >>> clock.advance("2s")
    >>> time.now(), SteadyTime(clock, least=60_000_000).now()
    (7000000, 60000000)
    """

    __slots__ = ("_clock", "_zero")

    def __init__(self, clock: Clock, least: int | None = None) -> None:
        self._clock = clock
        began = clock.now() if least is None else max(clock.now(), least)
        self._zero = began - self._steady()

    def now(self) -> int:
        return self._zero + self._steady()

    def _steady(self) -> int:
        return round(self._clock.steady() * 1_000_000)
