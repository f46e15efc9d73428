"""What incremental aggregates cost beside one `group_by` over all rows, and taking them apart costs once.

Run: python benchmarks/expressions_aggregates.py [--rows 2000000] [--keys 10000]
"""

import argparse
import statistics
import time

import numpy as np
import polars as pl

from unistream.expressions.aggregates import Decomposition, decompose
from unistream.expressions.analysis import expand, is_row_wise, output_schema

c = pl.col
SETS = {
    "sum, count": [c.v.sum(), pl.len()],
    "mean, min, max": [c.v.mean(), c.v.min().alias("lo"), c.v.max().alias("hi")],
    "var": [c.v.var()],
    "first, last": [c.v.first(), c.v.last().alias("to")],
    "filtered last": [c.v.filter(c.p).last()],
    "max_by": [c.v.max_by("t")],
    "sort_by().last()": [c.v.sort_by("t").last()],
    "n_unique (100 values)": [c.small.n_unique()],
    "quantile": [c.v.quantile(0.95)],
}


def make_rows(rows: int, keys: int) -> pl.DataFrame:
    rng = np.random.default_rng(1)
    return pl.DataFrame(
        {
            "k": rng.integers(0, keys, rows),
            "v": rng.normal(size=rows),
            "t": np.arange(rows),
            "p": rng.random(rows) < 0.5,
            "small": rng.integers(0, 100, rows),
        }
    )


def incremental(frame: pl.DataFrame, found: Decomposition, batch: int) -> pl.DataFrame:
    """One partial per batch, folded eight at a time, as a window does until it closes."""
    parts: list[pl.DataFrame] = []
    for start in range(0, frame.height, batch):
        parts.append(frame[start : start + batch].group_by("k").agg(found.partial))
        if len(parts) == 8:
            parts = [pl.concat(parts).group_by("k").agg(found.merge)]
    return pl.concat(parts).group_by("k").agg(found.merge).select("k", *found.finish)


def timed(run, *given, repeats: int = 3) -> float:
    took = []
    for _ in range(repeats):
        start = time.perf_counter()
        run(*given)
        took.append(time.perf_counter() - start)
    return statistics.median(took)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rows", type=int, default=2_000_000)
    options.add_argument("--keys", type=int, default=10_000)
    chosen = options.parse_args()
    frame = make_rows(chosen.rows, chosen.keys)
    print(f"{chosen.rows:,} rows, {chosen.keys:,} keys; M rows/s")
    print(f"{'aggregates':<24}{'one group_by':>14}{'125k batches':>14}{'10k batches':>14}{'plan, ms':>10}")
    for name, exprs in SETS.items():
        found = decompose(exprs, frame.schema, ["k"])
        assert isinstance(found, Decomposition)
        runs = [timed(frame.group_by("k").agg, exprs)]
        runs += [timed(incremental, frame, found, batch) for batch in (125_000, 10_000)]
        plan = timed(decompose, exprs, frame.schema, ["k"], repeats=10) * 1e3
        speeds = [chosen.rows / run / 1e6 for run in runs]
        print(f"{name:<24}" + "".join(f"{speed:>14.1f}" for speed in speeds) + f"{plan:>10.1f}")
    chain = [(c.v * 2 + c.small).alias("a"), pl.when(c.p).then(c.v).otherwise(0).alias("b")]
    print(f"expand         {timed(expand, chain, {}, frame.schema, 'select', repeats=10) * 1e3:.2f} ms")
    print(f"output_schema  {timed(output_schema, 'select', chain, frame.schema, repeats=10) * 1e3:.2f} ms")
    print(f"is_row_wise    {timed(is_row_wise, chain[0], repeats=10) * 1e3:.2f} ms")


if __name__ == "__main__":
    main()
