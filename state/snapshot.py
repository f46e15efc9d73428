"""What a checkpoint takes from the state of one subtask: local files and a JSON description."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unistream.state.backend import StateStore

FORMAT_VERSION = 1
"""Version of `Snapshot.tables`."""

Description = Mapping[str, Any]
"""The JSON value that tells how to read the files of a snapshot; opaque to whoever stores it."""


@dataclass(frozen=True, slots=True)
class SnapshotFile:
    """An immutable local file and the name under which `tables` speaks of it."""

    path: Path
    logical_name: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All files that are needed to restore, most of them the same as in the snapshot before.

    The files stay until `release` is called: copy or link them before. `tables` goes into the manifest.
    """

    checkpoint_id: int
    files: tuple[SnapshotFile, ...]
    tables: dict[str, Any]
    _release: Callable[[], None] = field(default=lambda: None, repr=False, compare=False)

    def release(self) -> None:
        """The files were copied or linked, or the checkpoint was given up. May be called again."""
        self._release()


class PendingSnapshot:
    """A snapshot whose content is fixed but not yet written.

    `finish` encodes, writes and syncs; it may run on another thread while operators go on.
    """

    def __init__(self, finish: Callable[[], Snapshot]) -> None:
        self._finish = finish
        self._lock = threading.Lock()
        self._result: Snapshot | None = None

    def finish(self) -> Snapshot:
        """Write what is new and describe the whole; the same snapshot when called again."""
        with self._lock:
            if self._result is None:
                self._result = self._finish()
            return self._result


class StateBackend(ABC):
    """The state of all operators of one subtask.

    All is called on one thread, except `PendingSnapshot.finish` and `Snapshot.release`.

    >>> import tempfile
    >>> import polars as pl
    >>> from unistream.state.memory import MemoryBackend
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     backend = MemoryBackend(folder)
    ...     keys, values = pl.Schema({"user": pl.String}), pl.Schema({"n": pl.Int64})
    ...     seen = backend.store("count").keyed("seen", keys, values)
    ...     rows, new = seen.upsert(pl.DataFrame({"user": ["ada", "bob"]}))
    ...     seen.write(rows, pl.DataFrame({"n": [3, 4]}))
    ...     snapshot = backend.snapshot(1).finish()
    ...     backend.close()
    >>> [file.logical_name for file in snapshot.files]
    ['00000001.seg']
    """

    @abstractmethod
    def store(self, operator_id: str, partition_by: Sequence[str] = ()) -> StateStore:
        """The tables of one operator.

        `partition_by` are the columns its input is partitioned by. Tables that have them all are divided
        by key group when a job is restored with another number of subtasks.
        """

    @abstractmethod
    def snapshot(self, checkpoint_id: int) -> PendingSnapshot:
        """Fix the content of all tables. Costs what has changed; writing is left to `finish`."""

    @abstractmethod
    def restore(self, tables: Description, files: Mapping[str, Path]) -> None:
        """Take over the state of a snapshot; `files` tells where each logical name lies now.

        Before the first `store`. Called once per subtask of the checkpoint: those that hold nothing for
        this one are ignored. A table is read, and its checksums
        verified, when it is opened.
        """

    @abstractmethod
    def unclaimed(self) -> Sequence[tuple[str, str]]:
        """Operator and table of everything restored that nobody has opened. It stays in the checkpoints."""

    @abstractmethod
    def close(self) -> None:
        """Give back memory, files and locks."""
