"""Answers of a function as they come: it is called on threads of its own while rows go on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Protocol

import polars as pl

from unistream.errors import ConnectorError, UnistreamError

if TYPE_CHECKING:
    from unistream.operators.lookup_tables import Calls


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
