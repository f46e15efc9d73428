"""Rows that are read again after a crash get the time they had when they were read first."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pytest

import unistream as us
from unistream.runtime.journal import Journal
from unistream.runtime.recovery import NEVER

TICKS = us.Settings(tick_rows=10, queue_chunks=2, whole_query=False)


class Observed:
    """Remembers each row with its stamp, as one who takes nothing back; fails when it is told to."""

    def __init__(self, fail_after: int = 10**9) -> None:
        self.stamps: dict[int, object] = {}
        self.order: list[object] = []
        self.left = fail_after

    def __call__(self, frame: pl.DataFrame) -> pl.DataFrame:
        for row, stamp in frame.select("row", "at").iter_rows():
            assert self.stamps.setdefault(row, stamp) == stamp
            self.order.append(row)
        self.left -= frame.height
        if self.left < 0:
            raise RuntimeError("killed")
        return frame


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(4):
        rows = pl.DataFrame({"row": range(number * 100, number * 100 + 100)})
        rows.write_parquet(folder / f"{number}.parquet")
    return folder


def job(files: Path, out: Path, observed: Observed) -> us.Job:
    rows = us.scan_parquet(files / "*.parquet").filter(pl.col("row") % 7 != 0).with_ingestion_time("at")
    return rows.map_batches(observed).sink_parquet(out)


def run(files: Path, folder: Path, observed: Observed, every: str = "1h") -> None:
    job(files, folder / "out", observed).run(
        checkpoint=folder / "ckpt", every=every, settings=TICKS, progress=False, restart=NEVER
    )


@pytest.mark.parametrize("every", ["1h", "1ms"])
def test_stamps_outlive_crash_after_crash(files: Path, tmp_path: Path, every: str) -> None:
    seen: dict[int, object] = {}
    twice = 0
    for fail_after in (45, 60, 50, 70, 10**9):
        observed = Observed(fail_after)
        if fail_after < 10**9:
            with pytest.raises(us.JobFailed, match="killed"):
                run(files, tmp_path, observed, every)
        else:
            run(files, tmp_path, observed, every)
        again = {row: stamp for row, stamp in observed.stamps.items() if row in seen}
        assert again == {row: seen[row] for row in again}
        twice += len(again)
        seen |= observed.stamps
    assert twice, "the test is too tame"
    written = us.scan_parquet(tmp_path / "out").collect()
    assert dict(written.select("row", "at").iter_rows()) == seen
    assert len(seen) == written.height == sum(row % 7 != 0 for row in range(400))


def test_time_stands_at_the_first_stamp_that_is_due(files: Path, tmp_path: Path) -> None:
    """Else windows would close before the rows come again, and those would be late."""

    def windows(observed: Observed) -> us.Job:
        rows = us.scan_parquet(files / "*.parquet").with_ingestion_time("at")
        counted = rows.window(us.tumbling("1ms")).agg(n=pl.len(), rows=pl.col("row"))
        looked = rows.map_batches(observed).sink_parquet(tmp_path / "rows")
        return us.job(counted.sink_parquet(tmp_path / "windows"), looked)

    first, second = Observed(250), Observed()
    where = {
        "checkpoint": tmp_path / "ckpt",
        "every": "5ms",
        "settings": TICKS,
        "progress": False,
        "restart": NEVER,
    }
    with pytest.raises(us.JobFailed, match="killed"):
        windows(first).run(**where)
    progress = windows(second).run(**where)
    made = us.scan_parquet(tmp_path / "windows").collect()
    assert progress.late == 0
    assert sorted(made["rows"].explode().to_list()) == list(range(400))
    stamps = first.stamps | second.stamps
    for start, end, rows in made.select("window_start", "window_end", "rows").iter_rows():
        assert all(start <= stamps[row] < end for row in rows)


def test_without_checkpoints_nothing_is_noted(files: Path, tmp_path: Path) -> None:
    job(files, tmp_path / "out", Observed()).run(settings=TICKS, progress=False)
    assert not (tmp_path / "ckpt").exists()


def test_old_notes_are_removed(files: Path, tmp_path: Path) -> None:
    run(files, tmp_path, Observed(), "1ms")
    left = list((tmp_path / "ckpt/journal").glob("*.jsonl"))
    assert len(left) <= TICKS.checkpoints_kept


def notes_of(journal: Journal) -> Sequence[int]:
    return [value for (value,) in journal.notes("op")]


def test_a_journal_gives_what_was_noted_since_the_checkpoint_of_any_run(tmp_path: Path) -> None:
    """Against a list of all notes, with crashes and checkpoints that were begun and never published."""
    chance = random.Random(3)
    for attempt in range(50):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        all_notes: list[int] = []
        published: list[tuple[int, int]] = [(0, 0)]  # number, how many notes were before
        numbers = itertools.count()
        for _ in range(chance.randint(1, 5)):
            since, before = published[-1]
            journal = Journal(folder / "journal", since, kept=2)
            assert notes_of(journal) == all_notes[before:]
            for _ in range(chance.randint(0, 8)):
                if chance.random() < 0.6:
                    all_notes.append(next(numbers))
                    journal.note("op", all_notes[-1])
                    journal.note("other", -1)
                    continue
                number, at = journal.next(), len(all_notes)
                if chance.random() < 0.7:
                    journal.published(number)
                    published.append((number, at))
            if chance.random() < 0.5:
                journal.close()


def test_a_note_cut_off_by_a_kill_counts_as_not_written(tmp_path: Path) -> None:
    journal = Journal(tmp_path, 0, kept=3)
    journal.note("op", 1)
    journal.note("op", 2)
    journal.close()
    (file,) = tmp_path.glob("*.jsonl")
    file.write_bytes(file.read_bytes()[:-3])
    assert notes_of(Journal(tmp_path, 0, kept=3)) == [1]
    assert json.loads(file.read_bytes().splitlines()[0]) == ["op", [1]]
