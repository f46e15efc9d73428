"""Calls of a function of the user: answers in order, or as they come while rows go on.

Imported where one is called, for asyncio takes long to import.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from queue import SimpleQueue
from typing import Any

import polars as pl

from unistream.clock import Clock
from unistream.errors import ConnectorError, UnistreamError
from unistream.of_columns import stacked
from unistream.operators.lookup_tables import Answer, Calls, Function, is_async, numbered
from unistream.state.hot_table import HotTable

_CALL = "__call"


class Caller:
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


class CalledAnswers:
    """Calls a function, plain or asynchronous, for at most `batch` keys at a time.

    All that happens, retries and waiting included, is in one event loop on one thread; plain functions run
    on a pool beside it. Keys that find no call free are gathered, so the busier it is the fewer are the
    calls. `wake` is called, on that thread, for each answer.
    """

    def __init__(self, calls: Calls, wake: Callable[[], object]) -> None:
        self._calls = calls
        self._wake = wake
        self._arrived: SimpleQueue[Answer] = SimpleQueue()
        self._unasked: pl.DataFrame | None = None
        self._running: set[asyncio.Task[None]] = set()
        self._pool: ThreadPoolExecutor | None = None if calls.asynchronous else self._new_pool()
        self._closed = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="unistream-lookup", daemon=True)
        self._thread.start()

    def _new_pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self._calls.concurrency, thread_name_prefix="unistream-lookup")

    def _serve(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._closed.wait())

    def ask(self, keys: pl.DataFrame) -> None:
        self._loop.call_soon_threadsafe(self._gather, keys)

    @property
    def ready(self) -> bool:
        return not self._arrived.empty()

    def arrived(self, wait: bool) -> list[Answer]:
        # Each call has its timeout, so waiting for one answer comes to an end.
        found = [self._arrived.get()] if wait else []
        while not self._arrived.empty():
            found.append(self._arrived.get())
        return found

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._closed.set)
        self._thread.join(1)  # not for ever: a function may hold the loop
        if self._pool is not None:
            self._pool.shutdown(wait=False)

    # In the event loop

    def _gather(self, keys: pl.DataFrame) -> None:
        self._unasked = keys if self._unasked is None else pl.concat([self._unasked, keys], rechunk=True)
        self._start()

    def _start(self) -> None:
        most = self._calls.batch
        while self._unasked is not None and len(self._running) < self._calls.concurrency:
            part, rest = self._unasked.head(most), self._unasked.slice(most)
            self._unasked = rest if rest.height else None
            task = self._loop.create_task(self._call(part))
            self._running.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not self._closed.is_set():
            self._start()

    async def _call(self, keys: pl.DataFrame) -> None:
        try:
            answer = Answer(keys, await self._tried(keys))
        except BaseException as error:
            # Whatever it is, the thread that waits for this answer has to hear of it.
            if self._closed.is_set():
                raise
            answer = Answer(keys, error=self._calls.failure(error))
        self._arrived.put(answer)
        self._wake()

    async def _tried(self, keys: pl.DataFrame) -> pl.DataFrame:
        for attempt in range(self._calls.retries):
            try:
                return checked(await self._once(keys))
            except UnistreamError:
                raise
            except BaseException:
                if self._closed.is_set():
                    raise
            await asyncio.sleep(0.1 * 2**attempt)
        return checked(await self._once(keys))

    async def _once(self, keys: pl.DataFrame) -> Any:
        function, pool = self._calls.function, self._pool
        asked = function(keys) if pool is None else self._loop.run_in_executor(pool, function, keys)
        try:
            return await asyncio.wait_for(asked, self._calls.timeout / 1_000_000)
        except TimeoutError:
            if pool is not None and pool is self._pool:
                # Its thread is taken for as long as it pleases: whoever is called next gets others.
                pool.shutdown(wait=False)
                self._pool = self._new_pool()
            raise


def checked(answer: Any) -> pl.DataFrame:
    """What a function returned, if it is a frame."""
    if not isinstance(answer, pl.DataFrame):
        hint = "return a pl.DataFrame with the key columns; when nothing is found, one without rows"
        message = f"The function of lookup returned {type(answer).__name__}, not a frame"
        raise ConnectorError(message, None, hint)
    return answer


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
