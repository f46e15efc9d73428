"""Reads a checkpoint directory, and never takes an older checkpoint for a damaged one."""

from __future__ import annotations

import hashlib
from pathlib import Path

from unistream.errors import StateError
from unistream.state.manifest import FileEntry, Gap, Manifest, Newest, decode_checkpoint, unseal
from unistream.state.ownership import checkpoint_name, sequence
from unistream.state.storage import NotStored, Storage, storage_for

NEWEST = "newest.json"
DAMAGE_HINT = (
    "restore another checkpoint by its id, or put the file back from a copy; "
    "`unistream checkpoints verify` lists all damage"
)


class CheckpointReader:
    """The checkpoints of one directory, for looking only: nothing is written, no ownership is needed.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     CheckpointReader(folder).newest() is None
    True
    """

    def __init__(self, storage: Storage | str | Path) -> None:
        self.storage = storage_for(storage)
        self._named: dict[int, frozenset[str] | None] = {}
        self._closing: set[int] = set()

    def ids(self) -> list[int]:
        """The ids of all checkpoints, ascending. Raises `StateError` when one is damaged."""
        return [number for number in sequence(self.storage) if self._names(number) is not None]

    def list(self) -> list[Manifest]:
        """All checkpoints, oldest first. Raises `StateError` when one is damaged."""
        known_gaps = {number for number, names in self._named.items() if names is None}
        records = (self.record(number) for number in sequence(self.storage) if number not in known_gaps)
        return [record for record in records if isinstance(record, Manifest)]

    def newest(self) -> Manifest | None:
        """The newest checkpoint, None when there is none.

        Raises `StateError` when it is damaged or lost: going back to an older one is for the user to say.
        """
        for number in reversed(sequence(self.storage)):
            record = self.record(number)
            if isinstance(record, Manifest):
                self._check_newest(record)
                return record
        self._check_newest(None)
        return None

    def load(self, id: int) -> Manifest:
        """One checkpoint by its id."""
        if id in sequence(self.storage):
            record = self.record(id)
            if isinstance(record, Manifest):
                return record
        raise self._unknown(id)

    def record(self, id: int) -> Manifest | Gap:
        """What lies under an id of the sequence."""
        name = checkpoint_name(id)
        record = decode_checkpoint(self.storage.read(name), id, f"{self.storage.url}/{name}")
        if isinstance(record, Manifest):
            self._named[id] = record.stored_names
            return record
        self._named[id] = None
        if record.closed_by_next:
            self._closing.add(id)
        return record

    def _names(self, id: int) -> frozenset[str] | None:
        """The stored files a checkpoint names; None for a gap."""
        if id not in self._named:
            self.record(id)
        return self._named[id]

    def _check_newest(self, found: Manifest | None) -> None:
        """Raise when a checkpoint is known to have existed that is newer, or another of the same id."""
        where = f"{self.storage.url}/{NEWEST}"
        try:
            mark: Newest = unseal(self.storage.read(NEWEST), Newest, where)
        except NotStored:
            return
        lost = f"{self.storage.url}/{checkpoint_name(mark.id)}"
        if found is None or mark.id > found.id:
            raise StateError(
                f"{lost} is missing, the newest checkpoint",
                hint=f"put the file back, or remove {where} to go on from an older checkpoint",
            )
        if mark.id == found.id and self._hash(found.id) != mark.sha256:
            raise StateError(
                f"{lost} is damaged: it is not the checkpoint that was published",
                hint=f"put the file back, or remove {where} to take it as it is",
            )

    def _hash(self, id: int) -> str:
        return hashlib.sha256(self.storage.read(checkpoint_name(id))).hexdigest()

    def _unknown(self, id: int) -> StateError:
        return StateError(
            f"{self.storage.url} has no checkpoint {id}",
            hint=f"`unistream checkpoints ls {self.storage.url}` lists them",
        )


def check_content(where: str, manifest: Manifest, entry: FileEntry, sha256: str, length: int) -> None:
    """Raise `StateError` unless a stored file has the content that the manifest says."""
    if length != entry.length:
        what = f"it has {length} bytes instead of {entry.length}"
    elif sha256 != entry.sha256:
        what = "its content does not have the recorded hash"
    else:
        return
    raise StateError(
        f"{where}/{entry.stored_name} is damaged: {what} (file {entry.name} of checkpoint {manifest.id})",
        hint=DAMAGE_HINT,
    )
