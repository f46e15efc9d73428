"""Anything Python can iterate over, as a source: rows, Polars frames or Arrow batches."""

from __future__ import annotations

import inspect
import sys
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import polars as pl

from unistream.clock import Clock, SystemClock
from unistream.errors import ConnectorError, DataError, InvalidQuery, UnistreamError
from unistream.io.base import (
    REJECTED_SCHEMA,
    Backlog,
    Chunk,
    Exhausted,
    Position,
    Reader,
    Request,
    Source,
    Wait,
)
from unistream.io.format_base import checked_policy
from unistream.io.frames import SchemaLike, as_schema
from unistream.io.rows import conform, rows_to_frame
from unistream.location import raised_at, user_location

_SPLIT = "items"
_LINGER = 0.005
"""Seconds that rows wait for company before they are handed on."""
_IDLE = 0.05
"""Seconds one poll waits for a first item."""
_ROWS_AHEAD = 65_536
_FRAMES_AHEAD = 4
_RAW_CHARACTERS = 1_000

Factory = Callable[..., Iterable[Any]] | Iterable[Any]
"""A function that returns a fresh iterator, or something that can be iterated again and again."""


@dataclass(frozen=True, slots=True, eq=False, init=False)
class IterableSource(Source):
    """Items of an iterator as a source; the position is the number of items taken.

    `factory` is a function that returns a fresh iterator of dicts, tuples, Polars frames or Arrow
    batches, all of one kind. After a restart the items taken before are skipped; a function with a
    parameter named `start` gets their number instead and begins there. Replay is exact when the function
    gives the same items again. Rows are handed on within about 5 ms, also while the iterator waits.
    Set `bounded=False` for an iterator that never ends.

    >>> source = IterableSource(lambda: ({"n": i} for i in range(3)), pl.Schema({"n": pl.Int64}))
    >>> source.open({}, Request()).poll(100).frame["n"].sum()
    3
    """

    factory: Factory
    columns: pl.Schema
    bounded: bool
    on_error: str

    name = "iterable"

    def __init__(
        self, factory: Factory, schema: SchemaLike, *, bounded: bool = True, on_error: str = "fail"
    ) -> None:
        object.__setattr__(self, "factory", _checked(factory))
        object.__setattr__(self, "columns", as_schema(schema))
        object.__setattr__(self, "bounded", bounded)
        object.__setattr__(self, "on_error", checked_policy(on_error))

    def schema(self) -> pl.Schema:
        return self.columns

    def open(self, positions: Mapping[str, Position], request: Request) -> Reader:
        start = int(positions.get(_SPLIT, 0))
        items: _Items
        if isinstance(self.factory, (list, tuple)):
            items = _Listed(self.factory, start)
        elif isinstance(request.clock, SystemClock):
            items = _Pumped(lambda: _iterator(self.factory, start), request.clock)
        else:  # a clock moved by hand: nothing may happen by itself
            items = _Drawn(lambda: _iterator(self.factory, start))
        return _IterableReader(self, items, start)

    def describe(self) -> dict[str, str]:
        name = getattr(self.factory, "__name__", type(self.factory).__name__)
        return {"items": name, "on_error": self.on_error}

    def identity(self) -> Hashable:
        return ("iterable", id(self.factory), tuple(self.columns.items()), self.bounded, self.on_error)


class _Items(ABC):
    """Where the reader takes its items from."""

    @abstractmethod
    def take(self, limit: int) -> list[Any] | None:
        """Up to `limit` rows or one table, empty when nothing has come yet, None at the end."""

    def left(self) -> int | None:
        """Rows not taken yet, if known."""
        return None

    def total(self) -> int | None:
        """Rows in all, if known."""
        return None

    def close(self) -> None:
        """No more items are wanted."""


class _Listed(_Items):
    """A sequence in memory: no waiting, the number of items is known."""

    def __init__(self, items: Sequence[Any], start: int) -> None:
        if start > len(items):
            raise _too_few(start, len(items))
        self._items = items
        self._next = start

    def take(self, limit: int) -> list[Any] | None:
        if self._next < len(self._items) and _is_table(self._items[self._next]):
            limit = 1
        taken = list(self._items[self._next : self._next + limit])
        self._next += len(taken)
        return taken or None

    def left(self) -> int | None:
        tables = self._items and _is_table(self._items[0])
        return None if tables else len(self._items) - self._next

    def total(self) -> int | None:
        return None if self.left() is None else len(self._items)


class _Drawn(_Items):
    """An iterator drawn by whoever polls; used in simulations, where every run must be the same."""

    def __init__(self, make: Callable[[], Iterator[Any]]) -> None:
        self._make = make
        self._iterator: Iterator[Any] | None = None
        self._error: BaseException | None = None

    def take(self, limit: int) -> list[Any] | None:
        if self._error is not None:
            raise self._error
        taken: list[Any] = []
        try:
            if self._iterator is None:
                self._iterator = self._make()
            for item in islice(self._iterator, limit):
                taken.append(item)
                if _is_table(item):
                    break
        except BaseException as error:
            self._error = error
            return taken
        return taken or None


class _Pumped(_Items):
    """An iterator that may block, drawn by its own thread so that neither rows nor `stop` wait for it."""

    def __init__(self, iterator: Callable[[], Iterator[Any]], clock: Clock) -> None:
        self._ready: deque[Any] = deque()
        self._clock = clock
        self._arrived = threading.Event()
        self._wanted = 1  # so many items ready set `_arrived`
        self._taken = threading.Event()
        self._closed = False
        self._ended = False
        self._error: BaseException | None = None
        threading.Thread(target=self._draw, args=(iterator,), name="iterable", daemon=True).start()

    def _draw(self, make: Callable[[], Iterator[Any]]) -> None:
        ready, most = self._ready, 0
        try:
            for item in make():
                most = most or (_FRAMES_AHEAD if _is_table(item) else _ROWS_AHEAD)
                ready.append(item)
                if len(ready) >= self._wanted:
                    self._wanted = sys.maxsize
                    self._arrived.set()
                while len(ready) >= most and not self._closed:
                    self._taken.clear()
                    self._clock.wait(self._taken, _IDLE)
                if self._closed:
                    return
        except BaseException as error:
            self._error = error
        finally:
            self._ended = True
            self._arrived.set()

    def take(self, limit: int) -> list[Any] | None:
        limit = min(limit, _ROWS_AHEAD)
        self._wait_for(1, _IDLE)
        if self._ready and not _is_table(self._ready[0]):
            self._wait_for(limit, _LINGER)  # costs a slow iterator 5 ms and spares a fast one tiny frames
        ended = self._ended  # looked at before the queue: nothing is added after it is set
        count = 1 if self._ready and _is_table(self._ready[0]) else limit
        taken = [self._ready.popleft() for _ in range(min(count, len(self._ready)))]
        self._taken.set()
        if taken or not ended:
            return taken
        if self._error is not None:
            raise self._error
        return None

    def _wait_for(self, count: int, seconds: float) -> None:
        until = self._clock.steady() + seconds
        while len(self._ready) < count and not self._ended:
            self._arrived.clear()
            self._wanted = count
            if len(self._ready) >= count or self._ended or (rest := until - self._clock.steady()) <= 0:
                return
            self._clock.wait(self._arrived, rest)

    def close(self) -> None:
        self._closed = True
        self._taken.set()


class _IterableReader(Reader):
    def __init__(self, source: IterableSource, items: _Items, start: int) -> None:
        self._source = source
        self._schema = source.columns
        self._items = items
        self._next = start

    def poll(self, max_rows: int) -> Chunk | Wait | Exhausted:
        try:
            taken = self._items.take(max_rows)
        except UnistreamError:
            raise
        except BaseException as error:
            problem = f"The iterator failed behind item {self._next}: {type(error).__name__}: {error}"
            place = raised_at(error)
            hint = "have it try again itself; a job with checkpoint= goes on from here when started again"
            raise ConnectorError(problem + (f"\n  raised at {place}" if place else ""), hint=hint) from error
        if taken is None:
            return Exhausted()
        if not taken:
            return Wait(0.0, "the iterator gives nothing")
        first = self._next
        self._next += len(taken)
        if _is_table(taken[0]):
            frames, rejected = [self._table(taken[0], first)], list[_Bad]()
        else:
            frames, rejected = self._rows(taken, first)
        frame = pl.concat(frames) if frames else pl.DataFrame(schema=self._schema)
        return Chunk(
            _SPLIT,
            frame,
            position=self._next,
            nbytes=int(frame.estimated_size()),
            scanned_rows=frame.height + len(rejected),
            rejected=self._collected(rejected),
        )

    def _table(self, item: Any, index: int) -> pl.DataFrame:
        read = item if isinstance(item, pl.DataFrame) else pl.DataFrame(pl.from_arrow(item))
        return conform(read, self._schema, f"item {index} of the iterator")

    def _rows(self, rows: list[Any], first: int) -> tuple[list[pl.DataFrame], list[_Bad]]:
        """The good rows; bad ones are found by halving, so that a few of them cost little."""
        try:
            return [rows_to_frame(rows, self._schema, first, "the iterator")], []
        except DataError as error:
            if self._source.on_error == "fail":
                raise
            if len(rows) == 1:
                return [], [(first, error.message, repr(rows[0])[:_RAW_CHARACTERS])]
        middle = len(rows) // 2
        good, bad = self._rows(rows[:middle], first)
        more_good, more_bad = self._rows(rows[middle:], first + middle)
        return good + more_good, bad + more_bad

    def _collected(self, bad: list[_Bad]) -> pl.DataFrame | None:
        if not bad or self._source.on_error != "collect":
            return None
        rows = [(self._source.name, _SPLIT, *row) for row in bad]
        return pl.DataFrame(rows, schema=REJECTED_SCHEMA, orient="row")

    def backlog(self) -> Backlog:
        return Backlog(rows=self._items.left(), total_rows=self._items.total())

    def close(self) -> None:
        self._items.close()


_Bad = tuple[int, str, str]
"""Index, reason and text of a row that does not fit."""


def _checked(factory: Factory) -> Factory:
    if isinstance(factory, Iterator):
        raise InvalidQuery(
            f"A {type(factory).__name__} can be read only once, so the job could not be restarted",
            user_location(),
            "pass a function that makes it: scan_iterable(lambda: ..., schema=...)",
        )
    if not callable(factory) and not isinstance(factory, Iterable):
        raise InvalidQuery(
            f"{type(factory).__name__!r} can be neither called nor iterated",
            user_location(),
            "pass a function that returns an iterator, or a list",
        )
    return factory


def _iterator(factory: Factory, start: int) -> Iterator[Any]:
    """A fresh iterator behind its first `start` items."""
    if callable(factory) and _takes_start(factory):
        return iter(factory(start=start))
    made = iter(factory()) if callable(factory) else iter(factory)
    skipped = sum(1 for _ in islice(made, start))
    if skipped < start:
        raise _too_few(start, skipped)
    return made


def _takes_start(factory: Callable[..., Any]) -> bool:
    try:
        return "start" in inspect.signature(factory).parameters
    except (TypeError, ValueError):  # built-in functions without a signature
        return False


def _is_table(item: object) -> bool:
    return (
        isinstance(item, pl.DataFrame)
        or hasattr(item, "__arrow_c_stream__")
        or hasattr(item, "__arrow_c_array__")
    )


def _too_few(start: int, found: int) -> ConnectorError:
    return ConnectorError(
        f"The checkpoint stands behind item {start} of an iterator that has only {found} items",
        hint="resume with a function that gives the same items again",
    )
