"""Rows on their way into a table: kept durably until their checkpoint is complete, then as what to change."""

from __future__ import annotations

import base64
import hashlib
import io
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from unistream.errors import ConnectorError, StateError
from unistream.expressions.schema import CHANGE, Change, Changes
from unistream.io.staging import make_folders, sync_file, sync_folder

INLINE_BYTES = 32 << 10
"""Rows up to this size travel in the token itself."""

COMING = [Change.INSERT.value, Change.UPDATE_AFTER.value]


@dataclass(frozen=True, slots=True)
class StagedRows:
    """A folder for the rows of one subtask that were prepared and not yet committed."""

    folder: Path

    def keep(self, frames: Sequence[pl.DataFrame], name: str) -> dict[str, Any]:
        """Make these rows durable and say in JSON where they are; `name` is unique for the subtask."""
        content = _encoded(frames)
        digest = hashlib.sha256(content).hexdigest()
        if len(content) <= INLINE_BYTES:
            return {"inline": base64.b64encode(content).decode(), "sha256": digest}
        path = self.folder / f"{name}.arrow"
        try:
            make_folders(path.parent, mode=0o700)
            with path.open("wb") as file:
                file.write(content)
                sync_file(file)
        except OSError as error:
            raise ConnectorError(
                f"Rows for a table cannot be staged in {self.folder}: {error}",
                hint="free space there, or name another folder: staging=...",
                retry_after=1.0,
            ) from error
        return {"file": str(path), "sha256": digest}

    def sync(self) -> None:
        """Make the names of what was kept durable."""
        if self.folder.is_dir():
            sync_folder(self.folder)
            sync_folder(self.folder.parent)

    def clear(self) -> None:
        """Remove everything that lies there."""
        shutil.rmtree(self.folder, ignore_errors=True)
        _remove_if_empty(self.folder.parent)


def staged_folder(base: Path, job_id: str, subtask: int) -> Path:
    """Where a subtask of a job keeps its rows: never outside of `base`."""
    return base / f"{re.sub(r'[^A-Za-z0-9_-]', '_', job_id)}-{subtask}"


def moved_to(folder: Path, place: dict[str, Any]) -> dict[str, Any]:
    """The same rows, in this folder if their file is there."""
    if "file" not in place:
        return place
    here = folder / Path(place["file"]).name
    return place | {"file": str(here)} if here.exists() else place


def staged_rows(place: dict[str, Any]) -> pl.DataFrame:
    """The rows that `keep` described, verified."""
    if "inline" in place:
        content, where = base64.b64decode(place["inline"]), "a checkpoint"
    else:
        where = place["file"]
        try:
            content = Path(where).read_bytes()
        except OSError as error:
            raise StateError(
                f"The staged rows {where} cannot be read: {error}",
                hint="rows of a checkpoint are lost; put the file back or restore an older checkpoint",
            ) from error
    if hashlib.sha256(content).hexdigest() != place["sha256"]:
        raise StateError(
            f"The staged rows in {where} are damaged: they do not have the recorded hash",
            hint="put the file back from a copy, or restore an older checkpoint into a new table",
        )
    return pl.read_ipc_stream(io.BytesIO(content))


def forget(place: dict[str, Any]) -> None:
    """The rows are in the table: their file can go."""
    if "file" in place:
        path = Path(place["file"])
        path.unlink(missing_ok=True)
        for folder in (path.parent, path.parent.parent):
            _remove_if_empty(folder)


def pieces_by_key(
    read: Callable[[], Iterable[pl.DataFrame]], pieces: int, key: Sequence[str]
) -> Iterator[pl.DataFrame]:
    """The same rows in as many pieces, all rows of a key in one of them, where they undo each other.

    All pieces are read anew for each one that is made: in memory are about as many rows as one holds.
    """
    if pieces == 1:
        yield from read()
        return
    for number in range(pieces):
        yield pl.concat(rows.filter(rows.select(key).hash_rows() % pieces == number) for rows in read())


def changes_by_key(
    frame: pl.DataFrame, key: Sequence[str], changes: Changes
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """What is to happen to a table with this key: rows to delete, then rows to put, each key once.

    Of plain rows and upserts the last one of a key counts. Retractions come in pairs: those that undo each
    other meet first, in whatever order they are, and of what is left rows that come count before those
    that go.

    >>> rows = pl.DataFrame({"k": [1, 1, 2], "v": [5, 6, 7], CHANGE: [0, 2, 3]})
    >>> gone, put = changes_by_key(rows, ["k"], Changes.UPSERT)
    >>> gone["k"].to_list(), put.rows()
    ([2], [(1, 6)])
    """
    if changes is Changes.APPEND:
        return frame.clear(), frame.unique(subset=list(key), keep="last", maintain_order=True)
    if changes is Changes.RETRACT:
        frame = _net(frame)
    last = frame.unique(subset=list(key), keep="last", maintain_order=True)
    comes = last[CHANGE].is_in(COMING)
    return last.filter(~comes).drop(CHANGE), last.filter(comes).drop(CHANGE)


def _net(frame: pl.DataFrame) -> pl.DataFrame:
    """One row for each that comes or goes more often than it does the opposite; those that come last."""
    columns = [name for name in frame.columns if name != CHANGE]
    sign = pl.when(pl.col(CHANGE).is_in(COMING)).then(1).otherwise(-1).alias(CHANGE)
    sums = frame.group_by(columns, maintain_order=True).agg(sign.sum()).filter(pl.col(CHANGE) != 0)
    marked = pl.when(pl.col(CHANGE) > 0).then(Change.INSERT.value).otherwise(Change.DELETE.value)
    return sums.sort(CHANGE, maintain_order=True).with_columns(marked.alias(CHANGE))


def _encoded(frames: Sequence[pl.DataFrame]) -> bytes:
    buffer = io.BytesIO()
    pl.concat(frames).rechunk().clone().write_ipc_stream(buffer, compression="lz4")
    return buffer.getvalue()


def _remove_if_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        return
