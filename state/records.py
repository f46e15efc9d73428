"""Each table beside what checkpoints already hold of it, so that only changes are written."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from unistream.state.cell import JsonCell
from unistream.state.hot_table import HotTable
from unistream.state.log_table import FrameLog, LogFrame
from unistream.state.schemas import schema_to_json
from unistream.state.segment_files import SegmentFile, SegmentFolder

# Tables of fewer rows are written whole: a chain of changes would cost more than it saves.
SMALL_TABLE_ROWS = 1024
# A longer chain is folded even if little has changed, to bound the number of files in a checkpoint.
LONGEST_CHAIN = 512
# Smaller parts of one checkpoint share a file.
OWN_FILE_BYTES = 1 << 20


class SnapshotWriter:
    """Puts the frames of one checkpoint into new files: large parts alone, small ones together."""

    def __init__(self, folder: SegmentFolder, whole: bool) -> None:
        self.whole = whole
        self.files: list[SegmentFile] = []
        self._folder = folder
        self._shared: SegmentFile | None = None

    def file_for(self, *frames: pl.DataFrame) -> SegmentFile:
        """The file these frames should be added to."""
        if sum(int(frame.estimated_size()) for frame in frames) >= OWN_FILE_BYTES:
            return self._new()
        if self._shared is None:
            self._shared = self._new()
        return self._shared

    def _new(self) -> SegmentFile:
        file = self._folder.new_file()
        self.files.append(file)
        return file


@dataclass(frozen=True, slots=True)
class Image:
    """What one table looks like in one checkpoint; `describe` is asked once all files are written."""

    files: frozenset[SegmentFile]
    describe: Callable[[], dict[str, Any]]


@dataclass(frozen=True, eq=False, slots=True)
class StoredChange:
    """The changes of a keyed table in one checkpoint: numbers of blocks of a file."""

    file: SegmentFile
    rows: tuple[int, ...]
    deleted: tuple[int, ...]
    count: int
    whole: bool

    def to_json(self) -> dict[str, Any]:
        """As `from_json` reads it."""
        return {
            "file": self.file.name,
            "rows": self.rows,
            "deleted": self.deleted,
            "count": self.count,
            "whole": self.whole,
        }


@dataclass(frozen=True, eq=False, slots=True)
class StoredRun:
    """Neighbouring frames of a log bucket in one file; `heights` tells where each ends."""

    file: SegmentFile
    bucket: int
    blocks: tuple[int, ...]
    heights: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        """As `from_json` reads it."""
        return {"file": self.file.name, "bucket": self.bucket, "blocks": self.blocks, "heights": self.heights}


class Record(ABC):
    """One table of a store, whatever its kind."""

    @abstractmethod
    def capture(self, writer: SnapshotWriter) -> Image:
        """Fix the content of the table for a checkpoint."""


class KeyedRecord(Record):
    """A keyed table: the chain of changes since it was last written whole.

    It is written whole again when that costs no more than the changes since the last time did, so that
    over time at most twice the changed rows are written and a restore reads at most twice the live ones.
    """

    def __init__(self, table: HotTable, chain: Iterable[StoredChange] = ()) -> None:
        self.table = table
        self.chain: tuple[StoredChange, ...] = tuple(chain)

    def capture(self, writer: SnapshotWriter) -> Image:
        changed = self.table.changed
        if changed or not self.chain:
            whole = writer.whole or self._folds(changed)
            change = self._write(writer, whole)
            self.chain = (change,) if whole else (*self.chain, change)
        return Image(frozenset(change.file for change in self.chain), self._describer())

    def _folds(self, changed: int) -> bool:
        live = len(self.table)
        if not self.chain or live <= SMALL_TABLE_ROWS or len(self.chain) >= LONGEST_CHAIN:
            return True
        return changed + sum(change.count for change in self.chain[1:]) >= live

    def _write(self, writer: SnapshotWriter, whole: bool) -> StoredChange:
        changes = self.table.take_changes(whole)
        file = writer.file_for(changes.rows, changes.deleted)
        deleted, rows = file.add(changes.deleted), file.add(changes.rows)
        count = changes.rows.height + changes.deleted.height
        return StoredChange(file, tuple(rows), tuple(deleted), count, whole)

    def _describer(self) -> Callable[[], dict[str, Any]]:
        chain, table, rows = self.chain, self.table, len(self.table)
        return lambda: {
            "kind": "keyed",
            "keys": schema_to_json(table.key_schema),
            "values": schema_to_json(table.value_schema),
            "rows": rows,
            "changes": [change.to_json() for change in chain],
        }


class LogRecord(Record):
    """A log: each frame is written once and stays where it was written until its bucket goes."""

    def __init__(self, log: FrameLog) -> None:
        self.log = log

    def capture(self, writer: SnapshotWriter) -> Image:
        runs: dict[StoredRun, None] = {}
        for bucket in self.log.buckets():
            entries = self.log.bucket_entries(bucket)
            new = [entry for entry in entries if entry.stored is None]
            if new:
                self._write(writer, bucket, new)
            runs.update(dict.fromkeys(entry.stored for entry in entries))
        rows, schema = len(self.log), self.log.schema
        return Image(
            frozenset(run.file for run in runs),
            lambda: {
                "kind": "log",
                "schema": schema_to_json(schema),
                "rows": rows,
                "runs": [run.to_json() for run in runs],
            },
        )

    @staticmethod
    def _write(writer: SnapshotWriter, bucket: int, entries: Sequence[LogFrame]) -> None:
        # Frames are small when the input is slow; one block holds all that came since the last checkpoint.
        frame = entries[0].frame if len(entries) == 1 else pl.concat([entry.frame for entry in entries])
        file = writer.file_for(frame)
        run = StoredRun(file, bucket, tuple(file.add(frame)), tuple(entry.frame.height for entry in entries))
        for entry in entries:
            entry.stored = run


class CellRecord(Record):
    """A cell: its text goes into the description."""

    def __init__(self, cell: JsonCell) -> None:
        self.cell = cell

    def capture(self, writer: SnapshotWriter) -> Image:
        text = self.cell.text
        return Image(frozenset(), lambda: {"kind": "cell", "value": text})
