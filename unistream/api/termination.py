"""A termination signal ends a blocking run as an interrupt does: cleanly."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Termination:
    """What a termination signal does: raises `SystemExit` where it comes, or a little later."""

    def __init__(self) -> None:
        self._is_held = False
        self._asked: int | None = None

    @contextmanager
    def held(self) -> Iterator[None]:
        """A first signal within the body is raised at its end.

        Raised while Polars calls Python, as it does to tell types, it would be a panic.
        """
        self._is_held = True
        try:
            yield
        finally:
            self._is_held = False
        if self._asked is not None:
            raise SystemExit(128 + self._asked)

    def end(self, number: int, frame: FrameType | None) -> None:
        """The signal came."""
        if self._is_held and self._asked is None:
            self._asked = number
            return
        raise SystemExit(128 + number)


@contextmanager
def terminable() -> Iterator[Termination]:
    """Within the body SIGTERM raises `SystemExit`, unless the program handles that signal itself."""
    termination = Termination()
    unhandled = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if not unhandled or threading.current_thread() is not threading.main_thread():
        yield termination
        return
    signal.signal(signal.SIGTERM, termination.end)
    try:
        yield termination
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a second one ends the process at once
