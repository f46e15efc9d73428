"""The local folder of segment files: who uses which, when each is written and when it goes."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from unistream.errors import StateError
from unistream.state.log_table import ColdFrame
from unistream.state.picked import PickedRows, picked_frame
from unistream.state.segments import Block, read_segment, rows_per_block, write_segment


class SegmentFile:
    """One file: frames waiting to be written, then only where they lie.

    Frames are given on the operator thread; writing may happen on another, once.
    """

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self.path = path
        self.users = 0
        self.waiting: list[pl.DataFrame | ColdFrame] | None = []
        self.blocks: list[Block] = []
        self.length = 0

    @classmethod
    def at(cls, path: Path, described: Mapping[str, Any]) -> SegmentFile:
        """A file that is there already, as `to_json` described it."""
        file = cls(path.name, path)
        file.waiting = None
        file.blocks = [Block(*numbers) for numbers in described["blocks"]]
        file.length = described["length"]
        return file

    def add(self, frame: pl.DataFrame) -> list[int]:
        """Numbers of the blocks that will hold these rows."""
        assert self.waiting is not None
        if 0 < frame.height <= rows_per_block(frame.height, int(frame.estimated_size())):
            self.waiting.append(frame)
            return [len(self.waiting) - 1]
        return self.add_picked(picked_frame(frame))

    def add_cold(self, frame: ColdFrame) -> int:
        """As `add` for one block, which is read when the file is written."""
        assert self.waiting is not None
        self.waiting.append(frame)
        return len(self.waiting) - 1

    def add_picked(self, rows: PickedRows) -> list[int]:
        """As `add`, but no more than one block of them is read at a time, when the file is written."""
        each = rows_per_block(rows.height, rows.nbytes)
        return [self.add_cold(rows.slice(start, start + each)) for start in range(0, rows.height, each)]

    def read(self, numbers: Iterable[int]) -> list[pl.DataFrame]:
        """The frames of these blocks."""
        waiting = self.waiting
        if waiting is not None:
            return [_in_memory(waiting[number]) for number in numbers]
        return read_segment(self.path, [self.blocks[number] for number in numbers], self.length)

    def to_json(self) -> dict[str, Any]:
        """What a reader must know of the file."""
        return {"length": self.length, "blocks": [block.to_json() for block in self.blocks]}


class SegmentFolder:
    """Makes, writes, adopts and forgets segment files; safe to use from two threads."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._next_number = 1
        # Apart, so that nobody who only counts users has to wait for the disk.
        self._users_lock = threading.Lock()
        self._unneeded: list[Path] = []
        self._write_lock = threading.Lock()

    @property
    def path(self) -> Path:
        """Where the files are."""
        if self._path is None:
            raise StateError(
                "A checkpoint needs a folder for state files", hint="make the state backend with a folder"
            )
        return self._path

    def new_file(self) -> SegmentFile:
        """A file to put frames into. It exists on disk after `write`."""
        name = f"{self._next_number:08d}.seg"
        self._next_number += 1
        return SegmentFile(name, self.path / name)

    def adopt(self, source: Path, described: Mapping[str, Any]) -> SegmentFile:
        """Make a file of a checkpoint our own: a hard link, or a copy across file systems."""
        self._make_folder()
        file = SegmentFile.at(self.new_file().path, described)
        try:
            file.path.unlink(missing_ok=True)
            os.link(source, file.path)
        except FileNotFoundError as error:
            raise StateError(f"State file {source} is missing", hint="restore an older checkpoint") from error
        except OSError:
            shutil.copyfile(source, file.path)
        return file

    def write(self, files: Iterable[SegmentFile]) -> None:
        """Write what is not yet written; after this the files and their names are durable."""
        self.sweep()
        with self._write_lock:
            wrote = False
            for file in files:
                if file.waiting is not None:
                    self._make_folder()
                    file.blocks, file.length = write_segment(file.path, map(_in_memory, file.waiting))
                    file.waiting = None
                    wrote = True
            if wrote:
                _sync_folder(self.path)

    def hold(self, files: Iterable[SegmentFile]) -> None:
        """Keep these files until `let_go` was called as often."""
        with self._users_lock:
            for file in files:
                file.users += 1

    def let_go(self, files: Iterable[SegmentFile]) -> None:
        """What nobody else needs goes with the next `sweep` or `write`: removing large files takes a while,
        and whoever lets them go may have no time."""
        with self._users_lock:
            for file in files:
                file.users -= 1
                if file.users == 0:
                    self._unneeded.append(file.path)

    def sweep(self) -> None:
        """Remove the files that nobody needs any more."""
        with self._users_lock:
            unneeded, self._unneeded = self._unneeded, []
        for path in unneeded:
            path.unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove what an earlier run left behind; checkpoints have their own copies."""
        if self._path is not None:
            for pattern in ("*.seg", "*.tmp"):
                for path in self.path.glob(pattern):
                    path.unlink()

    def _make_folder(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)


def _in_memory(frame: pl.DataFrame | ColdFrame) -> pl.DataFrame:
    return frame if isinstance(frame, pl.DataFrame) else frame.read()


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
