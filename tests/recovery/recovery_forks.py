"""Processes that can be killed and cost little to start: forked from one that has imported everything."""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
_DIE_WITH_PARENT = 1
_QUIET = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "2"}
_IMPORTS = (
    "unistream.runtime.checkpoint",
    "unistream.io.parquet_reader",
    "unistream.io.parquet_writer",
    "unistream.operators.accumulators",
    "unistream.operators.pane_merger",
    "unistream.operators.window_aggregate",
    "unistream.api.keyed",
    "unistream.io.table_sink",
    "unistream.io.table_sqlite",
    "unistream.io.table_duckdb",
    "recovery_jobs",
)
"""What a child needs, so that it need not import it. None of them starts threads, which a fork would lose."""


@dataclass
class Child:
    """A process of its own; `outcome` is what its function returned, or the error it raised."""

    pid: int
    _watch: int | None
    _outcome: Path

    def wait(self, seconds: float) -> bool:
        """Whether it ended within this time."""
        if self._watch is None:
            return True
        waiting = select.poll()  # `select` takes small descriptors only
        waiting.register(self._watch, select.POLLIN)
        if not waiting.poll(seconds * 1000):
            return False
        os.close(self._watch)
        self._watch = None
        return True

    def signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if not self.wait(0):
            assert self._watch is not None
            signal.pidfd_send_signal(self._watch, number)

    def kill(self) -> bool:
        """kill -9 and wait; false when it had come to its end before."""
        if self.wait(0):
            return False
        self.signal(signal.SIGKILL)
        assert self.wait(60), "a killed process did not end"
        return not self._outcome.exists()

    @property
    def outcome(self) -> dict[str, Any]:
        """`{"returned": ...}` or `{"raised": ...}`; only after the end, and not of one that was killed."""
        found: dict[str, Any] = json.loads(self._outcome.read_text())
        return found


class Forks:
    """Starts children that run `function(*arguments)` of a module that lies beside the tests."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started = 0
        self._children: list[Child] = []
        self.log = folder / "children.log"
        with self.log.open("ab") as log:
            self._parent = subprocess.Popen(
                [sys.executable, __file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=os.environ | _QUIET,
            )
        self._answer()

    def start(self, module: str, function: str, *arguments: Any) -> Child:
        """A child that runs now."""
        self._started += 1
        outcome = self._folder / f"outcome-{self._started}.json"
        request = [module, function, list(map(_plain, arguments)), str(outcome)]
        assert self._parent.stdin is not None
        self._parent.stdin.write(json.dumps(request).encode() + b"\n")
        self._parent.stdin.flush()
        pid = int(self._answer())
        # The parent leaves ended children as they are until the next request, so the id is still theirs.
        child = Child(pid, os.pidfd_open(pid), outcome)
        self._children.append(child)
        return child

    def close(self) -> None:
        """End everything that was started."""
        for child in self._children:
            child.kill()
        assert self._parent.stdin is not None
        self._parent.stdin.close()
        self._parent.wait(timeout=30)

    def _answer(self) -> str:
        assert self._parent.stdout is not None
        line = self._parent.stdout.readline()
        assert line, f"the parent of the children died:\n{self.log.read_text()}"
        return line.decode().strip()


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def main() -> None:
    """The parent: forks a child for each line of its input."""
    for name in _IMPORTS:
        importlib.import_module(name)
    _say("ready")
    for line in sys.stdin:
        _reap()
        module, function, arguments, outcome = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _run(module, function, arguments, Path(outcome))
        _say(str(pid))


def _run(module: str, function: str, arguments: Sequence[Any], outcome: Path) -> None:
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    # A shell that starts something in the background has it ignore interrupts, and so all its children.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    code = 0
    try:
        found: dict[str, Any] = {"returned": getattr(importlib.import_module(module), function)(*arguments)}
    except BaseException as error:
        traceback.print_exc()
        found, code = {"raised": f"{type(error).__name__}: {error}"}, 1
    hidden = outcome.with_suffix(".part")
    hidden.write_text(json.dumps(found))
    hidden.rename(outcome)
    os._exit(code)


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def _say(text: str) -> None:
    os.write(1, text.encode() + b"\n")


if __name__ == "__main__":
    main()
