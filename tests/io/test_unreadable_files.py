"""Line files that cannot be read, from the start or any further: what each policy makes of them."""

from __future__ import annotations

import gzip
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

import unistream as us
from unistream.errors import DataError
from unistream.io.base import Chunk, Request
from unistream.io.line_files import CsvSource, LineFileSource, NdjsonSource, TextSource
from unistream.testing.clock import VirtualClock

SCHEMA = {"k": pl.Int64, "v": pl.Int64}
LONG_AFTER = 4_000_000_000_000_000
"""A moment at which every file has been left alone for long enough."""

ODD = {
    "another separator": (b"k;v\n1;2\n", "the header has no column 'k'. Columns: ['k;v']"),
    "a column less": (b"v\n1\n", "the header has no column 'k'"),
    "not text": (b"\xff\xfe\x00\x9c" * 90 + b"\n1,2\n", "the header cannot be read"),
    "a quote that does not close": (b'"k,v\n1,2\n', "the header cannot be read"),
}


def folder(path: Path, odd: bytes) -> Path:
    (path / "d").mkdir()
    (path / "d" / "1.csv").write_text("k,v\n1,10\n")
    (path / "d" / "2.csv").write_bytes(odd)
    (path / "d" / "3.csv").write_text("v,k\n30,3\n")
    return path / "d"


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize(("odd", "reason"), ODD.values(), ids=ODD)
def test_a_file_with_another_header_is_left_out(tmp_path: Path, odd: bytes, reason: str, whole: bool) -> None:
    files, settings = folder(tmp_path, odd), us.Settings(whole_query=whole)
    for policy in ("skip", "collect"):
        rows = us.scan_csv(files, schema=SCHEMA, on_error=policy)
        assert rows.collect(settings=settings).rows() == [(1, 10), (3, 30)]
    rejected = rows.rejected().collect(settings=settings)
    assert rejected.select("source", "split", "position").rows() == [("csv", "2.csv", 1)]
    assert reason in rejected["reason"][0]


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize(("odd", "reason"), ODD.values(), ids=ODD)
def test_it_ends_a_job_that_is_to_fail(tmp_path: Path, odd: bytes, reason: str, whole: bool) -> None:
    files = folder(tmp_path, odd)
    with pytest.raises(us.JobFailed) as failed:
        us.scan_csv(files, schema=SCHEMA).collect(settings=us.Settings(whole_query=whole))
    assert f"2.csv, line 1: {reason}" in str(failed.value)
    assert "check separator=" in str(failed.value)
    assert 'on_error="collect"' in str(failed.value)


@pytest.mark.parametrize("policy", ["skip", "collect"])
def test_a_watched_file_that_was_left_out_is_not_read_again(tmp_path: Path, policy: str) -> None:
    files = folder(tmp_path, b"k;v\n1;2\n")
    seen: list[tuple] = []

    def run() -> us.Progress:
        rows = us.scan_csv(files, schema=SCHEMA, watch=True, on_error=policy)
        job = rows.sink_batches(lambda frame: seen.extend(frame.rows()))
        clock = VirtualClock(LONG_AFTER)
        return job.run(until="available", checkpoint=tmp_path / "ckpt", clock=clock, progress=False)

    first = run()
    assert sorted(seen) == [(1, 10), (3, 30)]
    assert (first.rows_in, first.rejected) == (3, 1 if policy == "collect" else 0)
    (files / "4.csv").write_text("k,v\n4,40\n")
    again = run()
    assert sorted(seen) == [(1, 10), (3, 30), (4, 40)]
    assert again.rejected == 0


def lines_of(kind: str, number: int) -> bytes:
    return (
        f'{{"k": {number}, "v": {number * 7919}}}\n'.encode() if kind == "json" else b"%d\n" % (number * 7919)
    )


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize("kind", ["json", "log"])
def test_the_rows_before_the_damage_are_kept(
    tmp_path: Path, kind: str, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unistream.io.line_reader.FIRST_BYTES", 4096)
    monkeypatch.setattr("unistream.io.line_reader.UNIT_BYTES", 4096)
    data = b"".join(lines_of(kind, number) for number in range(60_000))
    packed = gzip.compress(data) if suffix == ".gz" else pa.compress(data, codec="zstd", asbytes=True)
    (tmp_path / f"a.{kind}{suffix}").write_bytes(packed[: len(packed) // 2])
    (tmp_path / f"b.{kind}{suffix}").write_bytes(b"this was never compressed\n")
    (tmp_path / f"c.{kind}").write_bytes(lines_of(kind, 5))
    paths = [tmp_path / f"a.{kind}{suffix}", tmp_path / f"b.{kind}{suffix}", tmp_path / f"c.{kind}"]

    def source(policy: str) -> LineFileSource:
        texts = [str(path) for path in paths]
        if kind == "log":
            return TextSource(texts, on_error=policy)
        return NdjsonSource(texts, schema=SCHEMA, on_error=policy)

    chunks = everything(source("collect"))
    rejected = pl.concat([chunk.rejected for chunk in chunks if chunk.rejected is not None])
    before = sum(chunk.frame.height for chunk in chunks if chunk.split.startswith("a."))
    assert 0 < before < 60_000
    assert rejected.select("split", "position").rows() == [
        (f"a.{kind}{suffix}", before + 1),
        (f"b.{kind}{suffix}", 1),
    ]
    assert all("cannot be decompressed" in reason for reason in rejected["reason"])
    assert sum(chunk.frame.height for chunk in chunks) == before + 1
    positions = {chunk.split: chunk.position for chunk in chunks}
    assert everything(source("collect"), positions) == []
    assert sum(chunk.scanned_rows or 0 for chunk in everything(source("skip"))) == before + 3
    with pytest.raises(DataError, match="cannot be decompressed"):
        everything(source("fail"))


def everything(source: LineFileSource, positions: dict | None = None) -> list[Chunk]:
    reader, found = source.open(positions or {}, Request()), []
    while isinstance(chunk := reader.poll(100), Chunk):
        found.append(chunk)
    reader.close()
    return found


def test_bytes_that_are_no_text_are_unreadable_rows(tmp_path: Path) -> None:
    binary = gzip.compress(bytes(range(256)) * 40)
    for name, source in (("x.ndjson", NdjsonSource), ("x.log", TextSource)):
        (tmp_path / name).write_bytes(b"\xff" + binary)
        given = {"schema": SCHEMA} if source is NdjsonSource else {}
        chunks = everything(source(tmp_path / name, on_error="collect", **given))
        assert sum(chunk.rejected.height for chunk in chunks if chunk.rejected is not None) >= 1


def test_a_csv_file_whose_folder_columns_are_read_is_left_out_too(tmp_path: Path) -> None:
    for day, text in (("1", "k,v\n1,10\n"), ("2", "k;v\n2;20\n")):
        (tmp_path / f"day={day}").mkdir()
        (tmp_path / f"day={day}" / "x.csv").write_text(text)
    chunks = everything(CsvSource(tmp_path, schema=SCHEMA, on_error="collect"))
    assert [row for chunk in chunks for row in chunk.frame.rows()] == [(1, 10, 1)]
    assert sum(chunk.rejected.height for chunk in chunks if chunk.rejected is not None) == 1
