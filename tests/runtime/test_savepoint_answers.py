"""Whoever asks for a savepoint gets an answer, also when its checkpoint does not come about."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest

import unistream as us
from unistream.io.base import Token
from unistream.state.checkpoint_store import CheckpointStore
from unistream.testing import CommittedSink, ListSource

SELDOM = us.Settings(checkpoint_interval="1d")


@dataclass(frozen=True, slots=True, eq=False)
class Refuses(CommittedSink):
    """A place that takes nothing."""

    def commit(self, tokens: Sequence[Token]) -> None:
        if tokens:
            raise us.ConnectorError("the server is away")


def answer_of(sink: CommittedSink, folder: Path, threads: bool) -> Future[int]:
    """What came of a savepoint of a job that failed."""
    stream = us.scan(ListSource({"n": pl.Int64}, [(1,), (2,)], bounded=False))
    runtime = stream.sink(sink).runtime(checkpoint=folder / "ckpt", settings=SELDOM, threads=threads)
    try:
        runtime.open()
        while runtime.progress("running").rows_in < 2:
            runtime.tick()
        answer = runtime.savepoint(folder / "kept")
        with pytest.raises(us.UnistreamError):
            while not answer.done():
                runtime.tick()
            runtime.tick()
    finally:
        runtime.close()
    return answer


@pytest.mark.parametrize("threads", [False, True])
def test_a_commit_that_fails_is_the_answer(threads: bool, tmp_path: Path) -> None:
    answer = answer_of(Refuses(), tmp_path, threads)
    assert answer.done()
    with pytest.raises(us.JobFailed, match="the server is away"):
        answer.result(0)


def test_a_checkpoint_that_is_not_published_is_the_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def publish(*_: object) -> None:
        raise us.ConnectorError("the disk is full", retry_after=1.0)

    monkeypatch.setattr(CheckpointStore, "publish", publish)
    answer = answer_of(CommittedSink(), tmp_path, threads=True)
    with pytest.raises(us.ConnectorError, match="the disk is full"):
        answer.result(0)
