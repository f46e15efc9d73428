"""Checkpoints in a folder of this machine or of a network file system."""

from __future__ import annotations

import itertools
import os
import shutil
import stat
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from unistream.errors import StateError
from unistream.faults import point
from unistream.state.file_lock import FileLock, has_no_locks
from unistream.state.storage import InUse, Lock, NotStored, Storage, Stored, checked

CHUNK_BYTES = 4 << 20
_UNFINISHED = ".unfinished"


class LocalStorage(Storage):
    """A folder. Every file is written beside, synced, and given its name by a link or a rename.

    Safe on NFS: the create that must succeed once is a hard link, which the server does in one step, and
    an answer that got lost is recognised by the content. Folders are made for their owner alone.
    """

    def __init__(self, path: str | Path) -> None:
        self._root = Path(path).absolute()
        self.url = str(self._root)
        self._own_unfinished: Path | None = None
        self._numbers = itertools.count()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[LocalStorage], tuple[str]]:
        return LocalStorage, (self.url,)

    def __repr__(self) -> str:
        return f"LocalStorage({self.url!r})"

    def put(self, files: Mapping[str, Path], *, link: bool = True) -> None:
        for name, source in files.items():
            with self._told("write", name), point("storage.put"):
                self._put(self._ready(name), source, link)
        for folder in sorted({self._path(name).parent for name in files}):
            sync_folder(folder)

    def _put(self, path: Path, source: Path, link: bool) -> None:
        with self._unfinished() as unfinished:
            if not (link and _linked(source, unfinished)):
                shutil.copyfile(source, unfinished)
            sync_file(unfinished)
            unfinished.replace(path)

    def publish(self, name: str, data: bytes) -> None:
        with self._told("create", name):
            path = self._ready(name)
            self._write(data, lambda unfinished: self._create(unfinished, path, name, data))
            sync_folder(path.parent)

    def _create(self, unfinished: Path, path: Path, name: str, data: bytes) -> None:
        try:
            with point("storage.link"):
                os.link(unfinished, path)
        except FileExistsError:
            if self.read(name) != data:
                raise self._taken(name) from None

    def replace(self, name: str, data: bytes) -> None:
        with self._told("write", name):
            path = self._ready(name)
            self._write(data, lambda unfinished: self._rename(unfinished, path))
            sync_folder(path.parent)

    @staticmethod
    def _rename(unfinished: Path, path: Path) -> None:
        with point("storage.rename"):
            unfinished.replace(path)

    def _write(self, data: bytes, give_name: Callable[[Path], None]) -> None:
        with self._unfinished() as unfinished:
            with point("storage.write"), unfinished.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            give_name(unfinished)

    def chunks(self, name: str) -> Iterator[bytes]:
        with self._told("read", name), self._path(name).open("rb", buffering=0) as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk

    def fetch(self, name: str, target: Path) -> None:
        with self._told("read", name):
            source = self._path(name)
            target.unlink(missing_ok=True)
            if not _linked(source, target):
                shutil.copyfile(source, target)

    def size(self, name: str) -> int | None:
        with self._told("read", name):
            return _size(self._path(name))

    def list(self, folder: str) -> list[Stored]:
        path = self._path(folder)
        try:
            with self._told("list", folder):
                names = sorted(entry.name for entry in path.iterdir())
        except NotStored:
            return []
        sizes = ((name, _size(path / name)) for name in names)
        return [Stored(f"{folder}/{name}", size) for name, size in sizes if size is not None]

    def delete(self, names: Iterable[str]) -> None:
        folders: set[Path] = set()
        for name in names:
            path = self._path(name)
            if not path.parent.resolve().is_relative_to(self._root.resolve()):
                raise StateError(
                    f"{path} lies outside {self.url}",
                    hint="a folder of the directory is a link: remove the link",
                )
            with self._told("remove", name), point("storage.delete"):
                path.unlink(missing_ok=True)
            folders.add(path.parent)
        for folder in sorted(folder for folder in folders if folder.is_dir()):
            sync_folder(folder)

    def lock(self, name: str, *, take_over: bool = False) -> Lock | None:
        with self._told("lock", name):
            path = self._ready(name)
            try:
                return FileLock(path, take_over=take_over)
            except BlockingIOError as error:
                raise InUse(f"{path} is locked by another process") from error
            except OSError as error:
                if has_no_locks(error):
                    return None
                raise

    def clear_unfinished(self) -> None:
        with self._told("clear", _UNFINISHED):
            folder = self._root / _UNFINISHED
            for left in folder.iterdir() if folder.is_dir() else ():
                if left != self._own_unfinished and not left.is_symlink() and left.is_dir():
                    shutil.rmtree(left)

    def _path(self, name: str) -> Path:
        return self._root / checked(name)

    def _ready(self, name: str) -> Path:
        """The path of a name whose folder is there."""
        path = self._path(name)
        make_folder(path.parent)
        return path

    @contextmanager
    def _unfinished(self) -> Iterator[Path]:
        """A path that nobody else uses, also no other process of any machine; removed unless we die."""
        with self._lock:
            if self._own_unfinished is None:
                parent = self._root / _UNFINISHED
                make_folder(parent)
                self._own_unfinished = Path(tempfile.mkdtemp(dir=parent))
            path = self._own_unfinished / f"{os.getpid()}-{next(self._numbers)}"
        try:
            yield path
        except Exception:
            path.unlink(missing_ok=True)
            raise
        # After a link; and a rename between two names of the same file leaves both.
        path.unlink(missing_ok=True)


def make_folder(path: Path) -> None:
    """Make a folder and those above it, each durably, for the owner alone."""
    if path.is_dir():
        return
    make_folder(path.parent)
    with point("storage.make_folder"):
        path.mkdir(mode=0o700, exist_ok=True)
        sync_folder(path.parent)


def _size(path: Path) -> int | None:
    """How long a regular file is; None for anything else."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def sync_file(path: Path) -> None:
    """Have the content on disk."""
    _sync(path, os.O_RDONLY)


def sync_folder(path: Path) -> None:
    """Have the names in it on disk."""
    with point("storage.sync_folder"):
        _sync(path, os.O_RDONLY | os.O_DIRECTORY)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _linked(source: Path, target: Path) -> bool:
    """Whether the file could be given a second name: not across file systems, and not on all of them."""
    try:
        os.link(source, target)
    except (FileNotFoundError, FileExistsError):
        raise
    except OSError:
        return False
    return True
