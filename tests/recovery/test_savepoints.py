"""Savepoints, going back, and looking at state: of a running job and of what it kept."""

from __future__ import annotations

import shutil
from pathlib import Path

import polars as pl
import pytest

import unistream as us
from unistream.testing import ListSource

SCHEMA = {"k": pl.Int64, "v": pl.Int64}
FIRST = [(1, 10), (2, 20), (1, 30)]
LATER = [(3, 40), (2, 50)]
TOTALS = {"all": [(1, 40), (2, 70), (3, 40)], "first": [(1, 40), (2, 20)]}


def totals(rows: list[tuple[int, int]], bounded: bool = True) -> us.Stream:
    source = ListSource(SCHEMA, rows, bounded=bounded)
    return us.scan(source).group_by("k").agg(total=pl.col("v").sum())


def started(folder: Path, rows: list[tuple[int, int]], **options: object) -> us.Run:
    """A live job that has worked off what is there, or what a savepoint left of it."""
    job = totals(rows, bounded=False).changes().sink_parquet(folder / "out")
    run = job.start(checkpoint=folder / "ckpt", **options)  # type: ignore[arg-type]
    left = len(LATER) if options.get("restore") else len(rows)
    while run.progress.rows_out < 1 or run.progress.rows_in < left:
        assert not run.wait(0.002)
    return run


def current(folder: Path) -> list[tuple[int, int]]:
    """What the written changes come to."""
    rows = pl.read_parquet(folder / "out").filter(pl.col("op").is_in(["+I", "+U"]))
    # A key's row of the later file is the newer one: files are named by checkpoint.
    return sorted(rows.unique("k", keep="last", maintain_order=True).select("k", "total").rows())


def state(folder: Path) -> list[tuple[object, ...]]:
    frame = us.read_state(folder, "aggregate-1")
    return sorted(frame.select(pl.col("k"), frame.select(pl.exclude("k")).to_series().cast(pl.Int64)).rows())


def test_a_savepoint_of_a_running_job_starts_another(tmp_path: Path) -> None:
    with started(tmp_path / "a", FIRST) as run:
        saved = run.savepoint(tmp_path / "kept")
        assert run.status == "running"
        assert run.progress.checkpoint is not None and run.progress.checkpoint >= saved
        assert current(tmp_path / "a") == TOTALS["first"], "what it covers is committed"
    shutil.rmtree(tmp_path / "a")
    assert state(tmp_path / "kept") == TOTALS["first"]
    with started(tmp_path / "b", FIRST + LATER, restore=tmp_path / "kept") as run:
        assert run.progress.rows_in == len(LATER)
    assert state(tmp_path / "b" / "ckpt") == TOTALS["all"]


def started_from(folder: Path, kept: Path, rows: list[tuple[int, int]]) -> us.Progress:
    job = totals(rows).changes().sink_parquet(folder / "out")
    return job.run(checkpoint=folder / "ckpt", restore=kept, progress=False)


def test_a_restart_with_the_same_arguments_goes_on_from_its_own_newest(tmp_path: Path) -> None:
    with started(tmp_path / "a", FIRST) as run:
        run.savepoint(tmp_path / "kept")
    assert started_from(tmp_path / "b", tmp_path / "kept", FIRST + LATER).rows_in == len(LATER)
    assert started_from(tmp_path / "b", tmp_path / "kept", FIRST + LATER).rows_in == 0, (
        "not from the savepoint"
    )
    assert current(tmp_path / "b") == [(2, 70), (3, 40)]


def test_the_same_output_folder_may_be_used(tmp_path: Path) -> None:
    """Files are named by checkpoint ids, which go on from those of the savepoint."""
    with started(tmp_path / "a", FIRST) as run:
        run.savepoint(tmp_path / "kept")
    job = totals(FIRST + LATER).changes().sink_parquet(tmp_path / "a" / "out")
    job.run(checkpoint=tmp_path / "b", restore=tmp_path / "kept", progress=False)
    assert current(tmp_path / "a") == TOTALS["all"]


def test_a_directory_with_checkpoints_of_its_own_is_not_overruled(tmp_path: Path) -> None:
    with started(tmp_path / "a", FIRST) as run:
        run.savepoint(tmp_path / "kept")
    with pytest.raises(us.StateError, match="holds checkpoints already"):
        started_from(tmp_path / "a", tmp_path / "kept", FIRST)


def test_a_savepoint_goes_into_a_folder_of_its_own(tmp_path: Path) -> None:
    with started(tmp_path / "a", FIRST) as run:
        run.savepoint(tmp_path / "kept")
        with pytest.raises(us.StateError, match="holds checkpoints already"):
            run.savepoint(tmp_path / "kept")
        assert run.status == "running", "the job does not suffer"
    with pytest.raises(us.StateError, match="does not run any more"):
        run.savepoint(tmp_path / "late")


def test_a_savepoint_needs_checkpoints(tmp_path: Path) -> None:
    run = us.scan_rate(1000).sink_batches(lambda frame: None).start()
    with run, pytest.raises(us.InvalidSettings, match="keeps none"):
        run.savepoint("kept")
    with pytest.raises(us.InvalidSettings, match="restore= needs checkpoint="):
        us.scan_rate(1000).sink_batches(print).start(restore="kept")
    with pytest.raises(us.StateError, match="no savepoint"):
        us.scan_rate(1000).sink_batches(print).start(restore="nowhere", checkpoint=tmp_path)


def test_going_back_to_an_older_checkpoint(tmp_path: Path) -> None:
    ckpt = tmp_path / "ckpt"
    totals(FIRST).changes().sink_parquet(tmp_path / "one").run(checkpoint=ckpt, progress=False)
    old = max(int(file.stem) for file in (ckpt / "checkpoints").glob("*.json"))
    totals(FIRST + LATER).changes().sink_parquet(tmp_path / "one").run(checkpoint=ckpt, progress=False)
    assert state(ckpt) == TOTALS["all"]
    with pytest.raises(us.StateError, match="no checkpoint 99"):
        totals(FIRST).changes().sink_parquet(tmp_path / "one").run(
            checkpoint=ckpt, restore=99, progress=False
        )
    again = totals(FIRST + LATER).changes().sink_parquet(tmp_path / "one")
    assert again.run(checkpoint=ckpt, restore=old, progress=False).rows_in == len(LATER)
    assert again.run(checkpoint=ckpt, restore=old, progress=False).rows_in == 0
    assert state(ckpt) == TOTALS["all"]


# Looking


def test_live_state_is_that_of_one_moment(tmp_path: Path) -> None:
    with started(tmp_path, FIRST) as run:
        found = run.state("aggregate-1")
        assert found.tables().select("kind", "rows").rows() == [("keyed", 2)]
        rows = found.scan()
        assert rows["k"].sort().to_list() == [1, 2]
        assert found.scan(where=pl.col("k") == 2).height == 1
        with pytest.raises(us.InvalidQuery, match="no table 'nothing'"):
            found.scan("nothing")
        with pytest.raises(us.InvalidQuery, match="did you mean 'aggregate-1'"):
            run.state("agregate-1")
        run.savepoint(tmp_path / "kept")
    assert us.read_state(tmp_path / "kept", "aggregate-1").sort("k").equals(rows.sort("k"))
    with pytest.raises(us.StateError, match="does not run any more"):
        found.scan()


def test_live_state_without_checkpoints() -> None:
    seen: list[pl.DataFrame] = []
    stream = us.scan(ListSource(SCHEMA, FIRST, bounded=False)).unique("k")
    with stream.sink_batches(seen.append).start() as run:
        while sum(frame.height for frame in seen) < 2:
            assert not run.wait(0.002)
        name = next(iter(run._execution.runtime.stores))
        assert sorted(run.state(name).scan()["k"]) == [1, 2]


def test_reading_state_of_a_checkpoint(tmp_path: Path) -> None:
    totals(FIRST).changes().sink_batches(lambda frame: None).run(checkpoint=tmp_path, progress=False)
    assert set(us.read_state(tmp_path)["operator"]) >= {"aggregate-1"}
    assert state(tmp_path) == TOTALS["first"]
    with pytest.raises(us.InvalidQuery, match="did you mean 'aggregate-1'"):
        us.read_state(tmp_path, "agregate-1")
    with pytest.raises(us.StateError, match="no checkpoint 77"):
        us.read_state(tmp_path, "aggregate-1", id=77)
    with pytest.raises(us.StateError, match="no checkpoint in"):
        us.read_state(tmp_path / "elsewhere", "aggregate-1")
