"""The contract of sources and sinks.

A `Source` or `Sink` is frozen configuration that pickles; the `Reader` or `Writer` it opens does the I/O.
Both speak in whole Polars frames. A connector never blocks for long, keeps no global state and takes all
its position from the arguments of `open`.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import polars as pl

from unistream.clock import Clock, SystemClock
from unistream.expressions.schema import Changes, StreamSchema
from unistream.one_query import Terms

Position = Any
"""Where reading of one split goes on: a JSON value (numbers, text, lists, dicts), opaque to the engine."""

Token = Any
"""What a writer hands over to have its rows committed: a JSON value, opaque to the engine."""

REJECTED_SCHEMA = pl.Schema(
    {"source": pl.String, "split": pl.String, "position": pl.Int64, "reason": pl.String, "raw": pl.String}
)
"""Columns of the stream of rows that could not be read: `position` is a line number or byte offset."""


class Replay(StrEnum):
    """What a source can give again after a crash."""

    EXACT = "exact"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Request:
    """What the plan asks of a reader beyond rows: only these columns, only the rows that pass.

    A source that cannot use one of them says so in `Source.pushes` and is not asked. `time_column` is the
    column event time comes from, for readers that know its least value ahead (`Reader.pending`); `clock`
    is the one to poll by.
    """

    columns: tuple[str, ...] | None = None
    predicate: pl.Expr | None = None
    time_column: str | None = None
    clock: Clock = field(default_factory=SystemClock)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some rows of one split, in order, and where the split goes on behind them.

    `position` is given to `open` after a restart for exactly-once replay. `scanned_rows` counts the rows
    that were read to give these (a pushed filter drops some); None means "as many as `frame` and
    `rejected` have". `ended` says that the split gives no more rows, ever.
    """

    split: str
    frame: pl.DataFrame
    position: Position
    nbytes: int = 0
    scanned_rows: int | None = None
    rejected: pl.DataFrame | None = None
    ended: bool = False


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to read now; ask again in `seconds` at the latest. `reason` is shown to the user.

    `caught_up` is false while something that is there already cannot be given yet: a file that is still
    being written, a server that is not reached. A job that takes what is available waits for it.
    """

    seconds: float
    reason: str = ""
    caught_up: bool = True


@dataclass(frozen=True, slots=True)
class Exhausted:
    """Nothing to read, ever again."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """How much is known to lie ahead of a reader and how much there is in all; None where unknown."""

    rows: int | None = None
    nbytes: int | None = None
    total_rows: int | None = None
    total_bytes: int | None = None


class Reader(ABC):
    """Reads one source. Called on one thread, the source's own."""

    @abstractmethod
    def poll(self, max_rows: int) -> Chunk | Wait | Exhausted:
        """The next rows, at most about `max_rows`; returns within a fraction of a second."""

    def pending(self) -> Mapping[str, int | None]:
        """Splits known but not yet begun, each with the least event time it can hold (microseconds) if known.

        They hold the watermark back, so that files read in any order lose nothing.
        """
        return {}

    def backlog(self) -> Backlog:
        """What is known to lie ahead; cheap, asked a few times a second from another thread."""
        return Backlog()

    def acknowledge(self, positions: Mapping[str, Position]) -> None:
        """A checkpoint with these positions is durable: what lies before them is not asked for again."""

    def close(self) -> None:
        """Give back files and sockets; called once, also after an error."""


class Source(ABC):
    """Frozen configuration of a source. Subclasses are frozen dataclasses and pickle."""

    name: str = "source"

    @property
    @abstractmethod
    def bounded(self) -> bool:
        """Whether the source ends by itself."""

    @abstractmethod
    def schema(self) -> pl.Schema:
        """Columns and types of its rows, known before the first one (it may look at the first file)."""

    @abstractmethod
    def open(self, positions: Mapping[str, Position], request: Request) -> Reader:
        """A reader that goes on at `positions` (split → position; empty at the first start)."""

    @property
    def replay(self) -> Replay:
        """What it can give again after a crash."""
        return Replay.EXACT

    @property
    def pushes(self) -> frozenset[str]:
        """Which parts of a `Request` its readers honour: a subset of {"columns", "predicate"}."""
        return frozenset()

    def lazy(self, terms: Terms) -> pl.LazyFrame | None:
        """The columns asked for of all rows as one Polars query, when that is equal to reading it; else None.

        What can only be found out from the rows becomes one of the conditions. Called while a plan is built:
        nothing is read.
        """
        return None

    @property
    def folders(self) -> tuple[str, ...]:
        """Folders that are its alone: checkpoints lie elsewhere."""
        return ()

    def takes(self, path: str) -> bool:
        """Whether it reads the file at this path, or will when there is one."""
        return False

    def size(self) -> int | None:
        """About how many bytes of memory its rows take, where that is known without reading them."""
        return None

    def extremes(self, column: str) -> tuple[Any, Any] | None:
        """Least and greatest value of a column without nulls, where that is known ahead of its rows."""
        return None

    def count_rows(self) -> int | None:
        """How many rows `lazy` reads, where that is known without reading them; asked once it has run."""
        return None

    def describe(self) -> dict[str, str]:
        """What `explain` prints of it, in order."""
        return {}

    def identity(self) -> Hashable:
        """Two sources with equal identity read the same rows and are opened once."""
        return self


@dataclass(frozen=True, slots=True)
class WriterContext:
    """What a writer is told when it is opened.

    `job_id` is stable over restarts of one job and different between jobs; names made of it, `subtask`
    and a checkpoint id can be found again after a crash. `checkpoints` is false when the job keeps none:
    then `due` decides when rows are committed. `stopping` is set once the user wants the job to end: what
    can only be waited for is given up within a second.
    """

    job_id: str
    schema: StreamSchema
    subtask: int = 0
    subtasks: int = 1
    checkpoints: bool = False
    bounded: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)
    stopping: threading.Event = field(default_factory=threading.Event, compare=False)


class Writer(ABC):
    """Takes the rows of one subtask of a sink. Called on the operator thread."""

    @abstractmethod
    def write(self, frame: pl.DataFrame) -> None:
        """Take these rows; they become visible when a token that covers them is committed."""

    def due(self, now: int) -> bool:
        """Without checkpoints, asked after each tick: is it time to `prepare` and commit?

        `now` is the clock in microseconds. A sink that shows rows at once (console, socket, memory)
        leaves this false and writes through.
        """
        return False

    def prepare(self, checkpoint_id: int) -> Token | None:
        """Make everything written so far durable but not yet visible; the token is what commits it.

        None when there is nothing to commit. After this the writer goes on with a new transaction.
        """
        return None

    def end(self) -> None:
        """No more rows come: the next `prepare` is the last."""

    def close(self) -> None:
        """Discard what was written after the last `prepare` and give back resources; called once."""


class Sink(ABC):
    """Frozen configuration of a sink. Subclasses are frozen dataclasses and pickle."""

    name: str = "sink"

    @property
    def accepts(self) -> frozenset[Changes]:
        """Changelog modes it can hold."""
        return frozenset({Changes.APPEND})

    @property
    def promise(self) -> str:
        """What it keeps of a replayable source: "exactly once", "at least once"."""
        return "at least once"

    @property
    def folders(self) -> tuple[str, ...]:
        """Folders that are its alone: checkpoints lie elsewhere."""
        return ()

    @property
    def example(self) -> str | None:
        """The path of a file such as it writes, by which to find out who would read it."""
        return None

    def replaced(self) -> Iterable[str]:
        """Paths of the files that go when its first rows are committed."""
        return ()

    def check(self, schema: StreamSchema) -> None:
        """Raise `InvalidQuery` for streams it cannot hold; called while the plan is built."""

    def prepare_target(self, restored: bool) -> None:
        """Before the first row: make or check the folder, the table, the port. Raises `ConnectorError`."""

    @abstractmethod
    def open(self, context: WriterContext) -> Writer:
        """A writer for one subtask."""

    def commit(self, tokens: Sequence[Token]) -> None:
        """Make what these tokens cover visible; may be called again with the same tokens."""

    def abort(self, context: WriterContext) -> None:
        """Remove whatever uncommitted writers of this job left behind, as far as it can be found."""

    def recover(self, tokens: Sequence[Token], context: WriterContext) -> None:
        """After a restart: commit the tokens of the restored checkpoint again, drop everything later."""
        self.commit(tokens)
        self.abort(context)

    @property
    def writes_queries(self) -> bool:
        """Whether `lazy` can be called."""
        return False

    def lazy(self, query: pl.LazyFrame, context: WriterContext) -> LazyWrite:
        """Write a whole bounded query in one go, with the same result as a writer."""
        raise TypeError(f"sink {self.name} takes no queries")

    def describe(self) -> dict[str, str]:
        """What `explain` prints of it, in order."""
        return {}


class LazyWrite(ABC):
    """A bounded query being written by one Polars run; prepared by `Sink.lazy`."""

    @abstractmethod
    def run(self) -> Token | None:
        """Run the query to its end and return the token that commits it.

        Raises what the query raises, and `Cancelled` soon after `cancel` was called.
        """

    def cancel(self) -> None:
        """Make `run` stop soon; called from another thread, also before `run` or after its end."""

    def progress(self) -> int:
        """Rows written so far; called from another thread."""
        return 0


class Cancelled(Exception):
    """Raised by `LazyWrite.run` after `cancel`: nothing was made visible."""
