"""When a failed job is started again from its newest checkpoint, and when it is given up."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

from unistream.durations import Duration, seconds
from unistream.errors import ConnectorError, DataError, InvalidQuery, InvalidSettings, StateError


@dataclass(frozen=True, slots=True)
class Failure:
    """What a strategy is told: when it happened (steady seconds), and what speaks for trying again.

    `outside` is an error of the outside world, which may pass by itself; `progressed` says that the run
    completed a checkpoint before it failed.
    """

    now: float
    outside: bool = False
    progressed: bool = True


class Attempts(ABC):
    """The restarts of one run, as its strategy counts them."""

    @abstractmethod
    def next_delay(self, failure: Failure) -> float | None:
        """How long to wait before a restart, in seconds; None gives up."""


class RestartStrategy(ABC):
    """How often and how soon a failed job is started again."""

    @abstractmethod
    def begin(self) -> Attempts:
        """Start counting."""


@dataclass(frozen=True, slots=True)
class FixedDelay(RestartStrategy):
    """At most `attempts` restarts, each after `delay`; 0 attempts means never.

    >>> attempts = FixedDelay(1, "5s").begin()
    >>> attempts.next_delay(Failure(0.0)), attempts.next_delay(Failure(9.0))
    (5.0, None)
    """

    attempts: int
    delay: Duration = "1s"

    def begin(self) -> Attempts:
        return _Fixed(self.attempts, seconds(self.delay, "delay"))


class _Fixed(Attempts):
    def __init__(self, left: int, delay: float) -> None:
        self._left = left
        self._delay = delay

    def next_delay(self, failure: Failure) -> float | None:
        self._left -= 1
        return self._delay if self._left >= 0 else None


@dataclass(frozen=True, slots=True)
class Exponential(RestartStrategy):
    """Delays that double from `first` up to `most`, and begin anew after `calm` without a failure.

    It never gives up on the outside world. An error of another kind that comes back `fruitless` times with
    no checkpoint in between is one of the program, which no restart mends.

    >>> attempts = Exponential().begin()
    >>> [attempts.next_delay(Failure(float(now), outside=True)) for now in range(4)]
    [1.0, 2.0, 4.0, 8.0]
    """

    first: Duration = "1s"
    most: Duration = "1m"
    calm: Duration = "10m"
    fruitless: int = 3

    def begin(self) -> Attempts:
        return _Exponential(seconds(self.first), seconds(self.most), seconds(self.calm), self.fruitless)


class _Exponential(Attempts):
    def __init__(self, first: float, most: float, calm: float, fruitless: int) -> None:
        self._first, self._most, self._calm = first, most, calm
        self._fruitless = fruitless
        self._in_vain = 0
        self._next = first
        self._then: float | None = None

    def next_delay(self, failure: Failure) -> float | None:
        self._in_vain = 0 if failure.outside or failure.progressed else self._in_vain + 1
        if self._in_vain >= self._fruitless:
            return None
        if self._then is not None and failure.now - self._then > self._calm:
            self._next = self._first
        self._then = failure.now
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

    def next_delay(self, failure: Failure) -> float | None:
        now = failure.now
        self._times = [*(then for then in self._times if now - then <= self._interval), now]
        return self._delay if len(self._times) <= self._failures else None


NEVER = FixedDelay(0)


def worth_retrying(error: BaseException) -> bool:
    """Whether the same program on the same state may fare better later."""
    for cause in _causes(error):
        if isinstance(cause, (InvalidQuery, InvalidSettings, StateError, DataError)):
            return False
        if isinstance(cause, ConnectorError):
            return cause.retry_after is not None
    return isinstance(error, Exception)


def asked_to_wait(error: BaseException) -> float | None:
    """The seconds after which the outside world may be better; None for an error of another kind."""
    for cause in _causes(error):
        if isinstance(cause, ConnectorError):
            return cause.retry_after
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__
