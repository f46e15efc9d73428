"""The spool of a socket source: every row again after a crash, none twice, damage never read over."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unistream.errors import ConnectorError, StateError
from unistream.io import tcp_spool
from unistream.io.base import Chunk, Replay, Request, Wait
from unistream.io.line_buffer import Kind, Piece
from unistream.io.tcp import TcpReader, TcpSource
from unistream.io.tcp_spool import Spool

SCHEMA = {"n": pl.Int64}


def lines(*numbers: int) -> bytes:
    return b"".join(b'{"n": %d}\n' % n for n in numbers)


def pieces(*numbers: int) -> list[Piece]:
    return [Piece.of(Kind.LINES, lines(n)) for n in numbers]


def left(folder: Path, resume: int | None) -> list[Piece]:
    spool = Spool(folder, resume)
    try:
        return [piece for piece, _ in spool.replay()]
    finally:
        spool.close()


def test_what_was_added_comes_again_from_any_offset(tmp_path: Path) -> None:
    added = [*pieces(1, 2), Piece(Kind.TOO_LONG, b"long"), Piece(Kind.TORN, b""), *pieces(3)]
    spool = Spool(tmp_path, None)
    offsets = [spool.append([piece]) for piece in added]
    spool.close()
    assert left(tmp_path, None) == added
    for index, offset in enumerate(offsets, 1):
        assert left(tmp_path, offset) == added[index:]


def test_segments_go_when_a_checkpoint_covers_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp_spool, "SEGMENT_BYTES", 60)
    spool = Spool(tmp_path, None)
    offsets = [spool.append(pieces(n)) for n in range(20)]
    before = len(list(tmp_path.glob("*.spool1")))
    spool.release(offsets[11])
    after = len(list(tmp_path.glob("*.spool1")))
    assert after < before
    spool.close()
    assert left(tmp_path, offsets[11]) == pieces(*range(12, 20))
    with pytest.raises(StateError, match="which begins at byte"):
        Spool(tmp_path, offsets[0])
    spool = Spool(tmp_path, offsets[-1])
    spool.release(offsets[-1])
    spool.append(pieces(99))
    spool.close()
    assert left(tmp_path, offsets[-1]) == pieces(99)


@given(cut=st.integers(1, 60), zeros=st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_torn_end_is_cut_off(tmp_path_factory: pytest.TempPathFactory, cut: int, zeros: bool) -> None:
    folder = tmp_path_factory.mktemp("spool")
    spool = Spool(folder, None)
    offsets = [spool.append(pieces(n)) for n in range(5)]
    spool.close()
    segment = next(folder.glob("*.spool1"))
    size = segment.stat().st_size - cut
    os.truncate(segment, size)
    if zeros:  # the file has its length but not its content, as after a power failure
        os.truncate(segment, offsets[-1])
    whole = sum(offset <= size for offset in offsets)
    assert left(folder, None) == pieces(*range(whole))
    spool = Spool(folder, None)
    spool.append(pieces(7))
    spool.close()
    assert left(folder, None) == pieces(*range(whole), 7)


@pytest.mark.parametrize("rotated", [False, True])
def test_every_flipped_bit_before_the_last_piece_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rotated: bool
) -> None:
    if rotated:
        monkeypatch.setattr(tcp_spool, "SEGMENT_BYTES", 60)
    spool = Spool(tmp_path, None)
    offsets = [spool.append(pieces(n)) for n in range(6)]
    spool.close()
    first = min(tmp_path.glob("*.spool1"))
    sound = first.read_bytes()
    for at in range(len(sound) if rotated else offsets[-2]):
        for bit in (1, 4, 128):
            first.write_bytes(sound[:at] + bytes([sound[at] ^ bit]) + sound[at + 1 :])
            with pytest.raises(StateError) as raised:
                left(tmp_path, None)
            assert str(first) in raised.value.message
    first.write_bytes(sound)
    assert left(tmp_path, None) == pieces(*range(6))


def test_bytes_a_power_failure_took_are_not_missed_when_a_checkpoint_covers_them(tmp_path: Path) -> None:
    spool = Spool(tmp_path, None)
    spool.append(pieces(1))
    end = spool.append(pieces(2))
    spool.close()
    os.truncate(next(tmp_path.glob("*.spool1")), 5)
    spool = Spool(tmp_path, end)
    assert spool.end == end
    spool.append(pieces(3))
    spool.close()
    assert left(tmp_path, end) == pieces(3)


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="is empty"):
        Spool(tmp_path / "gone", 100)
    spool = Spool(tmp_path, None)
    with pytest.raises(ConnectorError, match="in use by another job"):
        Spool(tmp_path, None)
    spool.close()
    Spool(tmp_path, None).close()


def test_a_full_disk_is_an_error_and_leaves_no_half_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path, None)
    spool.append(pieces(1))

    def full(file: int, data: bytes) -> None:
        os.write(file, data[:5])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(ConnectorError, match="No space left"):
        patch.setattr(tcp_spool, "_write_all", full)
        spool.append(pieces(2))
    spool.append(pieces(3))
    spool.close()
    assert left(tmp_path, None) == pieces(1, 3)


def read(reader: TcpReader, rows: int, max_rows: int = 1_000) -> list[Chunk]:
    """Chunks until so many rows were seen, good or bad."""
    found: list[Chunk] = []
    polls = 0
    while sum(chunk.scanned_rows or 0 for chunk in found) < rows:
        polls += 1
        assert polls < 1_000, found
        polled = reader.poll(max_rows)
        if isinstance(polled, Chunk):
            found.append(polled)
    return found


def numbers(chunks: list[Chunk]) -> list[int]:
    return [n for chunk in chunks for n in chunk.frame["n"].to_list()]


def connect(reader: TcpReader) -> socket.socket:
    return socket.create_connection((reader.address.host, reader.address.port), timeout=20)


def test_a_source_gives_its_rows_again_and_none_twice(tmp_path: Path) -> None:
    source = TcpSource(":0", SCHEMA, listen=True, spool=tmp_path, on_error="collect", max_line_bytes=50)
    assert source.replay is Replay.EXACT
    reader = source.open({}, Request())
    with connect(reader) as sock:
        sock.sendall(lines(1, 2))
        first = read(reader, 2)
        with connect(reader) as other:
            other.sendall(lines(3) + b"broken\n" + b"x" * 99 + b"\n" + lines(4))
        second = read(reader, 4)
    assert {chunk.split for chunk in first + second} == {"127.0.0.1:0"}
    position = {first[-1].split: first[-1].position}
    reader.close()

    reader = source.open(position, Request())
    again = read(reader, 4)
    assert numbers(again) == numbers(second) == [3, 4]
    rejected = [pl.concat(c.rejected for c in part if c.rejected is not None) for part in (again, second)]
    assert rejected[0].equals(rejected[1])
    assert rejected[0]["position"].to_list() == [4, 5]
    assert again[-1].position == second[-1].position
    with connect(reader) as sock:
        sock.sendall(lines(5))
        third = read(reader, 1)
    assert numbers(third) == [5]
    reader.acknowledge({third[-1].split: third[-1].position})
    reader.close()

    reader = source.open({third[-1].split: third[-1].position}, Request())
    assert isinstance(reader.poll(10), Wait)
    reader.close()
    reader = source.open({}, Request())
    assert numbers(read(reader, 7, max_rows=2)) == [1, 2, 3, 4, 5]
    reader.close()


def test_a_port_in_use_leaves_the_spool_free(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        with pytest.raises(ConnectorError, match="Cannot listen"):
            TcpSource(f":{port}", SCHEMA, listen=True, spool=tmp_path).open({}, Request())
    Spool(tmp_path, None).close()


CHILD = """
import sys
from pathlib import Path
from unistream.io.base import Chunk, Request
from unistream.io.tcp import TcpSource

reader = TcpSource(":0", {"n": int}, listen=True, spool=sys.argv[1]).open({}, Request())
print(reader.address.port, flush=True)
while True:
    polled = reader.poll(1_000)
    if isinstance(polled, Chunk):
        print(polled.frame.height, flush=True)
"""


def test_rows_handed_on_before_a_kill_come_again(tmp_path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=Path.cwd()
    )
    try:
        assert child.stdout is not None
        port = int(child.stdout.readline())
        with socket.create_connection(("127.0.0.1", port), timeout=20) as sock:
            handed_on = 0
            for start in range(0, 5_000, 100):
                sock.sendall(lines(*range(start, start + 100)))
            while handed_on < 2_500:
                handed_on += int(child.stdout.readline())
            child.kill()
    finally:
        child.kill()
        child.wait(20)
    reader = TcpSource(":0", SCHEMA, listen=True, spool=tmp_path).open({}, Request())
    found = numbers(read(reader, handed_on))
    reader.close()
    assert len(found) >= handed_on
    assert found == list(range(len(found)))
