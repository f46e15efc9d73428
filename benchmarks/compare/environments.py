"""An environment of its own for each engine, made on first use from the package index."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.compare.protocol import Unable

FOLDER = "COMPARE_CACHE"
"""The variable that says where environments and inputs are kept."""

INSTALL_SECONDS = 1200


@dataclass(frozen=True)
class Needs:
    """What an engine is installed from; an engine without a package runs where the benchmark does."""

    package: str = ""
    pythons: tuple[int, ...] = ()
    """Minor versions of Python 3 that the package supports, the best first."""
    java: tuple[int, ...] = ()
    """Versions of Java that it runs on."""


NEEDS = {
    "flink": Needs("apache-flink==2.3.*", (11, 12, 10), (11, 17, 21)),
    "spark": Needs("pyspark==4.*", (11, 12, 13, 10), (17, 21)),
    "bytewax": Needs("bytewax==0.21.*", (11, 12, 10)),
}


def cache() -> Path:
    """Where environments and inputs are kept between runs."""
    given = os.environ.get(FOLDER)
    return Path(given) if given else Path.home() / ".cache" / "unistream" / "compare"


def interpreter(engine: str) -> str:
    """The Python of an engine, with the engine in it; `Unable` says why there is none."""
    needs = NEEDS.get(engine)
    if needs is None:
        return sys.executable
    if needs.java and java_version() not in needs.java:
        found = java_version() or "none"
        raise Unable(f"needs Java {' or '.join(map(str, needs.java))} on the path, found {found}")
    folder = cache() / engine
    python = folder / "bin" / "python"
    if not (folder / "installed").exists():
        shutil.rmtree(folder, ignore_errors=True)
        _command([find_python(needs.pythons), "-m", "venv", str(folder)], "making an environment")
        _command([str(python), "-m", "pip", "install", "--quiet", needs.package], "installing")
        (folder / "installed").touch()
    return str(python)


def _command(arguments: list[str], doing: str) -> None:
    try:
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=INSTALL_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unable(f"{doing} failed: {type(error).__name__}") from error
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise Unable(f"{doing} failed: {lines[0] if lines else done.stderr[-200:]}")


def java_version() -> int | None:
    """The version of the Java that JVM engines would start."""
    home = os.environ.get("JAVA_HOME")
    java = f"{home}/bin/java" if home else "java"
    try:
        told = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=60).stderr
    except OSError:
        return None
    found = re.search(r'version "(\d+)', told)
    return int(found[1]) if found else None


def find_python(minors: tuple[int, ...]) -> str:
    """An interpreter of one of these versions: this one, one on the path, or one that pyenv keeps."""
    for minor in minors:
        if sys.version_info[:2] == (3, minor):
            return str(getattr(sys, "_base_executable", sys.executable))
        kept = sorted((Path.home() / ".pyenv" / "versions").glob(f"3.{minor}.*/bin/python"))
        for candidate in [shutil.which(f"python3.{minor}"), *map(str, kept)]:
            if candidate and _works(candidate):
                return candidate
    raise Unable(f"needs Python 3.{' or 3.'.join(map(str, minors))}, none is found")


def _works(python: str) -> bool:
    return subprocess.run([python, "-c", ""], capture_output=True, timeout=60).returncode == 0
