"""The memory budget of one subtask: what is over it lies in mapped files and in RocksDB."""

from __future__ import annotations

import heapq
import weakref
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from unistream.state.array_space import MappedSpace
from unistream.state.log_table import FrameLog

if TYPE_CHECKING:
    from unistream.state.rocks_store import RocksFrame, RocksStore

# Logs are relieved to this share of the room they have, so that not every batch has to spill.
_RELIEVED = 0.75
# However much the tables take, logs may keep this share of the budget in memory.
_LEAST_FOR_LOGS = 0.125


class MemoryBudget:
    """Decides what stays in memory.

    Buckets of logs that were not used for longest go to RocksDB as whole frames. Columns of keyed tables
    that grow beyond the budget are mapped files (see `MappedSpace`).
    """

    def __init__(self, limit: int, folder: Path) -> None:
        self.limit = limit
        self._folder = folder
        self._store: RocksStore | None = None
        self._logs: weakref.WeakSet[FrameLog] = weakref.WeakSet()
        self._log_bytes = 0
        self.arrays = MappedSpace(limit, folder / "mapped")
        self._uses = 0

    @property
    def log_bytes(self) -> int:
        """Bytes of frames that logs hold in memory."""
        return self._log_bytes

    def watch(self, log: FrameLog) -> None:
        """Ask this log for cold buckets when memory runs short."""
        self._logs.add(log)

    def next_use(self) -> int:
        """A number for each use of a bucket."""
        self._uses += 1
        return self._uses

    def grew(self, nbytes: int) -> None:
        """A log holds so many bytes more, or fewer."""
        self._log_bytes += nbytes
        if nbytes > 0 and self._log_bytes > self._room_for_logs:
            self._relieve()

    def put(self, frame: pl.DataFrame) -> RocksFrame:
        """Move a frame to RocksDB."""
        if self._store is None:
            from unistream.state.rocks_store import RocksStore  # most jobs' state fits into memory

            self._store = RocksStore(self._folder / "cold")
        return self._store.put(frame)

    def close(self) -> None:
        """Remove what was spilled."""
        if self._store is not None:
            self._store.close()
            self._store = None

    @property
    def _room_for_logs(self) -> float:
        return max(self.limit - self.arrays.in_memory, _LEAST_FOR_LOGS * self.limit)

    def _relieve(self) -> None:
        """Spill the buckets that were not used for longest."""
        uses = [(use, bucket, log) for log in self._logs for use, bucket in log.uses()]
        heapq.heapify(uses)
        while uses and self._log_bytes > _RELIEVED * self._room_for_logs:
            _, bucket, log = heapq.heappop(uses)
            log.spill(bucket)
