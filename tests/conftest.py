"""What all tests share: settings of the examples, and a PostgreSQL server for the tests that need one."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says more about the machine than about the code.
settings.register_profile("unistream", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unistream")

USUAL_PLACES = ("postgresql:///postgres", "postgresql://postgres@127.0.0.1:5432/postgres")


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a server: one that answers, else one that is started here; skips where there is none."""
    psycopg = pytest.importorskip("psycopg", reason="psycopg is not installed")
    for url in (os.environ.get("UNISTREAM_TEST_POSTGRES", ""), *USUAL_PLACES):
        try:
            psycopg.connect(url, connect_timeout=2).close()
        except psycopg.Error:
            continue
        if url:
            yield url
            return
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    found = shutil.which("initdb") or (str(programs[-1]) if programs else None)
    if found is None:
        pytest.skip("no PostgreSQL server answers and initdb is not installed")
    yield from started(Path(found).parent)


def started(programs: Path) -> Iterator[str]:
    """A server of its own, without syncs, on a free port."""
    with tempfile.TemporaryDirectory(prefix="unistream-postgres-", ignore_cleanup_errors=True) as place:
        folder = Path(place)
        user = unprivileged(folder)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        data = folder / "data"
        call([programs / "initdb", "-D", data, "-U", "test", "-A", "trust", "--no-sync"], user, folder)
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off"
        control = [programs / "pg_ctl", "-D", data, "-w"]
        call([*control, "-o", options, "-l", folder / "log", "start"], user, folder)
        try:
            yield f"postgresql://test@127.0.0.1:{port}/postgres"
        finally:
            call([*control, "-m", "immediate", "stop"], user, folder)


def unprivileged(folder: Path) -> str | None:
    """The server refuses to run as the administrator: somebody else, who then owns the folder."""
    if os.geteuid() != 0:
        return None
    shutil.chown(folder, "nobody")
    folder.chmod(0o755)
    return "nobody"


def call(command: list[Path | str], user: str | None, folder: Path) -> None:
    done = subprocess.run(
        [str(part) for part in command],
        user=user,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        timeout=120,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"PostgreSQL cannot be started here: {done.stderr.strip()[-300:]}")
