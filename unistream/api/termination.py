"""A termination signal ends a blocking run as an interrupt does: cleanly."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def terminable() -> Iterator[None]:
    """Within the body SIGTERM raises `SystemExit`, unless the program handles that signal itself."""
    unhandled = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if not unhandled or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGTERM, _end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a second one ends the process at once


def _end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
