"""Checks every byte of a checkpoint directory and says what is wrong, all of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import polars as pl

from unistream.errors import UnistreamError
from unistream.state.checkpoint_reader import NEWEST, CheckpointReader, check_content
from unistream.state.manifest import FileEntry, Manifest
from unistream.state.ownership import CHECKPOINTS, checkpoint_name, owners, read_owner, sequence
from unistream.state.storage import Storage
from unistream.state.uploads import digest

_SCHEMA = pl.Schema({"name": pl.String, "problem": pl.String})


@dataclass(frozen=True, slots=True)
class Problem:
    """Something damaged or missing: the stored name and what is wrong with it."""

    name: str
    what: str


@dataclass(frozen=True, slots=True)
class Report:
    """What was checked, what is wrong, and what lies there without being part of a checkpoint.

    Strays are harmless: an upload that was interrupted leaves some, and the next owner removes them.
    """

    checkpoints: tuple[int, ...]
    files: int
    nbytes: int
    problems: tuple[Problem, ...]
    strays: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether everything that was checked can be restored."""
        return not self.problems

    def frame(self) -> pl.DataFrame:
        """The problems as rows."""
        return pl.DataFrame(
            {"name": [item.name for item in self.problems], "problem": [item.what for item in self.problems]},
            schema=_SCHEMA,
        )


def verify(storage: Storage | str | Path, id: int | None = None) -> Report:
    """Read all bytes of one checkpoint, or of all, and compare them with what was recorded.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     verify(folder).ok
    True
    """
    return _Verification(CheckpointReader(storage)).run(id)


class _Verification:
    """One pass over a directory; a file that several checkpoints share is read once."""

    def __init__(self, reader: CheckpointReader) -> None:
        self._reader = reader
        self._storage = reader.storage
        self._problems: dict[str, Problem] = {}
        self._checked: set[str] = set()
        self._nbytes = 0
        self._names = {item.name for item in self._storage.list(CHECKPOINTS)}
        self._newest_epoch = 0

    def run(self, id: int | None) -> Report:
        """Check one checkpoint or all."""
        if id is not None:
            self._check(checkpoint_name(id), lambda: self._check_files(self._reader.load(id)))
            return self._report((id,), ())
        present = sequence(self._storage)
        manifests = [manifest for number in present if (manifest := self._load(number)) is not None]
        for manifest in manifests:
            self._check_files(manifest)
        if not self._problems:
            self._check(NEWEST, self._reader.newest)
        for name in owners(self._storage):
            self._check(name, partial(read_owner, self._storage, name))
        return self._report(tuple(manifest.id for manifest in manifests), self._strays(present))

    def _load(self, id: int) -> Manifest | None:
        found: list[Manifest] = []

        def load() -> None:
            record = self._reader.record(id)
            if isinstance(record, Manifest):
                found.append(record)
            if record.epoch < self._newest_epoch:
                self._problem(checkpoint_name(id), "a former owner wrote it after a newer one came")
            self._newest_epoch = max(record.epoch, self._newest_epoch)

        self._check(checkpoint_name(id), load)
        return found[0] if found else None

    def _check_files(self, manifest: Manifest) -> None:
        for entry in manifest.files:
            if entry.stored_name not in self._checked:
                self._checked.add(entry.stored_name)
                self._check(entry.stored_name, partial(self._check_file, manifest, entry))

    def _check_file(self, manifest: Manifest, entry: FileEntry) -> None:
        sha256, length = digest(self._storage.chunks(entry.stored_name))
        self._nbytes += length
        check_content(self._storage.url, manifest, entry, sha256, length)

    def _check(self, name: str, step: Callable[[], object]) -> None:
        try:
            step()
        except UnistreamError as error:
            self._problem(name, error.message)

    def _problem(self, name: str, what: str) -> None:
        self._problems.setdefault(name, Problem(name, what))

    def _strays(self, present: list[int]) -> tuple[str, ...]:
        known = {checkpoint_name(number) for number in present} | self._checked
        lying = self._names | {item.name for item in self._storage.list("files")}
        return tuple(sorted(lying - known))

    def _report(self, checkpoints: tuple[int, ...], strays: tuple[str, ...]) -> Report:
        return Report(checkpoints, len(self._checked), self._nbytes, tuple(self._problems.values()), strays)
