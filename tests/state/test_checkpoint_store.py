"""Checkpoints are complete or absent, share their files, and keep them as long as anybody names them."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unistream import faults
from unistream.clock import Random, SystemClock
from unistream.errors import ConnectorError, StateError
from unistream.state.checkpoint_reader import CheckpointReader
from unistream.state.checkpoint_store import CheckpointStore
from unistream.state.local_storage import LocalStorage
from unistream.state.manifest import FileEntry, Manifest, SinkToken, SubtaskState
from unistream.state.memory import MemoryBackend
from unistream.state.ownership import own
from unistream.state.snapshot import SnapshotFile
from unistream.state.storage import Storage, storage_for
from unistream.state.verification import verify
from unistream.testing import VirtualClock

CONTENTS = [b"%d" % number * (10 * number + 1) for number in range(6)]
RANDOM = Random(3)


@contextmanager
def opened(target: Storage | Path, clock: Any = None) -> Iterator[CheckpointStore]:
    """A store for the next owner. A crash in the body is the end of that owner."""
    with own(storage_for(target), None, SystemClock(), RANDOM) as lease:
        yield CheckpointStore(lease.storage, lease, clock=clock)


def local_files(folder: Path, contents: list[bytes]) -> list[SnapshotFile]:
    """New local files with these contents."""
    made = Path(tempfile.mkdtemp(dir=folder))
    files = [SnapshotFile(made / f"{number:02d}.seg", f"{number:02d}.seg") for number in range(len(contents))]
    for file, content in zip(files, contents, strict=True):
        file.path.write_bytes(content)
    return files


def save(store: CheckpointStore, folder: Path, contents: list[bytes], **parts: Any) -> Manifest:
    entries = store.upload(local_files(folder, contents))
    return store.publish(Manifest(id=store.next_id, states=(SubtaskState(files=entries),), **parts))


def contents_of(reader: CheckpointReader, manifest: Manifest) -> list[bytes]:
    return [reader.storage.read(entry.stored_name) for entry in manifest.files]


def lying(root: Path) -> set[str]:
    return {f"files/{path.name}" for path in (root / "files").iterdir()}


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a process wrote outlives it without a sync; that the calls are made has a test of its own."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "ckpt"


def test_state_goes_through_a_checkpoint(tmp_path: Path, root: Path) -> None:
    keys, values = pl.Schema({"user": pl.String}), pl.Schema({"n": pl.Int64})
    backend = MemoryBackend(tmp_path / "a")
    table = backend.store("count").keyed("seen", keys, values)
    rows, _ = table.upsert(pl.DataFrame({"user": ["ada", "bob"]}))
    table.write(rows, pl.DataFrame({"n": [3, 4]}))
    with opened(root) as store:
        snapshot = backend.snapshot(store.next_id).finish()
        entries = store.upload(snapshot.files)
        snapshot.release()
        states = (SubtaskState(subtask=2, files=entries, tables=snapshot.tables),)
        written = store.publish(
            Manifest(
                id=1,
                states=states,
                positions={"orders": {"a.csv": {"byte": 7}}},
                watermarks={"orders": {"a.csv": None}},
                tokens=(SinkToken(vertex="out", token=["x", 1]),),
                key_groups=128,
                extra={"rows": 2**60},
            )
        )
    backend.close()
    with opened(root) as store:
        newest = store.newest()
        assert newest == written and (newest.epoch, newest.parent, newest.engine) == (1, None, "0.1.0")
        (restored,) = store.fetch(newest, tmp_path / "into")
    again = MemoryBackend(tmp_path / "b")
    again.restore(restored.tables, restored.files)
    assert restored.subtask == 2
    assert again.store("count").keyed("seen", keys, values).scan().sort("user").rows() == [
        ("ada", 3),
        ("bob", 4),
    ]


def test_an_empty_directory_has_no_checkpoint(root: Path) -> None:
    assert CheckpointReader(root).newest() is None and CheckpointReader(root).list() == []
    with pytest.raises(StateError, match="has no checkpoint 3"):
        CheckpointReader(root).load(3)


class CountingStorage(LocalStorage):
    """Counts what is stored."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.stored: list[str] = []

    def put(self, files: Any, *, link: bool = True) -> None:
        self.stored += files
        super().put(files, link=link)


def test_content_is_stored_and_hashed_once(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from unistream.state import uploads

    hashed: list[Path] = []
    original = uploads._chunks
    monkeypatch.setattr(uploads, "_chunks", lambda path: hashed.append(path) or original(path))
    storage = CountingStorage(root)
    old = SystemClock().now() * 1000 - 10**9
    files = local_files(tmp_path, CONTENTS[:3])
    for file in files:
        os.utime(file.path, ns=(old, old))
    with opened(storage) as store:
        for _ in range(2):
            entries = store.upload(files)
            store.publish(Manifest(id=store.next_id, states=(SubtaskState(files=entries),)))
        assert len(storage.stored) == len(hashed) == 3
        save(store, tmp_path, [CONTENTS[1], CONTENTS[1], CONTENTS[3]])
        assert len(storage.stored) == 4 and len(lying(root)) == 4
    with opened(storage) as store:
        newest = store.newest()
        assert newest is not None
        hashed.clear()
        (restored,) = store.fetch(newest, tmp_path / "into")
        assert len(hashed) == 3
        again = [SnapshotFile(path, name) for name, path in restored.files.items()]
        assert store.upload(again) == newest.files and len(storage.stored) == 4


def test_a_file_that_was_just_made_is_not_taken_for_another(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new file may get the number of a removed one, and within the step of the clock also its time."""
    from unistream.state import uploads

    clock = VirtualClock(10**15)
    stamp = clock.now() * 1000
    monkeypatch.setattr(uploads, "_identity", lambda path: (1, 1, 3, stamp))
    path = tmp_path / "a.seg"
    with opened(root, clock) as store:
        seen = []
        for content in (b"one", b"two", b"six", b"ten", b"???"):
            path.unlink(missing_ok=True)
            path.write_bytes(content)
            (entry,) = store.upload([SnapshotFile(path, "a.seg")])
            seen.append(entry.sha256)
            clock.advance("40ms")
        # Once the time is past, no new file can get it, and the hash is not computed again.
        assert len(set(seen)) == 4 and seen[3] == seen[4]


def test_a_damaged_leftover_is_not_reused(tmp_path: Path, root: Path) -> None:
    with opened(root) as store:
        (entry,) = store.upload(local_files(tmp_path, CONTENTS[1:2]))
        stored = root / entry.stored_name
        store.abandon([entry])
        stored.unlink()
        stored.write_bytes(b"?" * entry.length)
        again = CheckpointStore(store.storage, store._lease)
        save(again, tmp_path, CONTENTS[1:2])
    assert verify(root).ok


def test_only_the_newest_checkpoint_lends_its_files_to_the_next_owner(tmp_path: Path, root: Path) -> None:
    with opened(root) as store:
        for number in range(2):
            save(store, tmp_path, CONTENTS[number : number + 1])
    with opened(root) as store:
        for number, epoch in ((1, 2), (2, 1)):
            manifest = store.load(number)
            store.fetch(manifest, tmp_path / "into")
            (entry,) = store.upload(local_files(tmp_path, CONTENTS[number - 1 : number]))
            assert (entry.sha256, entry.epoch) == (manifest.files[0].sha256, epoch)


def test_publishing_needs_the_files_and_the_directory(tmp_path: Path, root: Path) -> None:
    missing = FileEntry(name="a", length=1, sha256="0" * 64, epoch=1)
    with opened(root) as store:
        with pytest.raises(StateError, match=r"names files/0{64}-1, which is not in"):
            store.publish(Manifest(id=1, states=(SubtaskState(files=(missing,)),)))
        twice = (*store.upload(local_files(tmp_path, CONTENTS[:1])),) * 2
        with pytest.raises(StateError, match="two files of the same name"):
            store.publish(Manifest(id=1, states=(SubtaskState(files=twice),)))
        assert save(store, tmp_path, []).id == 1
    reading = CheckpointStore(root)
    for attempt in (
        lambda: reading.publish(Manifest(id=9)),
        lambda: reading.upload([]),
        lambda: reading.retain(1),
        lambda: reading.remove(1),
    ):
        with pytest.raises(StateError, match="opened for reading"):
            attempt()


def test_a_publish_whose_answer_was_lost_can_be_repeated(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(root, clock := VirtualClock()) as store:
        save(store, tmp_path, CONTENTS[:1])
        entries = store.upload(local_files(tmp_path, CONTENTS))
        manifest = Manifest(id=2, states=(SubtaskState(files=entries),))
        original = os.fsync
        with monkeypatch.context() as patch:
            calls = []

            def fail_late(descriptor: int) -> None:
                calls.append(descriptor)
                if len(calls) > 1:
                    raise OSError(5, "Input/output error")
                original(descriptor)

            patch.setattr(os, "fsync", fail_late)
            with pytest.raises(ConnectorError, match="Input/output error"):
                store.publish(manifest)
        assert CheckpointReader(root).load(2).id == 2
        clock.advance("1s")
        assert store.publish(manifest).id == 2
        assert save(store, tmp_path, []).id == 3
    assert [item.id for item in CheckpointReader(root).list()] == [1, 2, 3]


def test_an_object_store_holds_checkpoints_as_well(tmp_path: Path) -> None:
    pytest.importorskip("obstore", reason="obstore is not installed")
    storage = storage_for("memory:///")
    with opened(storage) as store:
        for number in range(3):
            save(store, tmp_path, [CONTENTS[number], CONTENTS[number + 1]])
        assert store.retain(1).checkpoints == (1, 2)
    with opened(storage) as store:
        newest = store.newest()
        assert newest is not None and newest.id == 3
        (restored,) = store.fetch(newest, tmp_path / "into")
        assert [path.read_bytes() for path in restored.files.values()] == CONTENTS[2:4]
        store.savepoint(3, tmp_path / "kept")
        save(store, tmp_path, CONTENTS[2:5])
        assert len(storage.list("files")) == 3
    assert verify(storage).ok and verify(tmp_path / "kept").ok


# Clean-up


def test_retention_by_count_and_age(tmp_path: Path, root: Path) -> None:
    clock = VirtualClock()
    with opened(root, clock) as store:
        for number in range(5):
            save(store, tmp_path, [CONTENTS[0], CONTENTS[number]])
            clock.advance("10s")
        removed = store.retain(4)
        assert removed.checkpoints == (1,) and removed.files == ()
        removed = store.retain(3, age="25s")
        assert removed.checkpoints == (2, 3) and len(removed.files) == 2
        assert [manifest.id for manifest in store.list()] == [4, 5]
        clock.advance("1h")
        assert store.retain(3, age="1s").checkpoints == (4,)
        assert store.newest() is not None and lying(root) == store.load(5).stored_names


def test_content_that_was_cleaned_away_is_stored_again(tmp_path: Path, root: Path) -> None:
    with opened(root) as store:
        for content in (CONTENTS[0], CONTENTS[1], CONTENTS[0]):
            save(store, tmp_path, [content])
            store.retain(1)
            assert verify(root).ok and len(lying(root)) == 1


def test_files_on_their_way_stay(tmp_path: Path, root: Path) -> None:
    with opened(root) as store:
        save(store, tmp_path, CONTENTS[:1])
        ours = store.upload(local_files(tmp_path, CONTENTS[1:3]))
        shared = store.upload(local_files(tmp_path, CONTENTS[2:4]))
        assert store.retain(1).files == () and len(lying(root)) == 4
        store.abandon(ours)
        assert store.retain(1).files == (ours[0].stored_name,)
        store.publish(Manifest(id=2, states=(SubtaskState(files=shared),)))
        store.retain(1)
        assert lying(root) == {entry.stored_name for entry in shared}


def test_files_of_other_processes_of_the_job_stay(tmp_path: Path, root: Path) -> None:
    with opened(root) as store:
        worker = CheckpointStore(store.storage, store._lease)
        entries = worker.upload(local_files(tmp_path, CONTENTS[:2]))
        save(store, tmp_path, [])
        store.retain(1)
        store.publish(Manifest(id=2, states=(SubtaskState(files=entries),)))
        save(store, tmp_path, [])
        assert len(store.retain(1).files) == 2


def test_removing_the_newest_goes_back_on_purpose(tmp_path: Path, root: Path) -> None:
    with opened(root) as store:
        for number in range(3):
            save(store, tmp_path, [CONTENTS[number]])
        assert store.remove(3).checkpoints == (3,)
        newest = CheckpointReader(root).newest()
        assert newest is not None and newest.id == 2
        (root / "checkpoints/00000002.json").write_bytes(b"damaged")
        with pytest.raises(StateError, match="damaged"):
            store.retain(1)
        store.remove(2)
        store.remove(1)
        assert CheckpointReader(root).newest() is None and lying(root) == set()
        assert save(store, tmp_path, []).id == 4
        with pytest.raises(StateError, match="has no checkpoint 1"):
            store.remove(1)


def test_a_savepoint_stands_alone(tmp_path: Path, root: Path) -> None:
    target = tmp_path / "kept"
    with opened(root) as store:
        saved = save(store, tmp_path, [*CONTENTS, CONTENTS[1]], positions={"orders": {"a": 1}})
        kept = store.savepoint(saved.id, target)
        with pytest.raises(StateError, match="holds checkpoints already"):
            store.savepoint(saved.id, target)
        save(store, tmp_path, [])
        store.retain(1)
        assert lying(root) == set()
    assert verify(target).ok and CheckpointReader(target).newest() == kept
    assert all((target / name).stat().st_nlink == 1 for name in kept.stored_names)
    assert (kept.kind, kept.positions, kept.parent) == ("savepoint", saved.positions, None)
    assert contents_of(CheckpointReader(target), kept) == [*CONTENTS, CONTENTS[1]]
    with opened(target) as store:
        assert store.fetch(kept, tmp_path / "into")
        following = save(store, tmp_path, [CONTENTS[2]])
        assert following.parent == kept.id
        save(store, tmp_path, [CONTENTS[3]])
        store.retain(1)
        assert [item.id for item in store.list()] == [kept.id, following.id + 1]
    assert verify(target).ok


def test_a_damaged_checkpoint_gives_no_savepoint(tmp_path: Path, root: Path) -> None:
    with opened(root) as store:
        saved = save(store, tmp_path, CONTENTS)
        (root / saved.files[3].stored_name).write_bytes(b"?")
        with pytest.raises(StateError, match=saved.files[3].stored_name):
            store.savepoint(1, tmp_path / "kept")
    assert CheckpointReader(tmp_path / "kept").newest() is None


# Crashes


def run(root: Path, folder: Path, checkpoints: int) -> None:
    """What a job does: own, restore, then save and clean up."""
    with opened(root) as store:
        newest = store.newest()
        if newest is not None:
            store.fetch(newest, Path(tempfile.mkdtemp(dir=folder)))
        for _ in range(checkpoints):
            number = store.next_id
            # Every checkpoint shares a file with the one before it.
            save(
                store,
                folder,
                [CONTENTS[number % 6], CONTENTS[(number + 1) % 6]],
                positions={"n": {"": number}},
            )
            store.retain(2)


def test_after_a_crash_at_any_step_the_newest_is_complete_and_all_is_cleaned(tmp_path: Path) -> None:
    step = 0
    while True:
        step += 1
        folder, root = tmp_path / str(step), tmp_path / str(step) / "ckpt"
        folder.mkdir()
        run(root, folder, 1)
        crashed = False
        try:
            with crash_at_step(step) as published:
                run(root, folder, 3)
        except faults.Crashed:
            crashed = True
        report = verify(root)
        assert report.ok, (step, report.problems)
        newest = CheckpointReader(root).newest()
        assert newest is not None
        number = newest.positions["n"][""]
        assert contents_of(CheckpointReader(root), newest) == [
            CONTENTS[number % 6],
            CONTENTS[(number + 1) % 6],
        ]
        done = [1, 3, 4, 5].index(number)
        assert done in (len(published), len(published) + 1), step
        run(root, folder, 2)
        named = frozenset[str]().union(*(item.stored_names for item in CheckpointReader(root).list()))
        assert lying(root) == named and verify(root).strays == (), step
        assert not [path for path in (root / ".unfinished").rglob("*") if path.is_file()]
        if not crashed:
            break
    assert step > 60


ACTIONS = st.one_of(
    st.tuples(st.just("save"), st.lists(st.integers(0, 5), max_size=4)),
    st.tuples(st.just("abandon"), st.lists(st.integers(0, 5), max_size=4)),
    st.tuples(st.just("retain"), st.integers(1, 3)),
    st.tuples(st.just("restart"), st.booleans()),
)
CRASH = st.one_of(st.none(), st.integers(1, 30))


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(ACTIONS, CRASH), max_size=14))
def test_no_sequence_of_saves_crashes_and_clean_ups_loses_a_named_file(plan: list[Any]) -> None:
    """The model is the list of published contents, of which only `retain` may remove the oldest."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder, root = Path(name), Path(name) / "ckpt"
        model: list[list[bytes]] = []
        owner = stack.enter_context(ExitStack())
        store = owner.enter_context(opened(root))
        for (action, argument), crash in plan:
            contents = [CONTENTS[number] for number in argument] if isinstance(argument, list) else []
            least = model[-argument:] if action == "retain" else model
            most = [*model, contents] if action == "save" else model
            try:
                with crash_at_step(crash):
                    if action == "save":
                        save(store, folder, contents)
                        least = most
                    elif action == "abandon":
                        store.abandon(store.upload(local_files(folder, contents)))
                    elif action == "retain":
                        store.retain(argument)
                        most = least
                    else:
                        owner.close()
                        store = restarted(owner, root, folder, fetches=argument)
            except faults.Crashed:
                owner.close()
                store = restarted(owner, root, folder, fetches=True)
            held = [contents_of(store, manifest) for manifest in store.list()]
            assert held[len(held) - len(least) :] == least or held == most
            assert held == most[len(most) - len(held) :] or held == least
            report = verify(root)
            assert report.ok, report.problems
            model = held
        owner.close()
        store = restarted(owner, root, folder, fetches=True)
        store.retain(1)
        newest = store.newest()
        assert lying(root) == (newest.stored_names if newest else set())


def restarted(owner: ExitStack, root: Path, folder: Path, fetches: bool) -> CheckpointStore:
    store = owner.enter_context(opened(root))
    newest = store.newest()
    if newest is not None and fetches:
        store.fetch(newest, Path(tempfile.mkdtemp(dir=folder)))
    (root / "files").mkdir(parents=True, exist_ok=True)
    return store


@contextmanager
def crash_at_step(step: int | None) -> Iterator[list[str]]:
    """Die at this of all points, counted from 1; the names of published manifests are collected."""
    reached = 0
    published: list[str] = []

    def listener(name: str, before: bool) -> None:
        nonlocal reached
        reached += 1
        if name == "checkpoint.publish" and not before:
            published.append(name)
        if reached == step:
            raise faults.Crashed(name)

    faults.listen(listener)
    try:
        yield published
    finally:
        faults.listen(None)


# The order of writes


def test_everything_is_durable_before_the_manifest_has_its_name(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[tuple[str, Path, int]] = []

    def record(kind: str, function: str, path_of: Any) -> None:
        original = getattr(os, function)

        def call(*arguments: Any, **options: Any) -> Any:
            result = original(*arguments, **options)
            path = Path(path_of(*arguments))
            events.append((kind, path, path.stat().st_ino))
            return result

        monkeypatch.setattr(os, function, call)

    record("sync", "fsync", lambda descriptor: Path(f"/proc/self/fd/{descriptor}").readlink())
    record("name", "link", lambda source, target, **_: target)
    record("name", "replace", lambda source, target, **_: target)
    record("name", "mkdir", lambda path, *_: path)
    with opened(root) as store:
        for number in range(3):
            files = local_files(tmp_path, CONTENTS[number : number + 2])
            entries = store.upload(files)
            store.publish(Manifest(id=store.next_id, states=(SubtaskState(files=entries),)))
    manifests = [
        (place, path)
        for place, (kind, path, _) in enumerate(events)
        if kind == "name" and path.parent == root / "checkpoints"
    ]
    assert [path.name for _, path in manifests] == ["00000001.json", "00000002.json", "00000003.json"]
    for place, path in manifests:
        for needed in (
            path,
            *(root / name for name in CheckpointReader(root).load(int(path.stem)).stored_names),
        ):
            named = next(at for at, event in enumerate(events) if event[:2] == ("name", needed))
            content = [
                at
                for at, (kind, _, inode) in enumerate(events)
                if (kind, inode) == ("sync", events[named][2])
            ]
            assert content and content[0] < named, f"{needed} has its name before its content is durable"
            if needed != path:
                folder = [at for at in range(named, place) if events[at][:2] == ("sync", needed.parent)]
                assert folder, f"the name of {needed} is not durable before the manifest"
        assert ("sync", path.parent) in [event[:2] for event in events[place + 1 : place + 2]]
    for folder in (root, root / "files", root / "checkpoints"):
        made = next(at for at, event in enumerate(events) if event[:2] == ("name", folder))
        assert events[made + 1][:2] == ("sync", folder.parent), f"{folder} may vanish with a power loss"
