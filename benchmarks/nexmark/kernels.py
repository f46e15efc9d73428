"""What the benchmark runs, each in a process of its own: one query, read from Parquet files, in one way."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from benchmarks.measure import Run, in_child
from benchmarks.nexmark.polars_queries import POLARS
from unistream.io.base import Request
from unistream.io.nexmark import NexmarkSource
from unistream.nexmark.measure import run_apart
from unistream.nexmark.queries import QUERIES
from unistream.nexmark.sources import KINDS
from unistream.nexmark.trial import Case

TICK_ROWS = 250_000


def asked(
    given: list[str], *, events: int, queries: Iterable[str], rounds: int
) -> tuple[int, list[str], int]:
    """Events, queries and rounds on a command line, or else these."""
    words = list(given)
    if "--rounds" in words:
        rounds = int(words.pop(words.index("--rounds") + 1))
    numbers = [int(word) for word in words if word.isdigit()]
    chosen = [word for word in words if word in QUERIES]
    return numbers[0] if numbers else events, chosen or list(queries), rounds


def polars(query: str, folder: Path) -> dict[str, Any]:
    """One query of the streaming engine."""
    began = time.perf_counter()
    tables = {kind: pl.scan_parquet(folder / kind / "*.parquet") for kind in KINDS}
    rows = POLARS[query](tables).collect(engine="streaming").height
    return {"seconds": time.perf_counter() - began, "rows": rows}


def beside(query: str, events: int, folder: Path) -> Run:
    """The Polars query."""
    return in_child(polars, query, folder)


def ours(query: str, events: int, folder: Path, **how: Any) -> Run:
    """The query as `unistream bench` runs it."""
    case = Case(
        query=query, events=events, folder=str(folder), tick_rows=TICK_ROWS, scratch=str(folder), **how
    )
    sample = run_apart(case)
    return Run(sample.seconds, sample.peak_bytes / (1 << 20), sample)


MODES: dict[str, Callable[[str, int, Path], Run]] = {
    "Polars": beside,
    "batch": partial(ours, mode="batch"),
    "ticks": partial(ours, mode="stream", checkpoint=None),
    "ckpt": partial(ours, mode="stream", checkpoint="10s"),
}
"""Polars; a bounded job, which is one Polars query where the plan allows it; slices; slices that are kept."""


def generate(events: int, which: str, columns: tuple[str, ...] | None) -> dict[str, Any]:
    """The generator alone, on one thread."""
    reader = NexmarkSource(events, which=which).open({}, Request(columns=columns))
    reader.poll(1)
    began = time.process_time()
    while hasattr(reader.poll(250_000), "frame"):
        pass
    return {"seconds": time.process_time() - began}
