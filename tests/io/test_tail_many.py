"""Following more files than may be open: closing, opening again, and what happens to a file meanwhile."""

from __future__ import annotations

import json
import os
import random
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import unistream as us
from unistream.errors import ConnectorError
from unistream.io import tail, tail_file
from unistream.io.base import Chunk, Request, Wait
from unistream.io.line_files import TextSource
from unistream.testing.clock import VirtualClock

ONE, TWO = "a.log", "b.log"


class Following:
    """A reader of a folder or glob on a virtual clock, and the lines of each file."""

    def __init__(self, path: object, positions: dict | None = None) -> None:
        self.clock = VirtualClock()
        self.path = path
        self.positions: dict = dict(positions or {})
        self.last: Wait | None = None
        self.reader = TextSource(path, tail=True).open(self.positions, Request(clock=self.clock))  # type: ignore[arg-type]

    def lines(self, looks: int = 1) -> dict[str, list[str]]:
        """What is new in so many looks, by split."""
        found: dict[str, list[str]] = {}
        for _ in range(looks):
            while isinstance(chunk := self.reader.poll(1000), Chunk):
                self.positions[chunk.split] = json.loads(json.dumps(chunk.position))
                if chunk.frame.height:
                    found.setdefault(chunk.split, []).extend(chunk.frame["line"].to_list())
            assert isinstance(chunk, Wait)
            self.last = chunk
            self.clock.advance(1.0)
        return found

    def restarted(self) -> Following:
        """As after a crash: only the positions are left."""
        self.reader.close()
        return Following(self.path, self.positions)


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


@pytest.fixture
def one_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """No more than one file is held open."""
    monkeypatch.setattr(tail, "OPEN_FILES", 1)


@contextmanager
def descriptors(number: int) -> Iterator[None]:
    """About so many can be had."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + number, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_more_files_than_descriptors(tmp_path: Path) -> None:
    names = [f"{number:03}.log" for number in range(400)]
    for name in names:
        append(tmp_path / name, f"{name}\n")
    follow = Following(tmp_path)
    with descriptors(tail.OPEN_FILES + 20):
        assert follow.lines() == {name: [name] for name in names}
        assert follow.last is not None and follow.last.caught_up
        for name in names[::2]:
            append(tmp_path / name, "more\n")
        assert follow.lines() == {name: ["more"] for name in names[::2]}
        follow = follow.restarted()
        assert follow.lines(3) == {}
        for name in names[1::2]:
            append(tmp_path / name, "after a restart\n")
        assert follow.lines() == {name: ["after a restart"] for name in names[1::2]}
    follow.reader.close()


def test_what_is_available_is_read_of_all_files(one_open: None, tmp_path: Path) -> None:
    for number in range(6):
        append(tmp_path / f"{number}.log", f"{number}\n" * 3)
    assert us.scan_text(tmp_path, tail=True).collect(until="available").height == 18


def test_too_many_open_files_are_told_and_can_be_tried_again(tmp_path: Path) -> None:
    for number in range(100):
        append(tmp_path / f"{number}.log", "x\n")
    follow = Following(tmp_path)
    with descriptors(10), pytest.raises(ConnectorError, match="open") as told:
        follow.lines()
    assert told.value.retry_after is not None
    assert len(follow.restarted().lines()) == 100 - len(follow.positions)


def test_a_file_that_cannot_be_opened_is_not_caught_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(tmp_path / ONE, "one\n")
    append(tmp_path / TWO, "two\n")
    follow = Following(tmp_path)

    def refuse(path: str) -> object:
        if path.endswith(ONE):
            raise PermissionError(13, "Permission denied")
        return open(path, "rb", buffering=0)  # noqa: PTH123

    with monkeypatch.context() as patch:
        patch.setattr(tail_file, "open_file", refuse)
        assert follow.lines(2) == {TWO: ["two"]}
        assert follow.last is not None and not follow.last.caught_up
        assert "Permission denied" in follow.last.reason
        assert not follow.reader.pending()
    assert follow.lines() == {ONE: ["one"]}
    assert follow.last.caught_up


@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize("grown", [False, True])
@pytest.mark.parametrize("listed", [False, True])
def test_a_closed_file_that_is_rotated(
    one_open: None, tmp_path: Path, listed: bool, grown: bool, restarts: bool
) -> None:
    """Found under its new name, listed or beside it; what was written meanwhile comes before the new file."""
    follow = Following(str(tmp_path / ("*" if listed else "*.log")))
    append(tmp_path / ONE, "one\n")
    append(tmp_path / TWO, "two\n")
    assert follow.lines() == {ONE: ["one"], TWO: ["two"]}
    if grown:
        append(tmp_path / ONE, "last")
    (tmp_path / ONE).rename(tmp_path / "a.log.1")
    append(tmp_path / ONE, "new\n")
    if restarts:
        follow = follow.restarted()
    assert follow.lines(4) == {ONE: ["last", "new"] if grown else ["new"]}
    append(tmp_path / ONE, "more\n")
    assert follow.lines(4) == {ONE: ["more"]}
    assert follow.last is not None and follow.last.caught_up


@pytest.mark.parametrize("how", ["deleted", "half a line", "truncated", "rewritten", "same beginning"])
def test_a_closed_file_that_is_replaced(one_open: None, tmp_path: Path, how: str) -> None:
    log = tmp_path / ONE
    common = "the same beginning\n" * 100
    append(log, common + ("half" if how == "half a line" else "one\n"))
    append(tmp_path / TWO, "two\n")
    follow = Following(tmp_path)
    follow.lines()
    expected = ["new"]
    match how:
        case "deleted" | "half a line":
            append(tmp_path / "new", "new\n")  # so that the inode is another one
            log.unlink()
            (tmp_path / "new").rename(log)
            expected = ["half", "new"] if how == "half a line" else ["new"]
        case "truncated":
            log.write_text("new\n")
        case "rewritten":
            log.write_text(common.upper() + "new\n" * 50)
        case "same beginning":
            log.write_text(common + "new\n" * 50)
    found = follow.lines(4)
    assert found.keys() == {ONE}
    assert [line for line in found[ONE] if "beginning" not in line.lower()][: len(expected)] == expected
    append(log, "more\n")
    assert follow.lines(2) == {ONE: ["more"]}


def test_an_empty_closed_file_is_not_taken_for_another_with_its_inode(one_open: None, tmp_path: Path) -> None:
    append(tmp_path / ONE, "")
    append(tmp_path / TWO, "two\n")
    follow = Following(tmp_path)
    assert follow.lines() == {TWO: ["two"]}
    (tmp_path / ONE).rename(tmp_path / TWO)
    append(tmp_path / TWO, "new\n")
    assert follow.lines(5) == {TWO: ["new"]}
    append(tmp_path / TWO, "more\n")
    assert follow.lines(2) == {TWO: ["more"]}


def test_closed_files_are_rotated_all_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that were read to their end need not be opened for that."""
    monkeypatch.setattr(tail, "OPEN_FILES", 3)
    names = [f"{number:02}.log" for number in range(50)]
    follow = Following(tmp_path)
    for name in names:
        append(tmp_path / name, f"{name}\n")
    assert follow.lines() == {name: [name] for name in names}
    for name in names:
        (tmp_path / name).rename(tmp_path / f"{name}.1")
        append(tmp_path / name, "new\n")
    assert follow.lines(3) == {name: ["new"] for name in names}


@pytest.mark.parametrize("seed", range(6))
def test_random_histories_of_several_files(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However few may be open, every line of every file comes once, and in order."""
    draw = random.Random(seed)
    monkeypatch.setattr(tail, "OPEN_FILES", draw.randint(1, 3))
    names = [f"{letter}.log" for letter in "abcdef"]
    written: dict[str, list[str]] = {name: [] for name in names}
    found: dict[str, list[str]] = {name: [] for name in names}
    follow = Following(str(tmp_path / draw.choice(["*.log", "*.log*"])))

    def look(times: int) -> None:
        for split, lines in follow.lines(times).items():
            found[split].extend(lines)

    for step in range(200):
        name = draw.choice(names)
        log = tmp_path / name
        match draw.choice(["append", "append", "half", "look", "rotate", "restart"]):
            case "append":
                append(log, f"line {step}\n")
                written[name].append(f"line {step}")
            case "half":
                append(log, f"half {step} ")
                look(1)
                append(log, "whole\n")
                written[name].append(f"half {step} whole")
            case "look":
                look(draw.randint(1, 2))
            case "rotate" if log.exists():
                look(4)  # one rotation is noticed before the next
                append(log, f"last {step}\n")
                log.rename(tmp_path / f"{name}.{step}")
                append(log, f"first {step}\n")
                written[name] += [f"last {step}", f"first {step}"]
            case "restart":
                follow = follow.restarted()
    look(5)
    assert found == written
