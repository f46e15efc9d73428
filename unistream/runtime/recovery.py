"""When a failed job is started again from its newest checkpoint, and when it is given up."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from unistream.durations import Duration, seconds
from unistream.errors import ConnectorError, InvalidQuery, InvalidSettings, StateError


class Attempts(ABC):
    """The restarts of one run, as its strategy counts them."""

    @abstractmethod
    def next_delay(self, now: float) -> float | None:
        """A failure happened at `now` (steady seconds): how long to wait before a restart; None gives up."""


class RestartStrategy(ABC):
    """How often and how soon a failed job is started again."""

    @abstractmethod
    def begin(self) -> Attempts:
        """Start counting."""


@dataclass(frozen=True, slots=True)
class FixedDelay(RestartStrategy):
    """At most `attempts` restarts, each after `delay`; 0 attempts means never."""

    attempts: int
    delay: Duration = "1s"

    def begin(self) -> Attempts:
        return _Fixed(self.attempts, seconds(self.delay, "delay"))


class _Fixed(Attempts):
    def __init__(self, left: int, delay: float) -> None:
        self._left = left
        self._delay = delay

    def next_delay(self, now: float) -> float | None:
        self._left -= 1
        return self._delay if self._left >= 0 else None


@dataclass(frozen=True, slots=True)
class Exponential(RestartStrategy):
    """Delays that double from `first` up to `most`, and begin anew after `calm` without a failure."""

    first: Duration = "1s"
    most: Duration = "1m"
    calm: Duration = "10m"

    def begin(self) -> Attempts:
        return _Exponential(seconds(self.first), seconds(self.most), seconds(self.calm))


class _Exponential(Attempts):
    def __init__(self, first: float, most: float, calm: float) -> None:
        self._first, self._most, self._calm = first, most, calm
        self._next = first
        self._then: float | None = None

    def next_delay(self, now: float) -> float | None:
        if self._then is not None and now - self._then > self._calm:
            self._next = self._first
        self._then = now
        delay, self._next = self._next, min(2 * self._next, self._most)
        return delay


@dataclass(frozen=True, slots=True)
class FailureRate(RestartStrategy):
    """Restarts after `delay` as long as no more than `failures` happen within `interval`."""

    failures: int
    interval: Duration = "5m"
    delay: Duration = "1s"

    def begin(self) -> Attempts:
        return _Rate(self.failures, seconds(self.interval), seconds(self.delay))


class _Rate(Attempts):
    def __init__(self, failures: int, interval: float, delay: float) -> None:
        self._failures, self._interval, self._delay = failures, interval, delay
        self._times: list[float] = []

    def next_delay(self, now: float) -> float | None:
        self._times = [*(then for then in self._times if now - then <= self._interval), now]
        return self._delay if len(self._times) <= self._failures else None


NEVER = FixedDelay(0)


def worth_retrying(error: BaseException) -> bool:
    """Whether the same program on the same state may fare better later."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, (InvalidQuery, InvalidSettings, StateError)):
            return False
        if isinstance(cause, ConnectorError):
            return cause.retry_after is not None
        cause = cause.__cause__
    return isinstance(error, Exception)
