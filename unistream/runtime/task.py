"""The vertices of a graph as they run: each takes what its inputs left and hands on rows and time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import polars as pl

from unistream.causes import first_words, way_out
from unistream.elements import MAX_TIME, MIN_TIME, Batch
from unistream.errors import DataError, JobFailed, UnistreamError, some_of
from unistream.faults import point
from unistream.graph import MAIN, REJECTED, Kind, Vertex
from unistream.io.base import Chunk, Position, Sink, Token, Writer
from unistream.location import raised_at
from unistream.metrics import Metrics
from unistream.of_columns import stacked
from unistream.operators.base import Operator, OperatorSpec, Output
from unistream.runtime.feed import Feed

if TYPE_CHECKING:
    from unistream.runtime.alignment import HeldBack


MOST_WAITING = 1 << 19
"""With more rows than these in its inbox a task works them off at once: one batch may make many pairs."""


class Task(ABC):
    """One vertex. `watermark` and `ended` are what it has handed on so far."""

    def __init__(self, vertex: Vertex, metrics: Metrics) -> None:
        self.vertex = vertex
        self.metrics = metrics
        self.upstream: list[Task] = []
        self.inbox: list[Batch] = []
        self._waiting = 0
        self.watermark = MIN_TIME
        self.ended = False
        self.out = TaskOutput(metrics)

    @abstractmethod
    def run(self, now: int) -> None:
        """Work off the inbox, then time. Called once a tick, after everything upstream."""

    @abstractmethod
    def close(self) -> None:
        """Give back resources."""

    def accept(self, batch: Batch) -> None:
        """Rows for the inbox; so many that memory may run short are worked off at once, time is not."""
        self.inbox.append(batch)
        self._waiting += batch.frame.height
        if self._waiting > MOST_WAITING:
            self.work_off()

    def work_off(self) -> None:
        """Work off the inbox."""
        inbox, self.inbox, self._waiting = self.inbox, [], 0
        for batch in inbox:
            self.take(batch)

    def take(self, batch: Batch) -> None:
        """Work off some rows; sources have none before them, so they leave this as it is."""
        raise NotImplementedError(f"nothing leads into {self.vertex.id}")

    def next_wakeup(self) -> int | None:
        """When it wants to run even if nothing comes in, in microseconds of the clock."""
        return None

    def busy(self) -> bool:
        """Whether rows it has taken will come out by themselves."""
        return False

    def input_watermark(self) -> int:
        """The least of what its inputs handed on."""
        return min((task.watermark for task in self.upstream), default=MIN_TIME)

    def inputs_ended(self) -> bool:
        """Whether nothing more can come in."""
        return all(task.ended for task in self.upstream)


class TaskOutput(Output):
    """Puts frames straight into the inboxes of the tasks that read them."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._readers: dict[str, list[tuple[Task, int]]] = {}

    def connect(self, tag: str, reader: Task, port: int) -> None:
        """Rows of `tag` go to input `port` of `reader` from now on."""
        self._readers.setdefault(tag, []).append((reader, port))

    def emit(self, frame: pl.DataFrame, split: str = "") -> None:
        if frame.height:
            self._metrics.add("rows_out", frame.height)
            self._hand_on(MAIN, frame, split)

    def emit_to(self, tag: str, frame: pl.DataFrame) -> None:
        if frame.height:
            self._metrics.add(f"side.{tag}", frame.height)
            self._hand_on(tag, frame, "")

    def _hand_on(self, tag: str, frame: pl.DataFrame, split: str) -> None:
        for reader, port in self._readers.get(tag, ()):
            reader.accept(Batch(frame, port, split))


class SourceTask(Task):
    """Takes chunks from a feed and keeps where each split goes on."""

    def __init__(
        self,
        vertex: Vertex,
        metrics: Metrics,
        feed: Feed,
        limits: tuple[int, int],
        positions: Mapping[str, Position],
        replays: bool = True,
    ) -> None:
        super().__init__(vertex, metrics)
        self.feed = feed
        self.positions = dict(positions)
        self._replays = replays
        self.listeners: list[Operator] = []
        self._pending: Mapping[str, int | None] = {}
        self._named_pending: dict[str, int | None] = {}
        self.took = False
        self.held: HeldBack | None = None
        """Why it is not read from for now; decided before each tick."""
        self._limits = limits

    def run(self, now: int) -> None:
        self.took = False
        if self.ended or self.held is not None:
            return
        chunks = self._take()
        ended = [self._accept(chunk) for chunk in chunks]
        for merged, split in _by_split(chunks):
            self.out.emit(merged, self._named(split))
        for chunk in chunks:
            if chunk.rejected is not None:
                self.out.emit_to(REJECTED, chunk.rejected)
        self.took = bool(chunks)
        self._tell([name for name in ended if name is not None])
        if not chunks and self.feed.status().exhausted:
            self.end()

    def hold(self, held: HeldBack | None) -> None:
        """Hold it back, and let nobody take it for silent; or do not."""
        self.held = held
        if held is not None:
            for operator in self.listeners:
                operator.on_held_back(self.vertex.id)

    def _take(self) -> list[Chunk]:
        try:
            with point("source.take"):
                return self.feed.take(*self._limits)
        except Exception as error:
            raise failure(self.vertex, error) from error

    def end(self) -> None:
        """Nothing more is taken: for those behind it the input has ended."""
        self.ended = True
        self.watermark = MAX_TIME
        self._tell([self.vertex.id])

    def _accept(self, chunk: Chunk) -> str | None:
        rejected = 0 if chunk.rejected is None else chunk.rejected.height
        scanned = chunk.frame.height + rejected if chunk.scanned_rows is None else chunk.scanned_rows
        self.metrics.add("rows_in", scanned)
        self.metrics.add("bytes_in", chunk.nbytes)
        self.metrics.add("rejected", rejected)
        self.metrics.add("filtered", scanned - rejected - chunk.frame.height)
        if chunk.ended and not self._replays:
            # Nobody can ask for it again, and a listening socket has one for each connection.
            self.positions.pop(chunk.split, None)
        else:
            self.positions[chunk.split] = chunk.position
        return self._named(chunk.split) if chunk.ended else None

    def _tell(self, ended: Sequence[str]) -> None:
        if not self.listeners:
            return
        pending = self.feed.pending()
        if pending is not self._pending:  # with many files waiting it stays the same for a while
            self._pending = pending
            self._named_pending = {self._named(split): least for split, least in pending.items()}
        for operator in self.listeners:
            operator.on_splits(self.vertex.id, self._named_pending, ended)

    def listen(self, operator: Operator) -> None:
        """An operator that keeps time per split has to know of this source before rows come."""
        if type(operator).on_splits is Operator.on_splits:
            return
        self.listeners.append(operator)
        operator.on_splits(self.vertex.id, {}, [])

    def _named(self, split: str) -> str:
        # Two sources may both have a split "a.csv", and a union brings their rows together.
        return f"{self.vertex.id}/{split}"

    def close(self) -> None:
        self.feed.close()


def _by_split(chunks: Sequence[Chunk]) -> list[tuple[pl.DataFrame, str]]:
    """Neighbouring chunks of one split as one frame each."""
    merged: list[tuple[list[pl.DataFrame], str]] = []
    for chunk in chunks:
        if merged and merged[-1][1] == chunk.split:
            merged[-1][0].append(chunk.frame)
        else:
            merged.append(([chunk.frame], chunk.split))
    return [(stacked(frames), split) for frames, split in merged]


class OperatorTask(Task):
    """Drives an operator: rows, then time, then the end."""

    def __init__(self, vertex: Vertex, metrics: Metrics, operator: Operator) -> None:
        super().__init__(vertex, metrics)
        self.operator = operator
        self._input_watermark = MIN_TIME

    def run(self, now: int) -> None:
        if self.ended:
            return
        self.work_off()
        watermark = self.input_watermark()
        if watermark > self._input_watermark:
            self._input_watermark = watermark
            with self._guarded("operator.watermark"):
                self.operator.on_watermark(watermark, self.out)
        wakeup = self.operator.next_wakeup()
        if wakeup is not None and wakeup <= now:
            with self._guarded("operator.timer"):
                self.operator.on_processing_time(now, self.out)
        self.watermark = max(self.watermark, self.operator.output_watermark(self._input_watermark))
        if self.inputs_ended() and not self.operator.busy():
            with self._guarded("operator.finish"):
                self.operator.finish(self.out)
            self.ended = True
            self.watermark = MAX_TIME

    def take(self, batch: Batch) -> None:
        self.metrics.add("rows_in", batch.frame.height)
        with self._guarded("operator.process", batch):
            self.operator.process(batch, self.out)

    @contextmanager
    def _guarded(self, step: str, batch: Batch | None = None) -> Iterator[None]:
        try:
            with point(step):
                yield
        except Exception as error:
            raise failure(self.vertex, error, batch) from error

    def input_watermark(self) -> int:
        return min((task.watermark for task in self.timed_upstream()), default=MIN_TIME)

    def timed_upstream(self) -> Sequence[Task]:
        """The tasks in front of it whose time counts."""
        spec = self.vertex.payload
        timed = spec.timed_inputs if isinstance(spec, OperatorSpec) else None
        return self.upstream if timed is None else [self.upstream[port] for port in timed]

    def next_wakeup(self) -> int | None:
        return None if self.ended else self.operator.next_wakeup()

    def busy(self) -> bool:
        return self.operator.busy()

    def close(self) -> None:
        self.operator.close()


class SinkTask(Task):
    """Hands rows to a writer and has them committed."""

    def __init__(self, vertex: Vertex, metrics: Metrics, sink: Sink, writer: Writer) -> None:
        super().__init__(vertex, metrics)
        self._sink = sink
        self._writer = writer

    def run(self, now: int) -> None:
        self.work_off()
        self.watermark = self.input_watermark()
        if self.inputs_ended() and not self.ended:
            self.ended = True
            self._writer.end()

    def take(self, batch: Batch) -> None:
        try:
            with point("sink.write"):
                self._writer.write(batch.frame)
        except Exception as error:
            raise failure(self.vertex, error, batch) from error
        self.metrics.add("rows_in", batch.frame.height)
        self.metrics.add("rows_out", batch.frame.height)

    def due(self, now: int) -> bool:
        """Whether the writer wants its rows committed although no checkpoint asks for it."""
        return self._writer.due(now)

    def prepare(self, checkpoint_id: int) -> Token | None:
        """Make what was written durable; the token commits it."""
        try:
            with point("sink.prepare"):
                return self._writer.prepare(checkpoint_id)
        except Exception as error:
            raise failure(self.vertex, error) from error

    def commit(self, token: Token | None) -> None:
        """Make it visible."""
        if token is None:
            return
        try:
            with point("sink.commit"):
                self._sink.commit([token])
        except Exception as error:
            raise failure(self.vertex, error) from error

    def close(self) -> None:
        self._writer.close()


def failure(vertex: Vertex, error: Exception, batch: Batch | None = None) -> JobFailed:
    """What the user sees when a vertex fails: the cause, where it was asked for, and what it was given."""
    if isinstance(error, JobFailed):
        return error
    if isinstance(error, UnistreamError):
        text, where, hint = error.message, error.where or vertex.where, error.hint
    else:
        text, where, hint = f"{type(error).__name__}: {first_words(error)}", vertex.where, way_out(error)
        place = raised_at(error)
        if place is not None:
            text += f"\n  raised at {place}"
            hint = hint or "try the function by itself, on the .head() of the stream before it"
    if batch is not None and not isinstance(error, DataError):
        columns = some_of(f"{name}: {dtype}" for name, dtype in batch.frame.schema.items())
        text += f"\n  on a batch of {batch.frame.height:,} rows with columns {columns}"
    name = "The query" if vertex.kind is Kind.QUERY else vertex.id
    return JobFailed(f"{name} failed: {text}", where, hint, vertex.id)
