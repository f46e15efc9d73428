"""Every backend against dicts, with snapshots, crashes and restores at any moment."""

import json
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from unistream.errors import ConnectorError, StateError
from unistream.state import array_space, columns, records, segments
from unistream.state.memory import MemoryBackend
from unistream.state.rocksdb import RocksBackend
from unistream.state.snapshot import Snapshot, StateBackend

BACKENDS: dict[str, Callable[..., StateBackend]] = {
    "memory": MemoryBackend,
    "rocks": RocksBackend,
    # So little memory that whatever can be on disk is there.
    "spilling": partial(RocksBackend, memory_budget_bytes=1),
}

KEYS = pl.Schema({"user": pl.String, "day": pl.Int32})
VALUES = pl.Schema({"n": pl.Int64, "note": pl.String})
LOG = pl.Schema({"x": pl.Int64, "tags": pl.List(pl.String)})

users = st.sampled_from(["ada", "bob", "", None, "a long name beyond twelve bytes"])
keys = st.tuples(users, st.integers(0, 3) | st.none())
values = st.tuples(
    st.integers(-9, 9) | st.none(), st.sampled_from(["", "note", "a long note beyond twelve", None])
)
frames = st.lists(
    st.tuples(st.integers(-9, 9), st.lists(st.sampled_from(["", "t"]), max_size=2)), min_size=1, max_size=4
)


class Stored:
    """A snapshot as a checkpoint store keeps it: copied files and JSON text."""

    def __init__(self, snapshot: Snapshot, folder: Path) -> None:
        self.tables = json.loads(json.dumps(snapshot.tables))
        self.files: dict[str, Path] = {}
        for file in snapshot.files:
            self.files[file.logical_name] = Path(
                shutil.copy(file.path, folder / f"{snapshot.checkpoint_id}-{file.path.name}")
            )
        snapshot.release()


class BackendMachine(RuleBasedStateMachine):
    make: Callable[[Path], StateBackend]

    @initialize()
    def start(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.kept = self.folder / "kept"
        self.kept.mkdir()
        self.model: tuple[dict[Any, Any], dict[int, list[Any]], Any] = ({}, {}, None)
        self.checkpoint = 0
        self.stored: tuple[Stored, Any] | None = None
        self.backend = type(self).make(self.folder / "live")
        self.open()

    def teardown(self) -> None:
        if hasattr(self, "backend"):
            self.backend.close()
            shutil.rmtree(self.folder)

    def open(self) -> None:
        store = self.backend.store("op", ["user"])
        self.table = store.keyed("rows", KEYS, VALUES)
        self.log = store.log("log", LOG)
        self.cell = store.cell("cell")

    def frame(self, rows: list[Any]) -> pl.DataFrame:
        return pl.DataFrame(rows, schema=KEYS, orient="row")

    @rule(rows=st.dictionaries(keys, values, max_size=6))
    def write(self, rows: dict[Any, Any]) -> None:
        ids, new = self.table.upsert(self.frame(list(rows)))
        assert new.tolist() == [key not in self.model[0] for key in rows]
        self.table.write(ids, pl.DataFrame(list(rows.values()), schema=VALUES, orient="row"))
        self.model[0].update(rows)

    @rule(rows=st.dictionaries(keys, values, max_size=6))
    def write_what_is_missing(self, rows: dict[Any, Any]) -> None:
        missing = {key: value for key, value in rows.items() if key not in self.model[0]}
        assert (self.table.find(self.frame(list(missing))) < 0).all()
        ids = self.table.insert(self.frame(list(missing)))
        self.table.write(ids, pl.DataFrame(list(missing.values()), schema=VALUES, orient="row"))
        self.model[0].update(missing)

    @rule(rows=st.lists(keys, max_size=6, unique=True))
    def delete(self, rows: list[Any]) -> None:
        found = self.table.find(self.frame(rows))
        assert (found >= 0).tolist() == [key in self.model[0] for key in rows]
        self.table.delete(found[found >= 0])
        for key in rows:
            self.model[0].pop(key, None)

    @rule(bucket=st.integers(-1, 2), rows=frames)
    def append(self, bucket: int, rows: list[Any]) -> None:
        self.log.append(bucket, pl.DataFrame(rows, schema=LOG, orient="row"))
        self.model[1].setdefault(bucket, []).append([(x, list(tags)) for x, tags in rows])

    @rule(bucket=st.integers(-1, 2))
    def fold(self, bucket: int) -> None:
        held = self.log.frames(bucket)
        self.log.replace(bucket, [pl.concat(held)] if held else [])
        if held:
            self.model[1][bucket] = [[row for frame in self.model[1][bucket] for row in frame]]

    @rule(bucket=st.integers(-1, 2), start=st.integers(0, 4))
    def fold_the_last(self, bucket: int, start: int) -> None:
        held = self.log.frames(bucket, start)
        if held:
            self.log.replace(bucket, [pl.concat(held)], start)
            kept = self.model[1][bucket]
            self.model[1][bucket] = [*kept[:start], [row for frame in kept[start:] for row in frame]]

    @rule(bucket=st.integers(-1, 2), gone=st.sets(st.integers(0, 4)))
    def thin(self, bucket: int, gone: set[int]) -> None:
        kept = self.model[1].get(bucket)
        if kept is None:
            return
        self.log.thin(bucket, {number for number in gone if number < len(kept)})
        self.model[1][bucket] = [frame for number, frame in enumerate(kept) if number not in gone]
        if not self.model[1][bucket]:
            del self.model[1][bucket]

    @rule(buckets=st.sets(st.integers(-1, 2), max_size=2))
    def drop(self, buckets: set[int]) -> None:
        self.log.drop(buckets)
        for bucket in buckets:
            self.model[1].pop(bucket, None)

    @rule(value=st.integers() | st.text() | st.lists(st.floats(allow_nan=False, allow_infinity=False)))
    def set_cell(self, value: Any) -> None:
        self.cell.set(value)
        self.model = (*self.model[:2], value)

    @rule(finishes=st.booleans(), meanwhile=st.dictionaries(keys, values, max_size=3))
    def take_snapshot(self, finishes: bool, meanwhile: dict[Any, Any]) -> None:
        self.checkpoint += 1
        pending = self.backend.snapshot(self.checkpoint)
        model = (
            {**self.model[0]},
            {bucket: [*held] for bucket, held in self.model[1].items()},
            self.model[2],
        )
        if meanwhile:
            self.write(meanwhile)
        if finishes:
            snapshot = pending.finish()
            assert pending.finish() is snapshot
            self.stored = Stored(snapshot, self.kept), model

    @rule()
    def crash(self) -> None:
        self.backend = type(self).make(self.folder / "live")
        self.model = ({}, {}, None)
        if self.stored is not None:
            stored, model = self.stored
            self.backend.restore(stored.tables, stored.files)
            self.model = ({**model[0]}, {bucket: [*held] for bucket, held in model[1].items()}, model[2])
        self.open()

    @rule()
    def compare(self) -> None:
        scanned = self.table.scan()
        assert {row[:2]: row[2:] for row in scanned.rows()} == self.model[0]
        assert len(self.table) == scanned.height == len(self.model[0])
        assert list(self.log.buckets()) == sorted(self.model[1])
        for bucket, held in self.model[1].items():
            assert [frame.rows() for frame in self.log.frames(bucket)] == held
        assert len(self.log) == sum(len(frame) for held in self.model[1].values() for frame in held)
        assert self.cell.get() == self.model[2]

    @rule()
    def crash_and_compare(self) -> None:
        self.crash()
        self.compare()


@pytest.mark.parametrize("chains", [True, False])
@pytest.mark.parametrize("name", list(BACKENDS))
def test_same_as_dicts(name: str, chains: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `chains`, even these small tables are written as changes, every part in its own file and in
    slices of a row or two."""
    if chains:
        monkeypatch.setattr(records, "SMALL_TABLE_ROWS", 0)
        monkeypatch.setattr(records, "LONGEST_CHAIN", 4)
        monkeypatch.setattr(records, "OWN_FILE_BYTES", 0)
        monkeypatch.setattr(segments, "BLOCK_BYTES", 40)
        monkeypatch.setattr(columns, "_SMALL_HEAP", 2)
    if name == "spilling":
        monkeypatch.setattr(array_space, "SMALL_BYTES", 0)
    machine = type("Machine", (BackendMachine,), {"make": staticmethod(BACKENDS[name])})
    test_case = machine.TestCase
    test_case.settings = settings(
        max_examples=10 if name == "spilling" else 30, stateful_step_count=30, deadline=None
    )
    test_case().runTest()


@pytest.fixture(params=list(BACKENDS))
def make(request: pytest.FixtureRequest) -> Callable[[Path], StateBackend]:
    return BACKENDS[request.param]


def fill(backend: StateBackend, count: int, start: int = 0) -> Any:
    table = backend.store("op", ["k"]).keyed("t", pl.Schema({"k": pl.Int64}), pl.Schema({"v": pl.Float64}))
    rows, _ = table.upsert(pl.DataFrame({"k": range(start, start + count)}))
    table.write(rows, pl.DataFrame({"v": [float(i) for i in range(start, start + count)]}))
    return table


def restore(backend: StateBackend, snapshot: Snapshot) -> None:
    backend.restore(snapshot.tables, {file.logical_name: file.path for file in snapshot.files})


def test_bytes_written_follow_the_change(tmp_path: Path) -> None:
    backend = RocksBackend(tmp_path / "live")
    table = fill(backend, 20_000)
    names: set[str] = set()
    new_bytes = []
    for checkpoint in range(30):
        snapshot = backend.snapshot(checkpoint).finish()
        new = [file for file in snapshot.files if file.logical_name not in names]
        new_bytes.append(sum(file.path.stat().st_size for file in new))
        names |= {file.logical_name for file in new}
        snapshot.release()
        rows = table.find(pl.DataFrame({"k": range(checkpoint * 100, checkpoint * 100 + 200)}))
        table.write(rows, pl.DataFrame({"v": [0.5] * 200}))
    assert new_bytes[0] > 300_000
    assert max(new_bytes[1:]) < 200 * 16 + 2500
    assert len(list((tmp_path / "live").glob("*.seg"))) == 30


def test_nothing_new_is_written_when_nothing_changed(make: Any, tmp_path: Path) -> None:
    backend = make(tmp_path / "live")
    fill(backend, 5000)
    first = backend.snapshot(1).finish()
    second = backend.snapshot(2).finish()
    assert [file.logical_name for file in first.files] == [file.logical_name for file in second.files]


def test_files_go_when_nobody_needs_them(make: Any, tmp_path: Path) -> None:
    backend = make(tmp_path / "live")
    table = fill(backend, 5000)
    first = backend.snapshot(1).finish()
    table.write(table.rows(), pl.DataFrame({"v": [1.0] * 5000}))
    pending = backend.snapshot(2)
    assert all(file.path.exists() for file in first.files)
    second = pending.finish()
    assert all(file.path.exists() for file in (*first.files, *second.files))
    first.release()
    first.release()
    assert not any(file.path.exists() for file in first.files)
    second.release()
    assert all(file.path.exists() for file in second.files)
    table.write(table.rows(), pl.DataFrame({"v": [2.0] * 5000}))
    third = backend.snapshot(3).finish()
    assert not any(file.path.exists() for file in second.files)
    assert all(file.path.exists() for file in third.files)
    third.release()
    backend.close()
    assert list((tmp_path / "live").glob("*")) == []


def test_a_failed_write_is_made_good_by_the_next_checkpoint(tmp_path: Path) -> None:
    backend = RocksBackend(tmp_path / "live")
    table = fill(backend, 3000)
    backend.snapshot(1).finish()
    table.write(table.rows()[:10], pl.DataFrame({"v": [-1.0] * 10}))
    pending = backend.snapshot(2)
    blocker = tmp_path / "live" / "00000002.tmp"
    blocker.mkdir()
    with pytest.raises(ConnectorError, match="00000002"):
        pending.finish()
    blocker.rmdir()
    third = backend.snapshot(3).finish()
    again = RocksBackend(tmp_path / "again")
    restore(again, third)
    assert fill(again, 0).scan().sort("k")["v"].to_list()[:11] == [-1.0] * 10 + [10.0]


@pytest.mark.parametrize("counts", [(1, 3), (3, 1), (2, 3), (3, 2), (4, 4)])
def test_key_groups_move_between_subtasks(make: Any, tmp_path: Path, counts: tuple[int, int]) -> None:
    from unistream.state.key_groups import group_range, key_groups, subtask_of

    keys = pl.DataFrame({"k": range(2000)})
    before, after = counts
    owner = subtask_of(key_groups(keys), before)
    schemas = pl.Schema({"k": pl.Int64}), pl.Schema({"v": pl.Int64})
    snapshots = []
    for subtask in range(before):
        backend = make(tmp_path / f"before{subtask}", owned=group_range(subtask, before))
        store = backend.store("op", ["k"])
        mine = keys.filter(pl.Series(owner == subtask))
        rows, _ = (table := store.keyed("t", *schemas)).upsert(mine)
        table.write(rows, mine.select(v=pl.col("k") * 2))
        store.log("log", pl.Schema({"k": pl.Int64})).append(subtask, mine)
        store.cell("same").set("for all")
        snapshots.append(backend.snapshot(1).finish())
    seen, logged = [], []
    for subtask in range(after):
        restored_from = snapshots
        for turn in range(2):  # the second time from a checkpoint taken before anything was opened
            backend = make(tmp_path / f"after{subtask}{turn}", owned=group_range(subtask, after))
            for snapshot in restored_from:
                restore(backend, snapshot)
            assert turn or ("op", "t") in backend.unclaimed()
            restored_from = [backend.snapshot(2).finish()]
        store = backend.store("op", ["k"])
        scanned = store.keyed("t", *schemas).scan()
        assert (subtask_of(key_groups(scanned.select("k")), after) == subtask).all()
        seen.append(scanned)
        log = store.log("log", pl.Schema({"k": pl.Int64}))
        logged += [frame for bucket in log.buckets() for frame in log.frames(bucket)]
        assert store.cell("same").get("for all") == "for all"
    assert pl.concat(seen).sort("k").rows() == [(k, 2 * k) for k in range(2000)]
    assert pl.concat(logged)["k"].sort().to_list() == list(range(2000))


def test_parts_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    backend = RocksBackend(tmp_path / "after")
    for subtask in range(2):
        part = RocksBackend(tmp_path / f"before{subtask}", owned=range(subtask * 64, subtask * 64 + 64))
        part.store("op").cell("position").set(subtask)
        table = part.store("op").keyed("t", pl.Schema({"k": pl.Int64}), pl.Schema({"v": pl.Int64}))
        table.upsert(pl.DataFrame({"k": [7]}))
        snapshot = part.snapshot(1).finish()
        restore(backend, snapshot)
    with pytest.raises(StateError, match="different values"):
        backend.store("op").cell("position")
    with pytest.raises(StateError, match="same keys"):
        backend.store("op").keyed("t", pl.Schema({"k": pl.Int64}), pl.Schema({"v": pl.Int64}))


def test_schema_may_gain_widen_and_drop(make: Any, tmp_path: Path) -> None:
    backend = make(tmp_path / "one")
    old = pl.Schema({"small": pl.Int16, "gone": pl.String, "kept": pl.Float32})
    table = backend.store("op").keyed("t", pl.Schema({"k": pl.Int32}), old)
    rows, _ = table.upsert(pl.DataFrame({"k": [1, 2]}, schema={"k": pl.Int32}))
    table.write(rows, pl.DataFrame({"small": [5, 6], "gone": ["a", "b"], "kept": [0.5, None]}, schema=old))
    backend.store("op").log("log", old).append(1, table.read(rows))
    snapshot = backend.snapshot(1).finish()
    new = pl.Schema({"kept": pl.Float64, "fresh": pl.List(pl.String), "small": pl.Int64})
    expected = [(1, 0.5, None, 5), (2, None, None, 6)]
    for turn in range(2):
        backend = make(tmp_path / f"new{turn}")
        restore(backend, snapshot)
        table = backend.store("op").keyed("t", pl.Schema({"k": pl.Int64}), new)
        assert sorted(table.scan().rows()) == expected
        assert backend.store("op").log("log", new).frames(1)[0].rows() == [row[1:] for row in expected]
        snapshot = backend.snapshot(2 + turn).finish()


@pytest.mark.parametrize(
    ("keys", "values", "message"),
    [
        ({"k": pl.Int64}, {"v": pl.Int32}, "'v' was Int64 and is now Int32"),
        ({"k": pl.Int64}, {"v": pl.String}, "'v' was Int64 and is now String"),
        ({"k": pl.String}, {"v": pl.Int64}, "'k' was Int64 and is now String"),
        ({"k": pl.Int64, "l": pl.Int64}, {"v": pl.Int64}, "'l' is new"),
        ({"l": pl.Int64}, {"v": pl.Int64}, "'k' is gone"),
    ],
)
def test_other_changes_are_refused(make: Any, tmp_path: Path, keys: Any, values: Any, message: str) -> None:
    backend = make(tmp_path / "one")
    backend.store("op").keyed("t", pl.Schema({"k": pl.Int64}), pl.Schema({"v": pl.Int64}))
    snapshot = backend.snapshot(1).finish()
    again = make(tmp_path / "two")
    restore(again, snapshot)
    with pytest.raises(StateError, match=message):
        again.store("op").keyed("t", pl.Schema(keys), pl.Schema(values))


def test_tables_keep_their_kind_and_schema(make: Any, tmp_path: Path) -> None:
    backend = make(tmp_path / "one")
    store = backend.store("op")
    store.cell("name").set({"a": (1, 2)})
    assert store.cell("name").get() == {"a": [1, 2]}
    with pytest.raises(StateError, match="another kind"):
        store.log("name", pl.Schema({"x": pl.Int64}))
    with pytest.raises(StateError, match="not JSON"):
        store.cell("name").set(float("nan"))
    log = store.log("log", pl.Schema({"x": pl.Int64}))
    with pytest.raises(StateError, match="asked for"):
        store.log("log", pl.Schema({"x": pl.String}))
    with pytest.raises(StateError, match="does not fit"):
        log.append(1, pl.DataFrame({"y": [1]}))
    snapshot = backend.snapshot(1).finish()
    again = make(tmp_path / "two")
    restore(again, snapshot)
    with pytest.raises(StateError, match="another kind"):
        again.store("op").keyed("log", pl.Schema({"x": pl.Int64}), pl.Schema({}))


def test_restores_from_another_file_system(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = make(tmp_path / "one")
    fill(backend, 2000)
    snapshot = backend.snapshot(1).finish()

    def no_link(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr("os.link", no_link)
    again = make(tmp_path / "two")
    restore(again, snapshot)
    assert fill(again, 0).scan()["k"].to_list() == list(range(2000))


def test_operators_go_on_while_a_snapshot_is_written(tmp_path: Path) -> None:
    """The second snapshot is taken and a table is changed while the first waits for its disk."""
    backend = RocksBackend(tmp_path / "live")
    table = fill(backend, 2000)
    first = backend.snapshot(1)
    folder = backend._folder
    folder._write_lock.acquire()
    writer = Thread(target=first.finish)
    writer.start()
    table.delete(table.rows()[:500])
    second = backend.snapshot(2)
    table.delete(table.rows())
    folder._write_lock.release()
    writer.join(timeout=60)
    for snapshot, rows in ((first.finish(), 2000), (second.finish(), 1500)):
        again = RocksBackend(tmp_path / f"again{rows}")
        restore(again, snapshot)
        assert len(fill(again, 0)) == rows


def test_a_backend_without_a_folder_has_no_checkpoints() -> None:
    backend = MemoryBackend()
    fill(backend, 3)
    with pytest.raises(StateError, match="needs a folder"):
        backend.snapshot(1).finish()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "state format 2"),
        ({"key_hash": 9}, "key hash 9"),
        ({"key_groups": 64}, "64 key groups"),
    ],
)
def test_foreign_descriptions_are_refused(make: Any, tmp_path: Path, change: Any, message: str) -> None:
    backend = make(tmp_path / "one")
    fill(backend, 3)
    snapshot = backend.snapshot(1).finish()
    with pytest.raises(StateError, match=message):
        make(tmp_path / "two").restore({**snapshot.tables, **change}, {})


def test_many_rows_take_many_blocks(make: Any, tmp_path: Path) -> None:
    backend = make(tmp_path / "one")
    fill(backend, 150_000)
    snapshot = backend.snapshot(1).finish()
    assert 3 <= len(snapshot.tables["files"]["00000001.seg"]["blocks"]) <= 12
    again = make(tmp_path / "two")
    restore(again, snapshot)
    scanned = fill(again, 0).scan()
    assert np.array_equal(scanned["k"].sort().to_numpy(), np.arange(150_000))
