"""Join operators fed with frames in memory, beside Polars' own joins over the same rows.

python -m benchmarks.join_kernels [interval | window | lookup ...]

Each figure is the best of several passes in one process; the baseline is one Polars join over the same rows.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator

import numpy as np
import polars as pl

from unistream.clock import SystemClock
from unistream.config import Settings
from unistream.elements import Batch
from unistream.expressions.schema import EventTime, StreamSchema
from unistream.metrics import Metrics
from unistream.operators.base import Context, Operator, OperatorSpec, Output
from unistream.operators.interval_join import IntervalJoin
from unistream.operators.lookup import Lookup
from unistream.operators.lookup_tables import WholeTable
from unistream.operators.window_join import WindowJoin
from unistream.operators.windows import Span, Tumbling
from unistream.runtime.freed_memory import keep_freed_memory
from unistream.state.memory import MemoryBackend

SECOND = 1_000_000
LEFT = StreamSchema(
    pl.Schema({"t": pl.Datetime("us"), "k": pl.Int64, "a": pl.Float64}), event_time=EventTime("t")
)
RIGHT = StreamSchema(
    pl.Schema({"u": pl.Datetime("us"), "k": pl.Int64, "b": pl.Float64}), event_time=EventTime("u")
)


class Rows(Output):
    """Counts what comes out."""

    def __init__(self) -> None:
        self.count = 0

    def emit(self, frame: pl.DataFrame, split: str = "") -> None:
        self.count += frame.height

    def emit_to(self, tag: str, frame: pl.DataFrame) -> None:
        raise AssertionError(f"{frame.height} rows are {tag}")


def opened(spec: OperatorSpec, *inputs: StreamSchema) -> Operator:
    """The operator as a job would hold it."""
    operator = spec.build(inputs)
    store = MemoryBackend().store("join", spec.keys or ())
    keep_freed_memory()  # as a job does
    operator.open(Context("join", SystemClock(), Metrics(), Settings(), store))
    return operator


def rows_of(schema: StreamSchema, count: int, keys: int, seconds: tuple[float, float]) -> pl.DataFrame:
    """Rows in order of time, spread evenly; keys at random."""
    rng = np.random.default_rng(count + keys)
    times = np.sort(rng.integers(int(seconds[0] * SECOND), int(seconds[1] * SECOND), count))
    return pl.DataFrame([times, rng.integers(0, keys, count), rng.random(count)], schema=schema.columns)


def parts(rows: pl.DataFrame, size: int) -> Iterator[pl.DataFrame]:
    """Ticks of `size` rows."""
    return (rows.slice(at, size) for at in range(0, rows.height, size))


def best(measure: Callable[[], float], times: int = 3) -> float:
    """The least of several runs."""
    return min(measure() for _ in range(times))


def interval(how: str = "inner") -> None:
    """1 M rows kept over 600 s; ticks of the other side, 20 s each, looking 20 s back and 20 s ahead."""
    for keys in (100_000, 1_000_000):
        kept = rows_of(RIGHT, 1_000_000, keys, (0, 600))
        for size in (1_000, 10_000, 100_000):
            spec = IntervalJoin(by=("k",), how=how, low=-20 * SECOND, high=20 * SECOND)  # type: ignore[arg-type]
            operator, out = opened(spec, LEFT, RIGHT), Rows()
            for part in parts(kept, 10_000):
                operator.process(Batch(part, 1), out)
            ticks = [rows_of(LEFT, size, keys + at, (300, 320)) for at in range(20)]

            def probe(
                operator: Operator = operator, ticks: list[pl.DataFrame] = ticks, out: Rows = out
            ) -> float:
                out.count = 0
                took = []
                for tick in ticks:
                    began = time.perf_counter()
                    operator.process(Batch(tick, 0), out)
                    took.append(time.perf_counter() - began)
                return sorted(took)[len(took) // 2]

            took = best(probe)
            near = kept.filter(pl.col("u").to_physical().is_between(80 * SECOND, 140 * SECOND))

            def plain(tick: pl.DataFrame = ticks[0], near: pl.DataFrame = near) -> float:
                began = time.perf_counter()
                tick.join(near, on="k").filter((pl.col("u") - pl.col("t")).abs() <= pl.duration(seconds=20))
                return time.perf_counter() - began

            base = best(plain, 10)
            print(
                f"interval {how}, {keys:>9,} keys, ticks of {size:>7,}: {size / took / 1e6:5.1f} M rows/s,"
                f" ratio {base / took:.2f} of Polars' join with just the rows near;"
                f" {out.count / 20 / size:.2f} pairs a row"
            )


def window() -> None:
    """1 M rows of each side in one window, joined when it closes."""
    for keys in (100_000, 1_000_000):
        sides = [rows_of(schema, 1_000_000, keys, (0, 60)) for schema in (LEFT, RIGHT)]
        out = Rows()

        def close(sides: list[pl.DataFrame] = sides, out: Rows = out) -> float:
            operator = opened(
                WindowJoin(by=("k",), window=Tumbling(size=Span.parse("1m", "size"))), LEFT, RIGHT
            )
            for port, rows in enumerate(sides):
                for part in parts(rows, 100_000):
                    operator.process(Batch(part, port), out)
            out.count = 0
            began = time.perf_counter()
            operator.on_watermark(60 * SECOND, out)
            return time.perf_counter() - began

        def plain(sides: list[pl.DataFrame] = sides) -> float:
            began = time.perf_counter()
            sides[0].join(sides[1], on="k")
            return time.perf_counter() - began

        took, base = best(close), best(plain)
        print(
            f"window at close, {keys:>9,} keys: {2 / took:5.1f} M rows/s (both sides),"
            f" ratio {base / took:.2f} of Polars' join; {out.count:,} pairs"
        )


def lookup() -> None:
    """Rows beside a frame of 1 M rows, tick by tick."""
    table = pl.DataFrame({"k": np.random.default_rng(1).permutation(1_000_000), "v": np.arange(1_000_000)})
    whole = WholeTable(columns=table.schema, load=lambda: table, text="a frame")
    operator = opened(Lookup(by=("k",), table_by=("k",), adds={"v": "v"}, table=whole), LEFT)
    for size in (1_000, 10_000, 100_000):
        ticks = [rows_of(LEFT, size, 1_200_000 + at, (0, 60)) for at in range(10)]
        out = Rows()

        def ours(ticks: list[pl.DataFrame] = ticks, out: Rows = out) -> float:
            began = time.perf_counter()
            for tick in ticks:
                operator.process(Batch(tick), out)
            return time.perf_counter() - began

        def plain(ticks: list[pl.DataFrame] = ticks) -> float:
            began = time.perf_counter()
            for tick in ticks:
                tick.join(table, on="k", how="left")
            return time.perf_counter() - began

        took, base = best(ours), best(plain)
        rate = size * len(ticks) / took / 1e6
        ratio = base / took
        print(f"lookup in 1 M rows, ticks of {size:>7,}: {rate:5.1f} M rows/s, {ratio:.2f} of Polars' join")


KINDS = {"interval": interval, "window": window, "lookup": lookup}

if __name__ == "__main__":
    for kind in sys.argv[1:] or KINDS:
        KINDS[kind]()
