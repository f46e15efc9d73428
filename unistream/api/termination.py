"""A termination signal ends a blocking run as an interrupt does: cleanly."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Any

UNHANDLED: dict[int, Any] = {
    signal.SIGTERM: signal.SIG_DFL,
    signal.SIGINT: signal.default_int_handler,
}
"""What is done at a signal that the program does not handle itself."""


class Termination:
    """What an interrupt and a termination signal do: raise where they come, or a little later."""

    def __init__(self) -> None:
        self._is_held = False
        self._asked: int | None = None

    @contextmanager
    def held(self) -> Iterator[None]:
        """A first signal within the body is raised at its end, a second one at once.

        Raised while Polars calls Python, as it does to tell types, it would be a panic.
        """
        self._is_held = True
        try:
            yield
        finally:
            self._is_held = False
        if self._asked is not None:
            raise _raised_by(self._asked)

    def end(self, number: int, frame: FrameType | None) -> None:
        """The signal came."""
        if self._is_held and self._asked is None:
            self._asked = number
            return
        raise _raised_by(number)


def _raised_by(number: int) -> BaseException:
    return KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number)


@contextmanager
def terminable() -> Iterator[Termination]:
    """Within the body SIGTERM raises `SystemExit`, unless the program handles that signal itself.

    An interrupt raises `KeyboardInterrupt` as ever, and may be held as well.
    """
    termination = Termination()
    is_main = threading.current_thread() is threading.main_thread()
    with ExitStack() as at_end:
        for number, unhandled in UNHANDLED.items():
            if is_main and signal.getsignal(number) is unhandled:
                signal.signal(number, termination.end)
                at_end.callback(signal.signal, number, unhandled)
        yield termination
