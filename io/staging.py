"""Files that appear whole under their final name: written hidden, made durable, renamed when committed."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from unistream.clock import fresh_random
from unistream.errors import ConnectorError, DataError, InvalidSettings, StateError
from unistream.io.base import Token, WriterContext
from unistream.io.listing import HIDDEN, HIVE_NULL
from unistream.location import user_location

Mode = Literal["error", "append", "overwrite"]

_REPLACED = ".unistream-replaced.json"
_STAGING = ".unistream-staging-"

LONGEST_NAME = 255
"""Bytes of a file name on common file systems."""


@dataclass(frozen=True, slots=True)
class StagedFolder:
    """A folder that a sink fills with files, each of which is there whole or not at all.

    A file is written under `stage(...)`, closed and synced by its writer, and named in a token by
    `token(...)`. `commit` renames what tokens name, as often as it is asked; `abort` removes what no
    commit will come for. Files being written lie in a hidden folder of the target, one for each job, so
    that renaming never leaves the file system and leftovers are found by name.

    A token says which folder it was made for: a job that goes on from a checkpoint may write to another
    one, and what the checkpoint left is committed where it lies.
    """

    folder: str
    suffix: str
    mode: Mode = "error"

    def __post_init__(self) -> None:
        if self.mode not in ("error", "append", "overwrite"):
            raise InvalidSettings.from_unknown(
                "mode", str(self.mode), ("error", "append", "overwrite"), user_location()
            )

    def prepare_target(self, restored: bool) -> None:
        """Make the folder; refuse one that holds data unless `mode` says what to do with it.

        With "overwrite" the files found now are noted and go when the first commit brings new ones.
        """
        folder = Path(self.folder)
        try:
            make_folders(folder)
            if restored or self.mode == "append":
                return
            found = sorted(self._visible(folder))
            if self.mode == "overwrite":
                if found:
                    _write_durably(folder / _REPLACED, json.dumps(found).encode())
                else:
                    (folder / _REPLACED).unlink(missing_ok=True)
                return
        except OSError as error:
            raise _not_writable(folder, error) from error
        if found:
            some = ", ".join(found[:3]) + (", ..." if len(found) > 3 else "")
            raise ConnectorError(
                f"Folder {folder} is not empty: it holds {some}",
                user_location(),
                'mode="append" adds to it, mode="overwrite" replaces it; or name another folder',
            )

    def stage(self, context: WriterContext, number: int) -> str:
        """The path of a new hidden file; `number` is the writer's own count of files."""
        staging = self._staging(context)
        try:
            make_folders(staging)
        except OSError as error:
            raise cannot_write(str(staging), error) from error
        # No run uses the name of another: in which folder the file of a token lies is never in doubt.
        return str(staging / f"{context.subtask}-{number}-{fresh_random().token()}.tmp")

    def example(self, partition: str) -> str:
        """The path of a file such as comes into the folder."""
        job = "job-" if self.mode == "append" else ""
        return str(Path(self.folder, partition, f"part-{job}0-00000001-0000{self.suffix}"))

    def replaced(self) -> list[str]:
        """Paths of the files that "overwrite" replaces."""
        folder = Path(self.folder)
        return [str(folder / name) for name in self._visible(folder)] if self.mode == "overwrite" else []

    def final_name(self, context: WriterContext, checkpoint_id: int, number: int, partition: str = "") -> str:
        """The name below the folder that file `number` of a checkpoint gets; the same after a replay."""
        job = f"{_safe(context.job_id)}-" if self.mode == "append" else ""
        name = f"part-{job}{context.subtask}-{checkpoint_id:08}-{number:04}{self.suffix}"
        return f"{partition}/{name}" if partition else name

    def token(self, files: Sequence[tuple[str, str]]) -> Token | None:
        """What commits these files (staged path, final name), which are closed and synced; None for none."""
        if not files:
            return None
        for folder in sorted({str(Path(staged).parent) for staged, _ in files}):
            try:
                sync_folder(folder)
            except OSError as error:
                raise cannot_write(folder, error) from error
        return self._token([[os.path.relpath(staged, self.folder), final] for staged, final in files])

    def emptied(self, context: WriterContext, ended: bool = True) -> Token | None:
        """What commits that a bounded job has no rows: with "overwrite" the old ones go all the same.

        With checkpoints only when it has `ended`: rows may still come.
        """
        alone = context.subtask == 0 and context.bounded and (ended or not context.checkpoints)
        return self._token([]) if alone and self.mode == "overwrite" else None

    def commit(self, tokens: Sequence[Token]) -> None:
        """Rename what the tokens name; a file that has its final name already is left as it is.

        The staging folder stays, empty or not: a writer may be about to open its next file there.
        """
        homes: dict[StagedFolder, list[Token]] = {}
        for token in tokens:
            homes.setdefault(self._home(token), []).append(token)
        for home, its in homes.items():
            try:
                home._commit(its)
            except OSError as error:
                raise _not_writable(Path(home.folder), error) from error

    def recover(self, tokens: Sequence[Token], context: WriterContext) -> None:
        """Commit the tokens of a restored checkpoint again and remove what was staged after it."""
        homes = {self, *map(self._home, tokens)}
        self.commit(tokens)
        for home in homes:
            home.abort(context)

    def leave(self, context: WriterContext) -> None:
        """Called by a writer that is closed: what is prepared stays, an empty staging folder does not."""
        _remove_if_empty(self._staging(context))

    def abort(self, context: WriterContext) -> None:
        """Remove every staged file of this job; called when none of its writers is open."""
        staging = self._staging(context)
        if staging.is_dir():
            for name in os.listdir(staging):  # noqa: PTH208
                (staging / name).unlink(missing_ok=True)
            _remove_if_empty(staging)
        if self.mode == "overwrite" and not context.checkpoints:  # nobody goes on from here
            Path(self.folder, _REPLACED).unlink(missing_ok=True)

    def _staging(self, context: WriterContext) -> Path:
        return Path(self.folder, _STAGING + _safe(context.job_id))

    def _token(self, files: list[list[str]]) -> Token:
        return {"files": files, "folder": self.folder, "mode": self.mode}

    def _home(self, token: Token) -> StagedFolder:
        """The folder a token is committed in: this one, or that of a program that wrote somewhere else.

        This one also when the folder was moved or copied: then the files are here.
        """
        named = token.get("folder", self.folder)  # older versions did not name it
        if named == self.folder:
            return self
        other = replace(self, folder=named, mode=token["mode"])
        staged, final = ([pair[which] for pair in token["files"]] for which in (0, 1))
        # Final names first of all where they were to be: here a foreign file may have the same.
        for home, names in ((self, staged), (other, staged), (other, final), (self, final)):
            if any(home._inside(name).exists() for name in names):
                return home
        if token["files"]:
            raise StateError(
                f"What a checkpoint left is neither in {named}, where it was written, nor in {self.folder}",
                hint="bring that folder back, or restore an earlier checkpoint and write to a new folder",
            )
        return other if Path(named).is_dir() else self

    def _commit(self, tokens: Sequence[Token]) -> None:
        files = [(staged, final) for token in tokens for staged, final in token["files"]]
        replaced = self._replaced()
        touched = {self._commit_file(staged, final, replaced) for staged, final in files}
        for folder in sorted(filter(None, touched)):
            sync_folder(folder)
        if replaced:
            self._remove_replaced(replaced - {final for _, final in files})

    def _commit_file(self, staged: str, final: str, replaced: set[str]) -> str | None:
        """The folder that got the file, or None when it was there already."""
        if not staged.startswith(_STAGING):
            raise StateError(f"A checkpoint names {staged!r}, which is no staged file of {self.folder}")
        source, target = self._inside(staged), self._inside(final)
        if not source.exists():
            if target.exists():
                return None
            raise StateError(
                f"The staged file {source} is gone and {target} does not exist",
                hint="rows of a checkpoint are lost; restore an earlier one and write to a new folder",
            )
        if target.exists() and final not in replaced:
            raise ConnectorError(f"{target} exists already", hint="let each job write to a folder of its own")
        make_folders(target.parent)
        source.replace(target)
        return str(target.parent)

    def _inside(self, name: str) -> Path:
        """A path below the folder; names come from checkpoints and are not trusted."""
        if name.startswith("/") or ".." in name.split("/"):
            raise StateError(f"A checkpoint names {name!r}, which is not below {self.folder}")
        return Path(self.folder, name)

    def _visible(self, folder: Path) -> Iterator[str]:
        """Names below the folder of all files in it, without hidden ones."""
        for parent, folders, names in os.walk(folder):
            folders[:] = [name for name in folders if not name.startswith(HIDDEN)]
            for name in names:
                if not name.startswith(HIDDEN):
                    yield os.path.relpath(os.path.join(parent, name), folder)  # noqa: PTH118

    def _replaced(self) -> set[str]:
        """Files that "overwrite" found before the first row and no commit has replaced yet."""
        note = Path(self.folder, _REPLACED)
        return set(json.loads(note.read_text())) if self.mode == "overwrite" and note.exists() else set()

    def _remove_replaced(self, names: Iterable[str]) -> None:
        folders = set()
        for name in names:
            path = self._inside(name)
            path.unlink(missing_ok=True)
            folders.add(path.parent)
        for folder in sorted(folders, key=lambda path: -len(path.parts)):
            while folder != Path(self.folder) and _remove_if_empty(folder):
                folder = folder.parent
        Path(self.folder, _REPLACED).unlink(missing_ok=True)
        sync_folder(self.folder)


def partition_folder(values: Mapping[str, str | None]) -> str:
    """The Hive folders for these values: every character that means something to a path is escaped.

    >>> partition_folder({"day": "2024-01-01", "city": "../a=b", "zone": None})
    'day=2024-01-01/city=..%2Fa%3Db/zone=__HIVE_DEFAULT_PARTITION__'
    """
    return "/".join(_folder(key, value) for key, value in values.items())


def sync_file(file: Any) -> None:
    """Bring what was written to an open file to the disk."""
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Make names that were added to or removed from a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folders(folder: Path, mode: int = 0o777) -> None:
    """Make a folder, with these rights, and what is missing above it; durably."""
    if folder.is_dir():
        return
    make_folders(folder.parent)
    folder.mkdir(mode, exist_ok=True)
    sync_folder(folder.parent)


def cannot_write(what: str, error: OSError) -> ConnectorError:
    """What a writer of files raises: a job with checkpoints tries again, there may be room by then."""
    return ConnectorError(
        f"Cannot write {what}: {error}", hint="free space on that disk, if it is full", retry_after=1.0
    )


def _folder(key: str, value: str | None) -> str:
    name = quote(key, safe="")
    if name.startswith(HIDDEN):  # nobody would look into it
        name = f"%{ord(name[0]):02X}{name[1:]}"
    folder = f"{name}={_escaped(value)}"
    if len(folder) > LONGEST_NAME:
        raise DataError(
            f"A value of {key!r} makes a folder name of {len(folder)} bytes; {LONGEST_NAME} is the most",
            hint="partition by something shorter, such as its first letters or a hash of it",
        )
    return folder


def _escaped(value: str | None) -> str:
    if value is None:
        return HIVE_NULL
    if value == HIVE_NULL:
        return "%5F" + value[1:]
    return quote(value, safe=" ")


def _safe(job_id: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "_", job_id)


def _remove_if_empty(folder: Path) -> bool:
    try:
        folder.rmdir()
    except OSError:
        return False
    return True


def _write_durably(path: Path, content: bytes) -> None:
    hidden = path.with_name(path.name + ".tmp")
    with hidden.open("wb") as file:
        file.write(content)
        sync_file(file)
    hidden.replace(path)
    sync_folder(path.parent)


def _not_writable(folder: Path, error: OSError) -> ConnectorError:
    hint, retry_after = "name a folder that can be made or written to", None
    if isinstance(error, (FileExistsError, NotADirectoryError)):
        hint = f"{error.filename} is a file: a sink writes several files into a folder; name another one"
    elif isinstance(error, PermissionError):
        hint = "give this process the right to write there, or name another folder"
    else:
        retry_after = 1.0  # such as a disk that is full for a moment
    return ConnectorError(
        f"Cannot write to folder {folder}: {error.strerror or error}", user_location(), hint, retry_after
    )
