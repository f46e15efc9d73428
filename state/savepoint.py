"""A checkpoint copied to a place of its own, which the user keeps."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from unistream.clock import Clock
from unistream.errors import StateError
from unistream.state.checkpoint_reader import NEWEST, check_content
from unistream.state.manifest import FileEntry, Manifest, Newest, SubtaskState, seal
from unistream.state.ownership import checkpoint_name, sequence
from unistream.state.storage import Storage
from unistream.state.uploads import local_digest


def copy_checkpoint(
    source: Storage, manifest: Manifest, target: Storage, clock: Clock, extra: Mapping[str, Any]
) -> Manifest:
    """Copy a checkpoint with all its files, verified on the way; it exists in `target` once it is complete.

    The copy is a checkpoint directory with one entry of kind savepoint, readable like any other.
    """
    if sequence(target):
        raise StateError(
            f"{target.url} holds checkpoints already", hint="give each savepoint a directory of its own"
        )
    done: set[str] = set()
    states = []
    for state in manifest.states:
        files = tuple(msgspec.structs.replace(entry, epoch=0) for entry in state.files)
        for entry, copy in zip(state.files, files, strict=True):
            if copy.stored_name not in done:
                _copy_file(source, manifest, entry, target, copy)
                done.add(copy.stored_name)
        states.append(SubtaskState(subtask=state.subtask, files=files, tables=state.tables))
    savepoint = msgspec.structs.replace(
        manifest,
        kind="savepoint",
        states=tuple(states),
        epoch=0,
        parent=None,
        created=clock.now(),
        extra={**manifest.extra, **extra},
    )
    data = seal(savepoint)
    target.publish(checkpoint_name(savepoint.id), data)
    target.replace(NEWEST, seal(Newest(id=savepoint.id, sha256=hashlib.sha256(data).hexdigest())))
    return savepoint


def _copy_file(
    source: Storage, manifest: Manifest, entry: FileEntry, target: Storage, copy: FileEntry
) -> None:
    with tempfile.TemporaryDirectory(prefix="unistream-savepoint-") as folder:
        local = Path(folder) / entry.name
        source.fetch(entry.stored_name, local)
        check_content(source.url, manifest, entry, *local_digest(local))
        target.put({copy.stored_name: local}, link=False)
