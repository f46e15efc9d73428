"""How runs end: whatever happens, somebody who waits is told, and what was read is kept."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import unistream as us
from unistream.errors import InvalidQuery, InvalidSettings, JobFailed
from unistream.runtime.recovery import Attempts, RestartStrategy


def slow(frame: pl.DataFrame) -> pl.DataFrame:
    if frame.height:
        time.sleep(3)  # longer than a stop waits by itself
    return frame


def test_leaving_a_run_waits_for_its_last_tick(tmp_path: Path) -> None:
    job = us.scan_rate(1000).map_batches(slow).sink_ndjson(tmp_path / "out")
    with job.start() as run:
        while not run.progress.rows_in:
            time.sleep(0.05)
    assert run.status == "stopped"
    assert us.scan_ndjson(tmp_path / "out").collect().height == run.progress.rows_in


class Broken(RestartStrategy):
    """Fails itself, when a job begins or when it has failed."""

    def __init__(self, at_begin: bool) -> None:
        self.at_begin = at_begin

    def begin(self) -> Attempts:
        if self.at_begin:
            raise ValueError("no strategy")
        return None  # type: ignore[return-value]


def fail(frame: pl.DataFrame) -> None:
    raise OSError("away")


@pytest.mark.parametrize("at_begin", [True, False])
def test_a_strategy_that_fails_ends_the_run(tmp_path: Path, at_begin: bool) -> None:
    job = us.from_frame({"a": [1]}).sink_batches(fail)
    run = job.start(checkpoint=tmp_path / "ckpt", restart=Broken(at_begin))
    with pytest.raises(JobFailed):
        run.wait(20)
    assert run.status == "failed"
    seen: list[pl.DataFrame] = []
    us.from_frame({"a": [1]}).sink_batches(seen.append).run(checkpoint=tmp_path / "ckpt", progress=False)
    assert len(seen) == 1  # the folder was given up


@pytest.mark.parametrize("restart", [3, "3", us.FixedDelay])
def test_what_is_no_strategy_is_refused(restart: Any) -> None:
    job = us.from_frame({"a": [1]}).sink_batches(lambda frame: None)
    with pytest.raises(InvalidSettings, match="is no strategy"):
        job.start(restart=restart)


@pytest.mark.parametrize("place", ["", " ", 3, Path])
def test_what_is_no_place_is_refused(place: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    job = us.from_frame({"a": [1]}).sink_batches(lambda frame: None)
    with pytest.raises(InvalidSettings, match="is no place"):
        job.run(checkpoint=place)
    if not isinstance(place, int):
        with pytest.raises(InvalidSettings, match="is no place"):
            job.run(checkpoint="ckpt", restore=place)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_somebody_else_stays(tmp_path: Path) -> None:
    mine = tmp_path / "running" / "notes.txt"
    mine.parent.mkdir()
    mine.write_text("precious")
    us.from_frame({"a": [1]}).sink_batches(lambda frame: None).run(checkpoint=tmp_path, progress=False)
    assert mine.read_text() == "precious"
    assert not (tmp_path / ".unistream-running").exists()


async def save_later(frame: pl.DataFrame) -> None:
    raise AssertionError


async def save_later_once(frame: pl.DataFrame, checkpoint_id: int) -> None:
    raise AssertionError


def save_when_asked(frame: pl.DataFrame) -> Any:
    yield frame


class Later:
    async def __call__(self, frame: pl.DataFrame) -> None:
        raise AssertionError


@pytest.mark.parametrize("function", [save_later, save_later_once, save_when_asked, Later()])
def test_functions_that_would_not_run_are_refused(function: Any) -> None:
    with pytest.raises(InvalidQuery, match="async or a generator"):
        us.from_frame({"a": [1]}).sink_batches(function)


def test_a_function_that_returns_a_coroutine_fails() -> None:
    with pytest.raises(JobFailed, match="to await"):
        us.from_frame({"a": [1]}).sink_batches(lambda frame: _closed(frame)).run(progress=False)


def _closed(frame: pl.DataFrame) -> Any:
    later = save_later(frame)
    threading.Timer(0, later.close).start()  # or Python warns that nobody awaited it
    return later


def test_a_commit_that_fails_again_at_a_restart_names_its_step(tmp_path: Path) -> None:
    def refuse(frame: pl.DataFrame, checkpoint_id: int) -> None:
        raise ValueError("no commit")

    job = us.from_frame({"a": [1]}).sink_batches(refuse)
    for _ in range(2):
        with pytest.raises(JobFailed, match=r"function-1 failed: ValueError: no commit\n  raised at"):
            job.run(checkpoint=tmp_path / "ckpt", restart=us.FixedDelay(1, "1ms"), progress=False)
