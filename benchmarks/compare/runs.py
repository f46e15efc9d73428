"""Runs an engine in a process of its own, and says how it went."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.compare.environments import cache, interpreter
from benchmarks.compare.protocol import Answer, Request

ROOT = Path(__file__).parents[2]
TIMEOUT = 1800


@dataclass(frozen=True)
class Contender:
    """An engine in one of its ways to run."""

    engine: str
    variant: str
    title: str

    @property
    def bounded(self) -> bool:
        """Whether it sees all rows at once."""
        return self.variant in ("bounded", "all rows")


CONTENDERS: Mapping[str, Contender] = {
    "unistream": Contender("unistream", "ticks", "unistream"),
    "unistream-bounded": Contender("unistream", "bounded", "unistream, bounded"),
    "flink": Contender("flink", "rocksdb", "Flink"),
    "flink-heap": Contender("flink", "heap", "Flink, heap"),
    "flink-minibatch": Contender("flink", "minibatch", "Flink, mini-batches"),
    "spark": Contender("spark", "rocksdb", "Spark"),
    "bytewax": Contender("bytewax", "flow", "Bytewax"),
    "polars": Contender("polars", "all rows", "Polars"),
    "duckdb": Contender("duckdb", "all rows", "DuckDB"),
}


class Failed(Exception):
    """The process of an engine ended without an answer; the message holds what it said last."""


def attempt(
    contender: Contender, query: str, folder: Path, *, warm: Path | None = None, rows: str | None = None
) -> Answer:
    """One run; the scratch folder lies where the inputs do, and is gone afterwards."""
    python = interpreter(contender.engine)
    with tempfile.TemporaryDirectory(dir=cache(), prefix="run-") as scratch:
        asked, told = Path(scratch, "request.json"), Path(scratch, "answer.json")
        request = Request(query, contender.variant, str(folder), scratch, str(warm) if warm else None, rows)
        asked.write_text(json.dumps(request.__dict__))
        module = f"benchmarks.compare.engines.{contender.engine}_run"
        said = _run([python, "-m", module, str(asked), str(told)])
        if not told.exists():
            raise Failed(said[-2000:])
        return Answer(**json.loads(told.read_text()))


def _run(command: list[str]) -> str:
    """Run a command in a session of its own, so that nothing of it stays behind; gives what it printed."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        return process.communicate(timeout=TIMEOUT)[0]
    except subprocess.TimeoutExpired:
        return f"no answer within {TIMEOUT} seconds"
    finally:
        with suppress(ProcessLookupError):  # the usual case: it has ended, and all it started
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
