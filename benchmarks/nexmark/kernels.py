"""What the benchmark runs, each in a process of its own: one query, read from Parquet files, in one way."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

import unistream as us
from benchmarks.nexmark.polars_queries import POLARS
from unistream.expressions.schema import Changes
from unistream.io.base import Request, Sink, Writer, WriterContext
from unistream.io.memory import MemorySink
from unistream.io.nexmark import NexmarkSource
from unistream.nexmark.queries import QUERIES
from unistream.nexmark.sources import KINDS, timed


@dataclass(frozen=True, eq=False)
class Counting(Sink):
    """Takes every kind of stream and keeps nothing."""

    rows: list[int] = field(default_factory=list)
    name = "counting"

    @property
    def accepts(self) -> frozenset[Changes]:
        return frozenset(Changes)

    def open(self, context: WriterContext) -> Writer:
        return _Counter(self.rows)


class _Counter(Writer):
    def __init__(self, rows: list[int]) -> None:
        self._rows = rows

    def write(self, frame: pl.DataFrame) -> None:
        self._rows.append(frame.height)


def peak_mb() -> float:
    """Most memory of this process; unlike `ru_maxrss` it owes nothing to the process that started it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def polars(query: str, folder: Path) -> dict[str, Any]:
    """One query of the streaming engine."""
    began = time.perf_counter()
    tables = {kind: pl.scan_parquet(folder / kind / "*.parquet") for kind in KINDS}
    rows = POLARS[query](tables).collect(engine="streaming").height
    return {"seconds": time.perf_counter() - began, "rows": rows, "peak_mb": peak_mb()}


def batch(query: str, folder: Path) -> dict[str, Any]:
    """A bounded job, which is one Polars query where the plan allows it."""
    return _run(query, folder, MemorySink(), us.Settings())


def ticks(query: str, folder: Path) -> dict[str, Any]:
    """The stream in slices."""
    return _run(query, folder, Counting(), us.Settings(whole_query=False))


def checkpoints(query: str, folder: Path) -> dict[str, Any]:
    """The stream in slices, kept every ten seconds."""
    with tempfile.TemporaryDirectory(dir=folder) as kept:
        return _run(query, folder, Counting(), us.Settings(), checkpoint=f"{kept}/ckpt", every="10s")


def _run(query: str, folder: Path, sink: Sink, settings: us.Settings, **options: Any) -> dict[str, Any]:
    began = time.perf_counter()
    sources = timed({kind: us.scan_parquet(folder / kind / "*.parquet") for kind in KINDS})
    progress = QUERIES[query](sources).sink(sink).run(progress=False, settings=settings, **options)
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "rows": progress.rows_out, "peak_mb": peak_mb()}


MODES: dict[str, Callable[[str, Path], dict[str, Any]]] = {
    "Polars": polars,
    "batch": batch,
    "ticks": ticks,
    "ckpt": checkpoints,
}


def generate(events: int, which: str, columns: tuple[str, ...] | None) -> dict[str, Any]:
    """The generator alone, on one thread."""
    reader = NexmarkSource(events, which=which).open({}, Request(columns=columns))
    reader.poll(1)
    began = time.process_time()
    while hasattr(reader.poll(250_000), "frame"):
        pass
    return {"seconds": time.process_time() - began}
