"""Whether the process that wrote a record still lives."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Protocol, TypedDict


class Traces(Protocol):
    """What a process leaves of itself in a record."""

    @property
    def machine(self) -> str: ...
    @property
    def pid(self) -> int: ...
    @property
    def started(self) -> int | None: ...


class Process(TypedDict):
    """This process, for a record."""

    host: str
    machine: str
    pid: int
    started: int | None


def here() -> Process:
    """This process. `machine` is equal only where process numbers mean the same processes."""
    pid = os.getpid()
    return Process(host=socket.gethostname(), machine=_machine(), pid=pid, started=_started(pid))


def is_dead(process: Traces) -> bool:
    """True when it certainly has ended; false when it lives or cannot be looked up from here."""
    if process.machine != _machine():
        return False
    try:
        os.kill(process.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    # Numbers are given out again; the time of the start tells two processes apart.
    return _started(process.pid) != process.started


def _machine() -> str:
    """Host, boot and process namespace."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    try:
        return f"{socket.gethostname()}/{boot.read_text().strip()}/{os.readlink('/proc/self/ns/pid')}"  # noqa: PTH115
    except OSError:
        return socket.gethostname()


def _started(pid: int) -> int | None:
    """Clock ticks between boot and the start of the process; None when it ended or nobody knows."""
    try:
        # The name in parentheses may hold anything; the fields begin behind the last one.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] in "ZX" else int(fields[19])
    except (OSError, IndexError, ValueError):
        return None
