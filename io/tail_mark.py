"""What tells one file from another: inodes are used again and names change, so what was read counts too."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any

from unistream.errors import ConnectorError
from unistream.io.compressed_bytes import KEPT_BEFORE
from unistream.io.line_split import checksum

NO_BYTES = checksum(b"")


@dataclass(frozen=True, slots=True)
class Found:
    """A file as it stands at a path."""

    path: str
    inode: int
    size: int
    mtime_ns: int


def find_file(path: str) -> Found | None:
    """What stands at a path now."""
    try:
        found = os.stat(path)  # noqa: PTH116
    except OSError:
        return None
    return Found(path, found.st_ino, found.st_size, found.st_mtime_ns)


def open_file(path: str) -> IO[bytes]:
    """The file without a buffer. Raises `OSError`, and `ConnectorError` when too many files are open."""
    try:
        return open(path, "rb", buffering=0)  # noqa: PTH123
    except OSError as error:
        _check_not_too_many(path, error)
        raise


@dataclass(frozen=True)
class Mark:
    """How far a file was read, and what it has to hold to be the same one.

    `head` and `before` are length and checksum of its first bytes and of those before `place`. `mtime_ns`
    is there when the file ended at `place`: when it was changed the last time. Positions of former
    versions know no `before`, and of files that were left nothing but inode and head.
    """

    inode: int
    head: list[int]
    place: int
    before: list[int] | None = None
    mtime_ns: int | None = None

    @classmethod
    def at_end(cls, file: int, head: list[int], place: int) -> Mark:
        """The mark of an open file that was read to its end."""
        found = os.fstat(file)
        length = min(KEPT_BEFORE, place)
        before = checksum(os.pread(file, length, place - length))
        return cls(found.st_ino, head, place, before, found.st_mtime_ns)

    @classmethod
    def read(cls, position: Any) -> Mark:
        """From a position, or what it holds of a file that was left."""
        if isinstance(position, list):
            inode, head = position
            return cls(inode, head, head[0])
        before, mtime_ns = position.get("before"), position.get("mtime_ns")
        return cls(position["inode"], position["head"], position["offset"], before, mtime_ns)

    @property
    def position(self) -> dict[str, Any]:
        """As `read` takes it."""
        place = {"inode": self.inode, "head": self.head, "offset": self.place}
        return place | {"before": self.before, "mtime_ns": self.mtime_ns}

    def fits(self, file: int) -> bool:
        """Whether an open file is the marked one: it may have grown."""
        found = os.fstat(file)
        if found.st_ino != self.inode or found.st_size < self.place:
            return False
        length, _ = before = self.before or NO_BYTES
        same_end = checksum(os.pread(file, length, self.place - length)) == before
        return same_end and checksum(os.pread(file, self.head[0], 0)) == self.head

    def is_at(self, found: Found) -> bool:
        """Whether the marked file stands there; of one that must not be opened, whether it may be."""
        if found.inode != self.inode or found.size < self.place:
            return False
        try:
            with open_file(found.path) as file:
                return self.fits(file.fileno())
        except OSError as error:
            return not isinstance(error, FileNotFoundError)

    def is_whole(self, found: Found) -> bool:
        """Whether nobody has written to the file since it was read to its end."""
        return (found.size, found.mtime_ns) == (self.place, self.mtime_ns)


class Left:
    """Files that were rotated away from a path after they were read."""

    def __init__(self, position: Sequence[Any] = ()) -> None:
        self._marks = {mark.inode: mark for mark in map(Mark.read, position)}
        self._renew()

    def add(self, mark: Mark) -> None:
        """One more; nothing that had its inode before is there any longer."""
        self._marks[mark.inode] = mark
        self._renew()

    def forget(self, inodes: Set[int]) -> None:
        """These are nowhere any more."""
        self._marks = {inode: mark for inode, mark in self._marks.items() if inode not in inodes}
        self._renew()

    @property
    def inodes(self) -> Set[int]:
        return self._marks.keys()

    def holds(self, found: Found) -> bool:
        """Whether this is one of them."""
        mark = self._marks.get(found.inode)
        return mark is not None and mark.is_at(found)

    def holds_as_it_was(self, found: Found) -> bool:
        """Whether this is one of them, and nobody has written to it since."""
        mark = self._marks.get(found.inode)
        return mark is not None and (mark.mtime_ns is None or mark.is_whole(found)) and mark.is_at(found)

    def _renew(self) -> None:
        # Part of every position: made when it changes, and never changed itself.
        self.position = [mark.position for mark in self._marks.values()]


class Around:
    """The files of one look: those that are listed, and those that lie beside one that is followed."""

    def __init__(self, listed: Sequence[str], followed: Sequence[str]) -> None:
        self._listed = {path: find_file(path) for path in listed}
        self._followed = followed

    def at(self, path: str) -> Found | None:
        """What stands at a path."""
        return self._listed[path] if path in self._listed else find_file(path)

    def find(self, mark: Mark) -> Found | None:
        """The marked file, whatever its name is now.

        One of which nothing was read may be any with its inode: if it is listed, it is read under that name.
        """
        found = self._by_inode.get(mark.inode)
        if found is None or (mark.place == 0 and found.path in self._listed):
            return None
        return found if mark.is_at(found) else None

    @property
    def inodes(self) -> Set[int]:
        return self._by_inode.keys()

    @cached_property
    def _by_inode(self) -> dict[int, Found]:
        folders = {Path(path).parent for path in self._followed}
        beside = [path for folder in folders for path in _names_in(folder) if path not in self._listed]
        found = [*map(find_file, beside), *self._listed.values()]
        return {one.inode: one for one in found if one is not None}


def _names_in(folder: Path) -> list[str]:
    try:
        return [str(path) for path in folder.iterdir()]
    except OSError as error:
        _check_not_too_many(str(folder), error)
        return []


def _check_not_too_many(path: str, error: OSError) -> None:
    if error.errno in (errno.EMFILE, errno.ENFILE):
        raise ConnectorError(
            f"Cannot open {path}: {error.strerror}", hint="raise the limit (ulimit -n)", retry_after=1.0
        ) from error
