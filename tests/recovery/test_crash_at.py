"""Dying before and after every named step: files to three results in Parquet, none lost, none twice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from recovery_jobs import (
    RESULTS,
    check_all,
    check_tables,
    in_tables,
    make_rows,
    to_parquet,
    to_tables,
    write_input,
    written,
)

import unistream as us
from unistream.clock import Random
from unistream.testing import Crashed, VirtualClock, crash_at, crash_points
from unistream.testing.ways import folder_in_memory

ROWS = make_rows(240, seed=3)
SETTINGS = us.Settings(whole_query=False, checkpoint_interval=1, tick_rows=20)
ELSEWHERE = {"ownership.close", "operator.timer"}
"""Points this job does not come to by itself: a second owner, a timer of the clock."""


@pytest.fixture(scope="module")
def source() -> Iterator[Path]:
    with folder_in_memory() as folder:
        write_input(folder, ROWS, files=6)
        yield folder


@pytest.fixture
def folder() -> Iterator[Path]:
    with folder_in_memory() as path:
        yield path


def run(source: Path, folder: Path, every: int = 3, tables: str = "") -> None:
    """In one thread, a checkpoint after every third tick."""
    clock = VirtualClock()
    rows = us.scan_parquet(source / "*.parquet")
    job = to_tables(rows, folder, tables) if tables else to_parquet(rows, folder / "out")
    runtime = job.runtime(checkpoint=folder / "ckpt", settings=SETTINGS, clock=clock, threads=False)
    try:
        runtime.open()
        ticks = 0
        while runtime.step():
            ticks += 1
            if ticks % every == 0:
                clock.advance(1)
        runtime.conclude()
    finally:
        runtime.close()


def contents(folder: Path) -> dict[str, pl.DataFrame]:
    return {name: written(folder / "out", name) for name in RESULTS}


def die_and_go_on(source: Path, folder: Path, point: str, before: bool, hit: int) -> bool:
    """Whether the point was reached."""
    try:
        with crash_at(point, before=before, hit=hit) as crash:
            run(source, folder)
    except Crashed:
        run(source, folder)
    check_all(ROWS, contents(folder))
    return crash.happened


def test_the_uninterrupted_run_is_right(source: Path, folder: Path) -> None:
    run(source, folder)
    found = contents(folder)
    check_all(ROWS, found)
    assert found["changes"].height > 7 * 5, "too few ticks to be worth interrupting"


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("point", [name for name in crash_points() if name not in ELSEWHERE])
def test_every_point_recovers(point: str, before: bool, source: Path, folder: Path) -> None:
    assert die_and_go_on(source, folder, point, before, 1), "a point that nothing reaches tests nothing"


OF_SINKS = [name for name in crash_points() if name.startswith(("sink.", "checkpoint."))]


@pytest.mark.parametrize("tables", ["sqlite", "duckdb"])
@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("point", OF_SINKS)
def test_tables_recover(point: str, before: bool, tables: str, source: Path, folder: Path) -> None:
    """Of the three sinks of the job it is the second that dies."""
    with pytest.raises(Crashed), crash_at(point, before=before, hit=2 if point.startswith("sink.") else 1):
        run(source, folder, tables=tables)
    run(source, folder, tables=tables)
    check_tables(ROWS, in_tables(folder, tables))


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_the_takeover_recovers(before: bool, source: Path, folder: Path) -> None:
    """The next owner closes the id of the dead one; it may die over that too."""
    with pytest.raises(Crashed), crash_at("checkpoint.newest", hit=1):
        run(source, folder)
    assert die_and_go_on(source, folder, "ownership.close", before, 1)


@pytest.mark.slow
@pytest.mark.parametrize("hit", [2, 3, 5, 8, 13])
@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("point", crash_points())
def test_every_point_at_other_times(point: str, before: bool, hit: int, source: Path, folder: Path) -> None:
    die_and_go_on(source, folder, point, before, hit)


@pytest.mark.parametrize("seed", range(4))
def test_dying_over_and_over(seed: int, source: Path, folder: Path) -> None:
    """Also while going on from a crash: each run dies somewhere else, until one comes to the end."""
    random, crashes = Random(seed), 0
    for _ in range(10):
        try:
            point, before = random.choice(crash_points()), random.random() < 0.5
            with crash_at(point, before=before, hit=random.randint(1, 6)):
                run(source, folder, every=random.randint(1, 4))
        except Crashed:
            crashes += 1
    run(source, folder)
    assert crashes
    check_all(ROWS, contents(folder))
