"""The parts of a Parquet-to-Parquet job without the engine around them, against Polars' own sink.

python -m benchmarks.parquet_etl_kernel [rows] [--repeats=5] [--flat]

`whole query` is what a bounded job without checkpoints does, with and without its syncs to disk; `reader,
eager, writer` is what it does chunk by chunk: the reader on a thread, the expressions on this one, the
encoders on theirs. Polars runs with its defaults, and once with the compression level of our sink. The
ratio of processor time says more than that of the clock where the machine is not idle.
"""

from __future__ import annotations

import queue
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import polars as pl

from benchmarks.data import order_files
from benchmarks.measure import in_child

FILES = 20
PREDICATE = pl.col("status") != "cancelled"
DERIVED = [
    (pl.col("amount") * 1.19).alias("gross"),
    pl.concat_str(pl.col("status").str.to_uppercase(), pl.lit("/"), pl.col("note")).alias("label"),
    pl.col("ts").dt.truncate("1h").alias("hour"),
]


def polars_sink(folder: Path) -> dict[str, Any]:
    """Polars with its defaults: zstd at level 3, no checksums, no sync."""
    return _timed(folder, lambda out: _query(folder).sink_parquet(out / "all.parquet", mkdir=True))


def polars_sink_level_1(folder: Path) -> dict[str, Any]:
    """Polars at the level our sink takes."""
    sink = {"mkdir": True, "compression_level": 1}
    return _timed(folder, lambda out: _query(folder).sink_parquet(out / "all.parquet", **sink))


def whole_query(folder: Path) -> dict[str, Any]:
    """Our sink by one Polars run, with page checksums and syncs."""
    return _timed(folder, lambda out: _write_query(folder, out))


def whole_query_level_3(folder: Path) -> dict[str, Any]:
    """The same at Polars' level."""
    return _timed(folder, lambda out: _write_query(folder, out, compression_level=3))


def whole_query_unsynced(folder: Path) -> dict[str, Any]:
    """The same without waiting for the disk."""

    def unsynced(out: Path) -> None:
        with patch("os.fsync", lambda descriptor: None):
            _write_query(folder, out)

    return _timed(folder, unsynced)


def reader_eager_writer(folder: Path) -> dict[str, Any]:
    """Chunk by chunk: what runs when state or checkpoints are needed."""
    return _timed(folder, lambda out: _write_chunks(folder, out))


def _query(folder: Path) -> pl.LazyFrame:
    return pl.scan_parquet(folder / "*.parquet").filter(PREDICATE).with_columns(DERIVED)


def _sink(folder: Path, out: Path, **options: Any) -> tuple[Any, Any, Any]:
    from unistream.expressions.schema import StreamSchema
    from unistream.io.base import WriterContext
    from unistream.io.parquet_sink import ParquetSink
    from unistream.io.parquet_source import ParquetSource

    sink = ParquetSink(out, **options)
    sink.prepare_target(restored=False)
    schema = StreamSchema(pl.Schema(_query(folder).collect_schema()))
    return ParquetSource(folder), sink, WriterContext("etl", schema)


def _write_query(folder: Path, out: Path, **options: Any) -> None:
    source, sink, context = _sink(folder, out, **options)
    query = source.lazy().filter(PREDICATE).with_columns(DERIVED)
    sink.commit([sink.lazy(query, context).run()])


def _write_chunks(folder: Path, out: Path) -> None:
    source, sink, context = _sink(folder, out)
    writer = sink.open(context)
    for frame in _read_ahead(source):
        writer.write(frame.with_columns(DERIVED))
    sink.commit([writer.prepare(1)])
    writer.close()


def _read_ahead(source: Any) -> Iterator[pl.DataFrame]:
    from unistream.io.base import Chunk, Request

    ahead: queue.Queue[pl.DataFrame | None] = queue.Queue(2)

    def read() -> None:
        reader = source.open({}, Request(predicate=PREDICATE))
        while isinstance(chunk := reader.poll(250_000), Chunk):
            ahead.put(chunk.frame)
        ahead.put(None)

    threading.Thread(target=read).start()
    while (frame := ahead.get()) is not None:
        yield frame


def _timed(folder: Path, work: Callable[[Path], None]) -> dict[str, Any]:
    base = Path(tempfile.mkdtemp(dir=folder.parent))
    out = base / "out"
    try:
        began, cpu = time.perf_counter(), time.process_time()
        work(out)
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
        files = list(out.glob("*.parquet"))
        rows = pl.scan_parquet(files).select(pl.len()).collect().item()
        return {
            "seconds": seconds,
            "cpu": cpu,
            "rows": rows,
            "MB": sum(file.stat().st_size for file in files) / 1e6,
        }
    finally:
        shutil.rmtree(base)


KERNELS = {
    "Polars, its defaults": polars_sink,
    "Polars, zstd level 1": polars_sink_level_1,
    "whole query": whole_query,
    "whole query, level 3": whole_query_level_3,
    "whole query, no sync": whole_query_unsynced,
    "reader, eager, writer": reader_eager_writer,
}


def main(rows: int, repeats: int, flat: bool) -> None:
    _compare(rows, repeats)
    if flat:
        _compare(4 * rows, 1)


def _compare(rows: int, repeats: int) -> None:
    """Medians over rounds in which each kernel runs once; the ratios are those of each round."""
    folder = order_files(rows, FILES)
    rounds = [{name: in_child(kernel, folder) for name, kernel in KERNELS.items()} for _ in range(repeats)]
    table = []
    for name in KERNELS:
        mine, base = [turn[name] for turn in rounds], [turn[next(iter(KERNELS))] for turn in rounds]
        pairs = list(zip(mine, base, strict=True))
        table.append(
            {
                "form": name,
                "rows/s (M)": rows / median(run.seconds for run in mine) / 1e6,
                "speed": median(b.seconds / m.seconds for m, b in pairs),
                "cpu s": median(run.result["cpu"] for run in mine),
                "cpu speed": median(b.result["cpu"] / m.result["cpu"] for m, b in pairs),
                "peak MB": median(run.peak_mb for run in mine),
                "memory": median(m.peak_mb / b.peak_mb for m, b in pairs),
                "written MB": median(run.result["MB"] for run in mine),
            }
        )
    assert len({run.result["rows"] for turn in rounds for run in turn.values()}) == 1
    with pl.Config(tbl_rows=-1, tbl_cols=-1, tbl_width_chars=160, float_precision=2):
        print(f"{rows:,} rows, {repeats} rounds; ratios against Polars with its defaults")
        print(pl.DataFrame(table))


if __name__ == "__main__":
    numbers = [int(arg) for arg in sys.argv[1:] if arg.isdigit()]
    repeats = [int(arg.removeprefix("--repeats=")) for arg in sys.argv[1:] if arg.startswith("--repeats=")]
    main(numbers[0] if numbers else 10_000_000, repeats[0] if repeats else 5, "--flat" in sys.argv)
