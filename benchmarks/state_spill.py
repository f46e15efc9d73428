"""State of four times the memory budget: rows per second, and resident memory beyond the start.

python -m benchmarks.state_spill [budget in MB]
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.state_hot_table import resident
from unistream.state.rocksdb import RocksBackend

TICK = 100_000
KEYS, VALUES = pl.Schema({"k": pl.Int64}), pl.Schema({"n": pl.Int64, "a": pl.Float64, "b": pl.Float64})
TEXT = pl.Schema({"note": pl.String})
EVENTS = pl.Schema({"x": pl.Int64, "y": pl.Float64})


class Peak:
    """The most memory seen."""

    def __init__(self) -> None:
        self.start = self.most = resident()

    def look(self) -> None:
        """Now."""
        self.most = max(self.most, resident())

    def text(self) -> str:
        """In MB beyond the start."""
        return f"{(self.most - self.start) / 1e6:.0f} MB"


def numbers(folder: Path, budget: int) -> str:
    """Counters under 64-bit keys: about 50 bytes each."""
    backend = RocksBackend(folder, memory_budget_bytes=budget)
    table = backend.store("op").keyed("t", KEYS, VALUES)
    count, peak, rng = 4 * budget // 50, Peak(), np.random.default_rng(1)
    start = time.perf_counter()
    for first in range(0, count, TICK):
        table.upsert(pl.DataFrame({"k": np.arange(first, min(count, first + TICK)) * 7919}))
        peak.look()
    adding = time.perf_counter() - start
    ticks = 40
    seen = np.zeros(count, dtype=np.uint8)  # ours, so small
    start = time.perf_counter()
    for _ in range(ticks):
        keys = np.unique(rng.integers(0, count, TICK))
        rows, _ = table.upsert(pl.DataFrame({"k": keys * 7919}))
        for name in VALUES:
            table.column(name)[rows] += 1
        table.touch(rows)
        seen[keys] += 1
        peak.look()
    updating = time.perf_counter() - start
    start = time.perf_counter()
    snapshot = backend.snapshot(1).finish()
    peak.look()
    writing = time.perf_counter() - start
    again = RocksBackend(folder.with_name("again"), memory_budget_bytes=budget)
    backend.close()
    del table, backend
    start = time.perf_counter()
    again.restore(snapshot.tables, {file.logical_name: file.path for file in snapshot.files})
    restored = again.store("op").keyed("t", KEYS, VALUES)
    restoring = time.perf_counter() - start
    peak.look()
    for first in range(0, count, 1_000_000):
        part = np.arange(first, min(count, first + 1_000_000))
        rows = restored.find(pl.DataFrame({"k": part * 7919}))
        assert (restored.column("n")[rows] == seen[part]).all()
        peak.look()
    again.close()
    return (
        f"keyed numbers: {count:,} rows, add {count / adding / 1e6:.2f} M/s, "
        f"update {ticks * TICK / updating / 1e6:.2f} M/s, "
        f"checkpoint {writing:.1f} s, restore {restoring:.1f} s, peak {peak.text()}"
    )


def texts(folder: Path, budget: int) -> str:
    """Text of about 100 bytes under text keys."""
    backend = RocksBackend(folder, memory_budget_bytes=budget)
    table = backend.store("op").keyed("t", pl.Schema({"k": pl.String}), TEXT)
    count, peak = 4 * budget // 200, Peak()
    start = time.perf_counter()
    for first in range(0, count, TICK):
        batch = pl.select(n=pl.int_range(first, min(count, first + TICK)))
        rows, _ = table.upsert(batch.select(k=pl.format("user number {}", "n")))
        table.write(rows, batch.select(note=pl.format("note {} " + "x" * 90, "n")))
        peak.look()
    adding = time.perf_counter() - start
    start = time.perf_counter()
    snapshot = backend.snapshot(1).finish()
    writing = time.perf_counter() - start
    peak.look()
    sample = pl.select(n=pl.int_range(0, count, 997))
    rows = table.find(sample.select(k=pl.format("user number {}", "n")))
    assert table.read(rows)["note"].equals(sample.select(note=pl.format("note {} " + "x" * 90, "n"))["note"])
    snapshot.release()
    backend.close()
    return (
        f"keyed text: {count:,} rows, add {count / adding / 1e6:.2f} M/s, "
        f"checkpoint {writing:.1f} s, peak {peak.text()}"
    )


def logs(folder: Path, budget: int) -> str:
    """Frames under buckets, read back bucket by bucket."""
    backend = RocksBackend(folder, memory_budget_bytes=budget)
    log = backend.store("op").log("l", EVENTS)
    count, peak, rng = 4 * budget // 16, Peak(), np.random.default_rng(1)
    frames = count // TICK
    start = time.perf_counter()
    for number in range(frames):
        log.append(
            number * 64 // frames, pl.DataFrame({"x": rng.integers(0, 2**60, TICK), "y": rng.random(TICK)})
        )
        if number % (frames // 4) == 1:
            backend.snapshot(number).finish().release()
        peak.look()
    total = 0
    for bucket in log.buckets():
        total += sum(frame.height for frame in log.frames(bucket))
        log.drop([bucket])
        peak.look()
    assert total == frames * TICK
    seconds = time.perf_counter() - start
    backend.close()
    return f"log: {count:,} rows, written and read {count / seconds / 1e6:.2f} M/s, peak {peak.text()}"


def main() -> None:
    """Print one line per kind of table."""
    budget = (int(sys.argv[1]) if len(sys.argv) > 1 else 200) << 20
    print(f"budget {budget / 1e6:.0f} MB, state four times that")
    for run in (logs, numbers, texts):
        folder = Path(tempfile.mkdtemp())
        try:
            print(run(folder / "live", budget), flush=True)
        finally:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
