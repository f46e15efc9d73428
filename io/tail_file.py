"""One path that is followed: the file that stands there now, and those that stood there before."""

from __future__ import annotations

import logging
import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from unistream.io.base import Chunk
from unistream.io.line_split import UNIT_BYTES, LineOptions, LineSplit, Rows

logger = logging.getLogger(__name__)

HEAD_BYTES = 1024
"""Bytes at the beginning of a file that tell it from others."""

LEFT_KEPT = 16
"""Rotated files that a position remembers."""


@dataclass(frozen=True)
class Identity:
    """A file apart from its name; inodes are used again, so that the first bytes count too."""

    path: str
    inode: int

    def begins_with(self, head: list[int]) -> bool:
        """Whether its first bytes have this length and checksum."""
        length, crc = head
        try:
            with open(self.path, "rb") as file:  # noqa: PTH123
                found = file.read(length)
        except OSError:
            return False
        return len(found) == length and zlib.crc32(found) == crc


def identify(path: str) -> Identity | None:
    """The file at a path, or None when there is none."""
    try:
        return Identity(path, os.stat(path).st_ino)  # noqa: PTH116
    except OSError:
        return None


class Followed:
    """Reads one path. A position is that of `LineSplit` with `"inode"` and `"head"` (length and checksum
    of the first bytes) of the file it is in, and `"left"`: the same of files that were rotated away."""

    def __init__(self, path: str, split: str, options: LineOptions, position: dict[str, Any]) -> None:
        self.path = path
        self.split = split
        self.truncations = 0
        self.rotations = 0
        self._options = options
        self._left: list[list[Any]] = list(position.get("left", []))
        self._file: IO[bytes] | None = None
        self._inode = 0
        self._head = [0, 0]
        self._leaving_since: float | None = None
        self._lines = LineSplit(options, split)
        self._begun = bool(position)
        if position.get("inode"):
            self._resume(position)

    # ---- looking

    def look(self, now: float, grace: float, is_known: Callable[[Identity], bool]) -> None:
        """Notice rotation; take up the file at the path when none is being read."""
        there = identify(self.path)
        if self._file is not None:
            if there is not None and there.inode == self._inode:
                self._leaving_since = None
            elif self._leaving_since is None:
                self._leaving_since = now
            elif now - self._leaving_since >= grace and self._at_end():
                self._lines.finish()
            return
        if there is not None and not self._was_left(there) and not is_known(there):
            self._open(self.path, LineSplit(self._options, self.split))

    def knows(self, identity: Identity) -> bool:
        """Whether this is the file being read, or one that was rotated away from here."""
        if self._file is not None and self._inode == identity.inode:
            return True
        return self._was_left(identity)

    # ---- reading

    def read(self, max_rows: int) -> Chunk | None:
        """Rows that were appended, or None. `max_rows` bounds nothing but the bytes read at once."""
        if self._file is None:
            return None
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
        return not self._begun and self.remaining > 0

    @property
    def remaining(self) -> int:
        """Bytes that lie ahead."""
        try:
            return max(0, os.fstat(self._file.fileno()).st_size - self._lines.offset) if self._file else 0
        except (OSError, ValueError):  # closed on the other thread
            return 0

    def close(self) -> None:
        """Give the file back."""
        if self._file is not None:
            self._file.close()

    # ---- inside

    def _position(self) -> dict[str, Any]:
        position = self._lines.position
        position.pop("before", None)
        return position | {"inode": self._inode, "head": self._head, "left": self._left}

    def _chunk(self, rows: Rows) -> Chunk:
        return Chunk(self.split, rows.frame, self._position(), rows.nbytes, rows.rows, rows.rejected)

    def _open(self, path: str, lines: LineSplit) -> None:
        try:
            file = open(path, "rb", buffering=0)  # noqa: SIM115, PTH123
        except OSError as error:
            logger.warning("Cannot read %s: %s", path, error)
            return
        self._file, self._lines = file, lines
        self._inode = os.fstat(file.fileno()).st_ino
        file.seek(lines.offset)
        self._leaving_since = None

    def _resume(self, position: dict[str, Any]) -> None:
        """Find the file that was read before a restart: at its path, or under another name beside it."""
        there = identify(self.path)
        candidates = [there] if there is not None else []
        folder = Path(self.path).parent
        if folder.is_dir():
            candidates += [one for name in sorted(folder.iterdir()) if (one := identify(str(name)))]
        for one in candidates:
            same = one.inode == position["inode"] and one.begins_with(position["head"])
            if same and Path(one.path).stat().st_size >= position["offset"]:
                self._head = list(position["head"])
                self._open(one.path, LineSplit(self._options, self.split, position))
                return
        self.truncations += there is not None and there.inode == position["inode"]
        logger.warning(
            "%s: the file that was read up to byte %d is gone or truncated; what followed there is lost",
            self.path,
            position["offset"],
        )

    def _at_end(self) -> bool:
        assert self._file is not None
        return self._file.tell() >= os.fstat(self._file.fileno()).st_size

    def _leave(self, rows: Rows | None) -> Chunk:
        """The file was rotated away and read to its end: remember it, go on with the one at the path."""
        assert self._file is not None
        self._remember_head()
        if self._head[0]:
            self._left = [*self._left, [self._inode, self._head]][-LEFT_KEPT:]
        self._file.close()
        self._file, self._inode, self._head = None, 0, [0, 0]
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
        length, crc = self._head
        if size >= place and zlib.crc32(os.pread(self._file.fileno(), length, 0)) == crc:
            return
        self.truncations += 1
        logger.warning("%s was truncated; it is read again from its beginning", self.path)
        self._lines, self._head = LineSplit(self._options, self.split), [0, 0]
        self._file.seek(0)

    def _remember_head(self) -> None:
        """The checksum of the first bytes, of as many as were read."""
        assert self._file is not None
        length = min(HEAD_BYTES, self._lines.offset)
        if length > self._head[0]:
            self._head = [length, zlib.crc32(os.pread(self._file.fileno(), length, 0))]

    def _was_left(self, identity: Identity) -> bool:
        return any(inode == identity.inode and identity.begins_with(head) for inode, head in self._left)
