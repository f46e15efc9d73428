"""Long line files are decoded ahead of what is given: same rows, same places, errors in their turn."""

from __future__ import annotations

import gzip
import threading
from pathlib import Path

import polars as pl
import pytest

from unistream.errors import DataError
from unistream.io import line_reader
from unistream.io.base import Chunk, Exhausted, Reader, Request
from unistream.io.line_files import CsvSource

ROWS = 4_000
SCHEMA = {"a": pl.Int64, "d": pl.String}


@pytest.fixture(autouse=True)
def small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_reader, "LEAST_AHEAD", 0)
    monkeypatch.setattr(line_reader, "FIRST_BYTES", 4096)
    monkeypatch.setattr(line_reader, "UNIT_BYTES", 4096)


def lines(bad: int = -1) -> str:
    return "a,d\n" + "".join(f"{'x' if row == bad else row},text of {row}\n" for row in range(ROWS))


def opened(path: Path, position: dict[str, object] | None = None, **options: str) -> Reader:
    source = CsvSource(path, schema=SCHEMA, **options)  # type: ignore[arg-type]
    return source.open({} if position is None else {path.name: position}, Request())


def chunks_of(reader: Reader) -> list[Chunk]:
    found = []
    while isinstance(chunk := reader.poll(10_000), Chunk):
        found.append(chunk)
    assert isinstance(chunk, Exhausted)
    reader.close()
    return found


def numbers(chunks: list[Chunk]) -> list[int]:
    return [value for chunk in chunks for value in chunk.frame["a"].to_list()]


@pytest.mark.parametrize("packed", [False, True])
def test_the_rows_behind_every_place_are_those_that_follow(packed: bool, tmp_path: Path) -> None:
    path = tmp_path / ("rows.csv.gz" if packed else "rows.csv")
    path.write_bytes(gzip.compress(lines().encode()) if packed else lines().encode())
    chunks = chunks_of(opened(path))
    assert numbers(chunks) == list(range(ROWS))
    assert len(chunks) > 10
    seen = 0
    for chunk in chunks[:-1]:
        seen += chunk.frame.height
        assert chunk.position["line"] == seen + 2
        assert numbers(chunks_of(opened(path, dict(chunk.position)))) == list(range(seen, ROWS))


def test_a_bad_line_is_told_when_it_is_its_turn_and_by_its_number(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(lines(bad=2_000))
    reader, seen = opened(path), 0
    with pytest.raises(DataError, match="line 2002: column 'a': 'x' is not Int64"):
        while isinstance(chunk := reader.poll(10_000), Chunk):
            seen += chunk.frame.height
    reader.close()
    assert 1_500 < seen <= 2_000
    collected = chunks_of(opened(path, on_error="collect"))
    assert numbers(collected) == [row for row in range(ROWS) if row != 2_000]
    rejected = [chunk.rejected for chunk in collected if chunk.rejected is not None]
    assert [row for frame in rejected for row in frame["position"].to_list()] == [2002]


def test_lines_are_numbered_behind_blank_and_quoted_ones_and_from_any_place(tmp_path: Path) -> None:
    text, expected = "a,d\n", []
    for row in range(ROWS):
        text += "\n" * (row % 700 == 0) + (f'{row},"in\n{row}"\n' if row % 900 == 0 else f"{row},b\n")
        if row % 500 == 0:
            expected.append(text.count("\n") + 1)
            text += "bad\n"
    path = tmp_path / "rows.csv"
    path.write_text(text)

    def bad(position: dict[str, object] | None = None) -> list[int]:
        chunks = chunks_of(opened(path, position, on_error="collect"))
        return [line for chunk in chunks if chunk.rejected is not None for line in chunk.rejected["position"]]

    assert bad() == expected
    for chunk in chunks_of(opened(path, on_error="collect"))[:-1]:
        place = dict(chunk.position)
        assert bad(place) == [line for line in expected if line >= place["line"]]


def test_a_file_that_was_cut_gives_the_rows_before(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(lines())
    reader = opened(path)
    assert isinstance(reader.poll(10_000), Chunk)
    with path.open("r+") as file:
        file.truncate(30_000)
    seen = 0
    with pytest.raises(DataError, match="was cut while it was read"):
        while isinstance(chunk := reader.poll(10_000), Chunk):
            seen += chunk.frame.height
    reader.close()
    assert seen > 500


def test_threads_end_with_the_reader(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(lines())
    reader = opened(path)
    for _ in range(3):
        reader.poll(10_000)
    assert any(thread.name.startswith("unistream-decode") for thread in threading.enumerate())
    reader.close()
    assert not any(thread.name.startswith("unistream-decode") for thread in threading.enumerate())
