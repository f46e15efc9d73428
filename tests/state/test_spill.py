"""State beyond the memory budget: on disk, right, and checked when it is read."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from unistream.errors import ConnectorError, StateError
from unistream.state import array_space
from unistream.state.array_space import MappedSpace
from unistream.state.hot_table import HotTable
from unistream.state.log_table import FrameLog
from unistream.state.rocks_store import RocksStore
from unistream.state.rocksdb import RocksBackend
from unistream.state.spill import MemoryBudget

EVENTS = pl.Schema({"x": pl.Int64, "s": pl.String})


def events(start: int, count: int) -> pl.DataFrame:
    return pl.select(x=pl.int_range(start, start + count)).with_columns(s=pl.format("text {}", "x"))


def test_logs_stay_within_the_budget_and_keep_what_is_used(tmp_path: Path) -> None:
    budget = MemoryBudget(100_000, tmp_path)
    logs = [FrameLog(EVENTS, budget), FrameLog(EVENTS, budget)]
    for turn in range(100):
        logs[turn % 2].append(turn // 2, events(turn * 100, 100))
        assert logs[0].frames(0)[0].equals(events(0, 100))
        assert budget.log_bytes <= 100_000
    hot = [entry for entry in logs[0].bucket_entries(0) if entry.frame is not None]
    cold = [entry for entry in logs[1].bucket_entries(0) if entry.frame is None]
    assert hot and cold
    for turn in range(100):
        (frame,) = logs[turn % 2].frames(turn // 2)
        assert frame.equals(events(turn * 100, 100))
    logs[0].drop(range(50))
    logs[1].replace(3, [events(0, 5)])
    logs[1].drop(range(50))
    assert budget.log_bytes == 0 and len(logs[0]) == len(logs[1]) == 0
    budget.close()
    assert not (tmp_path / "cold").exists()


def test_what_a_checkpoint_holds_is_not_spilled_again(tmp_path: Path) -> None:
    backend = RocksBackend(tmp_path / "live", memory_budget_bytes=10_000_000)
    log: Any = backend.store("op").log("l", EVENTS)
    for bucket in range(5):
        log.append(bucket, events(bucket * 1000, 1000))
    backend.snapshot(1).finish().release()
    for bucket in range(5):
        log.spill(bucket)
        log.append(bucket, events(bucket, 1))
    assert not (tmp_path / "live" / "cold").exists()
    for bucket in range(5):
        first, second = log.frames(bucket)
        assert first.equals(events(bucket * 1000, 1000)) and second.equals(events(bucket, 1))


def test_spilled_blobs_go_with_their_frames(tmp_path: Path) -> None:
    store = RocksStore(tmp_path / "rocks")
    frames = [store.put(events(number, 3000)) for number in range(3)]
    assert frames[1].read().equals(events(1, 3000))
    number = frames[1]._pieces[0][0]
    assert store._database.key_may_exist(number.to_bytes(8, "big"))
    del frames[1]
    last = store.put(events(9, 1))
    assert store._database.get(number.to_bytes(8, "big")) is None
    assert frames[0].read().equals(events(0, 3000)) and last.read().equals(events(9, 1))
    store.close()
    assert not (tmp_path / "rocks").exists()


def test_spilled_frames_are_read_by_other_threads(tmp_path: Path) -> None:
    store = RocksStore(tmp_path / "rocks")
    frames = [store.put(events(number, 3000)) for number in range(20)]
    with ThreadPoolExecutor(2) as pool:
        reading = pool.map(lambda frame: frame.read(), frames)
        more = [store.put(events(number, 3000)) for number in range(20)]
        assert all(frame.equals(events(number, 3000)) for number, frame in enumerate(reading))
    assert more[7].read().equals(events(7, 3000))
    store.close()


def test_damage_in_the_live_database_is_never_silent(tmp_path: Path) -> None:
    store = RocksStore(tmp_path / "rocks")
    frames = [store.put(events(number, 300)) for number in range(4)] + [store.put(events(0, 1))]
    expected = [events(number, 300) for number in range(4)] + [events(0, 1)]
    store._database.flush()
    files = [path for path in (tmp_path / "rocks").iterdir() if path.suffix in (".sst", ".blob")]
    assert {path.suffix for path in files} == {".sst", ".blob"}
    found = 0
    for path in files:
        good = path.read_bytes()
        for at in range(0, len(good), 97):
            path.write_bytes(good[:at] + bytes([good[at] ^ 4]) + good[at + 1 :])
            for frame, wanted in zip(frames, expected, strict=True):
                try:
                    assert frame.read().equals(wanted)
                except StateError:
                    found += 1
        path.write_bytes(good)
    assert found > 100
    store.close()


@pytest.fixture
def no_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> MappedSpace:
    monkeypatch.setattr(array_space, "SMALL_BYTES", 0)
    monkeypatch.setattr(array_space, "_RESIDENT_BYTES", 0)
    return MappedSpace(0, tmp_path / "mapped")


def test_arrays_and_text_survive_in_mapped_files(no_memory: MappedSpace, tmp_path: Path) -> None:
    values = pl.Schema({"n": pl.Int64, "s": pl.String, "l": pl.List(pl.String), "w": pl.Int128})
    table = HotTable(pl.Schema({"k": pl.String}), values, no_memory)
    for start in range(0, 30_000, 5000):
        rows, _ = table.upsert(events(start, 5000).select(k="s"))
        frame = events(start, 5000).select(n="x", s="s", l=pl.concat_list("s"), w=pl.col("x").cast(pl.Int128))
        table.write(rows, frame)
    assert no_memory.bounded
    table.column("n")[table.rows()] += 1
    table.delete(table.find(events(100, 500).select(k="s")))
    scanned = table.scan().sort("n")
    kept = pl.concat([events(0, 100), events(600, 29_400)])
    assert scanned["n"].to_list() == [x + 1 for x in kept["x"].to_list()]
    assert scanned["k"].equals(kept["s"].alias("k")) and scanned["s"].equals(kept["s"])
    assert (
        scanned["l"].list.first().equals(kept["s"].alias("l"))
        and scanned["w"].to_list() == kept["x"].to_list()
    )
    assert list((tmp_path / "mapped").iterdir()) == []  # the files have no names


def test_memory_is_counted_and_given_back(tmp_path: Path) -> None:
    space = MappedSpace(100_000_000, tmp_path)
    table = HotTable(pl.Schema({"k": pl.Int64}), pl.Schema({"n": pl.Int64}), space)
    table.upsert(pl.DataFrame({"k": range(200_000)}))
    assert 200_000 * 20 < space.in_memory < 200_000 * 200 and not space.bounded
    del table
    assert space.in_memory == 0
    array = space.zeros(200_000_000, np.uint8)
    assert space.bounded and space.in_memory == 0 and not array.any()


def test_a_disk_that_is_full_is_an_error(no_memory: MappedSpace, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(array_space.os, "posix_fallocate", full)
    with pytest.raises(ConnectorError, match="No space left"):
        no_memory.zeros(1000, np.int64)


def test_tables_beyond_the_budget_are_checkpointed_and_restored(
    no_memory: MappedSpace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    keys, values = pl.Schema({"k": pl.Int64}), pl.Schema({"s": pl.String})
    backend = RocksBackend(tmp_path / "one", memory_budget_bytes=1)
    table = backend.store("op").keyed("t", keys, values)
    for start in range(0, 100_000, 20_000):
        rows, _ = table.upsert(events(start, 20_000).select(k="x"))
        table.write(rows, events(start, 20_000).select("s"))
    first = backend.snapshot(1).finish()
    table.delete(table.find(events(0, 10).select(k="x")))
    second = backend.snapshot(2)
    table.delete(table.rows())  # after the snapshot: not in it
    for snapshot, start in ((first, 0), (second.finish(), 10)):
        again = RocksBackend(tmp_path / f"again{start}", memory_budget_bytes=1)
        again.restore(snapshot.tables, {file.logical_name: file.path for file in snapshot.files})
        scanned = again.store("op").keyed("t", keys, values).scan().sort("k")
        assert scanned.equals(events(start, 100_000 - start).rename({"x": "k"}))
        again.close()
