"""The checkpoint directory: upload files, publish a manifest, restore with every byte verified, clean up.

    lock                      held by the owner, where the file system has locks
    newest.json               the id of the newest checkpoint, so that its loss is noticed
    owners/<epoch>.json       who owned the directory (see `ownership`)
    checkpoints/<id>.json     a manifest, or a gap; created once, in order
    files/<sha256>-<epoch>    immutable content, shared by checkpoints; `epoch` is that of who put it there

A checkpoint exists from the moment its manifest does, and only then: its files and their names are durable
before. A file is removed only by an owner of its epoch or a later one, and when no manifest names it. So a
former owner that wakes up in the middle of cleaning can only remove what was unnamed in its time: a later
owner names nothing of former ones but what the checkpoint has that it restored, and puts the same content
under a name of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import msgspec

from unistream.clock import Clock, SystemClock
from unistream.durations import Duration, microseconds
from unistream.errors import StateError
from unistream.faults import point
from unistream.state.checkpoint_reader import NEWEST, CheckpointReader, check_content
from unistream.state.local_storage import make_folder
from unistream.state.manifest import FileEntry, Manifest, Newest, decode_checkpoint, file_epoch, seal
from unistream.state.ownership import KEPT_RECORDS, Lease, checkpoint_name, forget_owners, sequence
from unistream.state.snapshot import SnapshotFile
from unistream.state.storage import NotStored, Storage, storage_for
from unistream.state.uploads import Uploads, local_digest

_BATCH = 64


@dataclass(frozen=True, slots=True)
class Restored:
    """The state of one subtask: `files` tells where each logical name lies now, verified."""

    subtask: int
    tables: dict[str, Any]
    files: dict[str, Path]


@dataclass(frozen=True, slots=True)
class Removed:
    """What a clean-up removed."""

    checkpoints: tuple[int, ...] = ()
    files: tuple[str, ...] = ()


class CheckpointStore(CheckpointReader):
    """A checkpoint directory for its owner; without a lease, for reading only.

    `upload` and `retain` may run on background threads.

    >>> import tempfile
    >>> from unistream.clock import Random
    >>> from unistream.state.ownership import own
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     storage = storage_for(folder)
    ...     with own(storage, "orders", SystemClock(), Random(1)) as lease:
    ...         store = CheckpointStore(storage, lease)
    ...         done = store.publish(Manifest(id=store.next_id, positions={"orders": {"a.csv": 120}}))
    ...     CheckpointReader(folder).newest().positions
    {'orders': {'a.csv': 120}}
    """

    def __init__(
        self, storage: Storage | str | Path, lease: Lease | None = None, *, clock: Clock | None = None
    ) -> None:
        super().__init__(storage)
        self._owner = lease
        self._clock = clock or SystemClock()
        self._uploads = Uploads(self.storage, lease.epoch if lease else 0, self._clock)
        self._parent: int | None = None
        self._stamped: tuple[Manifest, Manifest] | None = None

    @property
    def next_id(self) -> int:
        """The least id the next checkpoint may have. Those of given-up checkpoints may be skipped."""
        return self._lease.last + 1

    def upload(self, files: Iterable[SnapshotFile]) -> tuple[FileEntry, ...]:
        """Store the files of a snapshot, except those that are there already.

        When it returns, files and names are durable, and stay until the checkpoint is published or given
        up with `abandon`. The snapshot may be released then.
        """
        self._lease.check()
        try:
            return self._uploads.upload(files)
        except NotStored:
            self._lease.check()  # the next owner has cleared what was not finished
            raise

    def abandon(self, entries: Iterable[FileEntry]) -> None:
        """The checkpoint these files were uploaded for is given up."""
        self._uploads.unpin(entries)

    def publish(self, manifest: Manifest) -> Manifest:
        """Make the checkpoint exist, in one step, and return its manifest as it was stored.

        Raises `StateError` when another owner came: then nothing may be committed. After a `ConnectorError`
        it may exist or not: publish the same manifest again, or restart from `newest`, but do not abort
        its tokens.
        """
        if self._stamped is None or self._stamped[0] != manifest:
            self._stamped = manifest, self._stamp(manifest)
        data = seal(self._stamped[1])
        # Reading it back refuses what could not be restored, before it is there.
        where = f"{self.storage.url}/{checkpoint_name(manifest.id)}"
        stored = cast(Manifest, decode_checkpoint(data, manifest.id, where))
        with point("checkpoint.publish"):
            self._lease.append(stored.id, data)
        # Named before unpinned: a clean-up on another thread sees one or the other.
        self._named[stored.id] = stored.stored_names
        self._uploads.trust(stored.files)
        self._uploads.unpin(stored.files)
        self._stamped, self._parent = None, stored.id
        self._mark_newest(Newest(id=stored.id, sha256=hashlib.sha256(data).hexdigest()))
        return stored

    def fetch(
        self, manifest: Manifest, into: Path, subtasks: Container[int] | None = None
    ) -> tuple[Restored, ...]:
        """Bring the files of a checkpoint into a local folder, every byte verified before it returns.

        All subtasks, or those named. Files are links where possible: they may be read and linked again,
        never written to. Damage raises `StateError` that names the file.
        """
        restored = []
        for state in manifest.states:
            if subtasks is not None and state.subtask not in subtasks:
                continue
            folder = into / f"{state.subtask:04d}"
            make_folder(folder)
            files = {entry.name: folder / entry.name for entry in state.files}
            for entry in state.files:
                self._fetch(manifest, entry, files[entry.name])
            if self._is_newest(manifest.id):
                # Only what the newest checkpoint has is safe from the clean-up of a former owner.
                self._uploads.trust(state.files)
            restored.append(Restored(state.subtask, state.tables, files))
        self._parent = manifest.id
        return tuple(restored)

    def retain(self, count: int, age: Duration | None = None) -> Removed:
        """Remove checkpoints beyond the newest `count` or older than `age`, then the files nobody names.

        The newest one and savepoints stay. Raises `StateError` when a manifest is damaged: what it names
        is not known then, so no file is removed.
        """
        self._lease.check()
        kept = [manifest for manifest in self.list() if manifest.kind == "checkpoint"]
        before = None if age is None else self._clock.now() - microseconds(age)
        return self._remove(
            [
                manifest.id
                for place, manifest in enumerate(reversed(kept))
                if place >= max(count, 1) or (place and before is not None and manifest.created < before)
            ]
        )

    def remove(self, id: int) -> Removed:
        """Remove one checkpoint, also a damaged one or a savepoint, and the files only it names."""
        self._lease.check()
        if id not in sequence(self.storage):
            raise self._unknown(id)
        if self._is_newest(id):
            self._step_back(id)
        return self._remove([id])

    def savepoint(
        self, id: int, target: Storage | str | Path, extra: Mapping[str, Any] | None = None
    ) -> Manifest:
        """Copy a checkpoint, every byte verified, to a place of its own that shares nothing with this one.

        `extra` is added to that of the manifest.
        """
        from unistream.state.savepoint import copy_checkpoint

        manifest = self.load(id)
        self._uploads.pin(manifest.files)
        try:
            return copy_checkpoint(self.storage, manifest, storage_for(target), self._clock, extra or {})
        finally:
            self._uploads.unpin(manifest.files)

    @property
    def _lease(self) -> Lease:
        if self._owner is None:
            raise StateError(
                f"{self.storage.url} was opened for reading", hint="`own` the directory to change it"
            )
        return self._owner

    def _stamp(self, manifest: Manifest) -> Manifest:
        """The manifest with what only the store knows."""
        for name in manifest.stored_names:
            if not self._uploads.knows(name) and not self.storage.exists(name):
                raise StateError(
                    f"Checkpoint {manifest.id} names {name}, which is not in {self.storage.url}",
                    hint="upload the files of a snapshot before publishing it",
                )
        return msgspec.structs.replace(
            manifest,
            epoch=self._lease.epoch,
            job_id=self._lease.job_id,
            parent=self._parent,
            created=self._clock.now(),
            engine=manifest.engine or version("unistream"),
        )

    def _fetch(self, manifest: Manifest, entry: FileEntry, target: Path) -> None:
        self.storage.fetch(entry.stored_name, target)
        check_content(self.storage.url, manifest, entry, *local_digest(target))
        self._uploads.remember(target, entry)

    def _is_newest(self, id: int) -> bool:
        """Whether nothing but gaps follows; not when something damaged does."""
        try:
            return all(self._names(later) is None for later in sequence(self.storage) if later > id)
        except StateError:
            return False

    def _mark_newest(self, mark: Newest) -> None:
        with point("checkpoint.newest"):
            self.storage.replace(NEWEST, seal(mark))

    def _step_back(self, id: int) -> None:
        """The newest checkpoint is about to go: have the one before it be the newest."""
        older = [other for other in sequence(self.storage) if other < id and self._names(other) is not None]
        if older:
            self._mark_newest(Newest(id=older[-1], sha256=self._hash(older[-1])))
        else:
            self.storage.delete([NEWEST])

    def _remove(self, doomed: list[int]) -> Removed:
        """Manifests first, oldest first, durably, then files: a crash leaves files that nobody names."""
        doomed.sort()
        with point("checkpoint.clean.manifests"):
            self.storage.delete(checkpoint_name(number) for number in doomed)
        for number in doomed:
            self._named.pop(number, None)
        self._forget_gaps()
        files = [item.name for item in self.storage.list("files") if self._may_delete(item.name)]
        removed: list[str] = []
        for start in range(0, len(files), _BATCH):
            with point("checkpoint.clean.files"):
                removed += self._uploads.delete_unpinned(files[start : start + _BATCH], self._all_named)
        return Removed(tuple(doomed), tuple(removed))

    def _may_delete(self, name: str) -> bool:
        """Files of this epoch that are unknown here may belong to another process of this job."""
        epoch = file_epoch(name)
        if epoch is None or epoch > self._lease.epoch:
            return False
        return epoch < self._lease.epoch or self._uploads.knows(name)

    def _all_named(self) -> frozenset[str]:
        return frozenset[str]().union(*(names for names in list(self._named.values()) if names))

    def _forget_gaps(self) -> None:
        """Remove gaps before the oldest checkpoint; those that close off a former owner stay for long."""
        present = sequence(self.storage)
        oldest = next((number for number in present if self._names(number) is not None), 0)
        gaps = [number for number in present if number < oldest and self._names(number) is None]
        kept = sorted(self._closing.intersection(present))[-KEPT_RECORDS:]
        self.storage.delete(checkpoint_name(number) for number in gaps if number not in kept)
        forget_owners(self.storage, self._lease.epoch)
