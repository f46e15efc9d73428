"""Window operators fed with frames in memory, beside one Polars group_by over the same frames.

python -m benchmarks.window_kernels [millions of rows]

Each operator gets ticks of rows and after each tick the watermark, as it would in a job; the baseline is one
`group_by` over all rows at once, in the same process. The two run in turn, since the speed of a machine
changes; what counts is the best of each. Ratios above 1 mean faster than the baseline.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import polars as pl

from unistream.clock import SystemClock
from unistream.config import Settings
from unistream.elements import MAX_TIME, Batch
from unistream.expressions.analysis import expand
from unistream.expressions.schema import EventTime, StreamSchema
from unistream.metrics import Metrics
from unistream.operators.base import Context, Output
from unistream.operators.session_window import SessionWindowSpec
from unistream.operators.window_aggregate import AlignedWindowSpec
from unistream.operators.window_contents import Aggregation
from unistream.operators.windows import Session, Sliding, Span, Tumbling, Window
from unistream.runtime.freed_memory import keep_freed_memory
from unistream.state.memory import MemoryBackend

SPECS = {Tumbling: AlignedWindowSpec, Sliding: AlignedWindowSpec, Session: SessionWindowSpec}
START = 1_700_000_000_000_000
DISORDER = 5_000_000
AGGREGATES = {"n": pl.len(), "total": pl.col("v").sum(), "most": pl.col("v").max()}
MEDIAN = {"median": pl.col("v").median()}
SCHEMA = StreamSchema(
    pl.Schema({"ts": pl.Datetime("us"), "k": pl.Int64, "v": pl.Float64}), event_time=EventTime("ts")
)


class Rows(Output):
    """Counts what comes out."""

    def __init__(self) -> None:
        self.count = 0

    def emit(self, frame: pl.DataFrame, split: str = "") -> None:
        self.count += frame.height

    def emit_to(self, tag: str, frame: pl.DataFrame) -> None:
        raise AssertionError(f"{frame.height} rows are {tag}")


def rows_of(count: int, keys: int, per_second: int) -> pl.DataFrame:
    """Rows out of order by up to five seconds, keys at random."""
    rng = np.random.default_rng(1)
    times = START + np.arange(count) * 1_000_000 // per_second - rng.integers(0, DISORDER, count)
    return pl.DataFrame({"ts": times, "k": rng.integers(0, keys, count), "v": rng.random(count)}).cast(
        {"ts": pl.Datetime("us")}
    )


def ticks_of(rows: pl.DataFrame, size: int) -> list[tuple[pl.DataFrame, int]]:
    """Ticks with the watermark behind each."""
    highest = rows["ts"].to_physical().cum_max()
    ends = range(size, rows.height + size, size)
    return [(rows.slice(end - size, size), highest[min(end, rows.height) - 1] - DISORDER) for end in ends]


Ticks = list[tuple[pl.DataFrame, int]]


def run(window: Window, aggregates: dict[str, pl.Expr], ticks: Ticks) -> float:
    """Seconds for all ticks, and the end."""
    exprs = expand([], aggregates, SCHEMA.columns, "agg", None, ["k"])
    spec = SPECS[type(window)](window=window, by=("k",), calculation=Aggregation.of(exprs))
    operator = spec.build([SCHEMA])
    store = MemoryBackend().store("window")
    keep_freed_memory()  # as a job does
    operator.open(Context("window", SystemClock(), Metrics(), Settings(), store))
    out = Rows()
    began = time.perf_counter()
    for frame, watermark in ticks:
        operator.process(Batch(frame), out)
        operator.on_watermark(watermark, out)
    operator.on_watermark(MAX_TIME, out)
    return time.perf_counter() - began


def one_shot(rows: pl.DataFrame, size: str, aggregates: dict[str, pl.Expr], engine: str) -> float:
    """Seconds of the baseline."""
    query = rows.lazy().with_columns(pl.col("ts").dt.truncate(size)).group_by("ts", "k").agg(**aggregates)
    began = time.perf_counter()
    query.collect(engine=engine)  # type: ignore[call-overload]
    return time.perf_counter() - began


def best(measure: Callable[[], float], times: int = 3) -> float:
    """The least of several runs."""
    return min(measure() for _ in range(times))


def in_turn(tasks: dict[object, Callable[[], float]], rounds: int) -> dict[object, float]:
    """The least of each, all of them one after the other in every round."""
    found = [{name: task() for name, task in tasks.items()} for _ in range(rounds)]
    return {name: min(measured[name] for measured in found) for name in tasks}


def tumbling(millions: float) -> None:
    """Tumbling 10 s over 10 thousand keys, and with a median."""
    rows = rows_of(int(millions * 1e6), 10_000, 100_000)
    window = Tumbling(size=Span.parse("10s", "size"))
    sizes = {size: ticks_of(rows, size) for size in (1_000, 10_000, 100_000)}
    for name, aggregates in (("count, sum, max", AGGREGATES), ("median", MEDIAN)):
        tasks: dict[object, Callable[[], float]] = {
            engine: partial(one_shot, rows, "10s", aggregates, engine)
            for engine in ("in-memory", "streaming")
        }
        tasks |= {size: partial(run, window, aggregates, ticks) for size, ticks in sizes.items()}
        seconds = in_turn(tasks, 5)
        eager = seconds["in-memory"]
        print(f"tumbling 10s, 10k keys, {name}: one group_by {rows.height / eager / 1e6:.1f} M rows/s")
        print(f"    Polars' streaming engine {rows.height / seconds['streaming'] / 1e6:.1f} M rows/s")
        for size in sizes:
            rate, ratio = rows.height / seconds[size] / 1e6, eager / seconds[size]
            print(f"    ticks of {size:>7,}: {rate:5.1f} M rows/s, ratio {ratio:.2f}")


def sliding(millions: float) -> None:
    """Sliding 1 h every minute, beside tumbling 1 minute on the same ticks."""
    for keys in (100, 10_000):
        rows = rows_of(int(millions * 1e6), keys, 1_000)
        ticks = ticks_of(rows, 10_000)
        minute = best(lambda t=ticks: run(Tumbling(size=Span.parse("1m", "size")), AGGREGATES, t), 2)  # type: ignore[misc]
        hour = Sliding(size=Span.parse("1h", "size"), every=Span.parse("1m", "every"))
        took = best(lambda t=ticks, w=hour: run(w, AGGREGATES, t), 2)  # type: ignore[misc]
        rate = rows.height / took / 1e6
        print(f"sliding 1h every 1m, {keys} keys: {rate:.1f} M rows/s, {took / minute:.1f} times tumbling 1m")


def sessions(millions: float) -> None:
    """Sessions of 0.9 million users, a row each every 27 seconds on average."""
    rows = rows_of(int(millions * 1e6), 900_000, 33_000)
    window = Session(gap=30_000_000)
    eager = best(lambda: one_shot(rows, "30s", AGGREGATES, "in-memory"), 2)
    rate = rows.height / eager / 1e6
    print(f"sessions, gap 30s, 900k users: tumbling 30s in one group_by {rate:.1f} M rows/s")
    for size in (10_000, 100_000, 250_000):
        ticks = ticks_of(rows, size)
        took = best(lambda t=ticks: run(window, AGGREGATES, t), 2)  # type: ignore[misc]
        print(f"    ticks of {size:>7,}: {rows.height / took / 1e6:5.1f} M rows/s")


if __name__ == "__main__":
    size = float(sys.argv[1]) if len(sys.argv) > 1 else 10
    tumbling(size)
    sliding(size)
    sessions(size)
