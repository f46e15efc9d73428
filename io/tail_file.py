"""One path that is followed: the file that stands there now, and those that stood there before."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Set
from typing import IO, Any

from unistream.io.base import Chunk
from unistream.io.line_split import UNIT_BYTES, LineOptions, LineSplit, Rows, checksum
from unistream.io.tail_mark import NO_BYTES, Around, Found, Left, Mark, open_file

logger = logging.getLogger(__name__)

HEAD_BYTES = 1024
"""Bytes at the beginning of a file that tell it from others."""


class Followed:
    """Reads one path. A position is that of `LineSplit` with `"inode"` and `"head"` (length and checksum
    of the first bytes) of the file it is in, and `"left"`: the marks of files that were rotated away.

    `inode` is that of the file that is read, 0 while there is none. It need not be open: a file that was
    read to its end can `rest`, which leaves its mark alone, and one that may hold more than was read `waits`
    to be opened, as after a restart. `refusal` says why that was not possible.
    """

    def __init__(self, path: str, split: str, options: LineOptions, position: dict[str, Any]) -> None:
        self.path = path
        self.split = split
        self.truncations = 0
        self.rotations = 0
        self.inode = 0
        self.refusal: str | None = None
        self._options = options
        self._left = Left(position.get("left", ()))
        self._file: IO[bytes] | None = None
        self._mark: Mark | None = None
        self._stands: Found | None = None
        self._unread = False
        self._head = NO_BYTES
        self._size = 0
        self._leaving_since: float | None = None
        self._lines = LineSplit(options, split)
        self._begun = bool(position)
        if position.get("inode"):
            self._close_at(Mark.read(position), unread=True)
            self._head = position["head"]
            self._lines = LineSplit(options, split, position)

    # ---- looking

    def look(self, now: float, grace: float, around: Around, is_known: Callable[[Found], bool]) -> None:
        """Notice rotation, and growth of a closed file; take up the file at the path when there is none."""
        there = around.at(self.path)
        if not self.inode:
            if there is not None and not self._left.holds_as_it_was(there) and not is_known(there):
                self._leaving_since = None
                self._close_at(Mark(there.inode, NO_BYTES, 0), unread=True)
                self._look_at(there)
            return
        is_there = there is not None and there.inode == self.inode
        if is_there:
            self._leaving_since = None
        elif self._leaving_since is None:
            self._leaving_since = now
        overdue = self._leaving_since is not None and now - self._leaving_since >= grace
        if self._mark is not None:
            self._look_at(there if is_there else around.find(self._mark))
            if overdue and (self._stands is None or self.refusal is not None):
                self._give_up()
        if overdue and self._at_end():
            self._lines.finish()

    def knows(self, found: Found) -> bool:
        """Whether this is the file being read, or one that was rotated away from here."""
        if found.inode == self.inode:
            if self._mark is None:
                return True
            return self._mark.is_at(found) if self._mark.place else self._leaving_since is None
        return self._left.holds(found)

    @property
    def left(self) -> Set[int]:
        """Inodes of the files that were rotated away and may still be found."""
        return self._left.inodes

    def forget(self, inodes: Set[int]) -> None:
        """These files are nowhere any more."""
        if not self._left.inodes.isdisjoint(inodes):
            self._left.forget(inodes)

    # ---- opening and closing

    @property
    def is_open(self) -> bool:
        """Whether it holds a descriptor."""
        return self._file is not None

    @property
    def waits(self) -> bool:
        """Whether something may be there to read and the file is not open."""
        return self._unread and self._file is None

    def open(self) -> None:
        """Open the file where it was found at the last look; when that fails the next look tries again."""
        found, self._stands = self._stands, None
        if found is None or self._mark is None:
            return
        try:
            file = open_file(found.path)
        except OSError as error:
            if not isinstance(error, FileNotFoundError) and self.refusal is None:
                self.refusal = f"{found.path} cannot be read: {error.strerror}"
                logger.warning("Cannot read %s: %s", found.path, error)
            return
        self.refusal = None
        if os.fstat(file.fileno()).st_ino != self.inode:  # renamed since
            file.close()
            return
        mark, self._mark, self._file, self._unread = self._mark, None, file, False
        if mark.fits(file.fileno()):
            file.seek(mark.place)
        else:
            self._begin_again()

    def rest(self) -> bool:
        """Close the file if nothing can be missed by that: it was read to its end and stands at its path."""
        if self._file is None or self._leaving_since is not None or not self._at_end():
            return False
        self._close_at(self._mark_of(self._file), unread=False)
        return True

    def close(self) -> None:
        """Give the file back."""
        if self._file is not None:
            self._file.close()

    # ---- reading

    def read(self, max_rows: int) -> Chunk | None:
        """Rows that were appended, or None. `max_rows` bounds nothing but the bytes read at once."""
        if self._file is None:
            return self._leave(self._lines.take()) if self._lines.finished else None
        self._notice_truncation()
        data = self._file.read(min(UNIT_BYTES, max(4096, 1024 * max_rows)))
        self._lines.feed(data)
        rows = self._lines.take()
        if not data and self._lines.finished:
            return self._leave(rows)
        if rows is None:
            return None
        self._begun = True
        self._remember_head()
        return self._chunk(rows)

    @property
    def unbegun(self) -> bool:
        """Whether there is something to read and nothing was read yet."""
        return not self._begun and self.refusal is None and self.remaining > 0

    @property
    def remaining(self) -> int:
        """Bytes that lie ahead."""
        file, size = self._file, self._size
        with contextlib.suppress(OSError, ValueError):  # closed on the other thread
            size = size if file is None else os.fstat(file.fileno()).st_size
        return max(0, size - self._lines.offset)

    # ---- inside

    def _position(self) -> dict[str, Any]:
        left = self._left.position
        return self._lines.position | {"inode": self.inode, "head": self._head, "left": left}

    def _chunk(self, rows: Rows) -> Chunk:
        return Chunk(self.split, rows.frame, self._position(), rows.nbytes, rows.rows, rows.rejected)

    def _look_at(self, found: Found | None) -> None:
        """Where the closed file is now, and whether it has changed."""
        assert self._mark is not None
        self._stands = found
        if found is not None:
            self._size = found.size
            self._unread = self._unread or not self._mark.is_whole(found)

    def _close_at(self, mark: Mark, unread: bool) -> None:
        """Go on without a descriptor."""
        self.close()
        self._file, self._mark, self.inode, self._unread = None, mark, mark.inode, unread
        self._stands, self._size = None, mark.place

    def _give_up(self) -> None:
        """The closed file is nowhere any more, or must not be read where it is."""
        offset = self._lines.offset
        if self._unread:
            logger.warning(
                "%s: the file that was read up to byte %d is gone or unreadable; what followed there is lost",
                self.path,
                offset,
            )
            self._lines = LineSplit(self._options, self.split, self._lines.position)  # without half a line
            self._unread = False
        else:
            logger.info("%s: the file that was read to its end, byte %d, is gone", self.path, offset)

    def _at_end(self) -> bool:
        if self._file is None:
            return not self._unread
        return self._file.tell() >= os.fstat(self._file.fileno()).st_size

    def _mark_of(self, file: IO[bytes]) -> Mark:
        return Mark.at_end(file.fileno(), self._head, self._lines.offset + self._lines.held)

    def _leave(self, rows: Rows | None) -> Chunk:
        """The file was rotated away and read to its end: remember it, go on with the one at the path."""
        if self._file is not None:
            self._remember_head()
            self._mark = self._mark_of(self._file)
            self._file.close()
        assert self._mark is not None
        if self._mark.place and self._mark.mtime_ns is not None:
            self._left.add(self._mark)
        self._file, self._mark, self.inode, self._head = None, None, 0, NO_BYTES
        self._size, self.refusal = 0, None
        self.rotations += 1
        self._lines, before = LineSplit(self._options, self.split), self._lines
        frame = before.empty() if rows is None else rows.frame
        if rows is None:
            return Chunk(self.split, frame, self._position(), scanned_rows=0)
        return self._chunk(rows)

    def _notice_truncation(self) -> None:
        assert self._file is not None
        place = self._lines.offset + self._lines.held
        size = os.fstat(self._file.fileno()).st_size
        length, _ = self._head
        if size < place or checksum(os.pread(self._file.fileno(), length, 0)) != self._head:
            self._begin_again()

    def _begin_again(self) -> None:
        assert self._file is not None
        self.truncations += 1
        logger.warning("%s was truncated; it is read again from its beginning", self.path)
        self._lines, self._head = LineSplit(self._options, self.split), NO_BYTES
        self._file.seek(0)

    def _remember_head(self) -> None:
        """The checksum of the first bytes, of as many as were read."""
        assert self._file is not None
        length = min(HEAD_BYTES, self._lines.offset)
        if length > self._head[0]:
            self._head = checksum(os.pread(self._file.fileno(), length, 0))
