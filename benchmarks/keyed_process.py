"""Keyed functions and deduplication fed with frames in memory.

python -m benchmarks.keyed_process [rows per tick ...]

`process` calls Python for every row, with one value of state and a row given for about half of them;
`process_batches` takes one value of state beside each row and keeps another, with a function over columns
whose own time is shown beside; `unique` lets the first row of each key pass. All keys are there before the
first tick that counts.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl

import unistream as us
from benchmarks.measure import in_child
from unistream.clock import SystemClock
from unistream.config import Settings
from unistream.elements import Batch
from unistream.expressions.schema import StreamSchema
from unistream.metrics import Metrics
from unistream.operators.base import Context, OperatorSpec, Output
from unistream.operators.deduplicate import Unique
from unistream.operators.process import Process, ProcessContext, ProcessFunction
from unistream.operators.process_batches import ProcessBatches
from unistream.runtime.freed_memory import keep_freed_memory
from unistream.state.rocksdb import RocksBackend

COLUMNS = pl.Schema({"k": pl.Int64, "v": pl.Float64})
MADE = pl.Schema({"k": pl.Int64, "step": pl.Float64})
TICKS = 60


class Rising(ProcessFunction):
    """Rows whose value is above the one before."""

    output = {"k": pl.Int64, "step": pl.Float64}
    last = us.ValueState(pl.Float64)

    def process(self, key: Any, row: dict[str, Any], ctx: ProcessContext) -> None:
        last = self.last.value
        self.last.value = row["v"]
        if last is not None and row["v"] > last:
            ctx.emit({"k": key, "step": row["v"] - last})


def rising(frame: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Over columns: each row beside the value that its key had before the tick."""
    rows = frame.select("k", step=pl.col("v") - pl.col("last"))
    return rows, frame.select("k", last="v")


SPECS: dict[str, OperatorSpec] = {
    "process": Process(by=("k",), function=Rising(), made=MADE),
    "process_batches": ProcessBatches(
        by=("k",), function=rising, state=pl.Schema({"last": pl.Float64}), made=MADE
    ),
    "unique": Unique(subset=("k",)),
}


class Nowhere(Output):
    """Drops what comes out."""

    def emit(self, frame: pl.DataFrame, split: str = "") -> None:
        pass

    def emit_to(self, tag: str, frame: pl.DataFrame) -> None:
        raise AssertionError(tag)


def frames(keys: int, rows: int, count: int) -> Iterator[pl.DataFrame]:
    """All keys once, then ticks."""
    rng = np.random.default_rng(1)
    for first in range(0, keys, 250_000):
        numbers = np.arange(first, min(keys, first + 250_000))
        yield pl.DataFrame({"k": numbers, "v": rng.random(len(numbers))})
    for _ in range(count):
        yield pl.DataFrame({"k": rng.integers(0, keys, rows), "v": rng.random(rows)})


def kernel(name: str, keys: int, rows: int) -> dict[str, list[float]]:
    """Seconds of each tick."""
    schema = StreamSchema(COLUMNS)
    operator, out = SPECS[name].build([schema]), Nowhere()
    spent, own = [], []
    with tempfile.TemporaryDirectory() as folder:
        store = RocksBackend(folder).store("operator")
        keep_freed_memory()  # as a job does
        operator.open(Context("operator", SystemClock(), Metrics(), Settings(), store))
        for frame in frames(keys, rows, TICKS):
            start = time.perf_counter()
            operator.process(Batch(frame), out)
            spent.append(time.perf_counter() - start)
            with_state = frame.with_columns(last=pl.col("v"))
            start = time.perf_counter()
            rising(with_state)
            own.append(time.perf_counter() - start)
    return {"spent": spent[-TICKS:], "own": own[-TICKS:]}


def main() -> None:
    """Print a table."""
    sizes = [int(size) for size in sys.argv[1:]] or [10_000, 100_000]
    print("million rows per second, median and fastest tick; function: what the batch function takes alone")
    print(f"{'verb':>16} {'tick':>8} {'keys':>10} {'median':>8} {'fastest':>8} {'function':>9}")
    for name in SPECS:
        for rows in sizes:
            for keys in (10_000, 1_000_000):
                result = in_child(kernel, name, keys, rows).result
                middle, least = statistics.median(result["spent"]), min(result["spent"])
                own = statistics.median(result["own"])
                print(
                    f"{name:>16} {rows:>8,} {keys:>10,} {rows / middle / 1e6:>8.2f}"
                    f" {rows / least / 1e6:>8.2f} {rows / own / 1e6:>9.1f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
