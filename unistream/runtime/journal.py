"""What operators note about rows between checkpoints, so that rows mean the same when they are read again."""

from __future__ import annotations

import json
import logging
from collections import deque
from pathlib import Path
from typing import IO, Any

logger = logging.getLogger(__name__)


class Journal:
    """Files `journal/<number>.jsonl` in a checkpoint directory: one begins with each checkpoint.

    A note is handed to the operating system at once and not forced to disk, so it outlives the process and
    costs microseconds, but need not outlive the machine. Numbers only grow, over restarts as well: the notes
    since a checkpoint are all files from the number on that its manifest names, in order.
    """

    def __init__(self, folder: Path, since: int | None, kept: int) -> None:
        """`since` is what the restored manifest names, None if it names nothing; `kept` checkpoints stay."""
        self._folder = folder
        numbers = sorted(_number(path) for path in folder.glob("*.jsonl"))
        self._since = [] if since is None else [number for number in numbers if number >= since]
        self._number = max([*numbers, since or 0]) + 1
        self._published: deque[int] = deque(maxlen=kept)
        self._file: IO[bytes] | None = None

    def notes(self, operator: str) -> list[list[Any]]:
        """What this operator noted since the restored checkpoint, oldest first."""
        found = []
        for number in self._since:
            for line in self._path(number).read_bytes().splitlines(keepends=True):
                if line.endswith(b"\n"):  # the last one may be cut off where the process was killed
                    name, note = json.loads(line)
                    if name == operator:
                        found.append(note)
        return found

    def note(self, operator: str, *note: Any) -> None:
        """Keep this with the rows that come after the checkpoint before."""
        if self._file is None:
            self._folder.mkdir(exist_ok=True)
            self._file = self._path(self._number).open("xb", buffering=0)
        self._file.write(json.dumps([operator, note], separators=(",", ":")).encode() + b"\n")

    def next(self) -> int:
        """A checkpoint begins: the number that its manifest names."""
        self.close()
        self._number += 1
        return self._number

    def published(self, number: int) -> None:
        """A checkpoint with this number exists; notes from before all that are kept are removed."""
        self._published.append(number)
        if len(self._published) < (self._published.maxlen or 1):
            return  # the older ones that are kept are of runs before
        for path in self._folder.glob("*.jsonl"):
            if _number(path) < self._published[0]:
                path.unlink(missing_ok=True)

    def close(self) -> None:
        """End the file at hand."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _path(self, number: int) -> Path:
        return self._folder / f"{number}.jsonl"


def _number(path: Path) -> int:
    return int(path.stem)
