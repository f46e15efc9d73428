"""What a checkpoint is made of, as one self-checked JSON file: a flipped bit anywhere in it is noticed.

On disk: `{"format":1,"sha256":"<hex>","body":<the record as JSON>}` and a line feed, byte for byte in this
form. The hash covers the version and the body, so a newer format is told apart from a damaged one.
"""

from __future__ import annotations

import hashlib
import re
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from unistream.errors import StateError

FORMAT_VERSION = 1
"""Version of the files `checkpoints/*`, `owners/*` and `newest.json`."""

_HEAD = re.compile(rb'\{"format":([1-9][0-9]{0,8}),"sha256":"([0-9a-f]{64})","body":')
_STORED_FILE = re.compile(r"files/[0-9a-f]{64}-([0-9]{1,18})", re.ASCII)
_TAIL = b"}\n"
_DAMAGE_HINT = "put the file back from a copy, or restore an older checkpoint by its id"

Count = Annotated[int, msgspec.Meta(ge=0)]
Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
LogicalName = Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=200)]


class FileEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file of a subtask: `name` is how its tables speak of it, the rest where it lies and what it is."""

    name: LogicalName
    length: Count
    sha256: Sha256
    epoch: Count

    @property
    def stored_name(self) -> str:
        """Where it lies in the directory: by content, and by the owner that put it there."""
        return f"files/{self.sha256}-{self.epoch}"


def file_epoch(stored_name: str) -> int | None:
    """The epoch in a stored name; None when it is not the name of a file of a checkpoint."""
    match = _STORED_FILE.fullmatch(stored_name)
    return int(match[1]) if match else None


class SubtaskState(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The state of one subtask: `tables` tells how to read its files."""

    subtask: Count = 0
    files: tuple[FileEntry, ...] = ()
    tables: dict[str, Any] = {}


class SinkToken(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What commits the rows a writer has prepared."""

    vertex: str
    subtask: Count = 0
    token: Any


class Manifest(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="manifest", tag_field="record"
):
    """A consistent cut of a job. Positions and watermarks are by vertex, then by split.

    `program` and `settings` are fingerprints. What follows `extra` is set by
    `CheckpointStore.publish`: `parent` is the checkpoint it followed, or was restored from. Times are
    microseconds since 1970, UTC.
    """

    id: Count
    kind: Literal["checkpoint", "savepoint"] = "checkpoint"
    states: tuple[SubtaskState, ...] = ()
    positions: dict[str, dict[str, Any]] = {}
    watermarks: dict[str, dict[str, int | None]] = {}
    tokens: tuple[SinkToken, ...] = ()
    key_groups: Count = 0
    program: str = ""
    settings: str = ""
    engine: str = ""
    extra: dict[str, Any] = {}
    epoch: Count = 0
    job_id: str = ""
    created: int = 0
    parent: int | None = None

    @property
    def files(self) -> tuple[FileEntry, ...]:
        """The files of all subtasks."""
        return tuple(entry for state in self.states for entry in state.files)

    @property
    def stored_names(self) -> frozenset[str]:
        """Where its files lie; a content that several subtasks have lies there once."""
        return frozenset(entry.stored_name for entry in self.files)


class Gap(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="gap", tag_field="record"
):
    """An id that will never be a checkpoint: given up by its owner, or closed by the next one."""

    id: Count
    epoch: Count
    closed_by_next: bool


class Newest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The checkpoint that was newest when this was written, so that its loss is noticed."""

    id: Count
    sha256: Sha256


Record = TypeVar("Record")


def seal(record: msgspec.Struct) -> bytes:
    """The bytes of a self-checked file."""
    body = msgspec.json.encode(record)
    version = b"%d" % FORMAT_VERSION
    return b'{"format":%b,"sha256":"%b","body":%b}\n' % (version, _digest(version, body).encode(), body)


def unseal(data: bytes, kind: type[Record] | Any, where: str) -> Record:
    """The record in these bytes; `where` is the file they come from. Raises `StateError`."""
    head = _HEAD.match(data)
    if head is None or not data.endswith(_TAIL):
        raise _damaged(where, "it does not have the form of a checkpoint file")
    version, digest = head.groups()
    body = data[head.end() : -len(_TAIL)]
    if _digest(version, body) != digest.decode():
        raise _damaged(where, "its content does not have the hash it names")
    if int(version) != FORMAT_VERSION:
        raise StateError(
            f"{where} has format {int(version)}; this version of unistream reads {FORMAT_VERSION}",
            hint="restore it with the version of unistream that wrote it, or a newer one",
        )
    try:
        record: Record = msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, RecursionError) as error:
        raise _damaged(where, str(error)) from error
    return record


def decode_checkpoint(data: bytes, id: int, where: str) -> Manifest | Gap:
    """The record of a file of `checkpoints/`, which must be the one its name says."""
    record: Manifest | Gap = unseal(data, Manifest | Gap, where)
    if record.id != id:
        raise _damaged(where, f"it is the file of checkpoint {record.id}")
    if isinstance(record, Manifest):
        check_names(record, where)
    return record


def check_names(manifest: Manifest, where: str) -> None:
    """A logical name may mean one file of a subtask only, and a subtask may be there once."""
    subtasks = [state.subtask for state in manifest.states]
    if len(set(subtasks)) != len(subtasks):
        raise _damaged(where, "it has the same subtask twice")
    for state in manifest.states:
        names = [entry.name for entry in state.files]
        if len(set(names)) != len(names):
            raise _damaged(where, f"subtask {state.subtask} has two files of the same name")


def _digest(version: bytes, body: bytes) -> str:
    return hashlib.sha256(version + b"\n" + body).hexdigest()


def _damaged(where: str, what: str) -> StateError:
    return StateError(f"{where} is damaged: {what}", hint=_DAMAGE_HINT)
