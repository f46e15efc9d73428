"""The default backend: checkpoints hold what changed, state beyond the memory budget lies on disk."""

from __future__ import annotations

from pathlib import Path

from unistream.state.key_groups import DEFAULT_KEY_GROUPS
from unistream.state.segment_backend import SegmentBackend
from unistream.state.spill import MemoryBudget


class RocksBackend(SegmentBackend):
    """Keeps hot state in memory and cold state in RocksDB, one database per subtask.

    Changes go to a checkpoint as segment files, not through RocksDB: as its values they would have to be
    written again by compaction whenever they are folded (`benchmarks/state_checkpoint.py` has both).
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        memory_budget_bytes: int = 4 << 30,
        key_groups: int = DEFAULT_KEY_GROUPS,
        owned: range | None = None,
    ) -> None:
        budget = MemoryBudget(memory_budget_bytes, Path(folder))
        super().__init__(folder, key_groups=key_groups, owned=owned, budget=budget)
