"""The files that all engines read, made once: events of Nexmark, rows to count, and readings for windows."""

from __future__ import annotations

import mmap
import shutil
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl

import unistream as us
from benchmarks.compare.tables import TABLES

KEYS = 1_000_000
"""Keys of the running count."""

WINDOW_KEYS = 10_000
"""Keys of the windows."""

RATE = 10_000
"""Rows in a second of event time."""

LANES = 2
TIME_FORMAT = "%Y-%m-%d %H:%M:%S%.3f"
BLOCK = 500_000
START = datetime(2015, 7, 15)


def counts(rows: int) -> Iterator[pl.DataFrame]:
    """Rows to count: keys are drawn evenly."""
    random = np.random.default_rng(1)
    for first in range(0, rows, BLOCK):
        size = min(BLOCK, rows - first)
        yield pl.DataFrame({"key": random.integers(0, KEYS, size), "amount": random.integers(0, 1000, size)})


def readings(rows: int, rate: int) -> Iterator[pl.DataFrame]:
    """Rows with a time, `rate` in a second, one of ten up to two seconds late."""
    random = np.random.default_rng(2)
    start = int(np.datetime64(START, "ms").astype(np.int64))
    for first in range(0, rows, BLOCK):
        numbers = np.arange(first, min(first + BLOCK, rows))
        late = np.where(random.random(len(numbers)) < 0.1, random.integers(0, 2000, len(numbers)), 0)
        yield pl.DataFrame(
            {
                "dateTime": pl.Series(start + np.maximum(numbers * 1000 // rate - late, 0)).cast(
                    pl.Datetime("ms")
                ),
                "key": random.integers(0, WINDOW_KEYS, len(numbers)),
                "amount": random.integers(0, 1000, len(numbers)),
            }
        )


def events(kind: str, count: int, rate: int) -> Iterator[pl.DataFrame]:
    """Events of one kind; times in whole milliseconds, which is all that some engines know as event time."""
    # The rate is that of the past: everything is due at once.
    for frame in us.scan_nexmark(count, which=kind, rate=rate, start=START).batches():  # type: ignore[arg-type]
        yield frame.with_columns(pl.col(pl.Datetime).cast(pl.Datetime("ms")))


def blocks(table: str, rows: int, rate: int) -> Iterator[pl.DataFrame]:
    """The rows of a table, of which `rows` are events or rows in all."""
    if table == "counts":
        return counts(rows)
    return readings(rows, rate) if table == "readings" else events(table, rows, rate)


def write(folder: Path, table: str, rows: int, rate: int) -> None:
    """The same rows in one file, in order, and dealt over two files that advance together."""
    files = {}
    for layout, number in {"whole": 1, "lanes": LANES}.items():
        (folder / layout / table).mkdir(parents=True)
        files[layout] = [(folder / layout / table / f"{lane}.csv").open("wb") for lane in range(number)]
    for frame in blocks(table, rows, rate):
        for layout, opened in files.items():
            for lane, file in enumerate(opened):
                part = frame if layout == "whole" else frame.gather_every(LANES, lane)
                part.select(list(TABLES[table])).write_csv(
                    file, include_header=False, datetime_format=TIME_FORMAT
                )
    for opened in files.values():
        for file in opened:
            file.close()


def prepared(cache: Path, rows: int, rate: int = RATE) -> Path:
    """The folder with all tables, `rate` rows to a second of event time; made when it is not there."""
    folder = cache / f"events-{rows}-{rate}"
    if not (folder / "done").exists():
        shutil.rmtree(folder, ignore_errors=True)
        for table in TABLES:
            write(folder, table, rows, rate)
        (folder / "done").touch()
    return folder


def table(folder: Path, name: str) -> pl.DataFrame:
    """One table as a frame, for the reference."""
    types = {"integer": pl.Int64(), "text": pl.String(), "time": pl.Datetime("us")}
    schema = {column: types[kind] for column, kind in TABLES[name].items()}
    texts = {
        column: pl.String() if isinstance(kind, pl.Datetime) else kind for column, kind in schema.items()
    }
    frame = pl.read_csv(folder / "whole" / name / "0.csv", has_header=False, schema=texts)
    times = [column for column, kind in schema.items() if isinstance(kind, pl.Datetime)]
    return frame.with_columns(pl.col(times).str.to_datetime(TIME_FORMAT, time_unit="us"))


def brought_into_memory(folder: Path) -> None:
    """Read all files once, so that they lie in the memory of the operating system."""
    for file in sorted(folder.rglob("*.csv")):
        with file.open("rb") as content:
            while content.read(1 << 24):
                pass


def fetch_pages(megabytes: int = 1500) -> None:
    """Write to so much memory and give it back.

    The first to ask a virtual machine for pages that lie with its host waits several times as long for them
    as the next one, who gets them again: without this the order of the runs would be measured.
    """
    with mmap.mmap(-1, megabytes << 20) as pages:
        np.frombuffer(pages, np.uint8)[:: mmap.PAGESIZE] = 1
