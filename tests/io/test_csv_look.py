"""The look at the bytes of CSV files finds what the rules of the source's own reader find."""

from __future__ import annotations

import random
from pathlib import Path

import polars as pl
import pytest

from unistream.io import csv_look
from unistream.io.csv_look import FilesLook, Signs
from unistream.io.format_csv import CsvFormat
from unistream.io.format_csv_rules import CsvRules
from unistream.one_query import Conditions, Reading, Unmet

FORMAT = CsvFormat(pl.Schema({"a": pl.String, "b": pl.String}), has_header=False)


def looked(path: Path, quoted: bool = True, longest: int = 1 << 20) -> int:
    look = FilesLook(FORMAT, [str(path)], Signs(ord(","), b'"', quoted, longest), Conditions())
    look.begin()
    return look.separators()


def expected(data: bytes) -> int | None:
    """Separators outside quotes; None where something is wrong."""
    if b'"' in data and not CsvRules(",", '"', 2).well_quoted(data):
        return None
    separators, inside = 0, False
    for sign in data:
        inside ^= sign == ord('"')
        if inside and sign == ord("\n"):
            return None
        separators += sign == ord(",") and not inside
    return separators


@pytest.mark.parametrize("block", [1, 2, 3, 7, 64])
def test_random_bytes(block: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(csv_look, "LOOK_BYTES", block)
    draw = random.Random(block)
    right = 0
    for _ in range(600):
        words = [b"a", b",", b"\n", b"\r\n", b'"a"', b'"a,b"', b'""', b'"x""y"', b'"']
        data = b"".join(draw.choices(words, weights=[9, 9, 3, 2, 6, 4, 2, 2, draw.choice([0, 1])], k=12))
        (tmp_path / "x.csv").write_bytes(data)
        try:
            found = looked(tmp_path / "x.csv")
            right += 1
        except Unmet:
            found = None
        assert found == expected(data), data
    assert right > 20


@pytest.mark.parametrize("block", [16, 1000])
def test_long_lines_and_hoped_for_files(block: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(csv_look, "LOOK_BYTES", block)
    path = tmp_path / "x.csv"
    for length in (19, 20, 21, 500):
        path.write_bytes(b"a,b\n" + b"x" * length + b"\na,b\n")
        if length > 20 and block < length:
            with pytest.raises(Unmet, match="too long"):
                looked(path, longest=20)
        elif length <= 20:
            assert looked(path, longest=20) == 2
    path.write_bytes(b"a,b\n" * 1000 + b'"a",b\n')
    with pytest.raises(Unmet, match="there are quotes") as told:
        looked(path, quoted=False)
    assert told.value.instead is Reading.QUOTED
    assert looked(path) == 1001
    path.write_bytes(b"")
    assert looked(path) == 0
