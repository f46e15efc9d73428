"""Which files a path, a glob or a folder stands for, and which of them are new and whole."""

from __future__ import annotations

import glob
import logging
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from unistream.clock import Clock
from unistream.errors import ConnectorError, InvalidSettings, nearest
from unistream.io.glob_paths import Glob, entries_of
from unistream.location import user_location

logger = logging.getLogger(__name__)

HIDDEN = ("_", ".")
"""First letters of names that a folder or a wildcard does not stand for."""

UNFINISHED = (".tmp", ".temp", ".part", ".partial", ".inprogress", ".crdownload", ".download", ".swp")
"""Suffixes of files that somebody is still writing."""

HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"
"""The folder value that stands for null in a Hive layout."""

Stamp = tuple[int, int]
"""Size in bytes and time of the last change in nanoseconds: what tells two contents of one path apart."""

Paths = str | os.PathLike[str] | list[str] | tuple[str | os.PathLike[str], ...]


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file as it was found; `split` is its name below the listing's root and stays when the root moves."""

    path: str
    split: str
    size: int
    mtime_ns: int

    @property
    def stamp(self) -> Stamp:
        """What changes when the content does."""
        return (self.size, self.mtime_ns)

    def age(self, clock: Clock) -> float:
        """Seconds since the last change."""
        return clock.now() / 1e6 - self.mtime_ns / 1e9

    @property
    def partition(self) -> dict[str, str | None]:
        """The `key=value` folders of its name, in order, unescaped.

        >>> FileEntry("/data/day=1/city=a%2Fb/x.parquet", "day=1/city=a%2Fb/x.parquet", 0, 0).partition
        {'day': '1', 'city': 'a/b'}
        """
        pairs = (part.partition("=") for part in self.split.split("/")[:-1])
        return {
            unquote(key): None if value == HIVE_NULL else unquote(value)
            for key, sign, value in pairs
            if sign and key
        }


_WAY_AROUND = "give this process the right to read it, or pass the paths beside it as a list"


@contextmanager
def _refusals_told() -> Iterator[None]:
    """What the system refuses to show is an error that names it: its files are not silently left out."""
    try:
        yield
    except OSError as error:
        hint = _WAY_AROUND if isinstance(error, PermissionError) else None
        problem = f"Cannot read {error.filename}: {error.strerror}"
        raise ConnectorError(problem, user_location(), hint, retry_after=1.0) from error


@dataclass(frozen=True, slots=True)
class Listing:
    """Paths, globs (`**` too) and folders as the user gave them, made absolute.

    A folder stands for the files below it with one of `suffixes` (all when there are none). Folders and
    wildcards leave out names that begin with "_" or "." and suffixes of unfinished files; a file that is
    named in full is always taken. Below a folder, and by wildcards from `**` on, links to folders are not
    followed. `hive` asks for `key=value` folders as columns; None means "if there are any".
    """

    patterns: tuple[str, ...]
    suffixes: tuple[str, ...] = ()
    hive: bool | None = None

    @classmethod
    def of(cls, paths: Paths, suffixes: tuple[str, ...] = (), hive: bool | None = None) -> Listing:
        """The listing of what a user passed as path: one or several, text or `Path`."""
        given = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
        if not given:
            raise InvalidSettings("No path was given", user_location(), "pass a file, a glob or a folder")
        texts = [os.fspath(path).removeprefix("file://") for path in given]
        for text in texts:
            if "://" in text:
                raise InvalidSettings(
                    f"{text!r} is not a local path", user_location(), "mount it, or pass a local path"
                )
        absolute = tuple(os.path.abspath(Path(text).expanduser()) for text in texts)  # noqa: PTH100 (no symlinks)
        return cls(absolute, suffixes, hive)

    @property
    @_refusals_told()
    def root(self) -> str:
        """The deepest folder above everything the patterns can stand for."""
        return os.path.commonpath([_fixed_folder(pattern) for pattern in self.patterns])

    @_refusals_told()
    def find(self, *, required: bool = True) -> list[FileEntry]:
        """All files now, each once, sorted by name below the root.

        Nothing there is a `ConnectorError` with the nearest names; with `required=False` only a folder
        that does not exist is one. So is a folder that cannot be read; one that goes meanwhile is not there.
        """
        root, found = self.root, dict[str, FileEntry]()
        for pattern in self.patterns:
            paths = set(self._expand(pattern))
            entries = {path: _entry(path, root) for path in paths - found.keys()}
            found |= {path: entry for path, entry in entries.items() if entry is not None}
            if not paths and not self._may_be_empty(pattern, required):
                raise _nothing_found(pattern, self.suffixes)
        return sorted(found.values(), key=lambda entry: entry.split)

    def takes(self, path: str) -> bool:
        """Whether the file at this path is one of them, or will be when there is one."""
        found = _real(path)
        return any(self._takes(pattern, found) for pattern in self.patterns)

    @_refusals_told()
    def check_watchable(self, way_out: str) -> None:
        """Refuse to watch what cannot get new files: a single file. `way_out` is the hint."""
        for pattern in self.patterns:
            if Path(pattern).is_file():
                raise InvalidSettings(
                    f"watch=True needs a folder or a glob; {pattern} is a file", user_location(), way_out
                )

    def has_hive_folders(self, entries: list[FileEntry]) -> bool:
        """Whether `key=value` folders are columns here: as asked, else when every file lies in some."""
        if self.hive is not None:
            return self.hive
        return bool(entries) and all(entry.partition for entry in entries)

    def _may_be_empty(self, pattern: str, required: bool) -> bool:
        if required or not (glob.has_magic(pattern) or Path(pattern).is_dir()):
            return False
        return Path(_fixed_folder(pattern)).is_dir()

    def _expand(self, pattern: str) -> Iterator[str]:
        if Path(pattern).is_dir():
            yield from self._walk(pattern)
        elif Path(pattern).exists():
            yield pattern
        elif glob.has_magic(pattern):
            folder = _fixed_folder(pattern)
            below = pattern.removeprefix(folder).lstrip("/")
            for path in Glob(below, _offers(below)).paths(folder):
                yield from self._walk(path) if Path(path).is_dir() else (path,)

    def _takes(self, pattern: str, path: Path) -> bool:
        folder = _fixed_folder(pattern)
        above = Path(os.path.realpath(folder))
        if not path.is_relative_to(above):
            return False
        names = path.relative_to(above).parts
        if Path(pattern).is_dir():
            return self._walks_to(names)
        if Path(pattern).exists() or not glob.has_magic(pattern):
            return path == _real(pattern)
        below = pattern.removeprefix(folder).lstrip("/")
        wanted = Glob(below, _offers(below))
        folders = (depth for depth in range(1, len(names)) if wanted.matches(names[:depth]))
        return wanted.matches(names) or any(self._walks_to(names[depth:]) for depth in folders)

    def _walks_to(self, names: Sequence[str]) -> bool:
        """Whether `_walk` from a folder comes to a file by these names."""
        left_out = (name.startswith(HIDDEN) or name.endswith(UNFINISHED) for name in names)
        return not any(left_out) and names[-1].endswith(self.suffixes or ("",))

    def _walk(self, folder: str) -> Iterator[str]:
        """Files below `folder`; links to folders are not followed, so that no loop is possible."""
        for entry in entries_of(folder):
            if entry.name.startswith(HIDDEN) or entry.name.endswith(UNFINISHED):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from self._walk(entry.path)
            elif entry.name.endswith(self.suffixes or ("",)) and entry.is_file():
                yield entry.path


class FileWatch:
    """Hands out each file of a listing once, when it is whole. Used by one reader on its thread.

    A file is whole when its size and time of change are the same in two looks at least one poll interval
    apart and `complete(path)` agrees. New files come in the order of (time of change, name). `taken` are
    the stamps of files that were read or begun before a restart: they are not handed out again, and one
    whose content has changed since is given to `replaced` once and stays unread.
    """

    def __init__(
        self,
        listing: Listing,
        clock: Clock,
        poll_seconds: float,
        taken: Mapping[str, Stamp] | None = None,
        complete: Callable[[str], bool] = lambda path: True,
    ) -> None:
        self._listing = listing
        self._clock = clock
        self._poll = poll_seconds
        self._taken: dict[str, Stamp] = dict(taken or {})
        self._complete = complete
        self._unripe: dict[str, Stamp] = {}
        self._warned: set[str] = set()
        self._next_look = clock.steady()
        self.replaced: list[FileEntry] = []

    def look(self) -> list[FileEntry]:
        """Files that have become whole since the last look; nothing while the next look is not due."""
        started = self._clock.steady()
        if started < self._next_look:
            return []
        ripe, unripe = [], {}
        for entry in self._listing.find(required=False):
            if entry.split in self._taken:
                self._notice_change(entry)
            elif self._is_settled(entry) and self._is_complete(entry):
                ripe.append(entry)
            else:
                unripe[entry.split] = entry.stamp
        self._unripe = unripe
        self._taken |= {entry.split: entry.stamp for entry in ripe}
        ended = self._clock.steady()
        # Folders with very many files are looked at less often, so that looking takes at most a tenth.
        self._next_look = ended + max(self._poll, 9 * (ended - started))
        return sorted(ripe, key=lambda entry: (entry.mtime_ns, entry.split))

    @property
    def waiting(self) -> tuple[str, ...]:
        """Names of files that were seen and are not yet whole."""
        return tuple(sorted(self._unripe))

    def seconds_to_next_look(self) -> float:
        """How long `look` has nothing new to say."""
        return max(0.0, self._next_look - self._clock.steady())

    def _is_settled(self, entry: FileEntry) -> bool:
        """Nobody has written to it since the last look, or for as long as there is between two looks."""
        return entry.age(self._clock) > self._poll or self._unripe.get(entry.split) == entry.stamp

    def _is_complete(self, entry: FileEntry) -> bool:
        try:
            whole = self._complete(entry.path)
        except OSError:
            whole = False
        if not whole and entry.split not in self._warned:
            self._warned.add(entry.split)
            logger.warning("%s has stopped growing but is not complete; waiting for the rest", entry.path)
        return whole

    def _notice_change(self, entry: FileEntry) -> None:
        if self._taken[entry.split] != entry.stamp:
            self._taken[entry.split] = entry.stamp
            self.replaced.append(entry)
            logger.warning("%s was changed after it was read; the new content is not read", entry.path)


def _fixed_folder(pattern: str) -> str:
    """The folder in front of the first wildcard; of a plain file the folder it lies in."""
    path = Path(pattern)
    if path.is_dir():
        return pattern
    if path.exists() or not glob.has_magic(pattern):
        return str(path.parent)
    parts = path.parts
    first = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    return str(Path(*parts[:first]))


def _real(path: str) -> Path:
    """Where a file lies, without links on the way."""
    folder, name = os.path.split(path)
    return Path(os.path.realpath(folder), name)


def _entry(path: str, root: str) -> FileEntry | None:
    """The file at `path`, or None when it has gone since it was listed or is no regular file."""
    try:
        found = os.stat(path)  # noqa: PTH116 (a Path per file is half of the cost in large folders)
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    return FileEntry(path, path.removeprefix(root).lstrip("/"), found.st_size, found.st_mtime_ns)


def _offers(pattern: str) -> Callable[[str], bool]:
    """Whether wildcards of this pattern may stand for a name: a hidden or unfinished one is spelled out."""
    parts = pattern.split("/")
    spelled_out = tuple(part[0] for part in parts if part.startswith(HIDDEN))
    left_out = () if any(part.endswith(UNFINISHED) for part in parts) else UNFINISHED

    def offers(name: str) -> bool:
        is_hidden = name.startswith(HIDDEN) and not name.startswith(spelled_out)
        return not is_hidden and not name.endswith(left_out)

    return offers


def _nothing_found(pattern: str, suffixes: tuple[str, ...]) -> ConnectorError:
    path = Path(pattern)
    if path.is_dir():
        kinds = f" ending in {' or '.join(suffixes)}" if suffixes else ""
        return ConnectorError(
            f"Folder {pattern} holds no files{kinds}",
            user_location(),
            _holds(path) or "it is empty; with watch=True files are awaited",
        )
    missing, parent = path, path.parent
    while not parent.is_dir() and parent != parent.parent:
        missing, parent = parent, parent.parent
    what = "No file matches" if glob.has_magic(pattern) else "No such file or folder:"
    near = None if glob.has_magic(missing.name) else nearest(missing.name, _names(parent)[:10_000])
    hint = f"did you mean {str(parent / near)!r}?" if near else _holds(parent) or f"{parent} is empty"
    return ConnectorError(f"{what} {pattern}", user_location(), hint)


def _holds(folder: Path) -> str:
    """A few of the names in a folder, as a hint."""
    if not os.access(folder, os.R_OK):
        return f"what {folder} holds cannot be read"
    names = _names(folder)
    return f"{folder} holds {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}" if names else ""


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))  # noqa: PTH208
    except OSError:  # hints are all that it is for
        return []
