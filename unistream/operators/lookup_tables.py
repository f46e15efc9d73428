"""What rows can be looked up in: tables held in memory, and those that are asked for keys."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

from unistream.clock import Clock
from unistream.durations import spelled
from unistream.errors import ConnectorError, UnistreamError
from unistream.of_columns import stacked
from unistream.operators.lookup_answers import Answers, CalledAnswers, checked
from unistream.state.hot_table import HotTable

_CALL = "__call"


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
        return _Caller(self, clock)

    def begin(self, wake: Callable[[], object]) -> Answers:
        """A caller whose answers come in any order."""
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


class _Caller:
    """Calls a function, plain or asynchronous, for some keys at a time; answers stay in order."""

    def __init__(self, calls: Calls, clock: Clock) -> None:
        self._calls = calls
        self._clock = clock
        self._async = calls.asynchronous
        self._pool: ThreadPoolExecutor | None = None
        self._runner: asyncio.Runner | None = None

    def ask(self, keys: pl.DataFrame) -> pl.DataFrame:
        parts = list(keys.iter_slices(self._calls.batch))
        waiting = list(range(len(parts)))
        answers: dict[int, pl.DataFrame] = {}
        for attempt in range(self._calls.retries + 1):
            failed: list[tuple[int, BaseException]] = []
            results = self._round([parts[number] for number in waiting])
            for number, result in zip(waiting, results, strict=True):
                if isinstance(result, BaseException):
                    failed.append((number, result))
                else:
                    answers[number] = result
            if not failed:
                return _own_rows(parts, [checked(answers[number]) for number in range(len(parts))])
            if attempt == self._calls.retries or isinstance(failed[0][1], UnistreamError):
                raise self._calls.failure(failed[0][1])
            waiting = [number for number, _ in failed]
            self._clock.wait(threading.Event(), 0.1 * 2**attempt)
        raise AssertionError("the last attempt returns or raises")

    def _round(self, parts: Sequence[pl.DataFrame]) -> list[Any]:
        """A result or an exception for each part."""
        if self._pool is None:
            workers = 1 if self._async else self._calls.concurrency
            self._pool = ThreadPoolExecutor(workers, thread_name_prefix="unistream-lookup")
        seconds = self._calls.timeout / 1_000_000
        if self._async:
            return self._pool.submit(self._run, self._gathered(parts, seconds)).result()
        futures = [self._pool.submit(self._calls.function, part) for part in parts]
        rounds = -(-len(parts) // self._calls.concurrency)
        done, late = wait(futures, seconds * rounds)
        if late:
            # Their threads are taken for as long as they please: whoever is called next gets others.
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None
        return [_outcome(future) if future in done else TimeoutError() for future in futures]

    def _run(self, calls: Coroutine[Any, Any, list[Any]]) -> list[Any]:
        # A thread of its own, as in a notebook the caller's runs a loop already; and one loop for all
        # calls, as clients of databases and services live in the loop that they were made in.
        if self._runner is None:
            self._runner = asyncio.Runner()
        return self._runner.run(calls)

    async def _gathered(self, parts: Sequence[pl.DataFrame], seconds: float) -> list[Any]:
        free = asyncio.Semaphore(self._calls.concurrency)

        async def one(part: pl.DataFrame) -> Any:
            async with free:
                return await asyncio.wait_for(self._calls.function(part), seconds)

        return await asyncio.gather(*(one(part) for part in parts), return_exceptions=True)

    def close(self) -> None:
        if self._pool is not None:
            if self._runner is not None:
                self._pool.submit(self._runner.close)
            self._pool.shutdown(wait=False)
            self._pool = self._runner = None


def is_async(function: Any) -> bool:
    """Whether calling it gives something to await."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


def called_once(function: Function, keys: pl.DataFrame) -> Any:
    """What the function, plain or asynchronous, gives for these keys."""
    if not is_async(function):
        return function(keys)

    async def once() -> Any:
        return await function(keys)

    with ThreadPoolExecutor(1) as pool:
        coroutine: Coroutine[Any, Any, Any] = once()
        return pool.submit(asyncio.run, coroutine).result()


def _outcome(future: Future[Any]) -> Any:
    try:
        return future.result()
    except Exception as error:
        return error


def _own_rows(parts: Sequence[pl.DataFrame], answers: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """All answers, without rows of keys that another call asked for: these would come twice."""
    rows, keys = stacked(answers), stacked(parts)
    if len(parts) == 1 or not all(name in rows.columns for name in keys.columns):
        return rows
    asked = HotTable(keys.schema, pl.Schema({_CALL: pl.Int64()}))
    ids, _ = asked.upsert(keys)
    calls = asked.column(_CALL)
    calls[ids] = numbered(parts)
    found = asked.find(rows.select(keys.columns))
    own = (found >= 0) & (calls[found] == numbered(answers))
    return rows if own.all() else rows.filter(pl.Series(own))


def numbered(frames: Sequence[pl.DataFrame]) -> npt.NDArray[np.int64]:
    """For each row of these frames the number of its frame."""
    return np.repeat(np.arange(len(frames)), [frame.height for frame in frames])
