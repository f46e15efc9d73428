"""What rows can be looked up in: tables held in memory, and those that are asked for keys."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

from unistream.clock import Clock
from unistream.durations import spelled
from unistream.errors import ConnectorError, UnistreamError


@dataclass(frozen=True, slots=True, kw_only=True)
class WholeTable:
    """A table that `load` gives whole; read again every `refresh` microseconds when that is said."""

    columns: pl.Schema
    load: Callable[[], pl.DataFrame]
    text: str
    refresh: int | None = None
    query: pl.LazyFrame | None = None
    """The same table for a plan that is bounded as a whole."""

    @property
    def kept(self) -> str:
        """For `explain`."""
        again = f", read again every {spelled(self.refresh)}" if self.refresh else ""
        return f"all rows in memory{again}"


class Asker(Protocol):
    """Answers for keys; used on one thread."""

    def ask(self, keys: pl.DataFrame) -> pl.DataFrame:
        """All rows of these distinct keys without nulls, with the key columns."""

    def close(self) -> None:
        """Give back connections and threads."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a call gave for its distinct keys: all their rows, or why there are none."""

    keys: pl.DataFrame
    rows: pl.DataFrame | None = None
    error: BaseException | None = None


class Answers(Protocol):
    """Asked on one thread; answers come in any order."""

    def ask(self, keys: pl.DataFrame) -> None:
        """Get the rows of these distinct keys, none of which is being asked for."""

    @property
    def ready(self) -> bool:
        """Whether some have arrived."""

    def arrived(self, wait: bool) -> list[Answer]:
        """Those that have arrived since the last time; with `wait` at least one, whenever it comes."""

    def close(self) -> None:
        """Give back connections and threads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedTable:
    """A table that is asked for the keys of each batch; answers are kept for `keep` microseconds."""

    columns: pl.Schema
    open: Callable[[Clock], Asker]
    text: str
    keep: int = 0
    most_keys: int = 100_000
    begin: Callable[[Callable[[], object]], Answers] | None = None
    """The same for answers in any order, where that is possible; takes what to call when one has come."""

    @property
    def kept(self) -> str:
        """For `explain`."""
        if not self.keep:
            return "nothing: each batch asks for its keys"
        return f"answers for {spelled(self.keep)}, of at most {self.most_keys:,} keys"


LookupTable = WholeTable | AskedTable

Function = Callable[[pl.DataFrame], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Calls:
    """How a function is called: for how many keys at once, how many calls at once, how long, how often."""

    function: Function
    batch: int = 1_000
    concurrency: int = 8
    timeout: int = 30_000_000
    retries: int = 2

    @property
    def asynchronous(self) -> bool:
        """Whether its answers are awaited."""
        return is_async(self.function)

    def open(self, clock: Clock) -> Asker:
        """A caller that waits for all answers."""
        from unistream.operators.lookup_calls import Caller  # asyncio, only where needed

        return Caller(self, clock)

    def begin(self, wake: Callable[[], object]) -> Answers:
        """A caller whose answers come in any order."""
        from unistream.operators.lookup_calls import CalledAnswers

        return CalledAnswers(self, wake)

    def failure(self, error: BaseException) -> BaseException:
        """What the user is told when the last try raised this."""
        if isinstance(error, UnistreamError):
            return error
        tries = self.retries + 1
        if isinstance(error, TimeoutError):
            what = f"did not answer within {spelled(self.timeout)}"
            hint = "raise timeout=, or lower batch= so that each call has less to do"
        else:
            what = f"raised {type(error).__name__}: {error}"
            hint = "try the function by itself on a frame of keys; retries= says how often it is tried again"
        failure = ConnectorError(f"The function of lookup {what} ({tries} tries)", None, hint)
        failure.__cause__ = error
        return failure


def is_async(function: Any) -> bool:
    """Whether calling it gives something to await."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


def numbered(frames: Sequence[pl.DataFrame]) -> npt.NDArray[np.int64]:
    """For each row of these frames the number of its frame."""
    return np.repeat(np.arange(len(frames)), [frame.height for frame in frames])
