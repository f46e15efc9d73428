"""Named places where a test can have the engine die, as if the process had been killed there."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

POINTS: dict[str, str] = {
    "tick": "one round through all tasks",
    "source.take": "rows are taken from a reader",
    "operator.process": "an operator gets rows",
    "operator.watermark": "an operator is told the time",
    "operator.timer": "an operator is woken at a time of the clock",
    "operator.finish": "an operator is told that nothing follows",
    "sink.write": "a writer gets rows",
    "sink.prepare": "a writer makes its rows durable",
    "sink.commit": "a sink makes prepared rows visible",
    "ownership.claim": "the claim to own a checkpoint directory is written",
    "ownership.close": "the id that a former owner would use next is closed",
    "checkpoint.snapshot": "writers prepare and the content of all tables is fixed",
    "checkpoint.upload": "the new files of a checkpoint are stored",
    "checkpoint.publish": "a manifest gets its name: the checkpoint exists from here",
    "checkpoint.newest": "the newest checkpoint is noted",
    "checkpoint.clean.manifests": "the manifests of old checkpoints are removed",
    "checkpoint.clean.files": "some files that nobody names are removed",
    "storage.make_folder": "a folder is made and its name synced",
    "storage.put": "a file is stored",
    "storage.write": "the bytes of a small file are written and synced, under no name yet",
    "storage.link": "a small file gets its name, once",
    "storage.rename": "a small file replaces the one before",
    "storage.sync_folder": "the names in a folder are synced",
    "storage.delete": "a file is removed",
}
"""All places by name; a part of the engine that adds one adds its line here."""

Listener = Callable[[str, bool], None]
"""Called with the name of a point and whether its step is still to be done."""


class Crashed(BaseException):
    """The process died here, as far as the test is concerned.

    Not an `Exception`, so that nothing on the way handles it as a failure and tidies up.
    """

    def __init__(self, point: str) -> None:
        super().__init__(point)
        self.point = point


class _Step:
    """Tells the listener before and after the body; after it only when the body came to its end."""

    __slots__ = ("_listener", "_name")

    def __init__(self, name: str, listener: Listener) -> None:
        self._name = name
        self._listener = listener

    def __enter__(self) -> None:
        self._listener(self._name, True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._listener(self._name, False)


class _Nothing:
    """What a point is in production."""

    __slots__ = ()

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


_NOTHING = _Nothing()
_listener: Listener | None = None


def point(name: str) -> _Step | _Nothing:
    """Wraps a step of a protocol, as in `with point("sink.commit"): ...`; nothing unless a test listens."""
    if _listener is None:
        return _NOTHING
    if name not in POINTS:
        raise KeyError(f"point {name!r} is not listed in unistream.faults.POINTS")
    return _Step(name, _listener)


def listen(listener: Listener | None) -> Listener | None:
    """Have every point of this process call `listener` from now on; returns the one before."""
    global _listener
    before, _listener = _listener, listener
    return before
