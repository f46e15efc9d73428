"""Time and chance as arguments, so that every schedule can be replayed."""

from __future__ import annotations

import random
import threading
import time
from abc import ABC, abstractmethod


class Clock(ABC):
    """Wall-clock time in microseconds since the epoch, a steady clock in seconds, and a way to wait."""

    @abstractmethod
    def now(self) -> int:
        """Microseconds since the epoch, UTC."""

    @abstractmethod
    def steady(self) -> float:
        """Seconds that never go backwards; only differences mean something."""

    @abstractmethod
    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Wait until `event` is set or `seconds` have passed; true when it was set."""


class SystemClock(Clock):
    """The machine's clock."""

    def now(self) -> int:
        return time.time_ns() // 1000

    def steady(self) -> float:
        return time.perf_counter()

    def wait(self, event: threading.Event, seconds: float) -> bool:
        return event.wait(seconds)


class Random(random.Random):
    """A seeded generator; the same seed gives the same choices on every machine."""

    def token(self, characters: int = 8) -> str:
        """A short identifier in lower-case hexadecimal."""
        return f"{self.getrandbits(4 * characters):0{characters}x}"


def fresh_random() -> Random:
    """A generator nobody can predict, for names that must not collide between runs."""
    return Random(random.SystemRandom().getrandbits(64))
