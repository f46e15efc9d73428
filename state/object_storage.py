"""Checkpoints in an object store: S3, Google Cloud Storage, Azure, or memory for tests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unistream.errors import ConnectorError, MissingDependency
from unistream.faults import point
from unistream.state.local_storage import CHUNK_BYTES
from unistream.state.storage import Lock, Storage, Stored, checked

if TYPE_CHECKING:
    from obstore.store import ObjectStore


class ObjectStorage(Storage):
    """Objects under the prefix that a URL such as `s3://bucket/jobs/a` names.

    Credentials come from the environment as the client of each cloud finds them; `options` are those of
    `obstore.store.from_url` (`region`, `endpoint`, ...). An object store has no locks: ownership there
    rests on creates that succeed once, and on leases.
    """

    def __init__(self, url: str, options: Mapping[str, Any] | None = None) -> None:
        try:
            from obstore.store import from_url
        except ImportError as error:
            raise MissingDependency.from_extra(f"{url.split('://')[0]}:// storage", "cloud") from error
        self.url = url.rstrip("/")
        self._options = dict(options or {})
        try:
            self._store: ObjectStore = from_url(url, **self._options)
        except Exception as error:
            raise ConnectorError(
                f"Cannot open {url}: {_short(error)}", hint="check the URL and the credentials of the cloud"
            ) from error

    def __reduce__(self) -> tuple[type[ObjectStorage], tuple[str, dict[str, Any]]]:
        return ObjectStorage, (self.url, self._options)

    def __repr__(self) -> str:
        return f"ObjectStorage({self.url!r})"

    def put(self, files: Mapping[str, Path], *, link: bool = True) -> None:
        import obstore

        for name, source in files.items():
            with self._client("write", name), point("storage.put"):
                obstore.put(self._store, checked(name), source)

    def publish(self, name: str, data: bytes) -> None:
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        with self._client("create", name), point("storage.link"):
            try:
                obstore.put(self._store, checked(name), data, mode="create", use_multipart=False)
            except (AlreadyExistsError, PreconditionError):
                if self.read(name) != data:
                    raise self._taken(name) from None

    def replace(self, name: str, data: bytes) -> None:
        import obstore

        with self._client("write", name), point("storage.write"):
            obstore.put(self._store, checked(name), data, use_multipart=False)

    def chunks(self, name: str) -> Iterator[bytes]:
        import obstore

        with self._client("read", name):
            result = obstore.get(self._store, checked(name))
            for chunk in result.stream(min_chunk_size=CHUNK_BYTES):
                yield bytes(chunk)

    def fetch(self, name: str, target: Path) -> None:
        target.unlink(missing_ok=True)
        with target.open("xb") as file:
            for chunk in self.chunks(name):
                file.write(chunk)

    def size(self, name: str) -> int | None:
        import obstore

        with self._client("read", name):
            try:
                return obstore.head(self._store, checked(name))["size"]
            except FileNotFoundError:
                return None

    def list(self, folder: str) -> list[Stored]:
        import obstore

        with self._client("list", folder):
            found = obstore.list_with_delimiter(self._store, checked(folder))["objects"]
        return sorted((Stored(item["path"], item["size"]) for item in found), key=lambda item: item.name)

    def delete(self, names: Iterable[str]) -> None:
        import obstore

        for name in names:
            with self._client("remove", name), point("storage.delete"):
                try:
                    obstore.delete(self._store, checked(name))
                except FileNotFoundError:
                    continue

    def lock(self, name: str, *, take_over: bool = False) -> Lock | None:
        return None

    def clear_unfinished(self) -> None:
        """An upload that was not completed is no object; the store's own rules remove its parts."""

    @contextmanager
    def _client(self, action: str, name: str) -> Iterator[None]:
        """Errors of the client as ours, with the name of the object."""
        from obstore.exceptions import BaseError

        try:
            with self._told(action, name):
                yield
        except BaseError as error:
            raise ConnectorError(
                f"Cannot {action} {self.url}/{name}: {_short(error)}",
                hint="check the connection, the credentials and the rights on the bucket",
                retry_after=1.0,
            ) from error


def _short(error: Exception) -> str:
    """The first line: below it the client prints all it knows."""
    return str(error).split("\n", 1)[0]
