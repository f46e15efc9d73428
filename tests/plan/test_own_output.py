"""Jobs that would read what they write."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

import unistream as us
from unistream.errors import InvalidQuery
from unistream.io.listing import Listing

SCHEMA = {"a": pl.Int64}


def watched(paths: Path | str | list[str]) -> us.Stream:
    return us.scan_csv(paths, schema=SCHEMA, watch=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("in", "out"):
        (tmp_path / "d" / name).mkdir(parents=True)
    return tmp_path / "d"


def refused(job: us.Job) -> bool:
    try:
        job.explain()
    except InvalidQuery as error:
        assert "would read its own output" in str(error)
        assert error.where is not None and error.hint is not None
        return True
    return False


def test_a_sink_within_what_is_watched(folder: Path) -> None:
    assert refused(watched(folder).sink_csv(folder / "out"))
    assert refused(watched(folder).sink_csv(folder, mode="append"))
    assert refused(us.scan_csv(folder, schema=SCHEMA, tail=True).sink_csv(folder / "out"))
    assert refused(us.scan_text(folder, watch=True).sink_parquet(folder / "deep" / "er"))
    two = us.scan_csv(folder, schema={"a": pl.Int64, "b": pl.Int64}, watch=True)
    assert refused(two.sink_csv(folder / "out", partition_by="a"))
    with pytest.raises(InvalidQuery, match="own output"):
        watched(folder).sink_csv(folder / "out").start()


def test_a_sink_that_the_source_does_not_list(folder: Path) -> None:
    assert not refused(watched(folder).sink_csv(folder.parent / "out"))
    assert not refused(watched(folder).sink_csv(folder.parent / "d2"))
    assert not refused(watched(folder).sink_parquet(folder / "out"))
    assert not refused(watched(folder).sink_csv(folder / "_out"))
    assert not refused(us.scan_csv(folder, schema=SCHEMA, tail=True).sink_ndjson(folder / "out"))


def test_a_source_that_ends_lists_before(folder: Path) -> None:
    (folder / "in" / "x.csv").write_text("a\n1\n")
    us.scan_csv(folder, schema=SCHEMA).sink_csv(folder / "out").run(progress=False)
    assert pl.read_csv(folder / "out" / "*.csv")["a"].to_list() == [1]


def test_two_stages_in_one_job_are_no_circle(folder: Path) -> None:
    first = us.from_frame({"a": [1]}).sink_csv(folder / "in")
    assert not refused(us.job(first, watched(folder).sink_csv(folder.parent / "out")))
    circle = watched(folder).sink_csv(folder / "out")
    assert refused(us.job(first, circle))


def test_links(folder: Path) -> None:
    (folder.parent / "link").symlink_to(folder)
    assert refused(watched(folder.parent / "link").sink_csv(folder / "out"))
    assert refused(watched(folder).sink_csv(folder.parent / "link" / "out"))
    (folder / "elsewhere").symlink_to(folder.parent)  # below a folder links are not followed
    assert not refused(watched(folder).sink_csv(folder / "elsewhere" / "out"))


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*.csv", False),
        ("out/*.csv", True),
        ("out/part-0-*.csv", True),
        ("out/new-*.csv", False),
        ("*/*.csv", True),
        ("in*/*.csv", False),
        ("**/*.csv", True),
        ("**", True),
        ("o*", True),
        ("o*/**/*.parquet", False),
        ("[!o]*", False),
    ],
)
def test_globs(folder: Path, pattern: str, found: bool) -> None:
    assert refused(watched(str(folder / pattern)).sink_csv(folder / "out")) is found
    several = [str(folder / "in"), str(folder / pattern)]
    assert refused(watched(several).sink_csv(folder / "out")) is found


@pytest.mark.parametrize(
    "pattern",
    ["", "*", "**", "*.csv", "*/*.csv", "**/*.csv", "a/**", "a*/b*", "_h/*.csv", "a/b/x.csv", "*/*/"],
)
def test_a_listing_takes_what_it_finds(tmp_path: Path, pattern: str) -> None:
    for name in ("x.csv", "x.txt", "a/x.csv", "a/b/x.csv", "a/b/.x.csv", "a/y.csv.tmp", "_h/x.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    listing = Listing.of(str(tmp_path / pattern), (".csv",))
    found = {entry.path for entry in listing.find(required=False)}
    everything = {str(path) for path in tmp_path.rglob("*") if path.is_file()}
    assert {path for path in everything if listing.takes(path)} == found
