"""Storage: durable names, creates that succeed once, and errors that name the file."""

import errno
import fcntl
import os
import pickle
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from unistream import faults
from unistream.errors import ConnectorError, InvalidSettings, MissingDependency, StateError, UnistreamError
from unistream.state.local_storage import LocalStorage
from unistream.state.storage import InUse, NameTaken, NotStored, Storage, Stored, storage_for


@pytest.fixture(scope="module")
def s3_endpoint() -> Iterator[str]:
    server_module = pytest.importorskip("moto.server", reason="moto[server] is not installed")
    pytest.importorskip("obstore", reason="obstore is not installed")
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


def s3_storage(endpoint: str, bucket: str) -> Storage:
    import boto3

    from unistream.state.object_storage import ObjectStorage

    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
    client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", **keys)
    client.create_bucket(Bucket=bucket)
    options = {
        "endpoint": endpoint,
        "region": "us-east-1",
        "access_key_id": "test",
        "secret_access_key": "test",
        "client_options": {"allow_http": True},
    }
    return ObjectStorage(f"s3://{bucket}/jobs/one", options)


@pytest.fixture(params=["local", "memory", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "local":
        return LocalStorage(tmp_path / "deep" / "root")
    pytest.importorskip("obstore", reason="obstore is not installed")
    if request.param == "memory":
        return storage_for("memory:///")
    endpoint = request.getfixturevalue("s3_endpoint")
    return s3_storage(endpoint, f"bucket-{abs(hash(request.node.name))}")


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_what_is_put_is_read(storage: Storage, tmp_path: Path) -> None:
    big = os.urandom(9 << 20)
    files = {"files/a": write(tmp_path / "a", b"alpha"), "files/b": write(tmp_path / "b", big)}
    storage.put(files)
    storage.publish("other/c", b"")
    assert storage.list("files") == [Stored("files/a", 5), Stored("files/b", len(big))]
    assert storage.read("files/b") == big and storage.read("other/c") == b""
    assert (storage.size("files/a"), storage.size("files/none")) == (5, None)
    storage.fetch("files/b", write(tmp_path / "fetched", b"something else"))
    assert (tmp_path / "fetched").read_bytes() == big
    assert storage.list("nothing") == [] and not storage.exists("files/none")


def test_put_and_replace_take_the_place_of_what_was_there(storage: Storage, tmp_path: Path) -> None:
    storage.put({"files/a": write(tmp_path / "a", b"damaged")})
    storage.put({"files/a": write(tmp_path / "b", b"right")}, link=False)
    assert storage.read("files/a") == b"right"
    storage.put({"files/a": tmp_path / "b"})
    storage.put({"files/a": tmp_path / "b"})
    assert storage.read("files/a") == b"right"
    storage.replace("mark", b"1")
    storage.replace("mark", b"22")
    assert storage.read("mark") == b"22"


def test_a_published_name_is_never_replaced(storage: Storage) -> None:
    storage.publish("c/1", b"first")
    with pytest.raises(NameTaken, match="c/1 exists"):
        storage.publish("c/1", b"second")
    assert storage.read("c/1") == b"first"
    storage.publish("c/1", b"first")
    assert storage.list("c") == [Stored("c/1", 5)]


def test_of_many_publishers_exactly_one_succeeds(storage: Storage) -> None:
    won: list[int] = []
    start = threading.Barrier(6)

    def publish(number: int, name: str) -> None:
        start.wait()
        try:
            storage.publish(name, b"%d" % number * 100)
        except NameTaken:
            return
        won.append(number)

    for turn in range(5):
        won.clear()
        threads = [threading.Thread(target=publish, args=(number, f"race/{turn}")) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1 and storage.read(f"race/{turn}") == b"%d" % won[0] * 100


def test_missing_names_are_told(storage: Storage, tmp_path: Path) -> None:
    with pytest.raises(NotStored, match="files/a is missing"):
        storage.read("files/a")
    with pytest.raises(NotStored, match="files/a is missing"):
        storage.fetch("files/a", tmp_path / "a")
    storage.delete(["files/a", "none/b"])
    storage.publish("files/a", b"1")
    storage.delete(["files/a"])
    assert not storage.exists("files/a")


NOT_NAMES = [
    "../x",
    "/etc/passwd",
    "a//b",
    "a/../b",
    ".",
    "",
    "a\0b",
    "é",
    "a\n",
    "a/",
    ".hidden",
    "a b",
    "a\\b",
]


@pytest.mark.parametrize("name", NOT_NAMES)
def test_names_cannot_lead_out_of_the_root(storage: Storage, tmp_path: Path, name: str) -> None:
    source = write(tmp_path / "source", b"x")
    for attempt in (
        lambda: storage.put({name: source}),
        lambda: storage.publish(name, b"x"),
        lambda: storage.replace(name, b"x"),
        lambda: storage.read(name),
        lambda: storage.fetch(name, tmp_path / "target"),
        lambda: storage.size(name),
        lambda: storage.delete([name]),
    ):
        with pytest.raises(StateError, match="not a name"):
            attempt()


def test_storages_pickle(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path / "root")
    storage.publish("a", b"1")
    assert pickle.loads(pickle.dumps(storage)).read("a") == b"1"


def test_storage_for_urls(tmp_path: Path) -> None:
    assert isinstance(storage_for(tmp_path), LocalStorage)
    assert storage_for(f"file://{tmp_path}/with%20blank").url == f"{tmp_path}/with blank"
    same = storage_for(str(tmp_path))
    assert storage_for(same) is same
    with pytest.raises(InvalidSettings, match="Unknown storage 's4'"):
        storage_for("s4://bucket")


def test_an_absent_client_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "obstore.store", None)
    with pytest.raises(MissingDependency, match=r"unistream\[cloud\]"):
        storage_for("s3://bucket/x")


def test_an_unreachable_object_store_is_told() -> None:
    pytest.importorskip("obstore", reason="obstore is not installed")
    from unistream.state.object_storage import ObjectStorage

    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{unused.getsockname()[1]}"
    options = {
        "endpoint": endpoint,
        "region": "us-east-1",
        "access_key_id": "test",
        "secret_access_key": "test",
        "client_options": {"allow_http": True},
        "retry_config": {"max_retries": 0},
    }
    storage = ObjectStorage("s3://bucket/x", options)
    with pytest.raises(ConnectorError, match="s3://bucket/x/a") as told:
        storage.publish("a", b"1")
    assert told.value.retry_after is not None and "test" not in str(told.value)


# Local folders


def test_links_are_used_where_the_file_may_be_shared(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path / "root")
    source = write(tmp_path / "a", b"x")
    storage.put({"files/a": source})
    storage.put({"files/b": source}, link=False)
    assert (tmp_path / "root/files/a").samefile(source)
    assert not (tmp_path / "root/files/b").samefile(source)
    storage.fetch("files/b", tmp_path / "target")
    assert (tmp_path / "root/files/b").samefile(tmp_path / "target")


def test_files_are_copied_between_file_systems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(source: Any, target: Any, **_: Any) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    storage = LocalStorage(tmp_path / "root")
    monkeypatch.setattr(os, "link", link)
    storage.put({"files/a": write(tmp_path / "a", b"x")})
    storage.fetch("files/a", tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == b"x"
    assert not (tmp_path / "target").samefile(tmp_path / "root/files/a")
    with pytest.raises(ConnectorError, match=r"Cannot create .*/c/1: Invalid cross-device"):
        storage.publish("c/1", b"")


@pytest.mark.parametrize("failing", ["fsync", "link", "replace"])
def test_a_full_disk_leaves_nothing_that_looks_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    storage = LocalStorage(tmp_path / "root")
    storage.replace("mark", b"old")
    source = write(tmp_path / "a", b"x")

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, failing, fail)
    told: list[str] = []
    for attempt in (
        lambda: storage.put({"files/a": source}, link=False),
        lambda: storage.publish("c/1", b"data"),
        lambda: storage.replace("mark", b"new"),
    ):
        try:
            attempt()
        except ConnectorError as error:
            told.append(error.message)
    monkeypatch.undo()
    assert told and all("No space left" in message and str(tmp_path) in message for message in told)
    if failing == "fsync":
        assert len(told) == 3 and not storage.list("files") and not storage.list("c")
        assert storage.read("mark") == b"old"
    assert not [path for path in (tmp_path / "root/.unfinished").rglob("*") if path.is_file()]


def test_what_a_dead_writer_left_is_cleared(tmp_path: Path) -> None:
    dead, alive = LocalStorage(tmp_path), LocalStorage(tmp_path)

    def die(name: str, before: bool) -> None:
        if name == "storage.link" and before:
            raise faults.Crashed(name)

    previous = faults.listen(die)
    try:
        with pytest.raises(faults.Crashed):
            dead.publish("c/1", b"data")
    finally:
        faults.listen(previous)
    left = [path for path in (tmp_path / ".unfinished").rglob("*") if path.is_file()]
    assert len(left) == 1 and not alive.exists("c/1")
    alive.publish("c/2", b"data")
    alive.clear_unfinished()
    alive.publish("c/3", b"data")
    assert not left[0].exists() and len(alive.list("c")) == 2


def test_a_lock_on_a_file_that_was_taken_over_is_not_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage, other = LocalStorage(tmp_path), LocalStorage(tmp_path)
    original = fcntl.flock
    taken: list[Any] = []

    def flock(descriptor: int, operation: int) -> None:
        if not taken:
            taken.append(None)
            taken.append(other.lock("lock", take_over=True))
        original(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(InUse):
        storage.lock("lock")
    taken[1].release()
    held = storage.lock("lock")
    assert held is not None
    with pytest.raises(InUse):
        other.lock("lock")


def test_links_are_not_followed_when_removing(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    write(outside / "precious", b"x")
    storage = LocalStorage(tmp_path / "root")
    storage.publish("files/a", b"1")
    (tmp_path / "root/files/precious").symlink_to(outside / "precious")
    (tmp_path / "root/folder").symlink_to(outside)
    storage.delete(["files/precious"])
    with pytest.raises(StateError, match="outside"):
        storage.delete(["folder/precious"])
    assert (outside / "precious").read_bytes() == b"x"


def test_folders_are_for_their_owner_alone(tmp_path: Path) -> None:
    LocalStorage(tmp_path / "deep/root").publish("c/1", b"")
    for folder in ("deep", "deep/root", "deep/root/c", "deep/root/.unfinished"):
        assert (tmp_path / folder).stat().st_mode & 0o777 == 0o700


def test_every_error_can_be_shown(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UnistreamError, match="Cannot create"):
        LocalStorage(tmp_path / "file").publish("a", b"")
