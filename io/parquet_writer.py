"""Writes frames to staged Parquet files on background threads, so that the operator thread goes on."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from unistream.expressions.schema import CHANGE
from unistream.io.base import Token, Writer, WriterContext
from unistream.io.file_sink import final_names
from unistream.io.parquet_format import ParquetFormat, folder_of
from unistream.io.staging import StagedFolder, cannot_write, sync_file

LANES = 2
"""Threads that encode, and files of an unpartitioned sink that fill at the same time.

Fixed, not taken from the machine: which rows lie in which file must not depend on it.
"""

LANE_TASKS = 2
"""Row groups that wait for a lane; a full lane makes the operator thread wait."""

BUFFER_BYTES = 64 << 20
"""Rows gathered for row groups, over all partitions; beyond it the largest part is written."""

OPEN_FILES = 128
"""Most files open at once; beyond it the one that was not written to for longest is finished."""

SAMPLE_ROWS = 100_000


class ParquetWriter(Writer):
    """Gathers rows into row groups and hands them to lanes; see `ParquetSink` for what the options mean."""

    def __init__(self, folder: StagedFolder, context: WriterContext, format: ParquetFormat) -> None:
        self._folder = folder
        self._context = context
        self._format = format
        self._lanes = [Lane(f"parquet-{context.subtask}-{number}") for number in range(LANES)]
        self._parts: dict[str, _Part] = {}
        self._open: dict[tuple[str, int], PartFile] = {}  # the one written to last is the last
        self._files: list[PartFile] = []  # of the transaction, in the order they were begun
        self._staged = 0
        self._buffered = 0
        self._rows = 0
        self._bytes = 0
        self._since: int | None = None
        self._ever_wrote = False
        self._ended = False

    def write(self, frame: pl.DataFrame) -> None:
        """Take these rows; blocks while the lanes are behind."""
        frame = frame.drop(CHANGE, strict=False)
        if frame.is_empty():
            return
        self._ever_wrote = True
        self._rows += frame.height
        for name, rows in self._split(frame):
            part = self._parts.setdefault(name, _Part(name, len(self._parts)))
            size = part.add(rows)
            self._buffered += size
            self._bytes += size
            if part.rows >= self._format.group_rows or part.nbytes >= BUFFER_BYTES // 2:
                self._write_out(part)
        while self._buffered > BUFFER_BYTES:
            self._write_out(max(self._parts.values(), key=lambda part: part.nbytes))

    def due(self, now: int) -> bool:
        """Jobs without checkpoints and without end commit when a file is full or old enough."""
        if self._context.checkpoints or self._context.bounded or not self._rows:
            return False
        if self._since is None or now < self._since:  # the clock may have been put back
            self._since = now
        full = self._rows >= self._format.file_rows or self._bytes >= self._format.file_bytes
        return full or now - self._since >= self._format.file_age_micros

    def prepare(self, checkpoint_id: int) -> Token | None:
        """Finish and sync every file of the transaction."""
        for part in self._parts.values():
            if part.frames:
                self._write_out(part)
        if self._wants_empty_file():
            self._file("", 0, 0)
        for key in list(self._open):
            self._finish(key)
        for lane in self._lanes:
            lane.settle()
        files, self._files = self._files, []
        self._parts, self._rows, self._bytes, self._since = {}, 0, 0, None
        staged = [(file.path, file.partition) for file in files]
        token = final_names(self._folder, self._context, checkpoint_id, staged)
        return token or self._folder.emptied(self._context, self._ended)

    def end(self) -> None:
        """No rows come any more."""
        self._ended = True

    def close(self) -> None:
        """Drop what is not prepared and end the threads."""
        for lane in self._lanes:
            lane.close()
        for file in self._files:
            file.discard()
        self._files, self._open, self._parts = [], {}, {}
        self._folder.leave(self._context)

    def _wants_empty_file(self) -> bool:
        """The result of a bounded job can be read back also when it has no rows."""
        alone = self._context.subtask == 0 and not self._context.checkpoints and self._context.bounded
        return alone and not self._ever_wrote and not self._format.partition_by

    def _split(self, frame: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame]]:
        keys = list(self._format.partition_by)
        if not keys:
            yield "", frame
            return
        for rows in frame.partition_by(keys, maintain_order=True):
            yield folder_of(rows.select(keys)), rows.drop(keys)

    def _write_out(self, part: _Part) -> None:
        """Hand what a part has gathered to a lane, cut where a file is full."""
        rows, size = part.take()
        self._buffered -= size
        while not rows.is_empty():
            slot = 0 if self._format.partition_by else part.turn % LANES
            part.turn += 1
            file = self._file(part.name, slot, part.index + slot)
            head = rows.head(self._format.file_rows - file.rows)
            rows = rows.slice(head.height)
            file.rows += head.height
            file.nbytes += int(head.estimated_size())
            file.lane.submit(partial(file.append, head))
            if file.rows >= self._format.file_rows or file.nbytes >= self._format.file_bytes:
                self._finish((part.name, slot))

    def _file(self, name: str, slot: int, lane: int) -> PartFile:
        """The open file of a part, begun if there is none."""
        file = self._open.pop((name, slot), None)
        if file is None:
            if len(self._open) >= OPEN_FILES:
                self._finish(next(iter(self._open)))
            path = Path(self._folder.stage(self._context, self._staged))
            self._staged += 1
            file = PartFile(path, name, self._lanes[lane % LANES], self._schema(), self._format)
            self._files.append(file)
        self._open[name, slot] = file
        return file

    def _schema(self) -> pl.Schema:
        columns = self._context.schema.columns
        return pl.Schema({n: t for n, t in columns.items() if n not in self._format.partition_by})

    def _finish(self, key: tuple[str, int]) -> None:
        file = self._open.pop(key)
        file.lane.submit(file.finish)


@dataclass(slots=True)
class _Part:
    """What one partition (or the whole of an unpartitioned sink) has gathered for its next row group."""

    name: str
    index: int
    frames: list[pl.DataFrame] = field(default_factory=list)
    rows: int = 0
    nbytes: int = 0
    turn: int = 0

    def add(self, frame: pl.DataFrame) -> int:
        size = int(frame.estimated_size())
        self.frames.append(frame)
        self.rows += frame.height
        self.nbytes += size
        return size

    def take(self) -> tuple[pl.DataFrame, int]:
        rows, size = pl.concat(self.frames), self.nbytes
        self.frames, self.rows, self.nbytes = [], 0, 0
        return rows, size


class Lane:
    """A thread that does tasks one after the other. The first error is raised to whoever comes next."""

    def __init__(self, name: str) -> None:
        self._tasks: queue.Queue[Callable[[], None] | None] = queue.Queue(LANE_TASKS)
        self._error: BaseException | None = None
        self._closing = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, task: Callable[[], None]) -> None:
        """Do this later; waits while too much is waiting already."""
        self._raise()
        self._tasks.put(task)

    def settle(self) -> None:
        """Wait until everything is done."""
        self._tasks.join()
        self._raise()

    def close(self) -> None:
        """Skip what has not begun and end the thread."""
        if self._thread.is_alive():
            self._closing = True
            self._tasks.put(None)
            self._thread.join()

    def _raise(self) -> None:
        if isinstance(self._error, OSError):
            raise cannot_write("Parquet", self._error) from self._error
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        while (task := self._tasks.get()) is not None:
            try:
                if self._error is None and not self._closing:
                    task()
            except BaseException as error:
                self._error = error
            finally:
                del task  # it holds rows
                self._tasks.task_done()


class PartFile:
    """One staged file. `append` and `finish` run on its lane; the rest belongs to the writer's thread."""

    def __init__(
        self, path: Path, partition: str, lane: Lane, schema: pl.Schema, format: ParquetFormat
    ) -> None:
        self.path = path
        self.partition = partition
        self.lane = lane
        self.rows = 0
        self.nbytes = 0
        self._schema = schema
        self._format = format
        self._file: BinaryIO | None = None
        self._encoder: Any = None

    def append(self, frame: pl.DataFrame) -> None:
        """Encode one or several row groups of about equal size."""
        if self._encoder is None:
            self._begin(frame)
        groups = max(1, round(frame.height / self._format.group_rows))
        self._encoder.write_table(frame.to_arrow(), row_group_size=-(-frame.height // groups))

    def finish(self) -> None:
        """Write the footer and bring the file to the disk."""
        if self._encoder is None:
            self._begin(pl.DataFrame(schema=self._schema))
        self._encoder.close()
        assert self._file is not None
        sync_file(self._file)
        self._file.close()

    def discard(self) -> None:
        """Close and remove the file, whatever state it is in; its lane has ended."""
        if self._file is not None:
            if self._encoder is not None:
                self._encoder.is_open = False  # else it writes a footer when it is collected
            with contextlib.suppress(OSError):  # what it still holds may find no room
                self._file.close()
            self.path.unlink(missing_ok=True)

    def _begin(self, frame: pl.DataFrame) -> None:
        schema = pl.DataFrame(schema=self._schema).to_arrow().schema
        self._file = self.path.open("wb")
        self._encoder = pq.ParquetWriter(
            self._file,
            schema,
            compression=self._format.compression,
            compression_level=self._format.compression_level,
            use_dictionary=dictionary_columns(frame, schema),
            write_page_checksum=True,
        )


def dictionary_columns(frame: pl.DataFrame, schema: pa.Schema) -> list[str]:
    """The Parquet columns worth a dictionary: flat ones with few distinct values, and all nested ones.

    A dictionary of values that hardly repeat is built, found too large and thrown away, for each row
    group: half of the time of writing.
    """
    flat = [name for name, kind in frame.schema.items() if not kind.is_nested()]
    sample = frame.select(flat).head(SAMPLE_ROWS)
    counted = [name for name, kind in sample.schema.items() if _is_countable(kind)]
    distinct = sample.select(pl.col(counted).approx_n_unique()).to_dicts()[0] if counted else {}
    rare = {name for name, count in distinct.items() if count * 4 > sample.height}
    sink = pa.BufferOutputStream()
    pq.write_metadata(schema, sink)
    columns = pq.ParquetFile(pa.BufferReader(sink.getvalue())).schema
    return [column.path for column in columns if column.path not in rare]


def _is_countable(kind: pl.DataType) -> bool:
    return kind.is_numeric() or kind.is_temporal() or kind == pl.String
