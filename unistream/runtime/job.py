"""The life of one run: a thread, a status, an outcome, and restarts in between."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from unistream.clock import Clock
from unistream.errors import JobFailed, UnistreamError
from unistream.location import user_location
from unistream.runtime.local import LocalRuntime
from unistream.runtime.progress import Progress
from unistream.runtime.recovery import (
    NEVER,
    Attempts,
    Failure,
    RestartStrategy,
    asked_to_wait,
    worth_retrying,
)
from unistream.runtime.time_report import TimeReport

logger = logging.getLogger(__name__)

NEXT = {
    "created": {"running", "failed"},
    "running": {"stopping", "restarting", "finished", "failed"},
    "restarting": {"running", "stopping", "failed"},
    "stopping": {"stopped", "finished", "failed"},
    "finished": set[str](),
    "stopped": set[str](),
    "failed": set[str](),
}
"""The life cycle: which status may follow which."""


class Execution:
    """Runs what `make` gives in a thread of its own, and what it gives next when that failed."""

    def __init__(
        self, make: Callable[[], LocalRuntime], clock: Clock, name: str, restart: RestartStrategy = NEVER
    ) -> None:
        self._make = make
        self._runtime = make()
        self._clock = clock
        self._restart = restart
        self._status = "created"
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._over = threading.Event()
        self._error: BaseException | None = None
        self.restarts = 0
        self._thread = threading.Thread(target=self._run, name=f"unistream-{name}", daemon=True)

    def start(self) -> None:
        """Open everything in the caller's thread, so that mistakes are raised there, then run."""
        try:
            self._runtime.open()
        except BaseException as error:
            if isinstance(error, UnistreamError):
                error.located(user_location())
            self._error = error
            self._runtime.close()
            self._move("failed")
            self._over.set()
            raise
        self._move("running")
        logger.info("job started")
        try:
            self._thread.start()
        except BaseException:  # an interrupt while the thread begins: nobody else could stop it
            self.stop()
            if not self._over.wait(2) and self._thread.ident is None:  # it never began
                self._runtime.close()
                self._over.set()
            raise

    def _run(self) -> None:
        outcome = "failed"
        try:
            outcome = self._attempts()
        except BaseException as error:  # of a strategy, or of making the next runtime: somebody waits
            self._fail(error)
            self._runtime.close()
        finally:
            if outcome == "stopped":
                self._move("stopping")
            self._move(outcome)
            logger.info("job %s", outcome)
            self._over.set()

    def _attempts(self) -> str:
        """Run, and again as long as the strategy wants; what it came to."""
        attempts = self._restart.begin()
        outcome = self._attempt(opened=True)
        while outcome == "failed" and self._error is not None and worth_retrying(self._error):
            delay = self._next_delay(attempts, self._error)
            if delay is None:
                break
            logger.warning("the job failed and is restarted in %.1f s: %s", delay, self._error)
            self._move("restarting")
            if self._clock.wait(self._stopping, delay):
                break
            self.restarts += 1
            self._runtime = self._make()
            if self._stopping.is_set():  # a stop that comes later finds the new runtime
                break
            outcome = self._attempt(opened=False)
        return outcome

    def _next_delay(self, attempts: Attempts, error: BaseException) -> float | None:
        asked = asked_to_wait(error)
        progressed = self._runtime.progress(self._status).checkpoint is not None
        delay = attempts.next_delay(Failure(self._clock.steady(), asked is not None, progressed))
        return None if delay is None else max(delay, asked or 0.0)

    def _attempt(self, opened: bool) -> str:
        """Run once; what it came to, with the error kept."""
        self._error = None
        outcome = "failed"
        try:
            if not opened:
                self._runtime.open()
                self._move("running")
            outcome = "finished" if self._runtime.run() else "stopped"
        except BaseException as error:  # whatever it is, `wait` has to raise it
            self._fail(error)
        try:
            self._runtime.close()
        except Exception as error:
            logger.warning("closing the job: %s", error)
            self._error = self._error or error
            outcome = "failed"
        return outcome

    def _fail(self, error: BaseException) -> None:
        if isinstance(error, UnistreamError):
            self._error = error
            return
        self._error = JobFailed(f"The engine failed: {type(error).__name__}: {error}")
        self._error.__cause__ = error

    def _move(self, status: str) -> None:
        with self._lock:
            if status in NEXT[self._status]:
                self._status = status

    @property
    def status(self) -> str:
        """created, running, restarting, stopping, stopped, finished or failed."""
        return self._status

    @property
    def error(self) -> BaseException | None:
        """What ended it, when it failed."""
        return self._error if self._over.is_set() else None

    def progress(self) -> Progress:
        """Where it stands."""
        return self._runtime.progress(self._status)

    @property
    def runtime(self) -> LocalRuntime:
        """What runs now; another one after a restart."""
        return self._runtime

    def explain_time(self, key: object, timeout: float) -> TimeReport:
        """Why time stands where it does, and with `key` what is open for that one."""
        runtime = self._runtime
        if key is None:
            return runtime.explain_time()
        return runtime.ask(lambda: runtime.explain_time(key)).result(timeout)

    def stop(self, drain: bool = False) -> None:
        """Ask it to end after the current tick; `drain` closes what is open as if the input had ended."""
        self._move("stopping")
        self._stopping.set()
        self._runtime.stop(drain)

    def wait(self, seconds: float | None) -> bool:
        """Wait for the end; true when it came."""
        return self._over.wait(seconds)
