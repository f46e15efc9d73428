"""Reads line files from beginning to end, one after the other; with a watch, new ones as they appear."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import polars as pl

from unistream.clock import Clock
from unistream.errors import ConnectorError, DataError
from unistream.io.base import REJECTED_SCHEMA, Backlog, Chunk, Exhausted, Position, Reader, Wait
from unistream.io.compressed_bytes import ByteStream, PlainBytes, open_bytes
from unistream.io.line_split import UNIT_BYTES, LineOptions, LineSplit, Read, checksum
from unistream.io.listing import FileEntry, FileWatch, Listing

logger = logging.getLogger(__name__)

FIRST_BYTES = 128 << 10
"""Read at first, before the length of rows is known."""

DECODERS = 3
"""One more than keep two cores busy: a parser waits at its beginning and its end."""

AHEAD = DECODERS + 1
"""Units of a file that are read before the first of them is given: some are decoded while others wait."""

LEAST_AHEAD = 8 << 20
"""Bytes of a file from which on that is done."""

LEAST_UNITS = 16
"""Units a file is cut into at least, unless they were smaller than `SMALL_UNIT`: so that there is something
to do ahead."""

SMALL_UNIT = 2 << 20

MANY_FILES = 1000
"""With more files waiting, which ones wait is told anew only now and then: telling takes a step for each."""

RENEWED_EVERY = 64
"""Files that are begun in between."""


class LineReader(Reader):
    """Whole files in the order of their names, or with a watch as they become whole.

    A position is that of `LineSplit` with the file's `"stamp"`, and `"ended"` when all of it was read.
    """

    def __init__(
        self,
        listing: Listing,
        options: LineOptions,
        positions: Mapping[str, Position],
        watch: tuple[Clock, float] | None,
    ) -> None:
        self._options = options
        self._begun = {split: dict(place) for split, place in positions.items() if not place.get("ended")}
        self._queue: deque[FileEntry] = deque()
        self._watch: FileWatch | None = None
        self._file: _OpenFile | None = None
        self._opened = 0
        self._pending: dict[str, int | None] = {}
        self._pool: ThreadPoolExecutor | None = None
        self._row_bytes = 0.0
        self._read_bytes = 0
        self._total_bytes = 0
        if watch is None:
            ended = {split for split, place in positions.items() if place.get("ended")}
            found = listing.find()
            self._check_all_there({entry.split for entry in found}, listing)
            _warn_of_changes(found, {split: positions[split] for split in ended})
        else:
            ended = set()
            taken = {split: _stamp(place) for split, place in positions.items()}
            self._watch = FileWatch(listing, *watch, taken=taken)
            found = self._resumed(listing)
        self._add([entry for entry in found if entry.split not in ended])

    def poll(self, max_rows: int) -> Chunk | Wait | Exhausted:
        if self._watch is not None:
            self._add(self._watch.look())
        if self._file is None:
            if not self._queue:
                return self._nothing_to_read()
            self._file = self._open(self._queue.popleft())
            self._opened += 1
            if len(self._queue) < MANY_FILES or self._opened % RENEWED_EVERY == 0:
                self._renew_pending()
        entry = self._file.entry
        try:
            chunk = self._file.next_chunk(self._unit(max_rows, entry.size), self._pool_for(entry))
        except DataError as error:
            chunk = self._file.left_out(error)
        rows = chunk.frame.height
        if rows:
            self._row_bytes = chunk.nbytes / rows
        if chunk.ended:
            self._read_bytes += self._file.entry.size
            self._file.close()
            self._file = None
        return chunk

    def pending(self) -> Mapping[str, int | None]:
        return self._pending

    def backlog(self) -> Backlog:
        file = self._file
        done = self._read_bytes + (file.place_on_disk if file else 0)
        return Backlog(nbytes=max(0, self._total_bytes - done), total_bytes=self._total_bytes)

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None
        if self._file is not None:
            self._file.close()
            self._file = None

    def _pool_for(self, entry: FileEntry) -> ThreadPoolExecutor | None:
        """Where a file is decoded that is long enough for that to pay, once the length of rows is known."""
        if entry.size < LEAST_AHEAD or not self._row_bytes:
            return None
        if self._pool is None:
            self._pool = ThreadPoolExecutor(DECODERS, thread_name_prefix="unistream-decode")
        return self._pool

    def _unit(self, max_rows: int, size: int) -> int:
        """Bytes that hold about `max_rows`, or fewer of a file of this size."""
        if not self._row_bytes:
            return FIRST_BYTES
        most = min(UNIT_BYTES, max(SMALL_UNIT, size // LEAST_UNITS))
        return int(min(max(max_rows * self._row_bytes, 4096), most))

    def _nothing_to_read(self) -> Wait | Exhausted:
        if self._watch is None:
            return Exhausted()
        waiting = self._watch.waiting
        reason = f"{waiting[0]} is still being written" if waiting else "no new files"
        return Wait(self._watch.seconds_to_next_look(), reason, caught_up=not waiting)

    def _add(self, entries: list[FileEntry]) -> None:
        begun_first = sorted(entries, key=lambda entry: entry.split not in self._begun)
        if not entries:
            return
        self._queue.extend(begun_first)
        self._renew_pending()
        self._total_bytes += sum(entry.size for entry in entries)

    def _renew_pending(self) -> None:
        # Handed out as it is and kept by others: made anew, never changed.
        self._pending = {entry.split: None for entry in self._queue}

    def _resumed(self, listing: Listing) -> list[FileEntry]:
        """Files that were begun before a restart; the watch does not hand them out again."""
        if not self._begun:
            return []
        found = {entry.split: entry for entry in listing.find(required=False)}
        self._check_all_there(set(found), listing)
        return [found[split] for split in self._begun]

    def _check_all_there(self, found: set[str], listing: Listing) -> None:
        for split in self._begun:
            if split not in found:
                raise ConnectorError(
                    f"File {split} below {listing.root} was read in part and is gone",
                    hint="put it back, or start without the checkpoint",
                )

    def _open(self, entry: FileEntry) -> _OpenFile:
        return _OpenFile(entry, self._options, self._begun.pop(entry.split, None))


@dataclass(frozen=True)
class _Unit:
    """Some bytes of a file on their way: rows (None for no whole line), and the place behind them."""

    rows: Future[Read] | Read | None
    position: dict[str, Any]
    ended: bool
    error: Exception | None = None


class _OpenFile:
    """One file being read."""

    def __init__(self, entry: FileEntry, options: LineOptions, position: dict[str, Any] | None) -> None:
        self.entry = entry
        self._options = options
        self._stream: ByteStream = open_bytes(entry.path)
        self._split = LineSplit(options, entry.split, position)
        if position and position["offset"]:
            self._find_place(position)
        self._place = self._split.offset
        self._ahead: deque[_Unit] = deque()

    @property
    def place_on_disk(self) -> int:
        """How much of the file, as it lies on the disk, was read."""
        try:
            return self._stream.file.tell()
        except ValueError:  # closed on the other thread
            return self.entry.size

    def next_chunk(self, nbytes: int, pool: ThreadPoolExecutor | None) -> Chunk:
        """The rows of the next bytes; `ended` at the end of the file, perhaps without rows.

        With a pool the bytes behind them are read and decoded meanwhile.
        """
        if not self._ahead:
            self._ahead.append(self._next_unit(nbytes, pool))
        while pool is not None and len(self._ahead) < AHEAD and not self._ahead[-1].ended:
            self._ahead.append(self._next_unit(nbytes, pool))
        unit = self._ahead.popleft()
        if unit.error is not None:
            raise unit.error
        read = unit.rows.result() if isinstance(unit.rows, Future) else unit.rows
        rows = None if read is None else self._split.numbered(read)
        split, position, ended = self.entry.split, unit.position, unit.ended
        if "line" in position:
            position["line"] = self._split.line
        if rows is None:
            return Chunk(split, self._split.empty(), position, scanned_rows=0, ended=ended)
        return Chunk(split, rows.frame, position, rows.nbytes, rows.rows, rows.rejected, ended=ended)

    def left_out(self, error: DataError) -> Chunk:
        """What `on_error` says of a file that cannot be read, or no further: it ends here, as one bad row."""
        options, split, line = self._options, self.entry.split, self._split.line
        if options.on_error == "fail":
            raise error
        logger.warning("%s is left out from line %d on: %s", self.entry.path, line, error.message)
        told = {"source": options.source, "split": split, "position": line, "reason": error.message}
        rejected = pl.DataFrame([{**told, "raw": None}], schema=REJECTED_SCHEMA)
        return Chunk(
            split,
            self._split.empty(),
            {"ended": True, "stamp": list(self.entry.stamp)},
            scanned_rows=1,
            rejected=rejected if options.on_error == "collect" else None,
            ended=True,
        )

    def _next_unit(self, nbytes: int, pool: ThreadPoolExecutor | None) -> _Unit:
        """The next bytes, decoded or on the way; what is wrong with them is told when it is their turn."""
        try:
            data, ended = self._stream.read_lines(nbytes)
            self._place += len(data)
            self._split.feed(data)
            if ended:
                self._check_not_cut()
                self._split.finish()
            lines = self._split.cut()
            position = self._split.position | {"stamp": list(self.entry.stamp)}
            if ended:
                position = {"ended": True, "stamp": list(self.entry.stamp)}
            if lines is None:
                return _Unit(None, position, ended)
            if pool is None:
                return _Unit(self._split.decoded(lines), position, ended)
            return _Unit(pool.submit(self._split.decoded, lines), position, ended)
        except Exception as error:
            return _Unit(None, {}, ended=True, error=error)

    def close(self) -> None:
        self._stream.close()

    def _find_place(self, position: dict[str, Any]) -> None:
        """Go to where reading stopped, and make sure that it is the same file."""
        before = self._stream.skip(position["offset"])
        length, _ = known = position.get("before", checksum(b""))
        if checksum(before[len(before) - length :]) != known or len(before) < length:
            raise DataError(
                f"{self.entry.path} is not the file that was read up to byte {position['offset']}",
                hint="put the old file back, or start without the checkpoint",
            )

    def _check_not_cut(self) -> None:
        """A file must not become shorter while it is read: rows would be missing."""
        if isinstance(self._stream, PlainBytes) and self._place < self.entry.size:
            raise DataError(
                f"{self.entry.path} was cut while it was read: {self.entry.size} bytes were there, "
                f"now {self._place}",
                hint="use tail=True for files that are written to while they are read",
            )


def _warn_of_changes(found: list[FileEntry], ended: Mapping[str, Position]) -> None:
    """Files that were read to their end and have another content now; a watch notices these by itself."""
    for entry in found:
        if entry.split in ended and _stamp(ended[entry.split]) != entry.stamp:
            logger.warning("%s was changed after it was read; the new content is not read", entry.path)


def _stamp(position: dict[str, Any]) -> tuple[int, int]:
    size, mtime_ns = position["stamp"]
    return (size, mtime_ns)
