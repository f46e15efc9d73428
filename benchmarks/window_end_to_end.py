"""Windows of 10 s by 10,000 keys, Parquet to Parquet, in ticks; against one Polars streaming query.

python -m benchmarks.window_end_to_end [rows] [rounds]
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

import unistream as us
from benchmarks.data import FOLDER
from benchmarks.measure import compare, in_child

KEYS = 10_000
ROWS_PER_SECOND = 10_000
FILES = 20
TICKS = us.Settings(whole_query=False)
AGGREGATES = {"n": pl.len(), "total": pl.col("amount").sum(), "most": pl.col("amount").max()}


def readings(rows: int, first: int) -> pl.DataFrame:
    """Rows from number `first` on, 10,000 for each second of event time, up to one second out of order."""
    rng = np.random.default_rng(first)
    start = np.datetime64(datetime(2026, 1, 1), "us")
    micros = np.arange(first, first + rows) * (1_000_000 // ROWS_PER_SECOND)
    early = np.minimum(rng.integers(0, 1_000_000, rows), micros)
    return pl.DataFrame(
        {
            "ts": start + (micros - early).astype("timedelta64[us]"),
            "key": rng.integers(0, KEYS, rows),
            "amount": rng.integers(0, 100_000, rows),  # whole, so that sums do not depend on the order
            "note": pl.Series(rng.integers(0, 50_000, rows)).cast(pl.String),
        }
    )


def reading_files(rows: int) -> Path:
    """A folder of Parquet files with so many rows; made once."""
    folder = FOLDER / f"readings-{rows}"
    if not (folder / "done").exists():
        folder.mkdir(parents=True, exist_ok=True)
        each = rows // FILES
        for number in range(FILES):
            made = readings(each, number * each)
            made.write_parquet(folder / f"{number:03}.parquet", row_group_size=125_000)
        (folder / "done").touch()
    return folder


def polars_query(folder: Path) -> dict[str, Any]:
    """The same answer by one query of Polars' streaming engine, with its defaults."""
    return _timed(folder, _polars)


def _polars(folder: Path, base: Path) -> None:
    (base / "out").mkdir()
    start = pl.col("ts").dt.truncate("10s").alias("window_start")
    query = pl.scan_parquet(folder / "*.parquet").group_by("key", start).agg(**AGGREGATES)
    ends = query.with_columns(window_end=pl.col("window_start").dt.offset_by("10s"))
    ends.sink_parquet(base / "out" / "all.parquet", engine="streaming")


def unistream_ticks(folder: Path) -> dict[str, Any]:
    """In ticks, without checkpoints."""
    return _timed(folder, lambda folder, base: _job(folder, base).run(settings=TICKS, progress=False))


def unistream_checkpoints(folder: Path) -> dict[str, Any]:
    """In ticks, with a checkpoint every 10 s; a run that takes less has one at its end."""
    return _timed(folder, lambda folder, base: _checkpointed(folder, base, "10s"))


def unistream_many_checkpoints(folder: Path) -> dict[str, Any]:
    """The same with a checkpoint every half second, so that there are some within a short run, too."""
    return _timed(folder, lambda folder, base: _checkpointed(folder, base, "500ms"))


def _checkpointed(folder: Path, base: Path, every: str) -> None:
    _job(folder, base).run(settings=TICKS, progress=False, checkpoint=base / "ckpt", every=every)


def _job(folder: Path, base: Path) -> us.Job:
    rows = us.scan_parquet(folder / "*.parquet").with_event_time("ts", delay="1s")
    return rows.group_by("key").window(us.tumbling("10s")).agg(**AGGREGATES).sink_parquet(base / "out")


def _timed(folder: Path, work: Callable[[Path, Path], object]) -> dict[str, Any]:
    base = Path(tempfile.mkdtemp(dir=folder.parent))
    try:
        began = time.perf_counter()
        work(folder, base)
        seconds = time.perf_counter() - began
        return {"seconds": seconds, "answer": _fingerprint(base / "out")}
    finally:
        shutil.rmtree(base)


def _fingerprint(out: Path) -> tuple[int, int]:
    """How many results there are, and a number that any other result would change, whatever their order."""
    columns = ["key", "window_start", "window_end"]
    integers = [pl.col(name).cast(pl.Int64) for name in ("n", "total", "most")]
    found = pl.scan_parquet(out / "*.parquet").select(*columns, *integers).collect()
    return found.height, int(found.hash_rows().cast(pl.Int128).sum())


def main(rows: int, rounds: int) -> None:
    folder = reading_files(rows)
    kernels = {
        "Polars streaming": polars_query,
        "unistream ticks": unistream_ticks,
        "checkpoint each 10 s": unistream_checkpoints,
        "checkpoint each 0.5 s": unistream_many_checkpoints,
    }
    answers = {name: in_child(kernel, folder).result["answer"] for name, kernel in kernels.items()}
    if len(set(answers.values())) != 1:
        raise SystemExit(f"the answers differ: {answers}")
    sys.stdout.write(f"{next(iter(answers.values()))[0]:,} results, the same from all\n")
    compare(
        kernels, folder, rows=rows, repeats=rounds, title="tumbling 10 s, 10,000 keys, Parquet to Parquet"
    )


if __name__ == "__main__":
    numbers = [int(arg) for arg in sys.argv[1:]]
    main(numbers[0] if numbers else 10_000_000, numbers[1] if len(numbers) > 1 else 5)
