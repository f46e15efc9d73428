"""Follows line files that grow: through rotation, truncation and restarts, and takes up new ones."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from glob import has_magic
from pathlib import Path

from unistream.clock import Clock
from unistream.io.base import Backlog, Chunk, Exhausted, Position, Reader, Wait
from unistream.io.compressed_bytes import COMPRESSED
from unistream.io.line_split import LineOptions
from unistream.io.listing import Listing
from unistream.io.tail_file import Followed
from unistream.io.tail_mark import Around, Found

logger = logging.getLogger(__name__)

OPEN_FILES = 128
"""Files that are held open. One more is opened in the place of the one that has not grown for longest."""


class TailReader(Reader):
    """Reads what is appended to the files of a listing, from their beginning, and never ends.

    A split is a path. When another file stands there (rotation by renaming), the rest of the old one is
    read first, one `poll_seconds` longer than it grows, and then the new one from its beginning. A file
    that became shorter, or begins with other bytes, was truncated: it is read again from its beginning,
    and what was written between the last look and the truncation is lost, which nobody can prevent;
    `truncations` counts these. A rotated file that the listing matches under its new name is recognised
    by what was read of it and not read twice, as long as it exists. Rotated files that are compressed are
    left alone.

    Any number of files is followed with few of them open. One that was closed at its end is looked at as
    often as others and opened when it changes. If it is rotated meanwhile, it is looked for in the folder
    of its path and in the listing; if it is deleted or moved elsewhere, what was written to it since the
    last look is lost. After a restart it is the same: if the file was rotated more than once, a listing that
    matches the rotated names too (`app.log*`) misses nothing.
    """

    def __init__(
        self,
        listing: Listing,
        options: LineOptions,
        positions: Mapping[str, Position],
        clock: Clock,
        poll_seconds: float,
    ) -> None:
        self._listing = listing
        self._options = options
        self._clock = clock
        self._poll = poll_seconds
        self._files: dict[str, Followed] = {}
        self._open: dict[str, Followed] = {}
        self._by_inode: dict[int, list[Followed]] = {}
        self._missing: set[int] = set()
        self._rotations_seen = 0
        self._next_look = clock.steady()
        self._turn = 0
        self._root = listing.root
        self._resume(positions)

    def poll(self, max_rows: int) -> Chunk | Wait | Exhausted:
        now = self._clock.steady()
        if now >= self._next_look:
            self._look(now)
            self._next_look = now + self._poll
        files = list(self._files.values())
        room = True
        for step in range(len(files)):
            file = files[(self._turn + step) % len(files)]
            if file.waits and room:
                room = self._open_one(file)
            chunk = file.read(max_rows)
            if chunk is not None:
                self._turn = (self._turn + step + 1) % len(files)
                self._has_grown(file)
                return chunk
        return self._nothing_to_read(files, max(0.0, self._next_look - now))

    def pending(self) -> Mapping[str, int | None]:
        return {file.split: None for file in list(self._files.values()) if file.unbegun}

    def backlog(self) -> Backlog:
        return Backlog(nbytes=sum(file.remaining for file in list(self._files.values())))

    def close(self) -> None:
        for file in self._files.values():
            file.close()

    @property
    def truncations(self) -> int:
        """How often a file was found truncated."""
        return sum(file.truncations for file in self._files.values())

    @property
    def rotations(self) -> int:
        """How often another file was found in the place of one."""
        return sum(file.rotations for file in self._files.values())

    def _nothing_to_read(self, files: list[Followed], seconds: float) -> Wait:
        waiting = next((file for file in files if file.waits), None)
        if waiting is None:
            return Wait(seconds, "nothing new in the files")
        return Wait(seconds, waiting.refusal or f"{waiting.path} is not open yet", caught_up=False)

    def _resume(self, positions: Mapping[str, Position]) -> None:
        """Files that were followed before a restart come first, also when their path is gone."""
        for split, position in positions.items():
            self._files[split] = Followed(f"{self._root}/{split}", split, self._options, dict(position))

    def _open_one(self, file: Followed) -> bool:
        """Open a file that waits; False when too many others are still being read."""
        if len(self._open) >= OPEN_FILES:
            resting = next((other for other in self._open.values() if other.rest()), None)
            if resting is None:
                return False
            del self._open[resting.split]
        file.open()
        self._has_grown(file)
        return True

    def _has_grown(self, file: Followed) -> None:
        """Keep the open files in the order in which they grew."""
        self._open.pop(file.split, None)
        if file.is_open:
            self._open[file.split] = file

    def _look(self, now: float) -> None:
        """What has happened to the paths since the last look."""
        paths = self._paths()
        around = Around(paths, [file.path for file in self._files.values()])
        self._by_inode = {}
        for file in self._files.values():
            self._note(file)
        for path in paths:
            split = path.removeprefix(self._root).lstrip("/")
            if split in self._files or path.endswith(COMPRESSED):
                continue
            found = around.at(path)
            if found is not None and self._is_known(found):
                logger.debug("%s is a rotated file that was followed under its old name", path)
                continue
            self._files[split] = Followed(path, split, self._options, {})
        for file in self._files.values():
            followed = file.inode
            file.look(now, self._poll, around, partial(self._is_known, asking=file))
            if file.inode != followed:
                self._note(file)
        if self.rotations != self._rotations_seen:
            self._rotations_seen = self.rotations
            self._forget(around)

    def _forget(self, around: Around) -> None:
        """Rotated files that are gone, which is looked up twice: one just being renamed may be overlooked."""
        missing = {inode for file in self._files.values() for inode in file.left} - around.inodes
        for file in self._files.values():
            file.forget(missing & self._missing)
        self._missing = missing

    def _paths(self) -> list[str]:
        """What the listing stands for now; once something was found, a named file may be away for a while."""
        listing = self._listing
        if self._files:
            there = [name for name in listing.patterns if has_magic(name) or Path(name).exists()]
            listing = replace(listing, patterns=tuple(there))
        return [entry.path for entry in listing.find(required=False)] if listing.patterns else []

    def _note(self, file: Followed) -> None:
        """Let the file be found by the inodes it knows."""
        for inode in {file.inode, *file.left}:
            self._by_inode.setdefault(inode, []).append(file)

    def _is_known(self, found: Found, asking: Followed | None = None) -> bool:
        """Whether this file is, or was, followed by somebody else."""
        others = self._by_inode.get(found.inode, ())
        return any(file is not asking and file.knows(found) for file in others)
