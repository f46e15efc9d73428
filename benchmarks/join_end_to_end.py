"""Joins from Parquet files: two streams within an interval, in ticks; a bounded join with a sum by group.

python -m benchmarks.join_end_to_end [rows] [rounds]

Both beside one Polars streaming query over the same files with the same answer, in turn. Of the interval join
rows of both sides are counted.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

import unistream as us
from benchmarks.data import FOLDER
from benchmarks.measure import compare, in_child

SECOND = 1_000_000
START = 1_767_225_600 * SECOND
KEYS = 1_000_000
PER_SECOND = 10_000
WITHIN = ("0s", "30s")
FILES = 20


def clicks(rows: int, first: int, side: str) -> pl.DataFrame:
    """Rows from number `first` on, 10,000 in a second of event time and up to one second out of order."""
    rng = np.random.default_rng([first, len(side)])
    micros = np.arange(first, first + rows) * (SECOND // PER_SECOND)
    early = np.minimum(rng.integers(0, SECOND, rows), micros)
    columns = {f"{side}_at": START + micros - early, "user": rng.integers(0, KEYS, rows)}
    made = pl.DataFrame({**columns, f"{side}_cents": rng.integers(0, 100_000, rows)})
    return made.with_columns(pl.col(f"{side}_at").cast(pl.Datetime("us")))


def files(rows: int) -> Path:
    """Folders `view` and `buy` with so many rows each, and a table of users; made once."""
    folder = FOLDER / f"clicks-{rows}"
    if not (folder / "done").exists():
        for side in ("view", "buy"):
            (folder / side).mkdir(parents=True, exist_ok=True)
            each = rows // FILES
            for number in range(FILES):
                made = clicks(each, number * each, side)
                made.write_parquet(folder / side / f"{number:03}.parquet", row_group_size=125_000)
        users = np.random.default_rng(1).permutation(KEYS)
        pl.DataFrame({"user": users, "country": users % 200}).write_parquet(folder / "users.parquet")
        (folder / "done").touch()
    return folder


def interval_polars(folder: Path) -> dict[str, Any]:
    """All pairs of a user, and of these the ones in time."""
    views, buys = (pl.scan_parquet(folder / side / "*.parquet") for side in ("view", "buy"))
    later = (pl.col("buy_at") - pl.col("view_at")).is_between(pl.duration(), pl.duration(seconds=30))
    sums = [pl.len().alias("n"), pl.col("view_cents").sum(), pl.col("buy_cents").sum()]
    query = views.join(buys, on="user").filter(later).select(sums)
    return _timed(lambda: query.collect(engine="streaming").row(0))


def interval_ticks(folder: Path) -> dict[str, Any]:
    """In ticks, without checkpoints."""
    return _timed(lambda: _interval(folder, None))


def interval_checkpoints(folder: Path) -> dict[str, Any]:
    """In ticks, with state in RocksDB and a checkpoint every 10 s, and one at the end."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as kept:
        return _timed(lambda: _interval(folder, Path(kept)))


def _interval(folder: Path, checkpoint: Path | None) -> tuple[int, ...]:
    sides = [
        us.scan_parquet(folder / side / "*.parquet").with_event_time(f"{side}_at", delay="1s")
        for side in ("view", "buy")
    ]
    total = np.zeros(3, dtype=np.int64)

    def add(frame: pl.DataFrame) -> None:
        total[:] += (frame.height, frame["view_cents"].sum(), frame["buy_cents"].sum())

    job = sides[0].join(sides[1], on="user", within=WITHIN).sink_batches(add)
    settings = us.Settings(whole_query=False)
    job.run(
        settings=settings,
        progress=False,
        **({"checkpoint": checkpoint, "every": "10s"} if checkpoint else {}),
    )
    return tuple(total.tolist())


def bounded_polars(folder: Path) -> dict[str, Any]:
    """One query of Polars' streaming engine."""
    views, users = pl.scan_parquet(folder / "view" / "*.parquet"), pl.scan_parquet(folder / "users.parquet")
    query = views.join(users, on="user").group_by("country").agg(pl.len(), pl.col("view_cents").sum())
    return _timed(lambda: tuple(query.collect(engine="streaming").sort("country").rows()))


def bounded_unistream(folder: Path) -> dict[str, Any]:
    """The same as a stream that ends."""
    views, users = us.scan_parquet(folder / "view" / "*.parquet"), us.scan_parquet(folder / "users.parquet")
    joined = (
        views.join(users, on="user").group_by("country").agg(len=pl.len(), cents=pl.col("view_cents").sum())
    )
    return _timed(lambda: tuple(joined.collect().sort("country").rows()))


def _timed(work: Callable[[], tuple[Any, ...]]) -> dict[str, Any]:
    began = time.perf_counter()
    answer = work()
    return {"seconds": time.perf_counter() - began, "answer": answer}


def measure(title: str, kernels: dict[str, Any], folder: Path, rows: int, rounds: int) -> None:
    """Check that the answers are the same, then time them in turn."""
    answers = {name: in_child(kernel, folder).result["answer"] for name, kernel in kernels.items()}
    if len(set(answers.values())) != 1:
        raise SystemExit(f"the answers differ: {answers}")
    compare(kernels, folder, rows=rows, repeats=rounds, title=title)


def main(rows: int, rounds: int) -> None:
    """Print both tables."""
    folder = files(rows)
    interval = {
        "Polars streaming": interval_polars,
        "unistream ticks": interval_ticks,
        "checkpoint each 10 s": interval_checkpoints,
    }
    measure("interval join of 30 s, 1 M users, rows of both sides", interval, folder, 2 * rows, rounds)
    bounded = {"Polars streaming": bounded_polars, "unistream bounded": bounded_unistream}
    measure("join with 1 M users and sum by country", bounded, folder, rows, rounds)


if __name__ == "__main__":
    numbers = [int(arg) for arg in sys.argv[1:]]
    main(numbers[0] if numbers else 10_000_000, numbers[1] if len(numbers) > 1 else 5)
