"""A day of events at ten thousand a second: every result right, and memory that stays where it was."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import unistream as us

PER_FRAME, KEYS, WINDOW = 100_000, 1_000, 10_000_000
APART, DISORDER = 100, 50_000
"""Microseconds between rows, and how many of them a row may be behind."""
FRAMES_PER_DAY = 8_640
PER_HUNDRED_MILLION = 1_000
"""Frames that make a hundred million rows."""

SCHEMA = {"t": pl.Datetime("us"), "k": pl.Int64, "v": pl.Int64}


class Day:
    """Gives the rows, counts and sums each window by itself, and compares the results that come."""

    def __init__(self, frames: int) -> None:
        self._frames = frames
        self._expected: dict[int, np.ndarray] = {}
        self.windows_checked = 0
        self.memory: list[float] = []

    def rows(self) -> Iterator[pl.DataFrame]:
        for number in range(self._frames):
            rows = np.arange(number * PER_FRAME, (number + 1) * PER_FRAME)
            times = np.maximum(rows - rows * 7_919 % DISORDER, 0) * APART
            keys, values = rows * 31 % KEYS, rows % 97
            self._expect(times // WINDOW, keys, values)
            frame = pl.DataFrame({"t": times, "k": keys, "v": values})
            yield frame.with_columns(pl.col("t").cast(pl.Datetime("us")))
            if number % 20 == 0:
                self.memory.append(resident_megabytes())

    def _expect(self, windows: np.ndarray, keys: np.ndarray, values: np.ndarray) -> None:
        for window in np.unique(windows).tolist():
            here = windows == window
            table = self._expected.setdefault(window, np.zeros((2, KEYS), dtype=np.int64))
            table[0] += np.bincount(keys[here], minlength=KEYS)
            table[1] += np.bincount(keys[here], values[here], minlength=KEYS).astype(np.int64)

    def check(self, results: pl.DataFrame) -> None:
        windows = results["window_start"].cast(pl.Int64).to_numpy() // WINDOW
        keys, counts, sums = (results[name].to_numpy() for name in ("k", "n", "total"))
        for window in np.unique(windows).tolist():
            here = windows == window
            table = self._expected[window]
            assert (table[0][keys[here]] == counts[here]).all(), f"counts of window {window}"
            assert (table[1][keys[here]] == sums[here]).all(), f"sums of window {window}"
            table[:, keys[here]] = 0
            if not table.any():
                del self._expected[window]
                self.windows_checked += 1

    def nothing_left(self) -> bool:
        return not self._expected


def resident_megabytes() -> float:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def run(day: Day, folder: Path) -> int:
    stream = us.scan_iterable(day.rows, schema=SCHEMA).with_event_time("t", delay="5s")
    counts = stream.group_by("k").window(us.tumbling("10s")).agg(n=pl.len(), total=pl.col("v").sum())
    done = counts.sink_batches(day.check).run(checkpoint=folder / "ckpt", every="10s", progress=False)
    assert done.to_dict()["late"] == 0
    assert day.nothing_left()
    return day.windows_checked


def test_some_minutes(tmp_path: Path) -> None:
    assert run(Day(20), tmp_path) == 20


@pytest.mark.nightly
def test_a_whole_day(tmp_path: Path) -> None:
    day = Day(FRAMES_PER_DAY)
    assert run(day, tmp_path) == FRAMES_PER_DAY
    warm = np.array(day.memory[PER_HUNDRED_MILLION // 20 :])
    slope = np.polyfit(np.arange(len(warm)) * 20 / PER_HUNDRED_MILLION, warm, 1)[0]
    print(f"{warm[0]:.0f} MB after 100 M rows, {warm[-1]:.0f} MB at the end, {slope:+.2f} MB per 100 M rows")
    assert slope < 1.0
