"""Batch ETL: scan Parquet, filter, three derived columns, write Parquet; against Polars' streaming engine.

python -m benchmarks.etl [rows] [--flat]
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import polars as pl

import unistream as us
from benchmarks.data import order_files
from benchmarks.measure import compare

FILES = 20
PREDICATE = pl.col("status") != "cancelled"
DERIVED = [
    (pl.col("amount") * 1.19).alias("gross"),
    pl.concat_str(pl.col("status").str.to_uppercase(), pl.lit("/"), pl.col("note")).alias("label"),
    pl.col("ts").dt.truncate("1h").alias("hour"),
]


def polars_query(folder: Path) -> dict[str, Any]:
    """The same work as one query of Polars' streaming engine, with its defaults."""
    return _timed(folder, lambda out: _polars(folder, out))


def _polars(folder: Path, out: Path) -> None:
    out.mkdir()
    query = pl.scan_parquet(folder / "*.parquet").filter(PREDICATE).with_columns(DERIVED)
    query.sink_parquet(out / "all.parquet", engine="streaming")


def unistream_batch(folder: Path) -> dict[str, Any]:
    """A bounded job."""
    return _timed(folder, lambda out: _job(us.scan_parquet(folder / "*.parquet"), out))


def unistream_ticks(folder: Path) -> dict[str, Any]:
    """The same stream watching its folder, sliced into ticks."""
    source = us.scan_parquet(folder / "*.parquet", watch=True)
    return _timed(folder, lambda out: _job(source, out, until="available"))


def _job(stream: us.Stream, out: Path, until: Any = "end") -> None:
    stream.filter(PREDICATE).with_columns(DERIVED).sink_parquet(out).run(until=until, progress=False)


def _timed(folder: Path, work: Any) -> dict[str, Any]:
    base = Path(tempfile.mkdtemp(dir=folder.parent))
    out = base / "out"
    try:
        began = time.perf_counter()
        work(out)
        seconds = time.perf_counter() - began
        rows = pl.scan_parquet(out / "*.parquet").select(pl.len()).collect().item()
        return {"seconds": seconds, "rows": rows}
    finally:
        shutil.rmtree(base)


def main(rows: int, flat: bool) -> None:
    kernels = {
        "Polars streaming": polars_query,
        "unistream batch": unistream_batch,
        "unistream ticks": unistream_ticks,
    }
    compare(kernels, order_files(rows, FILES), rows=rows, title="ETL Parquet to Parquet")
    if flat:
        compare(
            kernels,
            order_files(4 * rows, 4 * FILES),  # more files of the same size, as data grows
            rows=4 * rows,
            repeats=2,
            title="the same, four times the rows",
        )


if __name__ == "__main__":
    numbers = [int(arg) for arg in sys.argv[1:] if arg.isdigit()]
    main(numbers[0] if numbers else 10_000_000, "--flat" in sys.argv)
