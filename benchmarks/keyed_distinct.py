"""Running counts of distinct values, beside one Polars query: whether ticks become slower as values gather.

python -m benchmarks.keyed_distinct [rows]

Half of the rows belong to four keys, the others to ten thousand; nearly every value is new to its key. Each
fifth of the rows is timed by itself.
"""

from __future__ import annotations

import sys
import tempfile
import time

import numpy as np
import polars as pl

import unistream as us

TICK = 100_000
PARTS = 5
AGGREGATES = {
    "n": pl.len(),
    "kinds": pl.col("v").n_unique(),
    "large": pl.col("v").filter(pl.col("v") % 2 == 0).n_unique(),
}


def rows_of(count: int) -> pl.DataFrame:
    """Rows to count."""
    random = np.random.default_rng(1)
    hot = random.random(count) < 0.5
    keys = np.where(hot, random.integers(0, 4, count), random.integers(4, 10_004, count))
    return pl.DataFrame({"k": keys, "v": random.integers(0, count, count)})


def main(given: list[str]) -> None:
    """Print the table."""
    count = int(given[0]) if given else 10_000_000
    rows = rows_of(count)
    ends = [time.perf_counter()]
    with tempfile.TemporaryDirectory() as kept:
        job = (
            us.from_frame(rows)
            .group_by("k")
            .agg(**AGGREGATES)
            .sink_batches(lambda _: ends.append(time.perf_counter()))
        )
        settings = us.Settings(tick_rows=TICK, whole_query=False)
        job.run(checkpoint=f"{kept}/checkpoints", settings=settings, progress=False)
    began = time.perf_counter()
    rows.lazy().group_by("k").agg(**AGGREGATES).collect(engine="streaming")
    polars = time.perf_counter() - began
    parts = [ends[part * (len(ends) - 1) // PARTS] for part in range(PARTS + 1)]
    table = [
        {"fifth": part + 1, "M rows/s": count / PARTS / took / 1e6, "of Polars": polars / PARTS / took}
        for part, took in enumerate(np.diff(parts))
    ]
    with pl.Config(tbl_hide_dataframe_shape=True, float_precision=2):
        sys.stdout.write(f"{count:,} rows, ticks of {TICK:,}\n{pl.DataFrame(table)}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
