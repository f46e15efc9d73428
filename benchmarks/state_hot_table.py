"""Running aggregate per key on the hot table, beside Polars' group_by on the same ticks.

python -m benchmarks.state_hot_table [rows per tick]

Each tick is aggregated by Polars (count, sum, min, max), its keys are looked up or added, the accumulators
gathered, combined and written back. The ratio compares all of that with the group_by alone.
"""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl

from unistream.state.hot_table import HotTable

ACCUMULATORS = pl.Schema({"n": pl.Int64, "total": pl.Float64, "least": pl.Float64, "most": pl.Float64})
AGGREGATES = [
    pl.len().cast(pl.Int64).alias("n"),
    pl.col("v").sum().alias("total"),
    pl.col("v").min().alias("least"),
    pl.col("v").max().alias("most"),
]
MAKERS: dict[str, Callable[[np.ndarray], pl.Series]] = {
    "int": lambda numbers: pl.Series("key", numbers * 7919),
    "string": lambda numbers: ("user_" + pl.Series("key", numbers).cast(pl.String)).alias("key"),
    "two": lambda numbers: pl.Series("key", numbers // 10),
}


def frame_of(kind: str, numbers: np.ndarray) -> pl.DataFrame:
    """Key columns."""
    frame = MAKERS[kind](numbers).to_frame()
    return frame.with_columns(pl.Series("day", numbers % 10, dtype=pl.Int32)) if kind == "two" else frame


def group(frame: pl.DataFrame, keys: list[str]) -> pl.DataFrame:
    """The tick, one row per key."""
    query = frame.lazy().group_by(keys).agg(AGGREGATES)
    return query.collect(engine="in-memory", optimizations=pl.QueryOptFlags.none())


def combine(table: HotTable, groups: pl.DataFrame, keys: list[str]) -> None:
    """Put an aggregated tick into the table."""
    rows, new = table.upsert(groups.select(keys))
    n, total, least, most = (table.column(name) for name in ACCUMULATORS)
    n[rows] = n.take(rows) + groups["n"].to_numpy()
    total[rows] = total.take(rows) + groups["total"].to_numpy()
    tick_least, tick_most = groups["least"].to_numpy(), groups["most"].to_numpy()
    least[rows] = np.where(new, tick_least, np.minimum(least.take(rows), tick_least))
    most[rows] = np.where(new, tick_most, np.maximum(most.take(rows), tick_most))
    table.touch(rows)


def resident() -> int:
    """Bytes of this process in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def measure(kind: str, keys: int, tick_rows: int, ticks: int = 100) -> str:
    """One line of the result."""
    rng = np.random.default_rng(1)
    before = resident()
    names = frame_of(kind, np.arange(1)).columns
    table = HotTable(frame_of(kind, np.arange(1)).schema, ACCUMULATORS)
    start = time.perf_counter()
    for first in range(0, keys, 250_000):
        table.upsert(frame_of(kind, np.arange(first, min(keys, first + 250_000))))
    loading = time.perf_counter() - start
    for name in ACCUMULATORS:
        table.column(name)[: len(table)] = 1
    held = resident() - before
    alone, together = [], []
    for _ in range(ticks):
        frame = frame_of(kind, rng.integers(0, keys, tick_rows)).with_columns(
            v=pl.Series(rng.random(tick_rows))
        )
        start = time.perf_counter()
        groups = group(frame, names)
        middle = time.perf_counter()
        combine(table, groups, names)
        end = time.perf_counter()
        alone.append(middle - start)
        together.append(end - start)
    polars, hot = (tick_rows / statistics.median(times) / 1e6 for times in (alone, together))
    return (
        f"{kind:>7} {keys:>11,} {polars:>8.1f} {hot:>8.2f} {hot / polars:>7.2f} "
        f"{keys / loading / 1e6:>9.1f} {held / keys:>7.0f}"
    )


def main() -> None:
    """Print a table."""
    tick_rows = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    print(f"ticks of {tick_rows:,} rows; million rows per second; bytes per key are resident memory")
    print(f"{'key':>7} {'keys':>11} {'polars':>8} {'table':>8} {'ratio':>7} {'add M/s':>9} {'B/key':>7}")
    for kind, sizes in (
        ("int", (10_000, 1_000_000, 10_000_000)),
        ("string", (10_000, 1_000_000)),
        ("two", (1_000_000,)),
    ):
        for keys in sizes:
            print(measure(kind, keys, tick_rows), flush=True)


if __name__ == "__main__":
    main()
