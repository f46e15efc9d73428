"""Reads Parquet files one after the other, in slices of whole row groups."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from unistream.durations import seconds
from unistream.errors import DataError, UnistreamError
from unistream.io.base import REJECTED_SCHEMA, Backlog, Chunk, Exhausted, Position, Reader, Request, Wait
from unistream.io.hive import folder_value, folder_values
from unistream.io.listing import FileEntry, FileWatch, Stamp
from unistream.io.parquet_footer import (
    Footer,
    broken,
    check_same_columns,
    has_footer,
    raise_unless_data,
    read_footer,
    read_schema,
    to_micros,
)

if TYPE_CHECKING:
    from unistream.io.parquet_source import ParquetSource

logger = logging.getLogger(__name__)

DONE = -1
"""In the place of the next row: the file has been read to its end."""

SLICE_ROWS = 250_000

EMPTY_SLICES = 8
"""Slices without a row that passes the filter that are read before `poll` returns."""

FOOTERS_PER_POLL = 128
"""Footers of waiting files that are looked at between two chunks."""

MANY_FILES = 1000
"""With more files waiting, what they hold back is told anew only now and then."""


@dataclass(slots=True)
class _File:
    """The file being read."""

    entry: FileEntry
    footer: Footer
    row: int
    scan: pl.LazyFrame


class ParquetReader(Reader):
    """See `ParquetSource`. Begun files come first, then the others by name, new ones as they appear."""

    def __init__(self, source: ParquetSource, positions: Mapping[str, Position], request: Request) -> None:
        self._source = source
        self._request = request
        self._begun: dict[str, int] = {split: row for split, (row, _, _) in positions.items() if row != DONE}
        taken: dict[str, Stamp] = {split: (size, mtime) for split, (_, size, mtime) in positions.items()}
        self._todo: deque[FileEntry] = deque()
        self._file: _File | None = None
        self._least: dict[str, int | None] = {}  # least event time by split, where it was looked up
        self._pending: dict[str, int | None] = {}
        self._begun_since = self._ahead = self._total = 0
        self._watch: FileWatch | None = None
        self._replaced: list[FileEntry] = []
        found = source.listing.find(required=not source.watch)
        begun = [entry for entry in found if entry.split in self._begun]
        self._check_begun(begun, taken)
        if source.watch:
            poll = seconds(source.poll)
            self._watch = FileWatch(source.listing, request.clock, poll, taken, has_footer)
            self._enqueue(begun)
        else:
            changed = (entry for entry in found if taken.get(entry.split, entry.stamp) != entry.stamp)
            self._replaced = list(changed)
            self._enqueue(begun + [entry for entry in found if entry.split not in taken])

    def poll(self, max_rows: int) -> Chunk | Wait | Exhausted:
        """The next slice of the file being read, or of the next one."""
        if self._file is None and not self._todo:
            self._look()
        if self._replaced:
            return self._tell_replaced(self._replaced.pop())
        if self._file is None:
            if not self._todo:
                return self._idle()
            entry = self._todo.popleft()
            self._forget_pending(entry)
            try:
                self._file = self._begin(entry)
            except DataError as error:
                return self._reject(entry, 0, error)
        return self._read(self._file, max_rows)

    def pending(self) -> Mapping[str, int | None]:
        """Files that wait, each with the least event time its footer tells."""
        self._look_up_times()
        return self._pending

    def backlog(self) -> Backlog:
        """Bytes of the files that are known."""
        return Backlog(nbytes=max(0, self._ahead), total_bytes=self._total)

    def close(self) -> None:
        """Nothing stays open between two slices."""
        self._file = None

    def _read(self, file: _File, max_rows: int) -> Chunk:
        begin = file.row
        most = max(1, min(max_rows, SLICE_ROWS))
        try:
            for _ in range(EMPTY_SLICES):
                count = file.footer.span(file.row, most)
                frame = self._slice(file, count)
                file.row += count
                if frame.height or file.row >= file.footer.rows:
                    break
        except DataError as error:
            self._file = None
            return self._reject(file.entry, file.row, error)
        ended = file.row >= file.footer.rows
        share = file.entry.size * (file.row - begin) // max(1, file.footer.rows)
        self._ahead -= share
        if ended:
            self._file = None
        row = DONE if ended else file.row
        return Chunk(
            file.entry.split, frame, _position(file.entry, row), share, file.row - begin, ended=ended
        )

    def _slice(self, file: _File, count: int) -> pl.DataFrame:
        """Rows of the file, filtered and with the columns asked for."""
        rows = file.scan.slice(file.row, count)
        query = rows if self._request.predicate is None else rows.filter(self._request.predicate)
        if self._request.columns is not None:
            query = query.select(self._request.columns)
        try:
            frame = query.collect(engine="streaming")
        except BaseException as error:
            raise_unless_data(error)
            self._blame(rows, error)
            _check_unchanged(file.entry)
            raise broken(file.entry.path, error) from error
        _check_unchanged(file.entry)  # or rows of two files would pass for those of one
        return frame

    def _blame(self, rows: pl.LazyFrame, error: BaseException) -> None:
        """Raise `error` again if the rows can be read and only the filter fails on them."""
        if self._request.predicate is None:
            return
        try:
            rows.collect(engine="streaming")
        except BaseException:
            return
        raise error

    def _begin(self, entry: FileEntry) -> _File:
        source = self._source
        try:
            found = read_schema(entry.path)
            check_same_columns(entry.path, found, source.first_file.path, source.file_columns)
            footer = read_footer(entry.path)
        except OSError as error:
            raise broken(entry.path, error) from error
        scan = pl.scan_parquet(entry.path, glob=False, hive_partitioning=False)
        if source.folder_columns:
            scan = scan.with_columns(folder_values(source.folder_columns, entry.partition, entry.path))
        scan = scan.select(source.schema().names())
        return _File(entry, footer, self._begun.pop(entry.split, 0), scan)

    def _reject(self, entry: FileEntry, row: int, error: UnistreamError) -> Chunk:
        """What `on_error` says about a file that cannot be read (any further)."""
        if self._source.on_error == "fail":
            raise error
        self._ahead -= entry.size
        logger.warning("%s is left out from row %s on: %s", entry.path, row, error.message)
        return self._ended(entry, row, error.message)

    def _tell_replaced(self, entry: FileEntry) -> Chunk:
        reason = f"{entry.path} was changed after it was read; the new content is not read"
        return self._ended(entry, 0, reason)

    def _ended(self, entry: FileEntry, row: int, reason: str) -> Chunk:
        rejected = None
        if self._source.on_error == "collect":
            told = {"source": self._source.name, "split": entry.split, "position": row, "reason": reason}
            rejected = pl.DataFrame([{**told, "raw": None}], schema=REJECTED_SCHEMA)
        return Chunk(
            entry.split, self._no_rows(), _position(entry, DONE), 0, None, rejected=rejected, ended=True
        )

    def _no_rows(self) -> pl.DataFrame:
        columns = self._request.columns
        empty = pl.DataFrame(schema=self._source.schema())
        return empty if columns is None else empty.select(columns)

    def _check_begun(self, begun: list[FileEntry], taken: Mapping[str, Stamp]) -> None:
        """A file of which some rows are in a checkpoint must still be the same file."""
        gone = self._begun.keys() - {entry.split for entry in begun}
        changed = sorted(gone) or [entry.split for entry in begun if entry.stamp != taken[entry.split]]
        if changed:
            what = "is gone" if gone else "was changed"
            raise DataError(
                f"{changed[0]} {what} since the checkpoint, which ends in the middle of it",
                hint="bring the file back with its old time of change, or start without the checkpoint",
            )

    def _look(self) -> None:
        """Take what watching has found."""
        if self._watch is not None:
            self._enqueue(self._watch.look())
            self._replaced, self._watch.replaced = self._watch.replaced, []

    def _idle(self) -> Wait | Exhausted:
        if self._watch is None:
            return Exhausted()
        waiting = self._watch.waiting
        reason = f"waiting for {waiting[0]} to be whole" if waiting else "no new file"
        return Wait(self._watch.seconds_to_next_look(), reason, caught_up=not waiting)

    def _enqueue(self, entries: list[FileEntry]) -> None:
        self._todo.extend(entries)
        size = sum(entry.size for entry in entries)
        self._ahead += size
        self._total += size
        if entries:
            self._renew_pending()

    def _forget_pending(self, entry: FileEntry) -> None:
        self._least.pop(entry.split, None)
        self._begun_since += 1
        if len(self._todo) < MANY_FILES or self._begun_since % 64 == 0:
            self._renew_pending()

    def _renew_pending(self) -> None:
        # Handed out as it is and kept by others: made anew, never changed.
        self._pending = {entry.split: self._least.get(entry.split) for entry in self._todo}

    def _look_up_times(self) -> None:
        column = self._request.time_column
        if column is None:
            return
        unknown = (entry for entry in self._todo if entry.split not in self._least)
        looked_up = [entry for entry, _ in zip(unknown, range(FOOTERS_PER_POLL), strict=False)]
        for entry in looked_up:
            self._least[entry.split] = self._least_time(entry, column)
        if looked_up:
            self._renew_pending()

    def _least_time(self, entry: FileEntry, column: str) -> int | None:
        try:
            if column in self._source.folder_columns:
                kind = self._source.folder_columns[column]
                return to_micros(folder_value(entry.partition.get(column), kind, entry.path))
            return read_footer(entry.path, column).least_time
        except (DataError, OSError):
            return None  # told when the file is begun


def _check_unchanged(entry: FileEntry) -> None:
    """What was just read must be of the file that was found."""
    try:
        found = Path(entry.path).stat()
    except OSError:
        return  # when it is gone, the next slice says so; this one is right
    if (found.st_size, found.st_mtime_ns) != entry.stamp:
        raise DataError(
            f"{entry.path} was changed while it was read",
            hint="write new content under a new name; files that a job reads must stay as they are",
        )


def _position(entry: FileEntry, row: int) -> list[int]:
    return [row, *entry.stamp]
