"""A source that gives exactly what a test lists, split by split, with pauses, bad rows and crashes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from unistream.clock import Clock
from unistream.durations import Duration, microseconds
from unistream.errors import ConnectorError, InvalidQuery
from unistream.faults import Crashed
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
from unistream.io.frames import SchemaLike, as_frame, as_schema, watched
from unistream.one_query import Terms

_ASK_AGAIN = 0.05
"""Seconds after which an unbounded list that has run out is asked again."""


@dataclass(frozen=True, slots=True)
class Pause:
    """The split gives nothing until the job's clock has advanced by `duration` since it came here."""

    duration: Duration


class Crash:
    """The reader raises `Crashed` when it comes here, once; a job that resumes goes on behind it."""

    def __init__(self) -> None:
        self._happened = False

    def reached(self, where: str) -> None:
        """Die, the first time."""
        if not self._happened:
            self._happened = True
            raise Crashed(where)


@dataclass(frozen=True, slots=True)
class Reject:
    """A row that could not be read: raw text and reason come out of the stream's `rejected()`."""

    raw: str
    reason: str = "rejected by the test"


@dataclass(frozen=True, slots=True)
class Rejected:
    """Rows that another source could not read, as it reported them."""

    rows: pl.DataFrame


Item = pl.DataFrame | Mapping[str, Any] | tuple[Any, ...] | Wait | Pause | Crash | Reject | Rejected
"""A frame or one row (dict or tuple), or something that happens between rows."""


@dataclass(frozen=True, slots=True, eq=False, init=False)
class ListSource(Source):
    """Each item is one poll, and with `job.runtime(threads=False)` one tick; positions are exact.

    `items` are those of a single split "0", or a mapping from split to its items. Splits take turns; `order`
    names the split of each turn instead, over and over. An unbounded list waits when it has run out.

    >>> import unistream as us
    >>> source = ListSource({"n": pl.Int64}, [(1,), Pause("5s"), pl.DataFrame({"n": [2, 3]})])
    >>> us.scan(source).collect().to_series().to_list()
    [1, 2, 3]
    """

    columns: pl.Schema
    splits: Mapping[str, tuple[Any, ...]]
    bounded: bool
    order: tuple[str, ...]

    name = "list"

    def __init__(
        self,
        schema: SchemaLike,
        items: Sequence[Item] | Mapping[str, Sequence[Item]] = (),
        *,
        bounded: bool = True,
        order: Sequence[str] = (),
    ) -> None:
        columns = as_schema(schema)
        given = items if isinstance(items, Mapping) else {"0": items}
        splits = {name: tuple(_checked(item, columns) for item in listed) for name, listed in given.items()}
        if not set(order) <= set(splits):
            raise InvalidQuery(
                f"order names the splits {sorted(set(order) - set(splits))}, which have no items"
            )
        object.__setattr__(self, "columns", columns)
        object.__setattr__(self, "splits", splits)
        object.__setattr__(self, "bounded", bounded)
        object.__setattr__(self, "order", tuple(order))

    @property
    def pushes(self) -> frozenset[str]:
        return frozenset({"columns", "predicate"})

    def schema(self) -> pl.Schema:
        return self.columns

    def open(self, positions: Mapping[str, Position], request: Request) -> Reader:
        splits = {
            name: _Split(name, items, positions.get(name), self.bounded)
            for name, items in self.splits.items()
        }
        return _ListReader(splits, self.order or tuple(splits), request, self)

    def lazy(self, terms: Terms) -> pl.LazyFrame | None:
        if not self.bounded or any(isinstance(item, (Crash, Reject, Rejected)) for item in self._items()):
            return None
        return watched(self.frame(), terms)

    def size(self) -> int:
        return int(self.frame().estimated_size())

    def frame(self) -> pl.DataFrame:
        """All rows, split after split."""
        frames = [item for item in self._items() if isinstance(item, pl.DataFrame)]
        return pl.concat([pl.DataFrame(schema=self.columns), *frames])

    def _items(self) -> list[Any]:
        return [item for items in self.splits.values() for item in items]

    def describe(self) -> dict[str, str]:
        return {"splits": ", ".join(self.splits)}

    def describe_arrival(self) -> str:
        """Rows of each item by split, and the turns of the splits.

        >>> ListSource({"n": pl.Int64}, [(1,), Wait(1), pl.DataFrame({"n": [2, 3]})]).describe_arrival()
        '0: 1 Wait 2'
        """
        spelled = {
            name: " ".join(str(i.height) if isinstance(i, pl.DataFrame) else type(i).__name__ for i in items)
            for name, items in self.splits.items()
        }
        text = ", ".join(f"{name}: {items}" for name, items in spelled.items())
        return text + (f"; turns {' '.join(self.order)}" if len(self.splits) > 1 and self.order else "")


def _checked(item: Any, schema: pl.Schema) -> Any:
    """Rows become frames of the schema; what is not an item is refused here rather than while running."""
    if isinstance(item, (Wait, Pause, Crash, Reject, Rejected)):
        return item
    return as_frame(item if isinstance(item, pl.DataFrame) else [item], schema)


@dataclass(slots=True)
class _Split:
    """Where one split stands: the next item, the next row within it, and the end of a pause."""

    name: str
    items: tuple[Any, ...]
    position: Position | None
    bounded: bool
    item: int = 0
    row: int = 0
    paused_until: int | None = None
    begun: bool = False
    ended: bool = False
    scanned: int = field(default=0)

    def __post_init__(self) -> None:
        if self.position is None:
            return
        self.item, self.row, self.scanned = self.position
        self.begun = True
        if self.item > len(self.items):
            raise ConnectorError(
                f"The checkpoint stands at item {self.item} of {len(self.items)} of split {self.name!r}",
                hint="resume with the list the job was started with",
            )

    def next(self, max_rows: int, clock: Clock) -> Chunk | Wait | None:
        """One item, or the part of a frame that fits; None when the split is over."""
        if self.ended:
            return None
        if self.item == len(self.items):
            if not self.bounded:
                return Wait(_ASK_AGAIN, "more items")
            return self._chunk(None, None)
        item = self.items[self.item]
        match item:
            case pl.DataFrame():
                return self._rows(item, max_rows)
            case Pause():
                return self._pause(item, clock)
            case Crash():
                self.item += 1
                item.reached(f"item {self.item} of split {self.name!r}")
                return self.next(max_rows, clock)
            case Reject(raw, reason):
                row = ("list", self.name, self.item, reason, raw)
                return self._rejected(pl.DataFrame([row], schema=REJECTED_SCHEMA, orient="row"))
            case Rejected(rows):
                return self._rejected(rows)
        self.item += 1
        return item if isinstance(item, Wait) else None

    def _rows(self, frame: pl.DataFrame, max_rows: int) -> Chunk:
        rows = frame.slice(self.row, max_rows)
        self.row += rows.height
        self.scanned += rows.height
        if self.row >= frame.height:
            self.item, self.row = self.item + 1, 0
        return self._chunk(rows, None)

    def _pause(self, pause: Pause, clock: Clock) -> Wait:
        if self.paused_until is None:
            self.paused_until = clock.now() + microseconds(pause.duration)
        left = self.paused_until - clock.now()
        if left <= 0:
            self.item, self.paused_until = self.item + 1, None
        return Wait(max(left, 0) / 1_000_000, "the end of a pause")

    def _rejected(self, rows: pl.DataFrame) -> Chunk:
        self.item += 1
        return self._chunk(None, rows)

    def _chunk(self, rows: pl.DataFrame | None, rejected: pl.DataFrame | None) -> Chunk:
        self.begun = True
        self.ended = self.bounded and self.item == len(self.items)
        frame = pl.DataFrame() if rows is None else rows
        position = [self.item, self.row, self.scanned]
        return Chunk(self.name, frame, position, int(frame.estimated_size()), None, rejected, self.ended)


class _ListReader(Reader):
    def __init__(
        self, splits: dict[str, _Split], order: tuple[str, ...], request: Request, source: ListSource
    ) -> None:
        self._splits = splits
        self._order = order
        self._turn = 0
        self._request = request
        self._source = source
        self._total = source.frame().height

    def poll(self, max_rows: int) -> Chunk | Wait | Exhausted:
        waits: list[Wait] = []
        for name in self._turns():
            found = self._splits[name].next(max_rows, self._request.clock)
            if isinstance(found, Chunk):
                return self._narrowed(found)
            if isinstance(found, Wait):
                waits.append(found)
        return min(waits, key=lambda wait: wait.seconds) if waits else Exhausted()

    def _turns(self) -> list[str]:
        """The split whose turn it is; then the others, in case it waits or has ended."""
        if not self._order:
            return []
        name = self._order[self._turn % len(self._order)]
        self._turn += 1
        return [name, *(other for other in self._splits if other != name)]

    def _narrowed(self, chunk: Chunk) -> Chunk:
        rows = chunk.frame if chunk.frame.width else self._source.columns.to_frame()
        rejected = 0 if chunk.rejected is None else chunk.rejected.height
        scanned = rows.height + rejected
        if self._request.predicate is not None:
            rows = rows.filter(self._request.predicate)
        if self._request.columns is not None:
            rows = rows.select(self._request.columns)
        return Chunk(chunk.split, rows, chunk.position, chunk.nbytes, scanned, chunk.rejected, chunk.ended)

    def pending(self) -> Mapping[str, int | None]:
        return {name: None for name, split in self._splits.items() if not split.begun}

    def backlog(self) -> Backlog:
        if not self._source.bounded:
            return Backlog()
        return Backlog(
            rows=self._total - sum(s.scanned for s in self._splits.values()), total_rows=self._total
        )
