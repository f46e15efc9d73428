"""Running sum, count, min and max per key, beside Polars' group_by on the same ticks.

python -m benchmarks.keyed_running [rows per tick ...]

Each cell runs in a process of its own with the default backend: all keys are there before the first tick that
counts. On every tick Polars alone and the operator, in turn, get the same rows; the operator hands on every
key that the tick touched. The ratio compares medians of the two within the run.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from typing import Any

import numpy as np
import polars as pl

from benchmarks.measure import in_child
from unistream.clock import SystemClock
from unistream.config import Settings
from unistream.elements import Batch
from unistream.expressions.analysis import expand
from unistream.expressions.schema import StreamSchema
from unistream.metrics import Metrics
from unistream.operators.base import Context, Output
from unistream.operators.running_aggregate import RunningAggregate
from unistream.runtime.freed_memory import keep_freed_memory
from unistream.state.rocksdb import RocksBackend

AGGREGATES = {
    "total": pl.col("v").sum(),
    "n": pl.len(),
    "least": pl.col("v").min(),
    "most": pl.col("v").max(),
}
LOADED_AT_ONCE = 500_000
TARGETS = {
    (10_000, 10_000): (8, 0.4),
    (10_000, 1_000_000): (5, 0.2),
    (10_000, 10_000_000): (4, 0.12),
    (100_000, 10_000): (25, 0.0),
    (100_000, 1_000_000): (6, 0.0),
    (100_000, 10_000_000): (4, 0.0),
}
"""Million rows per second, and share of Polars, by rows of a tick and number of integer keys."""


class Counted(Output):
    """Counts what comes out."""

    rows = 0

    def emit(self, frame: pl.DataFrame, split: str = "") -> None:
        self.rows += frame.height

    def emit_to(self, tag: str, frame: pl.DataFrame) -> None:
        raise AssertionError(tag)


def frame_of(kind: str, numbers: np.ndarray, rng: np.random.Generator) -> pl.DataFrame:
    """Rows of these keys with a value each."""
    key = pl.Series("k", numbers * 7919)
    if kind == "string":
        key = ("user_" + pl.Series("k", numbers).cast(pl.String)).alias("k")
    return pl.DataFrame([key, pl.Series("v", rng.random(len(numbers)))])


def group(frame: pl.DataFrame) -> pl.DataFrame:
    """The tick, one row per key."""
    query = frame.lazy().group_by("k").agg(**AGGREGATES)
    return query.collect(engine="in-memory", optimizations=pl.QueryOptFlags.none())


def kernel(kind: str, keys: int, tick_rows: int, ticks: int) -> dict[str, Any]:
    """Seconds of Polars and of the operator for each tick."""
    rng = np.random.default_rng(1)
    schema = StreamSchema(frame_of(kind, np.arange(1), rng).schema)
    exprs = expand([], AGGREGATES, schema.columns, "agg", None, ["k"])
    operator = RunningAggregate(by=("k",), exprs=tuple(exprs)).build([schema])
    out = Counted()
    alone, together = [], []
    with tempfile.TemporaryDirectory() as folder:
        store = RocksBackend(folder).store("aggregate")
        keep_freed_memory()  # as a job does
        operator.open(Context("aggregate", SystemClock(), Metrics(), Settings(), store))
        for first in range(0, keys, LOADED_AT_ONCE):
            numbers = np.arange(first, min(keys, first + LOADED_AT_ONCE))
            operator.process(Batch(frame_of(kind, numbers, rng)), out)
        out.rows = groups = 0
        for _ in range(ticks):
            frame = frame_of(kind, rng.integers(0, keys, tick_rows), rng)
            start = time.perf_counter()
            groups += group(frame).height
            middle = time.perf_counter()
            operator.process(Batch(frame), out)
            end = time.perf_counter()
            alone.append(middle - start)
            together.append(end - middle)
    assert out.rows == groups
    return {"alone": alone, "together": together}


def measure(kind: str, keys: int, tick_rows: int) -> None:
    """Print one line."""
    run = in_child(kernel, kind, keys, tick_rows, 200 if tick_rows < 50_000 else 60)
    alone, together = run.result["alone"], run.result["together"]
    polars, ours = (tick_rows / statistics.median(times) / 1e6 for times in (alone, together))
    best = min(alone) / min(together)
    line = f"{kind:>7} {tick_rows:>8,} {keys:>11,} {polars:>8.1f} {ours:>8.2f}"
    line += f" {ours / polars:>7.2f} {best:>7.2f}"
    wanted = TARGETS.get((tick_rows, keys)) if kind == "int" else None
    print(line + (f"   wanted {wanted[0]} M rows/s, ratio {wanted[1]}" if wanted else ""), flush=True)


def main() -> None:
    """Print a table."""
    sizes = [int(size) for size in sys.argv[1:]] or [10_000, 100_000]
    print("million rows per second; best: ratio of the fastest ticks")
    print(f"{'key':>7} {'tick':>8} {'keys':>11} {'polars':>8} {'running':>8} {'ratio':>7} {'best':>7}")
    for tick_rows in sizes:
        for keys in (10_000, 1_000_000, 10_000_000):
            measure("int", keys, tick_rows)
        for keys in (10_000, 1_000_000):
            measure("string", keys, tick_rows)


if __name__ == "__main__":
    main()
