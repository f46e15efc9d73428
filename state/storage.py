"""Where checkpoints lie: named files with durable writes and an atomic create, and little else."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from unistream.errors import ConnectorError, InvalidSettings, StateError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*", re.ASCII)
_OBJECT_SCHEMES = ("s3", "s3a", "gs", "az", "azure", "abfs", "abfss", "memory")


class NameTaken(StateError):
    """A name that must be created only once exists already, with another content."""


class NotStored(StateError):
    """A name that should be there is not."""


class InUse(StateError):
    """Somebody else holds the lock."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A name and how many bytes lie under it."""

    name: str
    size: int


class Lock(Protocol):
    """Held until released, or until the process ends."""

    def release(self) -> None:
        """Let others have it; may be called again."""


class Storage(ABC):
    """Files by name under one root. Names are parts of letters, digits, `.`, `_`, `-`, joined by `/`.

    Every method may be called from any thread. What goes wrong outside (disk full, network away) is a
    `ConnectorError` that names the file; `StateError` is about what lies there.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     storage = storage_for(folder)
    ...     storage.publish("notes/first", b"hello")
    ...     storage.read("notes/first"), storage.list("notes")
    (b'hello', [Stored(name='notes/first', size=5)])
    """

    url: str
    """Path or URL of the root, for messages and for opening it again."""

    @abstractmethod
    def put(self, files: Mapping[str, Path], *, link: bool = True) -> None:
        """Store local files under these names; files and names are durable when it returns.

        A name that exists is replaced, so use it only where a name says what the content is. With `link`
        the storage may share the file instead of copying it: it must never change afterwards.
        """

    @abstractmethod
    def publish(self, name: str, data: bytes) -> None:
        """Create a name in one step, durably: others see all of it or nothing.

        Raises `NameTaken` when the name exists, unless its content is equal: a write whose answer was lost
        can be repeated, and data that must tell writers apart has to name the writer.
        """

    @abstractmethod
    def replace(self, name: str, data: bytes) -> None:
        """Create or replace a name in one step, durably."""

    @abstractmethod
    def chunks(self, name: str) -> Iterator[bytes]:
        """The content, piece by piece. Raises `NotStored`."""

    @abstractmethod
    def fetch(self, name: str, target: Path) -> None:
        """Have the content as a local file, to be read only: by a link where possible. Raises `NotStored`."""

    @abstractmethod
    def size(self, name: str) -> int | None:
        """How many bytes it has; None when it does not exist."""

    @abstractmethod
    def list(self, folder: str) -> list[Stored]:
        """What lies directly in a folder, by name; nothing when there is no such folder."""

    @abstractmethod
    def delete(self, names: Iterable[str]) -> None:
        """Remove names, durably; those that do not exist are passed over. Links are never followed."""

    @abstractmethod
    def lock(self, name: str, *, take_over: bool = False) -> Lock | None:
        """Hold `name` alone until released or until this process ends; raises `InUse`.

        None when this storage has no locks that end with their process. `take_over` gets it even though
        somebody holds it, who is not told.
        """

    @abstractmethod
    def clear_unfinished(self) -> None:
        """Remove what writers that died have left half-written."""

    def read(self, name: str) -> bytes:
        """The whole content. Raises `NotStored`."""
        return b"".join(self.chunks(name))

    def exists(self, name: str) -> bool:
        """Whether the name is there."""
        return self.size(name) is not None

    def _taken(self, name: str) -> NameTaken:
        return NameTaken(
            f"{self.url}/{name} exists already",
            hint="another process writes to the same directory; give each job its own",
        )

    def _missing(self, name: str) -> NotStored:
        return NotStored(
            f"{self.url}/{name} is missing",
            hint="restore another checkpoint, or put the file back from a copy",
        )

    @contextmanager
    def _told(self, action: str, name: str) -> Iterator[None]:
        """Errors of the operating system as ours, with the name of the file."""
        try:
            yield
        except FileNotFoundError as error:
            raise self._missing(name) from error
        except (FileExistsError, NotADirectoryError) as error:
            raise ConnectorError(
                f"Cannot {action} {self.url}/{name}: {self.url} is no folder",
                hint="a file has that name; choose another folder",
            ) from error
        except OSError as error:
            raise ConnectorError(
                f"Cannot {action} {self.url}/{name}: {error.strerror or error}",
                hint="free space, fix access rights or the connection; complete checkpoints are untouched",
                retry_after=1.0,
            ) from error


def checked(name: str) -> str:
    """The name, if it cannot lead out of the root."""
    if not _NAME.fullmatch(name):
        raise StateError(
            f"{name!r} is not a name of a stored file",
            hint="names come from manifests; this one was tampered with",
        )
    return name


def storage_for(target: str | Path | Storage) -> Storage:
    """The storage behind a path or URL: a local or network folder, `s3://`, `gs://` or `az://`.

    >>> storage_for("file:///var/checkpoints").url
    '/var/checkpoints'
    """
    from unistream.state.local_storage import LocalStorage

    if isinstance(target, Storage):
        return target
    if isinstance(target, Path) or "://" not in target:
        return LocalStorage(target)
    parts = urlsplit(target)
    if parts.scheme == "file":
        return LocalStorage(unquote(parts.path))
    if parts.scheme not in _OBJECT_SCHEMES:
        raise InvalidSettings.from_unknown("storage", parts.scheme, ("file", *_OBJECT_SCHEMES))
    from unistream.state.object_storage import ObjectStorage

    return ObjectStorage(target)
