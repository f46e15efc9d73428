"""The life of one run: a thread, a status, an outcome."""

from __future__ import annotations

import logging
import threading

from unistream.errors import JobFailed, UnistreamError
from unistream.runtime.local import LocalRuntime
from unistream.runtime.progress import Progress

logger = logging.getLogger(__name__)

NEXT = {
    "created": {"running", "failed"},
    "running": {"stopping", "finished", "failed"},
    "stopping": {"stopped", "finished", "failed"},
    "finished": set[str](),
    "stopped": set[str](),
    "failed": set[str](),
}
"""The life cycle: which status may follow which."""


class Execution:
    """Runs a `LocalRuntime` in a thread of its own."""

    def __init__(self, runtime: LocalRuntime, name: str) -> None:
        self._runtime = runtime
        self._status = "created"
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=f"unistream-{name}", daemon=True)

    def start(self) -> None:
        """Open everything in the caller's thread, so that mistakes are raised there, then run."""
        try:
            self._runtime.open()
        except BaseException as error:
            self._move("failed")
            self._error = error
            self._over.set()
            self._runtime.close()
            raise
        self._move("running")
        logger.info("job started")
        self._thread.start()

    def _run(self) -> None:
        outcome = "failed"
        try:
            outcome = "finished" if self._runtime.run() else "stopped"
        except UnistreamError as error:
            self._error = error
        except BaseException as error:
            self._error = JobFailed(f"The engine failed: {type(error).__name__}: {error}")
            self._error.__cause__ = error
        finally:
            try:
                self._runtime.close()
            except Exception as error:
                logger.warning("closing the job: %s", error)
                self._error = self._error or error
                outcome = "failed"
            if outcome == "stopped":
                self._move("stopping")
            self._move(outcome)
            logger.info("job %s", outcome)
            self._over.set()

    def _move(self, status: str) -> None:
        with self._lock:
            if status in NEXT[self._status]:
                self._status = status

    @property
    def status(self) -> str:
        """created, running, stopping, stopped, finished or failed."""
        return self._status

    @property
    def error(self) -> BaseException | None:
        """What ended it, when it failed."""
        return self._error if self._over.is_set() else None

    def progress(self) -> Progress:
        """Where it stands."""
        return self._runtime.progress(self._status)

    def stop(self) -> None:
        """Ask it to end after the current tick."""
        self._move("stopping")
        self._runtime.stop()

    def wait(self, seconds: float | None) -> bool:
        """Wait for the end; true when it came."""
        return self._over.wait(seconds)
