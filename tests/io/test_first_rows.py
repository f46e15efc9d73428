"""From which rows the types of line files are taken, also while somebody writes them."""

from __future__ import annotations

import gzip
import os
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import unistream as us
from unistream.errors import DataError, InvalidQuery
from unistream.io.line_files import CsvSource, NdjsonSource

ITEMS = {"item": pl.String, "amount": pl.Int64}
UNBOUNDED: list[dict[str, Any]] = [{"watch": True}, {"tail": True}]


def write(path: Path, text: str | bytes, age: float = 0.0) -> Path:
    """A file that was changed so many seconds ago."""
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    changed = path.stat().st_mtime - age
    os.utime(path, (changed, changed))
    return path


@pytest.mark.parametrize("options", [{}, *UNBOUNDED])
def test_a_file_with_a_header_alone_gives_no_types(tmp_path: Path, options: dict[str, Any]) -> None:
    write(tmp_path / "1.csv", "item,amount\n")
    write(tmp_path / "2.csv", "item,amount\r\n\r\n")
    write(tmp_path / "3.csv", "item,amount\ntea,3\nrice,12\n")
    assert dict(CsvSource(tmp_path, **options).schema()) == ITEMS


def test_files_with_a_header_alone_are_read_as_text_when_no_others_come(tmp_path: Path) -> None:
    write(tmp_path / "1.csv", "item,amount\n")
    write(tmp_path / "2.csv", "item,amount")
    assert us.scan_csv(tmp_path).schema == {"item": pl.String, "amount": pl.String}
    assert us.scan_csv(tmp_path).collect().is_empty()


def test_columns_are_those_of_the_first_header(tmp_path: Path) -> None:
    write(tmp_path / "1.csv", "amount,item\n")
    write(tmp_path / "2.csv", "item,note,amount\ntea,green,3\n")
    assert us.scan_csv(tmp_path).collect().rows(named=True) == [{"amount": 3, "item": "tea"}]


@pytest.mark.parametrize("options", UNBOUNDED)
def test_a_header_alone_is_too_little_for_files_that_are_awaited(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    write(tmp_path / "1.csv", "item,amount\n")
    with pytest.raises(InvalidQuery, match="no rows yet to infer a schema from"):
        CsvSource(tmp_path, **options)


@pytest.mark.parametrize("options", UNBOUNDED)
def test_a_line_somebody_is_writing_gives_no_types(tmp_path: Path, options: dict[str, Any]) -> None:
    write(tmp_path / "1.csv", "n,day\n1,2026-01-01\n2,2026-01-0")
    assert dict(CsvSource(tmp_path, **options).schema()) == {"n": pl.Int64, "day": pl.Date}
    write(tmp_path / "1.ndjson", '{"n": 1}\n{"n": 2, "us')
    assert dict(NdjsonSource(tmp_path, **options).schema()) == {"n": pl.Int64}


@pytest.mark.parametrize("options", UNBOUNDED)
def test_a_file_without_a_whole_line_is_left_for_the_next(tmp_path: Path, options: dict[str, Any]) -> None:
    write(tmp_path / "1.csv", "item,amo")
    write(tmp_path / "2.csv", "item,amount\ntea,3")
    write(tmp_path / "1.ndjson", '{"item": "tea", "amo')
    for source in (CsvSource, NdjsonSource):
        with pytest.raises(InvalidQuery, match="no rows yet to infer a schema from"):
            source(tmp_path, **options)
    write(tmp_path / "3.csv", "item,amount\ntea,3\n")
    write(tmp_path / "3.ndjson", '{"item": "tea", "amount": 3}\n')
    for source in (CsvSource, NdjsonSource):
        assert dict(source(tmp_path, **options).schema()) == ITEMS


def test_a_last_line_without_a_newline_counts_once_the_file_is_whole(tmp_path: Path) -> None:
    write(tmp_path / "1.ndjson", '{"item": "tea", "amount": 3}', age=60)
    write(tmp_path / "1.csv", "item,amount\ntea,3", age=60)
    for source in (CsvSource, NdjsonSource):
        assert dict(source(tmp_path).schema()) == ITEMS
        assert dict(source(tmp_path, watch=True, poll="10s").schema()) == ITEMS
        with pytest.raises(InvalidQuery, match="no rows yet to infer a schema from"):
            source(tmp_path, watch=True, poll="5m")


def test_a_compressed_file_somebody_is_writing_is_left_for_the_next(tmp_path: Path) -> None:
    packed = gzip.compress(b"item,amount\ntea,3\n")
    write(tmp_path / "1.csv.gz", packed[:-6])
    with pytest.raises(InvalidQuery, match="no rows yet to infer a schema from"):
        CsvSource(tmp_path, watch=True)
    write(tmp_path / "2.csv.gz", packed)
    assert dict(CsvSource(tmp_path, watch=True).schema()) == ITEMS
    with pytest.raises(DataError, match=r"1\.csv\.gz cannot be decompressed"):
        CsvSource(tmp_path)
    write(tmp_path / "1.csv.gz", packed[:-6], age=60)
    with pytest.raises(DataError, match=r"1\.csv\.gz cannot be decompressed"):
        CsvSource(tmp_path, watch=True)
