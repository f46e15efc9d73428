"""Where checkpoints lie may be slow or fail: ticks go on, the job restarts, and old checkpoints go."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import unistream as us
from unistream.errors import ConnectorError
from unistream.io.base import Chunk, Exhausted, Position, Reader, Replay, Request, Source, Wait
from unistream.state.local_storage import LocalStorage
from unistream.state.ownership import sequence
from unistream.testing import CommittedSink, ListSource, VirtualClock

SETTINGS = us.Settings(checkpoint_interval="1ms", tick_rows=1)
NOW = us.FixedDelay(5, "0s")


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """The upload of state files waits until this is set."""
    opened = threading.Event()
    put = LocalStorage.put

    def slow(self: LocalStorage, files: Mapping[str, Path], *, link: bool = True) -> None:
        assert opened.wait(60)
        put(self, files, link=link)

    monkeypatch.setattr(LocalStorage, "put", slow)
    yield opened
    opened.set()


def counted(source: us.Stream) -> us.Stream:
    return source.group_by(k=pl.col("value") % 3).agg(n=pl.len())


def test_slow_storage_does_not_hold_up_ticks(gate: threading.Event, tmp_path: Path) -> None:
    sink = CommittedSink()
    run = counted(us.scan_rate(20_000)).sink(sink).start(checkpoint=tmp_path, settings=SETTINGS)
    while run.progress.rows_in == 0:
        assert not run.wait(0.002)
    before = run.progress
    while run.progress.ticks < before.ticks + 20 or run.progress.rows_in < before.rows_in + 100:
        assert not run.wait(0.002)
    assert run.progress.checkpoint is None, "nothing is complete while the upload hangs"
    assert not sink.committed
    gate.set()
    while run.progress.checkpoint is None or not sink.committed:
        assert not run.wait(0.002)
    assert run.stop(timeout=60)


def fail_at(monkeypatch: pytest.MonkeyPatch, method: str, calls: set[int]) -> list[int]:
    """Some calls of the storage fail as a full disk does; the list tells how often it was called."""
    whole = getattr(LocalStorage, method)
    count = [0]

    def failing(self: LocalStorage, *arguments: Any, **options: Any) -> Any:
        count[0] += 1
        if count[0] in calls:
            raise ConnectorError("no space left on device", retry_after=0.001)
        return whole(self, *arguments, **options)

    monkeypatch.setattr(LocalStorage, method, failing)
    return count


ROWS = [(n % 3, n) for n in range(30)]


@pytest.mark.parametrize(("method", "first"), [("put", 1), ("publish", 2), ("replace", 1)])
def test_an_upload_that_fails_restarts_the_job(
    method: str, first: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of what is published the claim to own the directory comes first; that one `start` would raise."""
    calls = fail_at(monkeypatch, method, {first, first + 1})
    source = us.scan(ListSource({"k": pl.Int64, "v": pl.Int64}, ROWS))
    sink = CommittedSink()
    run = source.unique("v").sink(sink).start(checkpoint=tmp_path, settings=SETTINGS, restart=NOW)
    assert run.wait(60)
    assert calls[0] > 2
    assert run.restarts == 2
    assert sorted(sink.result()["v"]) == list(range(30))


def test_an_upload_that_fails_for_good_ends_the_job_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = us.scan(ListSource({"k": pl.Int64, "v": pl.Int64}, ROWS))
    with monkeypatch.context() as patch:
        fail_at(patch, "put", set(range(1, 1000)))
        sink = CommittedSink()
        run = source.unique("v").sink(sink).start(checkpoint=tmp_path, settings=SETTINGS, restart=NOW)
        with pytest.raises(us.ConnectorError, match="no space left"):
            run.wait(60)
        assert run.restarts == 5
        assert not sink.committed
    source.unique("v").sink(sink).run(checkpoint=tmp_path, progress=False)
    assert sorted(sink.result()["v"]) == list(range(30)), "with room again nothing is missing"


@pytest.mark.parametrize("kept", [1, 2, 4])
def test_only_so_many_checkpoints_are_kept(kept: int, tmp_path: Path) -> None:
    clock = VirtualClock()
    settings = us.Settings(checkpoint_interval=1, checkpoints_kept=kept)
    source = us.scan(ListSource({"k": pl.Int64, "v": pl.Int64}, ROWS))
    runtime = source.unique("v").sink(CommittedSink()).runtime(
        checkpoint=tmp_path, settings=settings, clock=clock, threads=False
    )  # fmt: skip
    runtime.open()
    most = 0
    while runtime.step():
        clock.advance(1)
        most = max(most, len(sequence(LocalStorage(tmp_path))))
    runtime.conclude()
    runtime.close()
    assert most <= kept + 1
    assert len(sequence(LocalStorage(tmp_path))) == kept
    named = {entry for manifest in manifests(tmp_path) for entry in manifest.stored_names}
    assert {f"files/{file.name}" for file in (tmp_path / "files").iterdir()} == named


def manifests(folder: Path) -> list[Any]:
    from unistream.state.checkpoint_reader import CheckpointReader

    return CheckpointReader(folder).list()


def test_progress_tells_the_checkpoint_and_its_age(tmp_path: Path) -> None:
    clock = VirtualClock()
    source = us.scan(ListSource({"k": pl.Int64, "v": pl.Int64}, ROWS, bounded=False))
    runtime = source.unique("v").sink(CommittedSink()).runtime(
        checkpoint=tmp_path, settings=us.Settings(checkpoint_interval=10), clock=clock, threads=False
    )  # fmt: skip
    runtime.open()
    runtime.tick()
    assert runtime.progress("running").checkpoint is None
    assert runtime.progress("running").checkpoint_age is None
    clock.advance(10)
    runtime.tick()
    runtime.tick()
    first = runtime.progress("running")
    assert first.checkpoint == 1
    clock.advance(7)
    later = runtime.progress("running")
    assert later.checkpoint_age == (first.checkpoint_age or 0) + 7
    runtime.close()


class Guests(Source):
    """Every row is a split of its own that ends with it, as connections are; nothing can be had again."""

    def __init__(self, replay: Replay) -> None:
        self._replay = replay

    @property
    def bounded(self) -> bool:
        return True

    @property
    def replay(self) -> Replay:
        return self._replay

    def schema(self) -> pl.Schema:
        return pl.Schema({"n": pl.Int64})

    def open(self, positions: Mapping[str, Position], request: Request) -> Reader:
        return _GuestReader(len(positions))


class _GuestReader(Reader):
    def __init__(self, start: int) -> None:
        self._next = start

    def poll(self, max_rows: int) -> Chunk | Wait | Exhausted:
        if self._next == 20:
            return Exhausted()
        self._next += 1
        return Chunk(f"guest-{self._next}", pl.DataFrame({"n": [self._next]}), self._next, ended=True)


@pytest.mark.parametrize(("replay", "expected"), [(Replay.NONE, 0), (Replay.EXACT, 20)])
def test_ended_splits_that_cannot_be_read_again_are_forgotten(
    replay: Replay, expected: int, tmp_path: Path
) -> None:
    us.scan(Guests(replay)).sink(CommittedSink()).run(checkpoint=tmp_path, progress=False)
    (positions,) = manifests(tmp_path)[-1].positions.values()
    assert len(positions) == expected
