"""Checkpoints and restores of a keyed table: segment files beside segments kept in RocksDB.

python -m benchmarks.state_checkpoint [keys]

Rows are an Int64 key and four 8-byte accumulators. "stall" is what the operator thread waits for, "write"
runs in the background. RocksDB gets the same blocks as values (raw mode, no WAL, no automatic compaction),
then flush and a RocksDB checkpoint; its bytes are those of files that the checkpoint before did not have.
"""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl
import rocksdict

from unistream.state.hot_table import HotTable
from unistream.state.rocksdb import RocksBackend
from unistream.state.segments import cut_into_blocks, encode

KEYS = pl.Schema({"key": pl.Int64})
VALUES = pl.Schema({"n": pl.Int64, "total": pl.Float64, "least": pl.Float64, "most": pl.Float64})
ROW_BYTES = 44


def filled(table: HotTable, count: int) -> None:
    """Rows for all keys, with values that do not compress."""
    rows, _ = table.upsert(pl.DataFrame({"key": np.arange(count) * 7919}))
    rng = np.random.default_rng(1)
    for name in VALUES:
        table.column(name)[rows] = rng.integers(0, 2**60, count)


def change(table: HotTable, share: float, rng: np.random.Generator) -> int:
    """Touch a random share of the rows."""
    count = int(len(table) * share)
    rows = rng.permutation(len(table))[:count]
    table.column("n")[rows] += 1
    table.touch(rows)
    return count


def segment_files(keys: int, share: float, checkpoints: int, folder: Path) -> str:
    """Our backend, several checkpoints in a row."""
    backend = RocksBackend(folder / "live")
    table = backend.store("op").keyed("t", KEYS, VALUES)
    assert isinstance(table, HotTable)
    filled(table, keys)
    backend.snapshot(0).finish().release()
    rng = np.random.default_rng(2)
    known = {path.name for path in (folder / "live").glob("*.seg")}
    stalls, writes, written, changed = [], [], 0, 0
    for checkpoint in range(1, checkpoints + 1):
        changed += change(table, share, rng)
        start = time.perf_counter()
        pending = backend.snapshot(checkpoint)
        middle = time.perf_counter()
        snapshot = pending.finish()
        writes.append(time.perf_counter() - middle)
        stalls.append(middle - start)
        new = [file for file in snapshot.files if file.logical_name not in known]
        written += sum(file.path.stat().st_size for file in new)
        known |= {file.logical_name for file in new}
        snapshot.release()
    again = RocksBackend(folder / "again")
    start = time.perf_counter()
    again.restore(snapshot.tables, {file.logical_name: file.path for file in snapshot.files})
    restored = again.store("op").keyed("t", KEYS, VALUES)
    restoring = time.perf_counter() - start
    assert len(restored) == keys
    backend.close()
    again.close()
    return line("segment files", share, stalls, writes, written, changed, restoring)


def rocks_segments(keys: int, share: float, checkpoints: int, folder: Path) -> str:
    """The same blocks as values of a RocksDB, carried in RocksDB checkpoints."""
    table = HotTable(KEYS, VALUES)
    filled(table, keys)
    options = rocksdict.Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_disable_auto_compactions(True)
    options.set_compression_type(rocksdict.DBCompressionType.none())
    options.set_write_buffer_size(512 << 20)
    database = rocksdict.Rdict(str(folder / "rocks"), options)
    no_log = rocksdict.WriteOptions()
    no_log.disable_wal = True
    database.set_write_options(no_log)
    rng = np.random.default_rng(2)
    known: set[str] = set()
    stalls, writes, written, changed, number = [], [], 0, 0, 0
    base, delta_rows = 0, 0
    for checkpoint in range(checkpoints + 1):
        count = change(table, share, rng) if checkpoint else keys
        start = time.perf_counter()
        whole = not checkpoint or delta_rows + count >= keys
        rows = table.changed_rows(whole)
        frame = table.frame(rows)
        table.mark_stored(rows)
        middle = time.perf_counter()
        first = number
        for block in cut_into_blocks(frame):
            database[number.to_bytes(8, "big")] = encode(block)[0]
            number += 1
        if whole and checkpoint:
            database.delete_range(base.to_bytes(8, "big"), first.to_bytes(8, "big"))
        delta_rows = 0 if whole else delta_rows + count
        database.flush()
        if whole and checkpoint:
            database.compact_range(base.to_bytes(8, "big"), (first - 1).to_bytes(8, "big"))
            base = first
        target = folder / f"checkpoint{checkpoint}"
        rocksdict.Checkpoint(database).create_checkpoint(str(target))
        if checkpoint:
            writes.append(time.perf_counter() - middle)
            stalls.append(middle - start)
            changed += count
        new = [path for path in target.iterdir() if path.name not in known or path.suffix != ".sst"]
        written += sum(path.stat().st_size for path in new) if checkpoint else 0
        known |= {path.name for path in new}
    database.close()
    start = time.perf_counter()
    opened = rocksdict.Rdict(str(target), options)
    restored = HotTable(KEYS, VALUES)
    cursor = opened.iter()
    cursor.seek_to_first()
    while cursor.valid():
        value = cursor.value()
        restored.load(pl.read_ipc_stream(value[24:]), new=False)
        cursor.next()
    cursor.status()
    restoring = time.perf_counter() - start
    assert len(restored) == keys
    del cursor
    opened.close()
    return line("in RocksDB", share, stalls, writes, written, changed, restoring)


def line(
    what: str,
    share: float,
    stalls: list[float],
    writes: list[float],
    written: int,
    changed: int,
    restoring: float,
) -> str:
    """One line of the result."""
    return (
        f"{what:>14} {share:>6.0%} {1000 * statistics.median(stalls):>9.1f} {1000 * max(stalls):>9.1f} "
        f"{1000 * statistics.median(writes):>9.1f} {written / 1e6:>9.1f} "
        f"{written / changed / ROW_BYTES:>7.2f} {restoring:>9.2f}"
    )


def main() -> None:
    """Print a table."""
    keys = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    print(f"{keys:,} keys; bytes are per {ROW_BYTES} bytes of each changed row, folding included")
    names = ("", "dirty", "stall ms", "max", "write ms", "MB", "x 44 B", "restore s")
    print("{:>14} {:>6} {:>9} {:>9} {:>9} {:>9} {:>7} {:>9}".format(*names))
    for share, checkpoints in ((0.01, 50), (0.1, 50), (1.0, 10)):
        for run in (segment_files, rocks_segments):
            folder = Path(tempfile.mkdtemp())
            try:
                print(run(keys, share, checkpoints, folder), flush=True)
            finally:
                shutil.rmtree(folder)


if __name__ == "__main__":
    main()
