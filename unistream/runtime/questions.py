"""What other threads want to know of a running job: answered between two ticks, by the job's own thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from threading import Lock
from typing import TypeVar

from unistream.errors import StateError

T = TypeVar("T")


class Questions:
    """A queue of functions; between ticks nothing changes, so each sees one moment of the job."""

    def __init__(self) -> None:
        self._asked: deque[tuple[Callable[[], object], Future[object]]] = deque()
        self._lock = Lock()
        self._over = False

    def ask(self, function: Callable[[], T]) -> Future[T]:
        """Have `function` called before the next tick; the future fails when there is none."""
        answer: Future[T] = Future()
        with self._lock:
            if self._over:
                answer.set_exception(over())
            else:
                self._asked.append((function, answer))  # type: ignore[arg-type]
        return answer

    def answer(self) -> None:
        """Called between ticks."""
        while self._asked:
            function, answer = self._asked.popleft()
            try:
                answer.set_result(function())
            except Exception as error:  # it is for whoever asked, not for the job
                answer.set_exception(error)

    def close(self) -> None:
        """There is no further tick."""
        with self._lock:
            self._over = True
        while self._asked:
            self._asked.popleft()[1].set_exception(over())


def over() -> StateError:
    """What a question to a job gets that does not run any more."""
    return StateError(
        "The job does not run any more, or is just being restarted",
        hint="ask again when its status is 'running'; us.read_state(checkpoint, ...) reads what it kept",
    )
