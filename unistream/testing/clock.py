"""A clock that stands until it is told to move."""

from __future__ import annotations

import threading

from unistream.clock import Clock
from unistream.durations import Duration, microseconds

_YIELD = 0.001
"""Real seconds that a waiting thread lets others run when it may not move the clock."""


class VirtualClock(Clock):
    """Time under the control of a test; `start` is in microseconds since the epoch.

    Whoever waits on it moves it: `wait` advances by the whole wait and returns at once, so a job ticked
    by hand (`job.runtime(clock=..., threads=False)`) runs a day in an instant and the same way each time.
    With `moves=False` only `advance` moves it, and a wait lets other threads run for a moment: for jobs
    with reader threads, which may not push time ahead by themselves.

    >>> clock = VirtualClock()
    >>> clock.wait(threading.Event(), 1.5), clock.now()
    (False, 1500000)
    >>> clock.advance("1m"); clock.steady()
    61.5
    """

    def __init__(self, start: int = 0, *, moves: bool = True) -> None:
        self._now = start
        self._start = start
        self._moves = moves
        self._lock = threading.Lock()

    def now(self) -> int:
        return self._now

    def steady(self) -> float:
        return (self._now - self._start) / 1_000_000

    def wait(self, event: threading.Event, seconds: float) -> bool:
        if event.is_set():
            return True
        if not self._moves:
            return event.wait(_YIELD)
        self.advance(seconds)
        return False

    def advance(self, duration: Duration) -> None:
        """Move time forward; a job notices at its next tick."""
        ahead = microseconds(duration)
        if ahead < 0:
            raise ValueError(f"a clock cannot go back by {duration!r}")
        with self._lock:
            self._now += ahead
