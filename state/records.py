"""Each table beside what checkpoints already hold of it, so that only changes are written."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from typing import Any, cast

import polars as pl

from unistream.state.backend import RowIds
from unistream.state.cell import JsonCell
from unistream.state.hot_table import HotTable
from unistream.state.log_table import FrameLog, LogFrame
from unistream.state.schemas import schema_to_json
from unistream.state.segment_files import SegmentFile, SegmentFolder
from unistream.state.segments import rows_per_block

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
        self._folder = folder
        self._shared: SegmentFile | None = None

    def file_for(self, nbytes: int) -> SegmentFile:
        """The file to which frames of this size should be added."""
        if nbytes >= OWN_FILE_BYTES:
            return self.own_file()
        if self._shared is None:
            self._shared = self.own_file()
        return self._shared

    def own_file(self) -> SegmentFile:
        """A file for one part alone."""
        return self._folder.new_file()

    def write_now(self, file: SegmentFile) -> None:
        """Write at once, because the content cannot be kept in memory until later."""
        self._folder.write([file])


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

    def to_json(self, parts: Sequence[int]) -> dict[str, Any]:
        """What `StoredTable.runs` reads; `parts` are the numbers of the frames that are still there."""
        told = {"file": self.file.name, "bucket": self.bucket, "blocks": self.blocks, "heights": self.heights}
        return told if len(parts) == len(self.heights) else {**told, "parts": parts}

    @property
    def durable(self) -> bool:
        """Whether the file is written."""
        return self.file.waiting is None

    def read(self) -> list[pl.DataFrame]:
        """The frames, in order."""
        blocks = self.file.read(self.blocks)
        whole = blocks[0] if len(blocks) == 1 else pl.concat(blocks)
        ends = list(accumulate(self.heights))
        return [whole[end - height : end] for end, height in zip(ends, self.heights, strict=True)]


@dataclass(frozen=True, slots=True)
class TableSlice:
    """Some rows of a table, read when they are written."""

    table: HotTable
    rows: RowIds

    def read(self) -> pl.DataFrame:
        """Keys and values."""
        return self.table.frame(self.rows)


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
        table = self.table
        rows = table.changed_rows(whole)
        deleted = pl.DataFrame() if whole else table.deleted_keys()
        if table.bounded:
            file, each = writer.own_file(), rows_per_block(len(table), table.nbytes)
            deleted_blocks = file.add(deleted)
            row_blocks = [
                file.add_cold(TableSlice(table, rows[start : start + each]))
                for start in range(0, len(rows), each)
            ]
            writer.write_now(file)
        else:
            picked = table.picked(rows)
            file = writer.file_for(picked.nbytes + int(deleted.estimated_size()))
            deleted_blocks, row_blocks = file.add(deleted), file.add_picked(picked)
        table.mark_stored(rows)
        count = len(rows) + deleted.height
        return StoredChange(file, tuple(row_blocks), tuple(deleted_blocks), count, whole)

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
        runs: dict[StoredRun, list[int]] = {}  # with the frames of each that were not replaced or forgotten
        for bucket in self.log.buckets():
            entries = self.log.bucket_entries(bucket)
            for neighbours in _unwritten(entries):
                self._write(writer, bucket, neighbours)
            for entry in entries:
                runs.setdefault(cast(StoredRun, entry.stored), []).append(entry.part)
        rows, schema = len(self.log), self.log.schema
        return Image(
            frozenset(run.file for run in runs),
            lambda: {
                "kind": "log",
                "schema": schema_to_json(schema),
                "rows": rows,
                "runs": [run.to_json(parts) for run, parts in runs.items()],
            },
        )

    @staticmethod
    def _write(writer: SnapshotWriter, bucket: int, entries: Sequence[LogFrame]) -> None:
        file = writer.file_for(sum(entry.nbytes for entry in entries))
        if entries[0].cold is not None:
            blocks = [file.add_cold(entries[0].cold)]
        else:
            blocks = file.add(
                pl.concat([cast(pl.DataFrame, entry.frame) for entry in entries], rechunk=False)
            )
        run = StoredRun(file, bucket, tuple(blocks), tuple(entry.height for entry in entries))
        for part, entry in enumerate(entries):
            entry.stored, entry.part, entry.cold = run, part, None


def _unwritten(entries: Sequence[LogFrame]) -> Iterator[list[LogFrame]]:
    """What no file has yet, as runs for one block each.

    Frames are small when the input is slow, so all that came since the last checkpoint go together; a
    spilled frame goes alone, because it is read back only when it is written.
    """
    new = [entry for entry in entries if entry.stored is None]
    for cold, neighbours in groupby(new, key=lambda entry: entry.cold):
        if cold is None:
            yield list(neighbours)
        else:
            yield from ([entry] for entry in neighbours)


class CellRecord(Record):
    """A cell: its text goes into the description."""

    def __init__(self, cell: JsonCell) -> None:
        self.cell = cell

    def capture(self, writer: SnapshotWriter) -> Image:
        text = self.cell.text
        return Image(frozenset(), lambda: {"kind": "cell", "value": text})
