"""One owner per directory, whoever dies, sleeps or races; a former owner can never commit."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from unistream import faults
from unistream.clock import Random, SystemClock
from unistream.errors import StateError
from unistream.state import local_storage, process
from unistream.state.checkpoint_reader import CheckpointReader
from unistream.state.checkpoint_store import CheckpointStore
from unistream.state.manifest import Gap, Manifest, SubtaskState
from unistream.state.ownership import KEPT_RECORDS, Lease, own, sequence
from unistream.state.snapshot import SnapshotFile
from unistream.state.storage import Storage, storage_for
from unistream.state.verification import verify
from unistream.testing import VirtualClock

CLOCK = SystemClock()
RANDOM = Random(7)
DEADLINE = 30.0

WORKER = """
import json, os, signal, sys
from unistream import faults
from unistream.clock import Random, SystemClock, fresh_random
from unistream.errors import StateError
from unistream.state.checkpoint_store import CheckpointStore
from unistream.state.manifest import Manifest
from unistream.state.ownership import own
from unistream.state.storage import storage_for

clock, lease, store = SystemClock(), None, None

def stop_at(wanted, when):
    def listener(name, before):
        if (name, before) == (wanted, when):
            faults.listen(None)
            os.kill(os.getpid(), signal.SIGSTOP)
    return listener

def answer(**values):
    print(json.dumps(values), flush=True)

answer(ready=True)
for line in sys.stdin:
    order, *rest = json.loads(line)
    began = clock.steady()
    try:
        if order == "own":
            storage = storage_for(rest[0])
            lease = own(storage, "job", clock, fresh_random())
            store = CheckpointStore(storage, lease)
        elif order == "publish":
            store.publish(Manifest(id=store.next_id))
        elif order == "stop_at":
            faults.listen(stop_at(*rest))
        elif order == "release":
            lease.release()
        answer(ok=True, seconds=clock.steady() - began)
    except StateError as error:
        answer(ok=False, seconds=clock.steady() - began, message=str(error))
"""


class Worker:
    """A process that owns and publishes when told to."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def send(self, *order: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()

    def answer(self) -> Any:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def ask(self, *order: Any) -> Any:
        self.send(*order)
        return self.answer()

    def wait_until_stopped(self) -> None:
        deadline = time.monotonic() + DEADLINE
        stat = Path(f"/proc/{self.process.pid}/stat")
        while stat.read_text().rpartition(")")[2].split()[0] != "T":
            assert time.monotonic() < deadline
            os.sched_yield()


@contextmanager
def workers(count: int) -> Iterator[list[Worker]]:
    started = [Worker() for _ in range(count)]
    try:
        for worker in started:
            assert worker.answer() == {"ready": True}
        yield started
    finally:
        for worker in started:
            worker.process.kill()
            worker.process.communicate()


def owned(storage: Storage | Path, **options: Any) -> Lease:
    return own(storage_for(storage), "job", CLOCK, RANDOM, **options)


def publish(store: CheckpointStore, **parts: Any) -> Manifest:
    return store.publish(Manifest(id=store.next_id, **parts))


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a process wrote outlives it without a sync."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def test_a_second_owner_is_refused_and_told_who(tmp_path: Path) -> None:
    first = owned(tmp_path)
    with pytest.raises(StateError, match=f"in use by process {os.getpid()} on .*job job") as told:
        owned(tmp_path)
    assert told.value.hint
    first.release()
    with owned(tmp_path) as second:
        assert (first.epoch, second.epoch) == (1, 2)
    with pytest.raises(StateError, match="given up"):
        first.check()


def test_a_directory_belongs_to_one_job(tmp_path: Path) -> None:
    storage = storage_for(tmp_path)
    with own(storage, None, CLOCK, RANDOM) as first:
        job = first.job_id
    with own(storage, None, CLOCK, RANDOM) as second:
        assert second.job_id == job
    with pytest.raises(StateError, match="holds the checkpoints of job"):
        own(storage, "another", CLOCK, RANDOM)
    with own(storage, job, CLOCK, RANDOM):
        pass


def test_a_released_owner_creates_nothing(tmp_path: Path) -> None:
    with owned(tmp_path) as lease:
        store = CheckpointStore(tmp_path, lease)
        publish(store)
    with pytest.raises(StateError, match="given up"):
        publish(store)
    assert sequence(store.storage) == [1]


def test_when_all_records_of_owners_are_gone_epochs_go_on(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    for _ in range(2):
        with owned(tmp_path) as lease:
            store = CheckpointStore(tmp_path, lease)
            entries = store.upload([SnapshotFile(tmp_path / "a", "a")])
            publish(store, states=(SubtaskState(files=entries),))
    for path in (tmp_path / "owners").iterdir():
        path.unlink()
    assert owned(tmp_path).epoch == 3


def test_first_ids_have_no_gap_and_later_owners_close_one(tmp_path: Path) -> None:
    with owned(tmp_path) as lease:
        store = CheckpointStore(tmp_path, lease)
        assert [publish(store).id for _ in range(2)] == [1, 2]
        assert store.publish(Manifest(id=5)).parent == 2
        with pytest.raises(StateError, match="id 5 is not above 5"):
            store.publish(Manifest(id=5))
    with owned(tmp_path) as lease:
        store = CheckpointStore(tmp_path, lease)
        assert store.next_id == 7 and sequence(store.storage) == [1, 2, 3, 4, 5, 6]
        assert [store.record(3), store.record(6)] == [
            Gap(id=3, epoch=1, closed_by_next=False),
            Gap(id=6, epoch=2, closed_by_next=True),
        ]
        assert [manifest.id for manifest in store.list()] == [1, 2, 5]


def test_twenty_races_of_two_processes_have_one_owner_each(tmp_path: Path) -> None:
    with workers(2) as both:
        for turn in range(20):
            # The same directory every other time, so that there is a former owner.
            path = str(tmp_path / str(turn // 2))
            for worker in both:
                worker.send("own", path)
            answers = [worker.answer() for worker in both]
            assert sorted(answer["ok"] for answer in answers) == [False, True], answers
            loser = next(answer for answer in answers if not answer["ok"])
            assert "in use by" in loser["message"] and loser["seconds"] < 1
            winner = both[0] if answers[0]["ok"] else both[1]
            assert winner.ask("publish")["ok"]
            assert winner.ask("release")["ok"]


def test_the_directory_of_a_killed_process_is_free_at_once(tmp_path: Path) -> None:
    with workers(1) as (worker,):
        assert worker.ask("own", str(tmp_path))["ok"] and worker.ask("publish")["ok"]
        with pytest.raises(StateError, match=f"in use by process {worker.process.pid} "):
            owned(tmp_path)
        worker.process.kill()
        worker.process.wait()
        with owned(tmp_path) as lease:
            assert lease.epoch == 2 and lease.last == 2


@pytest.mark.parametrize("before", [True, False])
def test_a_process_that_slept_while_another_took_over_cannot_commit(tmp_path: Path, before: bool) -> None:
    with workers(1) as (sleeper,):
        assert sleeper.ask("own", str(tmp_path))["ok"] and sleeper.ask("publish")["ok"]
        # It has checked that it is the owner, and stops right before or after the create.
        assert sleeper.ask("stop_at", "storage.link", before)["ok"]
        sleeper.send("publish")
        sleeper.wait_until_stopped()
        with pytest.raises(StateError, match="in use by"):
            owned(tmp_path)
        with owned(tmp_path, take_over=True) as lease:
            store = CheckpointStore(tmp_path, lease)
            seen = store.newest()
            assert seen is not None and seen.id == (1 if before else 2)
            mine = publish(store)
            os.kill(sleeper.process.pid, signal.SIGCONT)
            refused = sleeper.answer()
            assert not refused["ok"] and f"taken over by process {os.getpid()}" in refused["message"]
            again = sleeper.ask("publish")
            assert not again["ok"]
            assert CheckpointReader(tmp_path).newest() == mine
            assert publish(store).parent == mine.id
        assert verify(tmp_path).ok


def test_a_forked_child_does_not_keep_the_directory(tmp_path: Path) -> None:
    program = (
        "import os, sys\n"
        "from unistream.clock import Random, SystemClock\n"
        "from unistream.state.ownership import own\n"
        "from unistream.state.storage import storage_for\n"
        f"lease = own(storage_for({str(tmp_path)!r}), 'job', SystemClock(), Random(1))\n"
        "read, write = os.pipe()\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    os.write(write, b'x')\n"
        "    sys.stdin.read()\n"
        "    os._exit(0)\n"
        "os.read(read, 1)\n"
        "print(child, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdin is not None and parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.wait()
    os.kill(child, 0)
    with owned(tmp_path) as lease:
        assert lease.epoch == 2
    parent.stdin.close()
    parent.stdout.close()


# The same protocol without locks


@pytest.fixture(params=["memory", "folder without locks"])
def lockless(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Storage:
    if request.param == "memory":
        pytest.importorskip("obstore", reason="obstore is not installed")
        return storage_for("memory:///")

    def no_locks(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(local_storage, "FileLock", no_locks)
    return storage_for(tmp_path)


def test_without_locks_a_living_process_of_this_machine_is_respected(lockless: Storage) -> None:
    first = owned(lockless)
    with pytest.raises(StateError, match="in use by"):
        owned(lockless)
    first.release()
    second = owned(lockless)
    second.abandon()
    with pytest.raises(StateError, match="in use by"):
        owned(lockless)
    assert owned(lockless, take_over=True).epoch == 3


def test_without_locks_a_dead_process_of_this_machine_is_replaced_at_once(
    lockless: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: ended.pid)
        owned(lockless)
    assert owned(lockless).epoch == 2


def test_a_process_that_ended_but_was_not_waited_for_is_dead(
    lockless: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: child.pid)
        owned(lockless)
    with pytest.raises(StateError, match=f"in use by process {child.pid} "):
        owned(lockless)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert owned(lockless).epoch == 2
    child.communicate()


def test_a_number_given_to_another_process_is_not_taken_for_the_owner(
    lockless: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(process, "_started", lambda pid: 1)
        owned(lockless)
    assert owned(lockless).epoch == 2


def test_without_locks_another_machine_is_given_up_after_it_was_silent(
    lockless: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = VirtualClock(1_000_000_000)
    with monkeypatch.context() as patch:
        patch.setattr(process, "_machine", lambda: "far away")
        first = own(lockless, "job", clock, RANDOM, lease="30s")
    clock.advance("29s")
    first.renew()
    clock.advance("30s")
    with pytest.raises(StateError, match="in use by"):
        own(lockless, "job", clock, RANDOM, lease="30s")
    clock.advance("1us")
    second = own(lockless, "job", clock, RANDOM, lease="30s")
    with pytest.raises(StateError, match="taken over"):
        publish(CheckpointStore(lockless, first))
    assert publish(CheckpointStore(lockless, second)).epoch == 2


def test_without_locks_races_have_one_owner(lockless: Storage) -> None:
    leases: list[Lease] = []
    start = threading.Barrier(4)

    def claim(number: int) -> None:
        start.wait()
        try:
            leases.append(own(lockless, "job", CLOCK, Random(number)))
        except StateError:
            return

    for turn in range(20):
        leases.clear()
        threads = [threading.Thread(target=claim, args=(4 * turn + number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        (winner,) = leases
        assert winner.epoch == turn + 1
        winner.check()
        winner.release()


# Takeover in the middle of everything the former owner does

Interrupted = Callable[[CheckpointStore], object]


def interrupt(
    target: Storage | Path, prepare: Interrupted, act: Interrupted, meanwhile: Interrupted, step: int
) -> tuple[bool, int | None, bool]:
    """Let another owner take over and do `meanwhile` when `act` reaches its `step`-th point.

    Whether the point was reached, the newest checkpoint the new owner saw, and whether `act` succeeded.
    """
    storage = storage_for(target)
    former = CheckpointStore(storage, own(storage, "job", CLOCK, RANDOM))
    prepare(former)
    reached = 0
    seen: list[int | None] = []

    def listener(name: str, before: bool) -> None:
        nonlocal reached
        reached += 1
        if reached == step:
            faults.listen(None)
            store = CheckpointStore(storage, own(storage, "job", CLOCK, RANDOM, take_over=True))
            newest = store.newest()
            seen.append(newest.id if newest else None)
            meanwhile(store)

    faults.listen(listener)
    try:
        act(former)
        done = True
    except StateError:
        done = False
    finally:
        faults.listen(None)
    return bool(seen), seen[0] if seen else None, done


def test_taken_over_while_becoming_the_owner(tmp_path: Path) -> None:
    for step in range(1, 100):
        storage = storage_for(tmp_path / str(step))
        with owned(storage) as lease:
            publish(CheckpointStore(storage, lease))
        reached = 0
        others: list[CheckpointStore] = []

        def listener(
            name: str, before: bool, step: int = step, others: list[Any] = others, storage: Storage = storage
        ) -> None:
            nonlocal reached
            reached += 1
            if reached == step:
                faults.listen(None)
                others.append(CheckpointStore(storage, owned(storage, take_over=True)))

        faults.listen(listener)
        try:
            mine = owned(storage)
        except StateError:
            mine = None
        finally:
            faults.listen(None)
        if not others:
            break
        # One of the two is the owner, and the other one knows.
        outcomes = []
        for store in (*others, *([CheckpointStore(storage, mine)] if mine else [])):
            try:
                outcomes.append(publish(store).epoch)
            except StateError as error:
                assert "taken over" in error.message
        assert len(outcomes) == 1
        with owned(storage, take_over=True) as lease:
            publish(CheckpointStore(storage, lease))
        assert verify(storage).ok, step
    assert 4 < step < 99


@pytest.mark.parametrize("kind", ["local", "memory"])
def test_a_checkpoint_is_either_seen_by_the_next_owner_or_refused(tmp_path: Path, kind: str) -> None:
    if kind == "memory":
        pytest.importorskip("obstore", reason="obstore is not installed")
    outcomes = set()
    step = 0
    while True:
        step += 1
        target = tmp_path / str(step) if kind == "local" else storage_for("memory:///")
        reached, seen, done = interrupt(target, publish, publish, publish, step)
        if not reached:
            break
        assert seen == 2 or not done, f"step {step}: checkpoint 2 was committed behind the next owner's back"
        outcomes.add((seen, done))
        ids = [manifest.id for manifest in CheckpointReader(target).list()]
        assert ids == ([1, 2, 4] if seen == 2 else [1, 3]), f"step {step}"
        assert verify(target).ok
    assert outcomes >= {(1, False), (2, True)} and step > 4


def test_a_former_owner_that_cleans_removes_nothing_of_the_next(tmp_path: Path) -> None:
    for step in range(1, 200):
        folder = tmp_path / str(step)
        contents = [folder / name for name in ("a", "b", "c")]
        folder.mkdir()
        for path in contents:
            path.write_bytes(path.name.encode())

        def save(store: CheckpointStore, *paths: Path) -> None:
            entries = store.upload([SnapshotFile(path, path.name) for path in paths])
            publish(store, states=(SubtaskState(files=entries),))

        def prepare(store: CheckpointStore, contents: list[Path] = contents) -> None:
            for path in contents:
                save(store, path)

        def meanwhile(store: CheckpointStore, contents: list[Path] = contents, folder: Path = folder) -> None:
            newest = store.newest()
            assert newest is not None
            store.fetch(newest, folder / "restored")
            save(store, *contents)

        reached, _, _ = interrupt(folder / "ckpt", prepare, lambda store: store.retain(1), meanwhile, step)
        report = verify(folder / "ckpt")
        assert report.ok, (step, report.problems)
        if not reached:
            break
    assert 6 < step < 199


def test_records_of_long_gone_owners_are_forgotten(tmp_path: Path) -> None:
    storage = storage_for(tmp_path)
    for _ in range(KEPT_RECORDS + 5):
        owned(storage).release()
    with owned(storage) as lease:
        store = CheckpointStore(storage, lease)
        publish(store)
        store.retain(1)
        assert len(storage.list("owners")) == KEPT_RECORDS
        assert len(storage.list("checkpoints")) == KEPT_RECORDS + 1
    assert owned(storage).epoch == KEPT_RECORDS + 7
