"""A state backend whose snapshots are segment files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from unistream.errors import StateError
from unistream.state.backend import StateStore
from unistream.state.key_groups import DEFAULT_KEY_GROUPS, KEY_HASH_VERSION
from unistream.state.records import Image, SnapshotWriter
from unistream.state.segment_files import SegmentFile, SegmentFolder
from unistream.state.snapshot import (
    FORMAT_VERSION,
    Description,
    PendingSnapshot,
    Snapshot,
    SnapshotFile,
    StateBackend,
)
from unistream.state.spill import MemoryBudget
from unistream.state.store import TableStore
from unistream.state.stored_tables import Ownership, StoredTable

Images = dict[str, tuple[TableStore, dict[str, Image]]]


class SegmentBackend(StateBackend):
    """Tables in memory; a snapshot writes changes to new segment files and names the older ones.

    `folder` belongs to this backend: segment files of an earlier run in it are removed. Without one there
    are no snapshots. `owned` are the key groups of this subtask.
    """

    writes_whole = False

    def __init__(
        self,
        folder: str | Path | None = None,
        *,
        key_groups: int = DEFAULT_KEY_GROUPS,
        owned: range | None = None,
        budget: MemoryBudget | None = None,
    ) -> None:
        self._budget = budget
        self._groups = key_groups
        self._owned = range(key_groups) if owned is None else owned
        self._stores: dict[str, TableStore] = {}
        self._folder = SegmentFolder(None if folder is None else Path(folder))
        self._folder.clear()
        self._held: frozenset[SegmentFile] = frozenset()

    def store(self, operator_id: str, partition_by: Sequence[str] = ()) -> StateStore:
        store = self._stores.get(operator_id)
        if store is None:
            store = self._stores[operator_id] = TableStore(operator_id, (), self._budget)
        store.partition_by = tuple(partition_by) or store.partition_by
        return store

    def snapshot(self, checkpoint_id: int) -> PendingSnapshot:
        writer = SnapshotWriter(self._folder, self.writes_whole)
        images: Images = {name: (store, store.capture(writer)) for name, store in self._stores.items()}
        files = frozenset(
            file for _, tables in images.values() for image in tables.values() for file in image.files
        )
        self._hold_only(files)
        self._folder.hold(files)
        return PendingSnapshot(lambda: self._finish(checkpoint_id, images, files))

    def restore(self, tables: Description, files: Mapping[str, Path]) -> None:
        _check_description(tables, self._groups)
        theirs = range(*tables["groups"])
        adopted: dict[str, SegmentFile] = {}
        for operator_id, operator in tables["operators"].items():
            store = self._stores.setdefault(
                operator_id, TableStore(operator_id, operator["partition_by"], self._budget)
            )
            for name, described in operator["tables"].items():
                stored = StoredTable(name, described, {})
                owned, ownership = self._ownership(stored, tuple(operator["partition_by"]), theirs)
                if not owned:
                    continue
                for logical_name in stored.file_names - adopted.keys():
                    adopted[logical_name] = self._adopt(logical_name, tables, files)
                own_files = {logical_name: adopted[logical_name] for logical_name in stored.file_names}
                store.add_stored(StoredTable(name, described, own_files, ownership))
        self._hold_only(self._held | frozenset(adopted.values()))

    def unclaimed(self) -> Sequence[tuple[str, str]]:
        return [
            (operator_id, name) for operator_id, store in self._stores.items() for name in store.unclaimed
        ]

    def close(self) -> None:
        self._hold_only(frozenset())
        self._folder.sweep()
        self._stores.clear()
        if self._budget is not None:
            self._budget.close()

    def _finish(self, checkpoint_id: int, images: Images, files: frozenset[SegmentFile]) -> Snapshot:
        ordered = sorted(files, key=lambda file: file.name)
        self._folder.write(ordered)
        described = {
            "format": FORMAT_VERSION,
            "key_hash": KEY_HASH_VERSION,
            "key_groups": self._groups,
            "groups": [self._owned.start, self._owned.stop],
            "operators": {
                operator_id: {
                    "partition_by": list(store.partition_by),
                    "tables": {name: image.describe() for name, image in tables.items()},
                }
                for operator_id, (store, tables) in images.items()
            },
            "files": {file.name: file.to_json() for file in ordered},
        }
        remaining = list(ordered)

        def release() -> None:
            mine, remaining[:] = remaining[:], []
            self._folder.let_go(mine)
            self._folder.sweep()

        snapshot_files = tuple(SnapshotFile(file.path, file.name) for file in ordered)
        return Snapshot(checkpoint_id, snapshot_files, described, release)

    def _hold_only(self, files: frozenset[SegmentFile]) -> None:
        """Whatever the next snapshot may refer to stays; the rest goes once no snapshot needs it."""
        self._folder.hold(files)
        self._folder.let_go(self._held)
        self._held = files

    def _adopt(self, name: str, tables: Description, files: Mapping[str, Path]) -> SegmentFile:
        if name not in files or name not in tables["files"]:
            raise StateError(
                f"State file {name!r} is not in the checkpoint", hint="restore an older checkpoint"
            )
        return self._folder.adopt(Path(files[name]), tables["files"][name])

    def _ownership(
        self, stored: StoredTable, partition_by: tuple[str, ...], theirs: range
    ) -> tuple[bool, Ownership | None]:
        """Whether to take a table that belonged to the key groups `theirs`, and which rows of it."""
        if theirs == self._owned:
            return True, None
        if partition_by and stored.kind != "cell" and set(partition_by) <= set(stored.schema):
            overlaps = theirs.start < self._owned.stop and self._owned.start < theirs.stop
            return overlaps, Ownership(partition_by, self._groups, self._owned)
        # A table that cannot be divided goes whole to the subtask that now has its first key group.
        return theirs.start in self._owned, None


def _check_description(tables: Description, groups: int) -> None:
    if tables.get("format") != FORMAT_VERSION or tables.get("key_hash") != KEY_HASH_VERSION:
        raise StateError(
            f"The checkpoint has state format {tables.get('format')}, key hash {tables.get('key_hash')}; "
            f"this version reads {FORMAT_VERSION} and {KEY_HASH_VERSION}",
            hint="restore it with the version of unistream that wrote it, or a newer one",
        )
    if tables["key_groups"] != groups:
        raise StateError(
            f"The checkpoint has {tables['key_groups']} key groups, the job {groups}",
            hint=f"set key_groups={tables['key_groups']}: it is fixed for the life of a job",
        )
