"""Files on their way into a checkpoint directory: hashed once, stored once, kept from being cleaned away."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from unistream.clock import Clock
from unistream.errors import StateError
from unistream.faults import point
from unistream.state.local_storage import CHUNK_BYTES
from unistream.state.manifest import FileEntry
from unistream.state.snapshot import SnapshotFile
from unistream.state.storage import Storage

Identity = tuple[int, int, int, int]

# File systems stamp files with a clock this coarse: two files made within it may look the same.
_STAMP_MICROSECONDS = 100_000


class Uploads:
    """Puts files into the storage under the names of their content; safe to use from several threads.

    Nothing is trusted but what this process has written or verified: a file that lies there from an
    earlier attempt is written again, so damage does not spread into new checkpoints.
    """

    def __init__(self, storage: Storage, epoch: int, clock: Clock) -> None:
        self._storage = storage
        self._epoch = epoch
        self._clock = clock
        self._hashes: dict[Identity, str] = {}
        self._known: dict[str, FileEntry] = {}
        self._pins: Counter[str] = Counter()
        self._lock = threading.RLock()

    def upload(self, files: Iterable[SnapshotFile]) -> tuple[FileEntry, ...]:
        """Store what is not yet there; files and names are durable when it returns, and pinned."""
        entries: list[FileEntry] = []
        new: dict[str, Path] = {}
        try:
            for file in files:
                sha256, length = self._hash(file.path)
                entry = self._pinned(file.logical_name, length, sha256)
                entries.append(entry)
                if sha256 not in self._known:
                    new[entry.stored_name] = file.path
            with point("checkpoint.upload"):
                self._storage.put(new)
        except Exception:
            self.unpin(entries)
            raise
        self.trust(entries)
        return tuple(entries)

    def trust(self, entries: Iterable[FileEntry]) -> None:
        """These lie in the storage as they should: the same content need not be stored again."""
        with self._lock:
            self._known.update((entry.sha256, entry) for entry in entries)

    def remember(self, path: Path, entry: FileEntry) -> None:
        """A local file was verified to be this entry."""
        self._remember(_identity(path), entry.sha256)

    def pin(self, entries: Iterable[FileEntry]) -> None:
        """Keep `delete_unpinned` away from these until `unpin` was called as often."""
        with self._lock:
            self._pins.update(entry.stored_name for entry in entries)

    def unpin(self, entries: Iterable[FileEntry]) -> None:
        """Undo one `pin`, or that of an upload."""
        with self._lock:
            self._pins.subtract(entry.stored_name for entry in entries)
            self._pins = +self._pins

    def delete_unpinned(self, names: Iterable[str], named: Callable[[], frozenset[str]]) -> list[str]:
        """Remove those of these stored files that are neither pinned nor named, and return their names.

        `named` is asked while nobody can pin or unpin.
        """
        with self._lock:
            still_named = named()
            doomed = [name for name in names if not self._pins[name] and name not in still_named]
            for name in doomed:
                if self.knows(name):
                    del self._known[_sha256(name)]
            self._storage.delete(doomed)
            return doomed

    def knows(self, stored_name: str) -> bool:
        """Whether this process has stored or verified it."""
        known = self._known.get(_sha256(stored_name))
        return known is not None and known.stored_name == stored_name

    def _pinned(self, logical_name: str, length: int, sha256: str) -> FileEntry:
        with self._lock:
            known = self._known.get(sha256)
            epoch = self._epoch if known is None else known.epoch
            entry = FileEntry(name=logical_name, length=length, sha256=sha256, epoch=epoch)
            self._pins[entry.stored_name] += 1
            return entry

    def _hash(self, path: Path) -> tuple[str, int]:
        try:
            identity = _identity(path)
            known = self._hashes.get(identity)
            if known is not None:
                return known, identity[2]
            sha256, length = digest(_chunks(path))
        except FileNotFoundError as error:
            raise StateError(
                f"State file {path} is missing", hint="nothing else may remove files from the working folder"
            ) from error
        self._remember(identity, sha256)
        return sha256, length

    def _remember(self, identity: Identity, sha256: str) -> None:
        # A file just made could be removed and another take its number, length and time unnoticed.
        if identity[3] // 1000 < self._clock.now() - _STAMP_MICROSECONDS:
            self._hashes[identity] = sha256


def digest(chunks: Iterable[bytes]) -> tuple[str, int]:
    """SHA-256 and length of a content."""
    hasher, length = hashlib.sha256(), 0
    for chunk in chunks:
        hasher.update(chunk)
        length += len(chunk)
    return hasher.hexdigest(), length


def local_digest(path: Path) -> tuple[str, int]:
    """SHA-256 and length of a local file."""
    return digest(_chunks(path))


def _sha256(stored_name: str) -> str:
    return stored_name.removeprefix("files/").partition("-")[0]


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def _identity(path: Path) -> Identity:
    """What stays the same while a file is the same, also under another name."""
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
