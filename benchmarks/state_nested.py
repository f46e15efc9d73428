"""Checkpoints of a keyed table with a list of structs in each row: stall, time of writing, and memory.

python -m benchmarks.state_nested [keys]

Every row changes between two checkpoints. "stall" is what the operator thread waits for, "write" runs in the
background, "over" is how much more memory the process had at the most than when the checkpoint began.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import polars as pl

from unistream.state.backend import KeyedTable
from unistream.state.rocksdb import RocksBackend

KEYS = pl.Schema({"key": pl.Int64})
VALUES = pl.Schema({"top": pl.List(pl.Struct({"price": pl.Int64, "note": pl.String}))})
MOST_IN_LIST = 10
BATCH = 20_000
CHECKPOINTS = 3


def batch(start: int, count: int, rng: np.random.Generator) -> pl.DataFrame:
    """Keys with up to ten structs each."""
    heights = rng.integers(1, MOST_IN_LIST + 1, count)
    items = pl.DataFrame({"key": np.repeat(np.arange(start, start + count), heights)}).with_columns(
        price=pl.Series(rng.integers(0, 10**9, heights.sum()))
    )
    note = pl.format("a note on the price of {}", "price")
    return items.group_by("key", maintain_order=True).agg(top=pl.struct("price", note=note))


def fill(table: KeyedTable, keys: int, rng: np.random.Generator) -> None:
    """Write every row."""
    for start in range(0, keys, BATCH):
        frame = batch(start, min(BATCH, keys - start), rng)
        rows, _ = table.upsert(frame.select("key"))
        table.write(rows, frame.select("top"))


class Most:
    """The most memory of this process while the block runs, in MB."""

    def __enter__(self) -> Most:
        self.begin = self.most = resident()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.001):
            self.most = max(self.most, resident())


def resident() -> float:
    """Memory of this process in MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6


def main() -> None:
    """Print a line per checkpoint."""
    keys = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
    rng = np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as folder:
        backend = RocksBackend(Path(folder) / "live")
        table = backend.store("op").keyed("t", KEYS, VALUES)
        print(f"{keys:,} keys with up to {MOST_IN_LIST} structs each")
        print(f"{'MB':>6} {'stall ms':>9} {'write ms':>9} {'over MB':>8}")
        for checkpoint in range(1, CHECKPOINTS + 1):
            fill(table, keys, rng)
            with Most() as memory:
                start = time.perf_counter()
                pending = backend.snapshot(checkpoint)
                middle = time.perf_counter()
                snapshot = pending.finish()
                end = time.perf_counter()
            written = sum(file.path.stat().st_size for file in snapshot.files) / 1e6
            stall, write = 1000 * (middle - start), 1000 * (end - middle)
            print(f"{written:>6.0f} {stall:>9.1f} {write:>9.0f} {memory.most - memory.begin:>8.0f}")
            snapshot.release()
        backend.close()


if __name__ == "__main__":
    main()
