"""Which files are found, in which order, and which of them a watch hands out."""

from __future__ import annotations

import errno
import os
import pickle
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from unistream.clock import Clock
from unistream.errors import ConnectorError, InvalidSettings
from unistream.io.listing import FileEntry, FileWatch, Listing


class HandClock(Clock):
    """Moves only when a test says so."""

    def __init__(self) -> None:
        self.micros = 1_700_000_000_000_000

    def now(self) -> int:
        return self.micros

    def steady(self) -> float:
        return self.micros / 1_000_000

    def wait(self, event: threading.Event, seconds: float) -> bool:
        self.micros += round(seconds * 1_000_000)
        return event.is_set()


def write(path: Path, text: str = "x", mtime: int | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    if mtime is not None:
        os.utime(path, (mtime, mtime))
    return path


def splits(listing: Listing) -> list[str]:
    return [entry.split for entry in listing.find()]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("b.csv", "a.csv", "sub/c.csv", "sub/deep/d.csv", "notes.txt"):
        write(tmp_path / name)
    for name in (
        "_b.csv",
        ".c.csv",
        "d.csv.tmp",
        "_log/x.csv",
        "sub/.git/y.csv",
        "e.csv.inprogress",
        "w.tmp/z.csv",
    ):
        write(tmp_path / name)
    return tmp_path


def test_a_folder_stands_for_the_files_below_it_without_hidden_and_unfinished_ones(tree: Path) -> None:
    assert splits(Listing.of(tree, (".csv",))) == ["a.csv", "b.csv", "sub/c.csv", "sub/deep/d.csv"]
    assert splits(Listing.of(str(tree))) == ["a.csv", "b.csv", "notes.txt", "sub/c.csv", "sub/deep/d.csv"]


def test_globs_follow_the_same_rules(tree: Path) -> None:
    assert splits(Listing.of(tree / "*.csv")) == ["a.csv", "b.csv"]
    assert splits(Listing.of(tree / "**" / "*.csv")) == ["a.csv", "b.csv", "sub/c.csv", "sub/deep/d.csv"]
    assert splits(Listing.of(tree / "s*", (".csv",))) == ["sub/c.csv", "sub/deep/d.csv"]
    assert splits(Listing.of(tree / "[ab].csv")) == ["a.csv", "b.csv"]


def test_what_is_spelled_out_is_taken(tree: Path) -> None:
    assert splits(Listing.of(tree / "_b.csv")) == ["_b.csv"]
    assert splits(Listing.of(tree / "_*.csv")) == ["_b.csv"]
    assert splits(Listing.of(tree / "*.csv.tmp")) == ["d.csv.tmp"]
    assert splits(Listing.of(tree / "*.tmp" / "*.csv")) == ["w.tmp/z.csv"]
    assert splits(Listing.of(tree / "d.csv.tmp")) == ["d.csv.tmp"]


def test_a_file_whose_name_looks_like_a_glob_is_itself(tmp_path: Path) -> None:
    write(tmp_path / "a[1].csv")
    write(tmp_path / "a1.csv")
    assert splits(Listing.of(tmp_path / "a[1].csv")) == ["a[1].csv"]


def test_several_patterns_give_each_file_once_under_one_root(tree: Path) -> None:
    listing = Listing.of([tree / "sub", tree / "*.csv", tree / "sub" / "c.csv"])
    assert splits(listing) == ["a.csv", "b.csv", "sub/c.csv", "sub/deep/d.csv"]
    assert listing.root == str(tree)


def test_a_listing_stays_when_the_working_folder_changes(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree)
    listing = Listing.of("sub")
    monkeypatch.chdir("/")
    assert pickle.loads(pickle.dumps(listing)).find() == listing.find()
    assert splits(listing) == ["c.csv", "deep/d.csv"]


def test_links_to_folders_make_no_loop(tree: Path) -> None:
    (tree / "sub" / "loop").symlink_to(tree)
    (tree / "link.csv").symlink_to(tree / "a.csv")
    assert splits(Listing.of(tree, (".csv",))) == [
        "a.csv",
        "b.csv",
        "link.csv",
        "sub/c.csv",
        "sub/deep/d.csv",
    ]


def test_two_stars_follow_no_links_to_folders(tree: Path) -> None:
    (tree / "latest").symlink_to(tree / "sub")
    (tree / "sub" / "loop").symlink_to(tree)
    (tree / "sub" / "deep" / "loop").symlink_to(tree / "sub")
    (tree / "link.csv").symlink_to(tree / "a.csv")
    once = ["a.csv", "b.csv", "link.csv", "sub/c.csv", "sub/deep/d.csv"]
    assert splits(Listing.of(tree / "**" / "*.csv")) == once
    assert splits(Listing.of(tree / "**" / "*", (".csv",))) == [*once[:3], "notes.txt", *once[3:]]
    assert splits(Listing.of(tree / "**", (".csv",))) == [*once[:3], "notes.txt", *once[3:]]
    assert splits(Listing.of(tree / "**" / "*" / "*.csv")) == once[3:]
    assert splits(Listing.of(tree / "**" / "d*" / "**" / "*.csv")) == once[4:]


def test_links_that_are_spelled_out_are_followed(tree: Path) -> None:
    (tree / "latest").symlink_to(tree / "sub")
    assert splits(Listing.of(tree / "latest" / "**" / "*.csv")) == ["c.csv", "deep/d.csv"]
    assert splits(Listing.of(tree / "**" / "latest" / "*.csv")) == ["latest/c.csv"]
    assert splits(Listing.of(tree / "lat*" / "*.csv")) == ["latest/c.csv"]
    assert splits(Listing.of(tree / "lat*", (".csv",))) == ["latest/c.csv", "latest/deep/d.csv"]
    assert splits(Listing.of(tree / "lat*" / "**" / "*.csv")) == ["latest/c.csv", "latest/deep/d.csv"]


Break = Callable[[str, Path, OSError], None]


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Break:
    """Make a function of `os` fail for one path."""

    def break_it(function: str, place: Path, error: OSError) -> None:
        real = getattr(os, function)

        def failing(path: object, *args: object, **options: object) -> object:
            if str(path).rstrip("/") == str(place):
                raise OSError(error.errno, error.strerror, str(place))
            return real(path, *args, **options)

        monkeypatch.setattr(os, function, failing)

    return break_it


REFUSED = PermissionError(errno.EACCES, "Permission denied")
GONE = FileNotFoundError(errno.ENOENT, "No such file or directory")


@pytest.mark.parametrize("pattern", ["", "**/*.csv", "**/c.csv", "s*/*.csv", "*", "sub/*.csv"])
def test_a_folder_that_cannot_be_read_is_named(tree: Path, broken: Break, pattern: str) -> None:
    broken("scandir", tree / "sub", REFUSED)
    with pytest.raises(ConnectorError, match=f"Cannot read {tree}/sub: Permission denied") as caught:
        Listing.of(tree / pattern, (".csv",)).find()
    assert caught.value.hint
    assert caught.value.retry_after


def test_a_hidden_folder_need_not_be_readable(tree: Path, broken: Break) -> None:
    broken("scandir", tree / "_log", REFUSED)
    once = ["a.csv", "b.csv", "sub/c.csv", "sub/deep/d.csv"]
    assert splits(Listing.of(tree, (".csv",))) == splits(Listing.of(tree / "**" / "*.csv")) == once


@pytest.mark.parametrize("pattern", ["", "**/*.csv", "**", "*"])
@pytest.mark.parametrize("gone", [GONE, NotADirectoryError(errno.ENOTDIR, "Not a directory")])
def test_a_folder_that_goes_while_it_is_listed_is_not_there(
    tree: Path, broken: Break, pattern: str, gone: OSError
) -> None:
    broken("scandir", tree / "sub" / "deep", gone)
    found = splits(Listing.of(tree / pattern, (".csv",)))
    assert [name for name in found if name.startswith("sub")] == ["sub/c.csv"]


@pytest.mark.parametrize("pattern", ["", "sub/c.csv", "**/c.csv", "*/c.csv"])
def test_a_file_that_cannot_be_looked_at_is_named(tree: Path, broken: Break, pattern: str) -> None:
    for function in ("stat", "lstat"):
        broken(function, tree / "sub" / "c.csv", REFUSED)
    with pytest.raises(ConnectorError, match=f"Cannot read {tree}/sub/c.csv: Permission denied"):
        Listing.of(tree / pattern, (".csv",)).find(required=False)


def test_a_folder_that_cannot_be_read_has_no_near_names(tree: Path, broken: Break) -> None:
    broken("listdir", tree, REFUSED)
    with pytest.raises(ConnectorError, match=r"No such file or folder: .*/x\.csv"):
        Listing.of(tree / "x.csv").find()


@pytest.mark.parametrize(
    ("name", "said", "hint"),
    [
        ("ordrs", "No such file or folder", "did you mean '{}/orders'"),
        ("ordrs/x.parquet", "No such file or folder", "did you mean '{}/orders'"),
        ("orders/2025.parqet", "No such file or folder", "did you mean '{}/orders/2025.parquet'"),
        ("orders/*.csv", "No file matches", "orders holds 2024.parquet, 2025.parquet"),
        ("zzz/**/*.csv", "No file matches", "holds empty, orders"),
        ("empty", "holds no files", "it is empty"),
    ],
)
def test_nothing_found_names_what_is_near(tmp_path: Path, name: str, said: str, hint: str) -> None:
    write(tmp_path / "orders" / "2024.parquet")
    write(tmp_path / "orders" / "2025.parquet")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConnectorError) as caught:
        Listing.of(tmp_path / name).find()
    assert said in caught.value.message
    assert hint.format(tmp_path) in (caught.value.hint or "")


def test_a_watched_folder_may_be_empty_but_must_exist(tmp_path: Path) -> None:
    assert Listing.of(tmp_path / "*.csv").find(required=False) == []
    assert Listing.of(tmp_path).find(required=False) == []
    with pytest.raises(ConnectorError):
        Listing.of(tmp_path / "gone" / "*.csv").find(required=False)
    with pytest.raises(ConnectorError):
        Listing.of(tmp_path / "one.csv").find(required=False)


def test_a_single_file_cannot_be_watched(tree: Path) -> None:
    with pytest.raises(InvalidSettings) as caught:
        Listing.of(tree / "a.csv").check_watchable("tail=True follows a growing file")
    assert caught.value.hint == "tail=True follows a growing file"
    Listing.of(tree).check_watchable("")
    Listing.of(tree / "*.csv").check_watchable("")


@pytest.mark.parametrize("path", ["s3://bucket/x", [], ()])
def test_paths_that_cannot_be(path: str | list[str]) -> None:
    with pytest.raises(InvalidSettings):
        Listing.of(path)


def test_hive_folders(tmp_path: Path) -> None:
    write(tmp_path / "day=2024-01-01" / "city=a%2Fb" / "x.csv")
    write(tmp_path / "day=__HIVE_DEFAULT_PARTITION__" / "city=" / "y.csv")
    listing = Listing.of(tmp_path)
    entries = listing.find()
    assert [entry.partition for entry in entries] == [
        {"day": "2024-01-01", "city": "a/b"},
        {"day": None, "city": ""},
    ]
    assert listing.has_hive_folders(entries)
    assert not Listing.of(tmp_path, hive=False).has_hive_folders(entries)
    write(tmp_path / "plain.csv")
    assert not listing.has_hive_folders(listing.find())
    assert splits(Listing.of(tmp_path / "day=*" / "**" / "*.csv"))[0].startswith("day=2024-01-01/")


class TestWatch:
    @pytest.fixture
    def clock(self) -> HandClock:
        return HandClock()

    def watch(self, folder: Path, clock: Clock, **more: object) -> FileWatch:
        return FileWatch(Listing.of(folder), clock, 1.0, **more)  # type: ignore[arg-type]

    @staticmethod
    def next_look(watch: FileWatch, clock: HandClock) -> list[str]:
        clock.micros += 1_000_000
        return [entry.split for entry in watch.look()]

    def test_a_file_is_taken_once_and_only_when_it_has_stopped_growing(
        self, tmp_path: Path, clock: HandClock
    ) -> None:
        watch = self.watch(tmp_path, clock)
        file = write(tmp_path / "a", "1")
        assert self.next_look(watch, clock) == []
        file.write_text("12")
        assert self.next_look(watch, clock) == []
        assert watch.waiting == ("a",)
        assert self.next_look(watch, clock) == ["a"]
        assert self.next_look(watch, clock) == []
        assert watch.waiting == ()

    def test_looks_less_than_one_interval_apart_say_nothing(self, tmp_path: Path, clock: HandClock) -> None:
        watch = self.watch(tmp_path, clock)
        write(tmp_path / "a")
        self.next_look(watch, clock)
        assert watch.look() == []
        assert watch.seconds_to_next_look() == pytest.approx(1.0)
        assert self.next_look(watch, clock) == ["a"]

    def test_order_is_time_of_change_then_name(self, tmp_path: Path, clock: HandClock) -> None:
        for name, mtime in (("a", 30), ("b", 10), ("d", 20), ("c", 20)):
            write(tmp_path / name, mtime=mtime)
        watch = self.watch(tmp_path, clock)
        clock.micros += 1_000_000
        assert self.next_look(watch, clock) == ["b", "c", "d", "a"]

    def test_a_file_untouched_for_longer_than_one_interval_is_taken_at_once(
        self, tmp_path: Path, clock: HandClock
    ) -> None:
        watch = self.watch(tmp_path, clock)
        now = clock.micros // 1_000_000 + 1  # at the next look
        write(tmp_path / "old", mtime=now - 2)
        write(tmp_path / "young", mtime=now - 1)
        assert self.next_look(watch, clock) == ["old"]
        assert watch.waiting == ("young",)
        assert self.next_look(watch, clock) == ["young"]

    def test_an_incomplete_file_waits_for_its_rest(self, tmp_path: Path, clock: HandClock) -> None:
        watch = self.watch(tmp_path, clock, complete=lambda path: Path(path).read_text().endswith("END"))
        file = write(tmp_path / "a", "half")
        assert [self.next_look(watch, clock) for _ in range(4)] == [[]] * 4
        file.write_text("half END")
        assert [self.next_look(watch, clock) for _ in range(2)] == [[], ["a"]]

    def test_what_was_taken_before_a_restart_stays_taken(self, tmp_path: Path, clock: HandClock) -> None:
        write(tmp_path / "a")
        taken = {entry.split: entry.stamp for entry in Listing.of(tmp_path).find()}
        write(tmp_path / "b")
        watch = self.watch(tmp_path, clock, taken=taken)
        assert [self.next_look(watch, clock) for _ in range(3)] == [[], ["b"], []]
        assert watch.replaced == []

    def test_a_file_replaced_after_it_was_taken_is_told_once_and_not_read_again(
        self, tmp_path: Path, clock: HandClock
    ) -> None:
        write(tmp_path / "a")
        watch = self.watch(tmp_path, clock)
        looks = [self.next_look(watch, clock) for _ in range(2)]
        write(tmp_path / "a", "other content")
        looks += [self.next_look(watch, clock) for _ in range(3)]
        assert looks == [[], ["a"], [], [], []]
        assert [entry.split for entry in watch.replaced] == ["a"]

    def test_a_file_that_goes_before_it_is_whole_is_forgotten(self, tmp_path: Path, clock: HandClock) -> None:
        watch = self.watch(tmp_path, clock)
        file = write(tmp_path / "a")
        self.next_look(watch, clock)
        file.unlink()
        assert [self.next_look(watch, clock) for _ in range(2)] == [[], []]
        assert watch.waiting == ()


def test_a_partition_value_may_hold_an_equals_sign() -> None:
    assert FileEntry("", "k=a=b/x", 0, 0).partition == {"k": "a=b"}
