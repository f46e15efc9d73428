"""Cutting bytes into lines: the same lines for every way the bytes arrive, in constant memory."""

from __future__ import annotations

import tracemalloc

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from unistream.io.formats import CsvFormat
from unistream.io.line_buffer import KEPT_BYTES, Kind, LineBuffer, count_lines

LIMIT = 6


def slow_lines(data: bytes, limit: int) -> tuple[list[bytes | None], bytes]:
    """Whole lines with their newline, None for one that is too long, and the rest."""
    *whole, rest = data.split(b"\n")
    lines = [line + b"\n" if len(line) <= limit else None for line in whole]
    return (lines, rest) if len(rest) <= limit else ([*lines, None], b"")


def drained(buffer: LineBuffer, max_lines: int) -> list[bytes | None]:
    lines: list[bytes | None] = []
    while (piece := buffer.take(max_lines)) is not None:
        if piece.kind is Kind.TOO_LONG:
            lines.append(None)
            assert piece.lines == 1
            continue
        assert piece.lines == piece.data.count(b"\n") <= max_lines
        lines += piece.data.splitlines(keepends=True)
    assert not buffer.has_lines()
    return lines


@given(
    data=st.lists(st.sampled_from([b"a", b"bc", b"\n", b"\n\n", b"longer than it may", b"\x00", b"123456"])),
    cuts=st.lists(st.integers(1, 9), min_size=1),
    max_lines=st.integers(1, 5),
    eager=st.booleans(),
)
@settings(max_examples=300)
def test_lines_do_not_depend_on_how_the_bytes_arrive(
    data: list[bytes], cuts: list[int], max_lines: int, eager: bool
) -> None:
    whole, buffer, lines, at, turn = b"".join(data), LineBuffer(LIMIT), [], 0, 0
    while at < len(whole):
        step = cuts[turn % len(cuts)]
        buffer.feed(whole[at : at + step])
        at, turn = at + step, turn + 1
        if eager:
            lines += drained(buffer, max_lines)
    lines += drained(buffer, max_lines)
    assert (lines, buffer.rest()) == slow_lines(whole, LIMIT)


@given(
    rows=st.lists(st.sampled_from(["a,1", '"x\ny",2', '"q""\n\n",3', "b,4"]), max_size=12),
    step=st.integers(1, 7),
    max_lines=st.integers(1, 4),
)
def test_rows_that_hold_newlines_stay_whole(rows: list[str], step: int, max_lines: int) -> None:
    csv = CsvFormat(pl.Schema({"t": pl.String, "n": pl.Int64}))
    data = "".join(row + "\n" for row in rows).encode()
    buffer, found = LineBuffer(1_000, csv.records_end), []
    for at in range(0, len(data), step):
        buffer.feed(data[at : at + step])
        while (piece := buffer.take(max_lines)) is not None:
            decoded = csv.decode(piece.data)
            assert decoded.rejected is None
            found.append(decoded.frame)
    assert buffer.rest() == b""
    numbers = [row for frame in found for row in frame["n"].to_list()]
    assert numbers == [int(row[-1]) for row in rows]


def test_a_quote_that_never_closes_costs_one_line_only() -> None:
    csv = CsvFormat(pl.Schema({"t": pl.String, "n": pl.Int64}))
    buffer = LineBuffer(50, csv.records_end)
    buffer.feed(b'good,1\n"open,2\n' + b"row,3\n" * 10)
    assert buffer.take(100) == (Kind.LINES, b"good,1\n", 1)
    assert buffer.take(100) == (Kind.TOO_LONG, b'"open,2\n', 1)
    assert buffer.take(100) == (Kind.LINES, b"row,3\n" * 10, 10)


def test_an_endless_line_takes_no_memory_and_the_next_line_is_read() -> None:
    buffer, block = LineBuffer(1 << 16), b"x" * (1 << 16)
    tracemalloc.start()
    found = []
    for _ in range(500):
        buffer.feed(block)
        found.append(buffer.take(100))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    buffer.feed(b"tail\nnext\n")
    pieces = [piece for piece in found if piece is not None]
    assert [(piece.kind, len(piece.data)) for piece in pieces] == [(Kind.TOO_LONG, KEPT_BYTES)]
    assert buffer.take(100) == (Kind.LINES, b"next\n", 1)
    assert peak < 1 << 20


@given(st.binary(max_size=20_000))
def test_counting(data: bytes) -> None:
    assert count_lines(data) == data.count(b"\n")
