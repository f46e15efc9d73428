"""Steps of simple expressions, computed on columns and by a query of Polars.

python -m benchmarks.simple_expressions [rows ...]

Microseconds for a frame, the least of many calls in turn; both give the same rows.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import numpy as np
import polars as pl

from unistream.expressions.schema import Changes, StreamSchema
from unistream.operators.stateless import FilterStep, RowStep, SelectStep, WithColumnsStep
from unistream.operators.stateless_chain import run_of

SECONDS = 0.5
PRICE = 0.908 * pl.col("price")
STEPS: dict[str, RowStep] = {
    "auction % 123 == 0": FilterStep(predicate=pl.col("auction") % 123 == 0),
    "two bounds of a product": FilterStep(predicate=(PRICE > 1_000_000) & (PRICE < 50_000_000)),
    "one of three texts": FilterStep(predicate=pl.col("state").is_in(["OR", "ID", "CA"])),
    "select with a product": SelectStep(exprs=(pl.col("auction"), pl.col("state"), PRICE.alias("price"))),
    "add auction % 100,000": WithColumnsStep(exprs=((pl.col("auction") % 100_000).alias("key"),)),
}


def rows(count: int) -> pl.DataFrame:
    """Bids, about."""
    random = np.random.default_rng(0)
    return pl.DataFrame(
        {
            "auction": random.integers(0, 10**6, count),
            "price": random.integers(0, 10**8, count),
            "state": random.choice(["OR", "ID", "CA", "NY", "WA", "AZ"], count),
            "extra": ["x" * 80] * count,
        }
    )


def least(ways: list[Callable[[], pl.DataFrame]]) -> list[float]:
    """Seconds of each, called in turn."""
    found = [float("inf")] * len(ways)
    ends = time.perf_counter() + SECONDS
    while time.perf_counter() < ends:
        for at, way in enumerate(ways):
            began = time.perf_counter()
            way()
            found[at] = min(found[at], time.perf_counter() - began)
    return found


def main(counts: list[int]) -> None:
    """Print the table."""
    table = []
    for count in counts:
        frame = rows(count)
        for name, step in STEPS.items():
            run = run_of(step, StreamSchema(frame.schema), Changes.APPEND)
            assert run(frame).equals(step.apply(frame, Changes.APPEND))
            columns, query = least([lambda: run(frame), lambda: step.apply(frame, Changes.APPEND)])  # noqa: B023
            table.append({"rows": count, "step": name, "columns": columns * 1e6, "query": query * 1e6})
    with pl.Config(tbl_rows=-1, float_precision=0, tbl_hide_dataframe_shape=True, fmt_str_lengths=40):
        print(pl.DataFrame(table))


if __name__ == "__main__":
    main([int(word) for word in sys.argv[1:]] or [100, 5_000, 50_000, 250_000])
