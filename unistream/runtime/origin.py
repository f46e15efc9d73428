"""Which checkpoint a run begins with: the newest of its directory, or the one that was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unistream.errors import StateError
from unistream.state.checkpoint_store import CheckpointStore
from unistream.state.manifest import Manifest, SinkToken
from unistream.state.storage import storage_for

RESTORED = "restored"
"""Key of `Manifest.extra`: what the run was asked to begin from. All its checkpoints carry it."""

COMMITTED = "committed"
"""Key of `Manifest.extra`: the tokens were committed before this copy was made, and need not be again."""


@dataclass(frozen=True, slots=True)
class Origin:
    """A checkpoint, the directory it lies in, and what the checkpoints that follow say of it.

    Asked for a checkpoint by its id, a run goes back to it; asked for another directory (a savepoint), it
    begins from the newest one there. Either happens once: when the newest checkpoint of its own directory
    comes from such a run already, a restart with the same arguments goes on from that one.
    """

    manifest: Manifest | None
    store: CheckpointStore
    extra: dict[str, Any] = field(default_factory=dict)
    older: bool = False
    """Whether it is followed by another of its directory, which began when this one was committed."""

    @classmethod
    def of(cls, own: CheckpointStore, restore: int | str | Path | None) -> Origin:
        """Choose. Raises `StateError` when what was asked for is not there, or would hide something newer."""
        if restore is None:
            newest = own.newest()
            return cls(newest, own, _kept(newest))
        extra = {RESTORED: restore if isinstance(restore, int) else storage_for(restore).url}
        newest = _newest_of(own, damaged_is_well=isinstance(restore, int))
        if newest is not None and _kept(newest) == extra:
            return cls(newest, own, extra)
        if isinstance(restore, int):
            older = newest is not None and restore < newest.id
            return cls(own.load(restore), own, extra, older)
        if newest is not None:
            raise StateError(
                f"{own.storage.url} holds checkpoints already, so the job cannot begin from {restore}",
                hint="use a new checkpoint directory, or leave restore= out to go on from the newest one",
            )
        return cls(_savepoint(restore), CheckpointStore(storage_for(restore)), extra)

    @property
    def tokens(self) -> Sequence[SinkToken]:
        """What may still have to be committed."""
        if self.manifest is None or self.older or self.manifest.extra.get(COMMITTED):
            return ()
        return self.manifest.tokens


def _newest_of(own: CheckpointStore, damaged_is_well: bool) -> Manifest | None:
    try:
        return own.newest()
    except StateError:
        if not damaged_is_well:
            raise
        return None  # going back by id is the way out of a damaged newest one


def _savepoint(place: str | Path) -> Manifest:
    store = CheckpointStore(storage_for(place))
    found = store.newest()
    if found is None:
        raise StateError(
            f"There is no savepoint in {place}",
            hint="restore= takes a checkpoint's id or a savepoint's folder",
        )
    return found


def _kept(manifest: Manifest | None) -> dict[str, Any]:
    known = {} if manifest is None else manifest.extra
    return {RESTORED: known[RESTORED]} if RESTORED in known else {}
