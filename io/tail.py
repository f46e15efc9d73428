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
from unistream.io.tail_file import Followed, Identity, identify

logger = logging.getLogger(__name__)


class TailReader(Reader):
    """Reads what is appended to the files of a listing, from their beginning, and never ends.

    A split is a path. When another file stands there (rotation by renaming), the rest of the old one is
    read first, one `poll_seconds` longer than it grows, and then the new one from its beginning. A file
    that became shorter, or begins with other bytes, was truncated: it is read again from its beginning,
    and what was written between the last look and the truncation is lost, which nobody can prevent;
    `truncations` counts these. A rotated file that the listing matches under its new name is recognised
    by its first bytes and not read twice. Rotated files that are compressed are left alone.

    After a restart the old file is looked for in the folder of its path. If it was rotated more than once
    meanwhile, a listing that matches the rotated names too (`app.log*`) misses nothing.
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
        for step in range(len(files)):
            chunk = files[(self._turn + step) % len(files)].read(max_rows)
            if chunk is not None:
                self._turn = (self._turn + step + 1) % len(files)
                return chunk
        return Wait(max(0.0, self._next_look - now), "nothing new in the files")

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

    def _resume(self, positions: Mapping[str, Position]) -> None:
        """Files that were followed before a restart come first, also when their path is gone."""
        for split, position in positions.items():
            self._files[split] = Followed(f"{self._root}/{split}", split, self._options, dict(position))

    def _look(self, now: float) -> None:
        """What has happened to the paths since the last look."""
        for path in self._paths():
            split = path.removeprefix(self._root).lstrip("/")
            if split in self._files or path.endswith(COMPRESSED):
                continue
            if self._is_known(identify(path)):
                logger.debug("%s is a rotated file that was followed under its old name", path)
                continue
            self._files[split] = Followed(path, split, self._options, {})
        for file in self._files.values():
            file.look(now, self._poll, partial(self._is_known, asking=file))

    def _paths(self) -> list[str]:
        """What the listing stands for now; once something was found, a named file may be away for a while."""
        listing = self._listing
        if self._files:
            there = [name for name in listing.patterns if has_magic(name) or Path(name).exists()]
            listing = replace(listing, patterns=tuple(there))
        return [entry.path for entry in listing.find(required=False)] if listing.patterns else []

    def _is_known(self, identity: Identity | None, asking: Followed | None = None) -> bool:
        """Whether this file is, or was, followed by somebody else."""
        others = [file for file in self._files.values() if file is not asking]
        return identity is not None and any(file.knows(identity) for file in others)
