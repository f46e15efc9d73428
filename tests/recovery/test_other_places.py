"""Going on from a checkpoint and writing to another place: both places together hold each row once."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import duckdb
import polars as pl
import pytest

import unistream as us
from unistream.cli import main as command_line
from unistream.testing import Crashed, ListSource, VirtualClock, crash_at, crash_points
from unistream.testing.ways import folder_in_memory

SCHEMA = {"n": pl.Int64}
SETTINGS = us.Settings(checkpoint_interval=1, tick_rows=1, whole_query=False, checkpoints_kept=10)


def job(kind: str, place: Path, rows: int, **options: str) -> us.Job:
    """Numbers from 0; `place` is a folder, or a database without its ending."""
    stream = us.scan(ListSource(SCHEMA, [(n,) for n in range(rows)])).named("rows")
    if kind in ("sqlite", "duckdb"):
        return stream.sink_table(f"{kind}:///{place}.db", options.pop("table", "t"), **options)  # type: ignore[arg-type]
    return getattr(stream, f"sink_{kind}")(place, **options)  # type: ignore[no-any-return]


def run(job: us.Job, checkpoint: Path, **options: object) -> None:
    """In one thread, with a checkpoint after every tick."""
    clock = VirtualClock()
    runtime = job.runtime(checkpoint=checkpoint, settings=SETTINGS, clock=clock, threads=False, **options)  # type: ignore[arg-type]
    try:
        runtime.open()
        clock.advance(1)
        while runtime.step():
            clock.advance(1)
        runtime.conclude()
    finally:
        runtime.close()


def killed(job: us.Job, checkpoint: Path, point: str = "sink.commit", hit: int = 1) -> None:
    with pytest.raises(Crashed), crash_at(point, hit=hit):
        run(job, checkpoint)


def found(kind: str, place: Path, table: str = "t") -> list[int]:
    """The numbers in a place; none when the job died before it was made."""
    if kind in ("sqlite", "duckdb"):
        if not Path(f"{place}.db").exists():
            return []
        connect: Callable[[str], Any] = sqlite3.connect if kind == "sqlite" else duckdb.connect
        with closing(connect(f"{place}.db")) as connection:
            try:
                return sorted(n for (n,) in connection.execute(f"SELECT n FROM {table}").fetchall())
            except (sqlite3.OperationalError, duckdb.CatalogException):
                return []
    read: Callable[[Path], pl.DataFrame] = getattr(pl, f"read_{kind}")
    return sorted(n for file in place.glob("part-*") for n in read(file)["n"])


@pytest.fixture
def folder() -> Iterator[Path]:
    with folder_in_memory() as path:
        yield path


@pytest.fixture(params=["parquet", "sqlite", "sqlite, staged in files"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    name, _, in_files = request.param.partition(", ")
    if in_files:  # few rows lie in the checkpoint itself
        monkeypatch.setattr("unistream.io.table_rows.INLINE_BYTES", 0)
    return str(name)


def test_the_next_run_writes_to_another_place(kind: str, folder: Path) -> None:
    dated_runs(kind, folder)


@pytest.mark.parametrize("other", ["csv", "ndjson", "duckdb"])
def test_so_it_does_with_other_kinds(other: str, folder: Path) -> None:
    dated_runs(other, folder)


def dated_runs(kind: str, folder: Path) -> None:
    def go_on(day: str, rows: int) -> None:
        job(kind, folder / day, rows).run(checkpoint=folder / "ckpt", progress=False)

    for number, day in enumerate(["monday", "tuesday", "wednesday"], start=1):
        go_on(day, 2 * number)
    assert found(kind, folder / "monday") == [0, 1]
    assert found(kind, folder / "tuesday") == [2, 3]
    assert found(kind, folder / "wednesday") == [4, 5]
    go_on("wednesday", 7)
    assert found(kind, folder / "wednesday") == [4, 5, 6]


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_what_a_crash_left_is_committed_where_it_lies(kind: str, before: bool, folder: Path) -> None:
    """Also when going on dies once more, in the new place, and there are leftovers in both."""
    a, b, ckpt = folder / "a", folder / "b", folder / "ckpt"
    with pytest.raises(Crashed), crash_at("sink.commit", before=before, hit=2):
        run(job(kind, a, 6), ckpt)
    for _ in range(2):
        killed(job(kind, b, 6), ckpt, "checkpoint.publish")
        assert found(kind, a) == [0, 1], "the rows of the checkpoint"
    killed(job(kind, a, 6), ckpt)
    run(job(kind, b, 6), ckpt)
    assert sorted(found(kind, a) + found(kind, b)) == [0, 1, 2, 3, 4, 5]
    assert not list(folder.rglob("*.unistream-staging*")), "nothing is left behind"


POINTS = [name for name in crash_points() if name.startswith(("sink.", "checkpoint.", "storage."))]


@pytest.mark.parametrize("point", POINTS)
def test_dying_anywhere_and_going_on_elsewhere(kind: str, point: str, folder: Path) -> None:
    for number, hit in enumerate((1, 3, 2)):
        try:
            with crash_at(point, hit=hit):
                run(job(kind, folder / f"{number}", 7), folder / "ckpt")
        except Crashed:
            continue
    run(job(kind, folder / "last", 7), folder / "ckpt")
    rows = [n for place in ("0", "1", "2", "last") for n in found(kind, folder / place)]
    assert sorted(rows) == list(range(7))


def test_a_place_that_was_moved_is_the_same_place(kind: str, folder: Path) -> None:
    ckpt = folder / "ckpt"
    (folder / "old").mkdir()
    killed(job(kind, folder / "old" / "a", 5), ckpt, hit=2)
    (folder / "old").rename(folder / "new")
    run(job(kind, folder / "new" / "a", 5), ckpt)
    assert found(kind, folder / "new" / "a") == [0, 1, 2, 3, 4]
    assert not (folder / "old").exists()


def test_a_copy_does_not_touch_what_it_was_made_of(kind: str, folder: Path) -> None:
    there = folder / "there"
    there.mkdir()
    killed(job(kind, there / "a", 5), there / "ckpt", hit=2)
    shutil.copytree(there, folder / "copy")
    run(job(kind, folder / "copy" / "a", 5), folder / "copy" / "ckpt")
    assert found(kind, folder / "copy" / "a") == [0, 1, 2, 3, 4]
    assert found(kind, there / "a") == [0], "as the crash left it"
    run(job(kind, there / "a", 5), there / "ckpt")
    assert found(kind, there / "a") == [0, 1, 2, 3, 4]


def test_a_place_that_is_gone_is_an_error_that_names_it(kind: str, folder: Path) -> None:
    (folder / "away").mkdir()
    killed(job(kind, folder / "away" / "a", 5), folder / "ckpt", hit=2)
    (folder / "away").rename(folder / "hidden")
    with pytest.raises(us.StateError, match=r"away/a"):
        run(job(kind, folder / "b", 5), folder / "ckpt")
    (folder / "hidden").rename(folder / "away")
    run(job(kind, folder / "b", 5), folder / "ckpt")
    assert found(kind, folder / "away" / "a") == [0, 1]
    assert found(kind, folder / "b") == [2, 3, 4]


def test_going_back_writes_elsewhere(kind: str, folder: Path) -> None:
    """What an older checkpoint covers was committed before the next one began, wherever that was."""
    ckpt = folder / "ckpt"
    (folder / "away").mkdir()
    run(job(kind, folder / "away" / "a", 5), ckpt)
    older = sorted(int(file.stem) for file in (ckpt / "checkpoints").glob("*.json"))[2]
    shutil.rmtree(folder / "away")
    run(job(kind, folder / "b", 6), ckpt, restore=older)
    assert found(kind, folder / "b") == [3, 4, 5]
    run(job(kind, folder / "b", 7), ckpt, restore=older)
    assert found(kind, folder / "b") == [3, 4, 5, 6], "once"


def test_a_savepoint_of_the_command_line_starts_a_job_elsewhere(kind: str, folder: Path) -> None:
    killed(job(kind, folder / "a", 5), folder / "ckpt", hit=2)
    with pytest.raises(SystemExit) as ended:
        command_line(["savepoint", str(folder / "ckpt"), str(folder / "kept")])
    assert not ended.value.code
    run(job(kind, folder / "b", 5), folder / "other", restore=folder / "kept")
    assert found(kind, folder / "a") == [0, 1]
    assert found(kind, folder / "b") == [2, 3, 4]


@pytest.mark.parametrize("kind", ["sqlite", "duckdb"])
def test_another_table_of_the_same_database(kind: str, folder: Path) -> None:
    killed(job(kind, folder / "a", 5, table="one"), folder / "ckpt", hit=2)
    run(job(kind, folder / "a", 5, table="two"), folder / "ckpt")
    assert found(kind, folder / "a", "one") == [0, 1]
    assert found(kind, folder / "a", "two") == [2, 3, 4]


def test_another_database_of_a_server(postgres: str, folder: Path) -> None:
    import psycopg

    def there(database: str) -> list[int]:
        with psycopg.connect(at(database)) as connection:
            return sorted(n for (n,) in connection.execute("SELECT n FROM moved"))

    def at(database: str) -> str:
        return urlunsplit(urlsplit(postgres)._replace(path=f"/{database}"))

    def job(database: str) -> us.Job:
        return us.scan(ListSource(SCHEMA, [(n,) for n in range(5)])).sink_table(at(database), "moved")

    names = ("one", "two", "three")
    with psycopg.connect(postgres, autocommit=True) as connection:
        for name in names:
            connection.execute(f"DROP DATABASE IF EXISTS {name}".encode())
        connection.execute(b"CREATE DATABASE one")
        connection.execute(b"CREATE DATABASE two")
        killed(job("one"), folder / "ckpt", hit=2)
        killed(job("two"), folder / "ckpt", hit=2)
        assert there("one") == [0, 1]
        connection.execute(b"ALTER DATABASE two RENAME TO three")
        run(job("three"), folder / "ckpt")
        assert there("three") == [2, 3, 4], "under its new name"
        for name in names:
            connection.execute(f"DROP DATABASE IF EXISTS {name}".encode())


def test_what_was_to_be_replaced_is_replaced_in_the_old_place(kind: str, folder: Path) -> None:
    run(job(kind, folder / "a", 3), folder / "first")
    killed(job(kind, folder / "a", 5, mode="overwrite"), folder / "ckpt")
    assert found(kind, folder / "a") == [0, 1, 2]
    run(job(kind, folder / "b", 5, mode="append"), folder / "ckpt")
    assert found(kind, folder / "a") == [0]
    assert found(kind, folder / "b") == [1, 2, 3, 4]


def test_checkpoints_that_do_not_say_where_still_hold(
    kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of versions that wrote no such thing into their tokens."""
    from unistream.runtime.task import SinkTask

    prepare = SinkTask.prepare

    def prepared(task: SinkTask, checkpoint: int) -> object:
        token = prepare(task, checkpoint)
        if token is not None:
            for name in ("folder", "database", "table", "mode", "after"):
                token.pop(name, None)
        return token

    with monkeypatch.context() as patch:
        patch.setattr(SinkTask, "prepare", prepared)
        killed(job(kind, folder / "a", 5), folder / "ckpt", hit=2)
    run(job(kind, folder / "a", 5), folder / "ckpt")
    assert found(kind, folder / "a") == [0, 1, 2, 3, 4]
