"""Damage to any byte of a checkpoint directory is found and named, and never read over."""

import ast
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import unistream.state.storage
from unistream.clock import Random, SystemClock
from unistream.errors import StateError
from unistream.state import manifest as manifest_module
from unistream.state.checkpoint_reader import CheckpointReader
from unistream.state.checkpoint_store import CheckpointStore
from unistream.state.manifest import (
    FileEntry,
    Gap,
    Manifest,
    Newest,
    SinkToken,
    SubtaskState,
    decode_checkpoint,
    seal,
    unseal,
)
from unistream.state.ownership import own
from unistream.state.snapshot import SnapshotFile
from unistream.state.storage import storage_for
from unistream.state.verification import verify

NEWEST_ID = 3


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two checkpoints of two owners that share a file."""
    root = tmp_path / "ckpt"
    contents = {name: name.encode() * 12 for name in ("one", "two", "six")}
    files = {}
    for name, content in contents.items():
        files[name] = SnapshotFile(tmp_path / name, f"{name}.seg")
        files[name].path.write_bytes(content)
    for number, names in ((1, ("one", "two")), (NEWEST_ID, ("two", "six"))):
        with own(storage_for(root), "job", SystemClock(), Random(number)) as lease:
            store = CheckpointStore(root, lease)
            newest = store.newest()
            if newest is not None:
                store.fetch(newest, tmp_path / "restored")
            entries = store.upload(files[name] for name in names)
            tables = {"rows": [1, 2, "three"]}
            states = (SubtaskState(files=entries, tables=tables),)
            store.publish(Manifest(id=number, states=states, positions={"s": {"a.csv": 17}}))
    shutil.rmtree(tmp_path / "restored")
    for file in files.values():
        file.path.unlink()
    return root


def everything(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file() and path.name != "lock")


def restore(root: Path, target: Path) -> None:
    """What a start does."""
    store = CheckpointStore(root)
    newest = store.newest()
    assert newest is not None and newest.id == NEWEST_ID
    store.fetch(newest, target)


def needed(root: Path) -> set[Path]:
    """The files a start from the newest checkpoint reads."""
    manifest = CheckpointReader(root).load(NEWEST_ID)
    names = {"newest.json", f"checkpoints/{NEWEST_ID:08d}.json", *manifest.stored_names}
    return {root / name for name in names}


def refused(action: Callable[[], object]) -> str:
    """The message of the error, which must be ours."""
    with pytest.raises(StateError) as told:
        action()
    assert told.value.hint
    return told.value.message


def check_found(root: Path, path: Path, target: Path, read_by_restore: bool) -> None:
    """The damage of this file is told by verify, and by a restore that needs the file."""
    name = str(path.relative_to(root))
    report = verify(root)
    assert not report.ok and any(problem.name == name for problem in report.problems), report
    assert all(str(root) in problem.what for problem in report.problems)
    if read_by_restore:
        assert name in refused(lambda: restore(root, target))


def test_the_directory_is_sound_to_begin_with(root: Path, tmp_path: Path) -> None:
    report = verify(root)
    assert report.ok and report.strays == () and report.checkpoints == (1, 3) and report.files == 3
    assert report.nbytes == 3 * 36 and report.frame().height == 0
    restore(root, tmp_path / "target")
    assert len(everything(root)) == 3 + 3 + 2 + 1


def test_a_flipped_bit_in_any_byte_of_any_file_is_found(root: Path, tmp_path: Path) -> None:
    read_by_restore = needed(root)
    flips = 0
    for path in everything(root):
        original = path.read_bytes()
        for place in range(len(original)):
            data = bytearray(original)
            data[place] ^= 1 << place % 8
            path.write_bytes(data)
            if path in read_by_restore:
                name = str(path.relative_to(root))
                assert name in refused(lambda: restore(root, tmp_path / "target"))
            if path not in read_by_restore or place % 16 == 0:
                check_found(root, path, tmp_path / "target", read_by_restore=False)
            flips += 1
        path.write_bytes(original)
    assert flips > 2_000 and verify(root).ok


@pytest.mark.slow
def test_every_flipped_bit_is_found(root: Path) -> None:
    for path in everything(root):
        original = path.read_bytes()
        for bit in range(8 * len(original)):
            data = bytearray(original)
            data[bit // 8] ^= 1 << bit % 8
            path.write_bytes(data)
            name = str(path.relative_to(root))
            assert [problem.name for problem in verify(root).problems if problem.name == name] == [name]
        path.write_bytes(original)


CHANGES: dict[str, Callable[[bytes], bytes]] = {
    "cut by a byte": lambda data: data[:-1],
    "cut in half": lambda data: data[: len(data) // 2],
    "emptied": lambda data: b"",
    "extended": lambda data: data + b"\n",
    "doubled": lambda data: data * 2,
    "zeroed": lambda data: bytes(len(data)),
    "shifted": lambda data: data[1:] + data[:1],
}


@pytest.mark.parametrize("change", CHANGES)
def test_other_changes_of_any_file_are_found(root: Path, tmp_path: Path, change: str) -> None:
    read_by_restore = needed(root)
    for path in everything(root):
        original = path.read_bytes()
        path.write_bytes(CHANGES[change](original))
        check_found(root, path, tmp_path / "target", path in read_by_restore)
        path.write_bytes(original)


def test_swapped_files_are_found(root: Path, tmp_path: Path) -> None:
    read_by_restore = needed(root)
    for folder in ("files", "checkpoints"):
        paths = [path for path in everything(root) if path.parent.name == folder]
        for first in paths:
            for second in paths:
                if first == second:
                    continue
                kept = first.read_bytes()
                first.write_bytes(second.read_bytes())
                check_found(root, first, tmp_path / "target", first in read_by_restore)
                first.write_bytes(kept)


def test_missing_files_are_found(root: Path, tmp_path: Path) -> None:
    manifest = root / f"checkpoints/{NEWEST_ID:08d}.json"
    for path in sorted(needed(root) - {root / "newest.json"}):
        kept = path.read_bytes()
        path.unlink()
        assert str(path.relative_to(root)) in refused(lambda: restore(root, tmp_path / "target"))
        assert not verify(root).ok
        path.write_bytes(kept)
    manifest.unlink()
    (root / "checkpoints/00000001.json").unlink()
    assert f"{NEWEST_ID:08d}.json is missing" in refused(CheckpointReader(root).newest)


def test_doubled_files_are_strays_or_refused(root: Path, tmp_path: Path) -> None:
    manifest = root / f"checkpoints/{NEWEST_ID:08d}.json"
    (root / "checkpoints/00000003 (copy).json").write_bytes(manifest.read_bytes())
    (root / "files/copy").write_bytes(b"x")
    report = verify(root)
    assert report.ok and report.strays == ("checkpoints/00000003 (copy).json", "files/copy")
    restore(root, tmp_path / "target")
    (root / "checkpoints/00000004.json").write_bytes(manifest.read_bytes())
    assert "00000004.json is damaged: it is the file of checkpoint 3" in refused(
        CheckpointReader(root).newest
    )


def test_a_checkpoint_of_another_epoch_in_place_of_the_newest_is_found(root: Path, tmp_path: Path) -> None:
    path = root / f"checkpoints/{NEWEST_ID:08d}.json"
    stale = msgspec.structs.replace(CheckpointReader(root).load(1), id=NEWEST_ID)
    path.write_bytes(seal(stale))
    assert "not the checkpoint that was published" in refused(lambda: restore(root, tmp_path / "target"))
    assert "a former owner wrote it" in str(verify(root).problems)


def test_an_older_checkpoint_can_be_asked_for_when_the_newest_is_damaged(root: Path, tmp_path: Path) -> None:
    path = root / f"checkpoints/{NEWEST_ID:08d}.json"
    path.write_bytes(path.read_bytes()[:-1])
    with own(storage_for(root), "job", SystemClock(), Random(1)) as lease:
        store = CheckpointStore(root, lease)
        refused(store.newest)
        (restored,) = store.fetch(store.load(1), tmp_path / "target")
        assert restored.files["one.seg"].read_bytes() == b"one" * 12
        following = store.publish(Manifest(id=store.next_id))
        assert following.parent == 1
        refused(lambda: store.retain(1))
        store.remove(NEWEST_ID)
        assert store.retain(1).checkpoints == (1,)
    assert verify(root).ok


def test_verify_of_one_checkpoint_looks_at_its_files_only(root: Path) -> None:
    only_in_first = CheckpointReader(root).load(1).files[0].stored_name
    (root / only_in_first).write_bytes(b"")
    assert verify(root, NEWEST_ID).ok and verify(root, NEWEST_ID).files == 2
    (problem,) = verify(root, 1).problems
    assert (
        problem.name == only_in_first
        and "0 bytes instead of 36 (file one.seg of checkpoint 1)" in problem.what
    )
    assert not verify(root, 2).ok and not verify(root, 9).ok


def test_a_newer_format_is_refused_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(manifest_module, "FORMAT_VERSION", 2)
        newer = seal(Manifest(id=1))
    assert "x.json has format 2; this version of unistream reads 1" in refused(
        lambda: decode_checkpoint(newer, 1, "x.json")
    )


VERSION_1 = {
    7: b'{"format":1,"sha256":"9469261fffbf8754fe47ece7fdf4e911045e17bf300b54740f249ca401d56359","body":'
    b'{"record":"manifest","id":7,"kind":"checkpoint","states":[{"subtask":1,"files":[{"name":"00000001.seg",'
    b'"length":12,"sha256":"abababababababababababababababababababababababababababababababab","epoch":2}],'
    b'"tables":{"format":1}}],"positions":{"orders":{"a.csv":{"byte":7}}},"watermarks":{"orders":{"a.csv":1000000,'
    b'"b.csv":null}},"tokens":[{"vertex":"out","subtask":0,"token":["x",1]}],"key_groups":128,"program":"p1",'
    b'"settings":"s1","engine":"0.1.0","extra":{"rows":3},"epoch":2,"job_id":"job","created":1700000000000000,'
    b'"parent":6}}\n',
    8: b'{"format":1,"sha256":"6f2fa66249f8824606d64b0290184603d6a74dfe686a9f32af00028f819f8600","body":'
    b'{"record":"gap","id":8,"epoch":3,"closed_by_next":true}}\n',
}


def test_what_version_1_wrote_is_read() -> None:
    assert decode_checkpoint(VERSION_1[7], 7, "7.json") == Manifest(
        id=7,
        states=(
            SubtaskState(
                subtask=1,
                files=(FileEntry(name="00000001.seg", length=12, sha256="ab" * 32, epoch=2),),
                tables={"format": 1},
            ),
        ),
        positions={"orders": {"a.csv": {"byte": 7}}},
        watermarks={"orders": {"a.csv": 1_000_000, "b.csv": None}},
        tokens=(SinkToken(vertex="out", token=["x", 1]),),
        key_groups=128,
        program="p1",
        settings="s1",
        engine="0.1.0",
        extra={"rows": 3},
        epoch=2,
        job_id="job",
        created=1_700_000_000_000_000,
        parent=6,
    )
    assert decode_checkpoint(VERSION_1[8], 8, "8.json") == Gap(id=8, epoch=3, closed_by_next=True)
    for number, data in VERSION_1.items():
        assert seal(decode_checkpoint(data, number, "x")) == data


# What somebody may have planted


def sealed(body: Any) -> bytes:
    """A file whose hash is right, whatever it says."""

    text = msgspec.json.encode(body)
    digest = manifest_module._digest(b"1", text)
    return b'{"format":1,"sha256":"%b","body":%b}\n' % (digest.encode(), text)


GOOD_FILE = {"name": "a", "length": 1, "sha256": "0" * 64, "epoch": 1}


@pytest.mark.parametrize(
    "body",
    [
        {"record": "manifest", "id": 1, "states": [{"files": [GOOD_FILE | {"name": name}]}]}
        for name in ("../../etc/passwd", "/etc/passwd", "a/b", "..", "", "a\0", ".x", "a" * 201, 7, None)
    ]
    + [
        {"record": "manifest", "id": 1, "states": [{"files": [GOOD_FILE | change]}]}
        for change in ({"sha256": "../x"}, {"sha256": "A" * 64}, {"length": -1}, {"epoch": -1}, {"more": 1})
    ]
    + [
        {"record": "manifest", "id": 2},
        {"record": "manifest", "id": 1, "states": [{"files": [GOOD_FILE, GOOD_FILE]}]},
        {"record": "manifest", "id": 1, "states": [{"subtask": 1}, {"subtask": 1}]},
        {"record": "manifest", "id": 1, "unknown": 1},
        {"record": "manifest", "id": "1"},
        {"record": "pickle", "id": 1},
        {},
        [],
        None,
        "cos\nsystem\n(S'true'\ntR.",
    ],
)
def test_planted_manifests_are_refused(body: Any) -> None:
    assert "x.json is damaged" in refused(lambda: decode_checkpoint(sealed(body), 1, "x.json"))


def test_deep_nesting_is_refused() -> None:
    deep = b"[" * 100_000 + b"]" * 100_000
    text = b'{"record":"manifest","id":1,"extra":{"a":%b}}' % deep
    digest = manifest_module._digest(b"1", text).encode()
    refused(
        lambda: decode_checkpoint(b'{"format":1,"sha256":"%b","body":%b}\n' % (digest, text), 1, "x.json")
    )


@given(st.binary(max_size=300))
def test_any_bytes_are_a_record_or_refused(data: bytes) -> None:
    refused(lambda: unseal(data, Newest, "x.json"))


def test_nothing_of_it_can_run_code() -> None:
    folder = Path(unistream.state.storage.__file__).parent
    names = "manifest ownership uploads checkpoint_reader checkpoint_store savepoint verification process"
    for name in [
        *names.split(),
        "storage",
        "local_storage",
        "object_storage",
        "file_lock",
        "checkpoint_tables",
    ]:
        tree = ast.parse((folder / f"{name}.py").read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                modules = [alias.name for alias in node.names] + [getattr(node, "module", "") or ""]
                assert not {"pickle", "cloudpickle", "marshal", "shelve"} & set(modules), name
            assert not (isinstance(node, ast.Name) and node.id in ("eval", "exec")), name
