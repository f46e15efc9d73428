"""Whether this machine and environment can run unistream, as a list of findings."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

PACKAGES = ("polars", "pyarrow", "duckdb", "rocksdict", "numpy", "msgspec", "click", "rich", "cloudpickle")
LEAST_FREE_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at, what was found, and what to do when it is not right."""

    what: str
    ok: bool
    found: str
    hint: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def examine() -> list[Finding]:
    """Look at everything; never raises."""
    findings = [_python(), *(_package(name) for name in PACKAGES)]
    for what, look in CHECKS.items():
        try:
            findings.append(look(what))
        except Exception as error:
            findings.append(Finding(what, False, f"{type(error).__name__}: {error}"))
    return findings


def _python() -> Finding:
    found = ".".join(str(part) for part in sys.version_info[:3])
    return Finding("Python", sys.version_info >= (3, 11), found, "use Python 3.11 or newer")


def _package(name: str) -> Finding:
    try:
        found = importlib.metadata.version(name)
        __import__(name)
    except Exception as error:
        return Finding(
            name, False, f"{type(error).__name__}: {error}", "pip install --force-reinstall unistream"
        )
    return Finding(name, True, found)


def _machine(what: str) -> Finding:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Finding(what, True, f"{os.cpu_count()} cores, {memory / (1 << 30):.1f} GiB of memory")


def _disk(what: str) -> Finding:
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    return Finding(
        what, free >= LEAST_FREE_BYTES, f"{free / (1 << 30):.1f} GiB free in {folder}", "free some space"
    )


def _files(what: str) -> Finding:
    with tempfile.TemporaryDirectory() as folder:
        staged, final = Path(folder, ".staged"), Path(folder, "final")
        staged.write_bytes(b"x")
        with staged.open("rb") as file:
            os.fsync(file.fileno())
        staged.rename(final)
        return Finding(what, final.read_bytes() == b"x", "a file was written, synced and renamed")


def _sockets(what: str) -> Finding:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname(), 2) as client,
    ):
        accepted, _ = server.accept()
        with accepted:
            client.sendall(b"x")
            return Finding(what, accepted.recv(1) == b"x", "a byte went through 127.0.0.1")


def _rocksdb(what: str) -> Finding:
    from rocksdict import Options, Rdict

    with tempfile.TemporaryDirectory() as folder:
        table = Rdict(str(Path(folder, "db")), Options(raw_mode=True))
        table[b"k"] = b"v"
        found = table[b"k"]
        table.close()
        return Finding(what, found == b"v", "a key was written and read")


def _query(what: str) -> Finding:
    import polars as pl

    import unistream as us

    rows = us.from_frame({"a": [1, 2, 3]}).filter(pl.col("a") > 1).collect().height
    return Finding(what, rows == 2, "a query gave the right rows")


CHECKS: dict[str, Callable[[str], Finding]] = {
    "machine": _machine,
    "disk": _disk,
    "files": _files,
    "sockets": _sockets,
    "state": _rocksdb,
    "query": _query,
}
