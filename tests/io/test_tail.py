"""Following files that grow: rotation, truncation, new files, restarts at every moment."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import polars as pl
import pytest

from unistream.io.base import Chunk, Request, Wait
from unistream.io.line_files import CsvSource, TextSource
from unistream.io.tail import TailReader
from unistream.testing.clock import VirtualClock


class Following:
    """A reader on a virtual clock, and the positions a checkpoint would hold."""

    def __init__(self, path: object, positions: dict | None = None, **options: object) -> None:
        self.clock = VirtualClock()
        self.source = TextSource(path, tail=True, poll="1s", **options)  # type: ignore[arg-type]
        self.positions: dict = dict(positions or {})
        self.chunks: list[Chunk] = []
        reader = self.source.open(self.positions, Request(clock=self.clock))
        assert isinstance(reader, TailReader)
        self.reader = reader

    def lines(self, seconds: float = 0.0) -> list[str]:
        """What is new after so many seconds."""
        found: list[str] = []
        for _ in range(1 + int(seconds)):
            while isinstance(chunk := self.reader.poll(1000), Chunk):
                self.positions[chunk.split] = json.loads(json.dumps(chunk.position))
                self.chunks.append(chunk)
                found += chunk.frame.to_series().to_list()
            if seconds:
                self.clock.advance(1.0)
        return found

    def restarted(self) -> Following:
        """As after a crash: only the positions are left."""
        self.reader.close()
        return Following(list(self.source.listing.patterns), self.positions)


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def test_growth_and_the_last_line(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    append(log, "one\ntw")
    follow = Following(log)
    assert not follow.source.bounded
    assert follow.lines(1) == ["one"]
    append(log, "o\nthree")
    assert follow.lines() == ["two"]
    assert isinstance(follow.reader.poll(10), Wait)
    append(log, "\n")
    assert follow.lines() == ["three"]
    assert follow.positions["app.log"]["offset"] == log.stat().st_size
    assert follow.reader.backlog().nbytes == 0


def test_rotation_reads_the_rest_of_the_old_file_first(tmp_path: Path) -> None:
    log, old = tmp_path / "app.log", tmp_path / "app.log.1"
    append(log, "one\n")
    follow = Following(log)
    assert follow.lines(1) == ["one"]
    append(log, "two\n")
    log.rename(old)
    append(log, "four\n")
    append(old, "three, without a newline")  # the writer had not noticed yet
    assert follow.lines(4) == ["two", "three, without a newline", "four"]
    assert (follow.reader.rotations, follow.reader.truncations) == (1, 0)
    append(log, "five\n")
    assert follow.lines() == ["five"]


def test_the_rotated_file_is_not_read_again_under_its_new_name(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    follow = Following(str(tmp_path / "app.log*"))
    expected: list[str] = []
    found: list[str] = []
    for generation in range(5):
        for number in (3, 2, 1):
            if (older := tmp_path / f"app.log.{number}").exists():
                older.rename(tmp_path / f"app.log.{number + 1}")
        if log.exists():
            log.rename(tmp_path / "app.log.1")
        append(log, f"{generation}a\n{generation}b\n")
        expected += [f"{generation}a", f"{generation}b"]
        found += follow.lines(3)
        if generation % 2:
            follow = follow.restarted()
    assert found + follow.lines(3) == expected


def test_truncation_starts_again_and_is_counted(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    append(log, "one\ntwo\n")
    follow = Following(log)
    assert follow.lines(1) == ["one", "two"]
    log.write_text("3\n")
    assert follow.lines() == ["3"]
    log.write_text("longer than before, so that the size does not tell\n")
    assert follow.lines() == ["longer than before, so that the size does not tell"]
    assert (follow.reader.rotations, follow.reader.truncations) == (0, 2)
    assert follow.positions["app.log"]["line"] == 2


def test_a_file_that_vanishes_and_comes_again(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    append(log, "one\n")
    append(tmp_path / "other", "x\n")
    follow = Following(log)
    assert follow.lines(1) == ["one"]
    log.unlink()
    assert follow.lines(3) == []
    append(log, "two\n")
    assert follow.lines(2) == ["two"]
    log.unlink()
    assert follow.restarted().lines(3) == []


def test_new_files_in_a_folder_and_compressed_ones_left_alone(tmp_path: Path) -> None:
    follow = Following(tmp_path)
    assert follow.lines(1) == []
    append(tmp_path / "a.log", "a1\n")
    append(tmp_path / "old.log.gz", "no gzip at all\n")
    assert follow.lines(2) == ["a1"]
    append(tmp_path / "b.log", "b1\n")
    append(tmp_path / "a.log", "a2\n")
    assert sorted(follow.lines(2)) == ["a2", "b1"]
    assert {chunk.split for chunk in follow.chunks} == {"a.log", "b.log"}


@pytest.mark.parametrize(
    "how", ["nothing", "grown", "renamed", "renamed and gone", "truncated", "same inode"]
)
def test_restart(tmp_path: Path, how: str) -> None:
    log = tmp_path / "app.log"
    append(log, "one\ntwo\n")
    follow = Following(log)
    assert follow.lines(1) == ["one", "two"]
    expected: list[str] = []
    if how == "grown":
        append(log, "three\n")
        expected = ["three"]
    elif how.startswith("renamed"):
        append(log, "three\n")
        log.rename(tmp_path / "app.log.1")
        append(log, "four\n")
        expected = ["three", "four"]
        if how == "renamed and gone":
            (tmp_path / "app.log.1").unlink()
            expected = ["four"]
    elif how == "truncated":
        log.write_text("new\n")
        expected = ["new"]
    elif how == "same inode":
        log.write_text("other lines of at least the same length\n")
        expected = ["other lines of at least the same length"]
    assert follow.restarted().lines(4) == expected


@pytest.mark.parametrize("restarts", [False, True])
def test_any_number_of_rotated_files_stays_known(tmp_path: Path, restarts: bool) -> None:
    log = tmp_path / "app.log"
    append(log, "day 0\n")
    follow = Following(str(tmp_path / "app.log*"))
    found = follow.lines(3)
    for day in range(1, 41):
        log.rename(tmp_path / f"app.log.{day:02}")
        append(log, f"day {day}\n")
        found += follow.lines(3)
        if restarts and day % 13 == 0:
            follow = follow.restarted()
    assert found + follow.restarted().lines(3) == [f"day {day}" for day in range(41)]


def test_rotated_files_that_are_gone_are_forgotten(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    follow = Following(log)
    for day in range(20):
        append(log, f"day {day}\n")
        assert follow.lines(3) == [f"day {day}"]
        log.rename(tmp_path / "app.log.1")
    assert len(follow.positions["app.log"]["left"]) <= 3


def reuse_inode(log: Path, old: Path, text: str) -> None:
    """Rotate, with a new log that gets the inode of the oldest file."""
    old.write_text(text)
    log.rename(old.with_suffix(".2"))
    old.rename(log)


@pytest.mark.parametrize("restarts", [False, True])
def test_a_new_file_on_the_inode_of_an_old_one_with_the_same_header(tmp_path: Path, restarts: bool) -> None:
    log, old = tmp_path / "x.csv", tmp_path / "x.csv.1"
    names = [f"a_rather_long_column_{number:03}" for number in range(60)]
    header = ",".join(names) + "\n"
    rows = [",".join([str(number)] * 60) + "\n" for number in range(4)]
    source = CsvSource(log, schema=dict.fromkeys(names, pl.Int64), tail=True)
    clock, positions, found = VirtualClock(), {}, []
    reader = source.open(positions, Request(clock=clock))

    def look() -> None:
        nonlocal reader
        for _ in range(4):
            while isinstance(chunk := reader.poll(10), Chunk):
                positions[chunk.split] = json.loads(json.dumps(chunk.position))
                found.extend(chunk.frame[names[0]].to_list())
            clock.advance(1.0)
        if restarts:
            reader.close()
            reader = source.open(positions, Request(clock=clock))

    append(log, header + rows[1])
    look()
    log.rename(old)
    append(log, header + rows[2])
    look()
    reuse_inode(log, old, header + rows[3])
    look()
    assert found == [1, 2, 3]


@pytest.mark.parametrize("more", ["and went on\n", ""])
def test_a_new_file_on_the_inode_of_a_short_one_that_began_like_it(tmp_path: Path, more: str) -> None:
    log, old = tmp_path / "app.log", tmp_path / "app.log.1"
    append(log, "started\n")
    follow = Following(log)
    assert follow.lines(3) == ["started"]
    log.rename(old)
    append(log, "started again\n")
    assert follow.lines(3) == ["started again"]
    written = old.stat().st_mtime_ns
    reuse_inode(log, old, "started\n" + more)
    os.utime(log, ns=(written, written + 1_000_000_000))
    assert follow.lines(3) == ["started", *more.splitlines()]


def test_a_log_that_was_away_and_is_the_same_is_not_read_again(tmp_path: Path) -> None:
    log, away = tmp_path / "app.log", tmp_path / "away"
    append(log, "one\n")
    follow = Following(log)
    assert follow.lines(1) == ["one"]
    log.rename(away)
    assert follow.lines(3) == []
    away.rename(log)
    assert follow.lines(3) == []


def test_two_names_of_one_file_are_read_once(tmp_path: Path) -> None:
    append(tmp_path / "a.log", "one\n")
    (tmp_path / "b.log").hardlink_to(tmp_path / "a.log")
    follow = Following(tmp_path)
    assert follow.lines(3) == ["one"]
    (tmp_path / "a.log").unlink()
    assert follow.lines(3) == []


def test_positions_of_former_versions(tmp_path: Path) -> None:
    """They knew of files that were left no more than inode and first bytes."""
    log, old = tmp_path / "app.log", tmp_path / "app.log.1"
    append(log, "one\n")
    follow = Following(str(tmp_path / "app.log*"))
    assert follow.lines(3) == ["one"]
    log.rename(old)
    append(log, "two\n")
    assert follow.lines(3) == ["two"]
    position = follow.positions["app.log"]
    position["left"] = [[mark["inode"], mark["head"]] for mark in position["left"]]
    del position["before"]
    append(log, "three\n")
    assert len(position["left"]) == 1
    assert follow.restarted().lines(3) == ["three"]


def test_another_file_in_the_place_after_a_restart_is_told_by_its_last_bytes(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    append(log, "header\n" * 200 + "one\n")
    follow = Following(log)
    assert len(follow.lines(1)) == 201
    log.write_text("header\n" * 200 + "two\n")
    assert follow.restarted().lines(3)[-1] == "two"


@pytest.mark.parametrize("seed", range(6))
def test_random_histories_with_restarts_lose_and_repeat_nothing(tmp_path: Path, seed: int) -> None:
    """Appends in pieces, rotations and restarts in any order; every line comes once, in order."""
    draw = random.Random(seed)
    log, written, found, rotated = tmp_path / "app.log", [], [], 0
    append(log, "")
    follow = Following(log)
    for step in range(120):
        match draw.choice(["append", "append", "half", "look", "look", "rotate", "restart"]):
            case "append":
                append(log, f"line {step}\n")
                written.append(f"line {step}")
            case "half":
                append(log, f"half {step} ")
                found += follow.lines()
                append(log, "whole\n")
                written.append(f"half {step} whole")
            case "look":
                found += follow.lines(draw.randint(0, 1))
            case "rotate" if log.exists() and log.stat().st_size:
                found += follow.lines(4)  # one rotation is noticed before the next: see TailReader
                rotated += 1
                log.rename(tmp_path / f"app.log.{rotated}")
                append(log, f"first after rotation {step}\n")
                written.append(f"first after rotation {step}")
            case "restart":
                follow = follow.restarted()
    found += follow.lines(5)
    assert found == written
    assert rotated > 2


def test_csv_has_a_header_in_each_generation(tmp_path: Path) -> None:
    log = tmp_path / "x.csv"
    append(log, "a,d\n1,x\n2,")
    clock = VirtualClock()
    source = CsvSource(log, schema={"a": pl.Int64, "d": pl.String}, tail=True)
    reader = source.open({}, Request(clock=clock))
    first = reader.poll(10)
    assert isinstance(first, Chunk)
    assert first.frame.rows() == [(1, "x")]
    reader.close()
    reader = source.open({first.split: first.position}, Request(clock=clock))
    append(log, "y\n")
    log.rename(tmp_path / "x.csv.1")
    append(log, "d,a\nz,3\n")
    found = []
    for _ in range(5):
        while isinstance(chunk := reader.poll(10), Chunk):
            found += chunk.frame.rows()
        clock.advance(1.0)
    assert found == [(2, "y"), (3, "z")]


def test_a_line_without_end_does_not_fill_memory(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    follow = Following(tmp_path, max_line_bytes=1000, on_error="collect")
    held = []
    for _ in range(50):
        append(log, "x" * 5000)
        assert follow.lines(1) == []
        held.append(sum(file._lines.held for file in follow.reader._files.values()))
    assert max(held) <= 1000
    append(log, "\nend\n")
    assert follow.lines(1) == ["end"]
    rejected = [chunk.rejected for chunk in follow.chunks if chunk.rejected is not None]
    assert [frame["position"].to_list() for frame in rejected] == [[1]]
    append(log, "z" * 2000)
    assert follow.lines(1) == []
    follow = follow.restarted()
    append(log, "z\nlast\n")
    assert follow.lines(1) == ["last"]
