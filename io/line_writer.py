"""Writes frames as lines to staged files."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import polars as pl

from unistream.expressions.schema import CHANGE
from unistream.io.base import Token, Writer, WriterContext
from unistream.io.file_sink import Layout, final_names
from unistream.io.parquet_format import folder_of
from unistream.io.staging import StagedFolder, cannot_write, sync_file

OPEN_FILES = 128
"""Most files open at once; beyond it the one that was not written to for longest is finished."""

SLICE_ROWS = 50_000
"""Rows that are encoded at once, so that a file ends near its limit."""


class LineWriter(Writer):
    """Encodes rows as they come; see `LineSink` for what the options mean."""

    def __init__(
        self,
        folder: StagedFolder,
        context: WriterContext,
        layout: Layout,
        encode: Callable[[pl.DataFrame], bytes],
        header: bytes,
    ) -> None:
        self._folder = folder
        self._context = context
        self._layout = layout
        self._encode = encode
        self._header = header
        self._open: dict[str, _PartFile] = {}  # the one written to last is the last
        self._files: list[_PartFile] = []  # of the transaction, in the order they were begun
        self._staged = 0
        self._since: int | None = None
        self._ever_wrote = False
        self._ended = False

    def write(self, frame: pl.DataFrame) -> None:
        """Take these rows."""
        frame = frame.drop(CHANGE, strict=False)
        for partition, rows in self._split(frame):
            self._ever_wrote = True
            self._append(partition, rows)

    def due(self, now: int) -> bool:
        """Jobs without checkpoints and without end commit when a file is full or old enough."""
        if self._context.checkpoints or self._context.bounded or not self._files:
            return False
        if self._since is None or now < self._since:  # the clock may have been put back
            self._since = now
        full = any(self._is_full(file) for file in self._files)
        return full or now - self._since >= self._layout.file_age_micros

    def prepare(self, checkpoint_id: int) -> Token | None:
        """Finish and sync every file of the transaction."""
        if self._wants_empty_file():
            self._file("")
        for partition in list(self._open):
            self._finish(partition)
        files, self._files, self._since = self._files, [], None
        staged = [(file.path, file.partition) for file in files]
        token = final_names(self._folder, self._context, checkpoint_id, staged)
        return token or self._folder.emptied(self._context, self._ended)

    def end(self) -> None:
        """No rows come any more."""
        self._ended = True

    def close(self) -> None:
        """Remove what is not prepared."""
        for file in self._files:
            with contextlib.suppress(OSError):  # what it still holds may find no room
                file.handle.close()
            file.path.unlink(missing_ok=True)
        self._files, self._open = [], {}
        self._folder.leave(self._context)

    def _split(self, frame: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame]]:
        keys = list(self._layout.partition_by)
        if frame.is_empty():
            return
        if not keys:
            yield "", frame
            return
        for rows in frame.partition_by(keys, maintain_order=True):
            yield folder_of(rows.select(keys)), rows.drop(keys)

    def _append(self, partition: str, rows: pl.DataFrame) -> None:
        """Write rows, a slice at a time, to files that end where they are full."""
        while not rows.is_empty():
            file = self._file(partition)
            head = rows.head(min(SLICE_ROWS, self._layout.file_rows - file.rows))
            rows = rows.slice(head.height)
            self._put(file, self._encode(head))
            file.rows += head.height
            if self._is_full(file):
                self._finish(partition)

    def _put(self, file: _PartFile, data: bytes) -> None:
        try:
            file.handle.write(data)
        except OSError as error:
            raise cannot_write(f"{len(data)} bytes to {file.path}", error) from error
        file.nbytes += len(data)

    def _is_full(self, file: _PartFile) -> bool:
        return file.rows >= self._layout.file_rows or file.nbytes >= self._layout.file_bytes

    def _file(self, partition: str) -> _PartFile:
        """The open file of a partition, begun if there is none."""
        file = self._open.pop(partition, None)
        if file is None:
            if len(self._open) >= OPEN_FILES:
                self._finish(next(iter(self._open)))
            path = Path(self._folder.stage(self._context, self._staged))
            self._staged += 1
            file = _PartFile(path, partition, _opened(path))
            self._files.append(file)
            self._put(file, self._header)
        self._open[partition] = file
        return file

    def _finish(self, partition: str) -> None:
        file = self._open.pop(partition)
        try:
            sync_file(file.handle)
            file.handle.close()
        except OSError as error:
            raise cannot_write(str(file.path), error) from error

    def _wants_empty_file(self) -> bool:
        """The result of a bounded job can be read back also when it has no rows."""
        alone = self._context.subtask == 0 and not self._context.checkpoints and self._context.bounded
        return alone and not self._ever_wrote and not self._layout.partition_by


@dataclass(slots=True)
class _PartFile:
    """One staged file."""

    path: Path
    partition: str
    handle: IO[bytes] = field(repr=False)
    rows: int = 0
    nbytes: int = 0


def _opened(path: Path) -> IO[bytes]:
    try:
        return path.open("wb")
    except OSError as error:
        raise cannot_write(str(path), error) from error
