"""Whatever comes over a socket: no crash, no hang, no growth, and the good lines all kept."""

from __future__ import annotations

import fcntl
import resource
import socket
import struct
import termios
import threading
import time
from pathlib import Path

import polars as pl
import pytest

from unistream.clock import Random
from unistream.io.base import Chunk, Request
from unistream.io.tcp import TcpReader, TcpSource

SCHEMA = {"n": pl.Int64}
LIMIT = 4_096


class Attacker:
    """Sends numbered good lines, `sent`, between hostile frames over many connections."""

    def __init__(self, port: int, frames: int, seed: int) -> None:
        self.sent: list[int] = []
        self.connections = 0
        self._port = port
        self._frames = frames
        self._random = Random(seed)
        self._error: BaseException | None = None
        self._pause = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def done(self) -> bool:
        if self._error is not None:
            raise self._error
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            while self._frames > 0:
                self._connection()
        except BaseException as error:
            self._error = error

    def _connection(self) -> None:
        self.connections += 1
        sock = socket.create_connection(("127.0.0.1", self._port), timeout=20)
        for _ in range(self._random.randrange(1, 60)):
            self._frames -= 1
            number = len(self.sent)
            self.sent.append(number)
            sock.sendall(b'{"n": %d}\n' % number)
            self._hostile(sock)
        sock.sendall(b"\n")
        if self._random.random() < 0.3:
            sock.sendall(b'{"n": 1, "torn')
            while struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))[0]:
                self._pause.wait(0.001)  # a reset throws away what has not arrived
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()

    def _hostile(self, sock: socket.socket) -> None:
        """Something that holds no good row and ends with a newline, whole or in single bytes."""
        random = self._random
        data = random.choice(
            [
                lambda: b"#" + random.randbytes(random.randrange(200)),
                lambda: b"x" * random.randrange(LIMIT, 5 * LIMIT),
                lambda: b"\0" * random.randrange(1, 300),
                lambda: b'{"n": "\xff\xfe"}',
                lambda: b'{"n": ' * random.randrange(1, 400),
                lambda: b'{"n": 1e999}',
                lambda: b'{"n": 1} {"n": 2}',
                lambda: b"[" * random.randrange(1, 3_000),
                lambda: b"\r\n\n \t \n{",
                lambda: '{"n": "ß"'.encode()[: random.randrange(1, 10)],
            ]
        )()
        data += b"\n"
        if len(data) < 40 and random.random() < 0.1:
            for byte in data:
                sock.sendall(bytes([byte]))
        else:
            sock.sendall(data)


def drain(reader: TcpReader, attacker: Attacker, longest_poll: float = 10.0) -> tuple[list[int], int]:
    """Numbers of the good rows and the count of rejected ones, until every connection has ended."""
    numbers: list[int] = []
    rejected = ended = polls = 0
    deadline = time.monotonic() + 300
    while not (attacker.done() and ended == attacker.connections):
        assert time.monotonic() < deadline, "hangs"
        begun = time.monotonic()
        polled = reader.poll(250_000)
        assert time.monotonic() - begun < longest_poll, "a poll hangs"
        polls += 1
        if isinstance(polled, Chunk):
            numbers += polled.frame["n"].to_list()
            rejected += 0 if polled.rejected is None else polled.rejected.height
            assert polled.scanned_rows == polled.frame.height + (
                0 if polled.rejected is None else polled.rejected.height
            )
            ended += polled.ended
    return numbers, rejected


def attacked(frames: int, seed: int) -> None:
    source = TcpSource(":0", SCHEMA, listen=True, on_error="collect", max_line_bytes=LIMIT)
    reader = source.open({}, Request())
    try:
        attacker = Attacker(reader.address.port, frames, seed)
        numbers, rejected = drain(reader, attacker)
    finally:
        reader.close()
    assert sorted(numbers) == attacker.sent
    assert rejected >= frames // 2


@pytest.mark.parametrize("seed", [1, 2])
def test_two_thousand_hostile_frames(seed: int) -> None:
    attacked(2_000, seed)


def resident_megabytes() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


@pytest.mark.slow
def test_a_hundred_thousand_hostile_frames_in_flat_memory() -> None:
    attacked(5_000, seed=3)
    before = resident_megabytes()
    attacked(100_000, seed=4)
    assert resident_megabytes() - before < 50


@pytest.mark.slow
def test_a_hundred_megabytes_without_a_newline_in_flat_memory() -> None:
    reader = TcpSource(":0", SCHEMA, listen=True, on_error="collect").open({}, Request())
    before = peak = resident_megabytes()
    sock = socket.create_connection(("127.0.0.1", reader.address.port), timeout=20)

    def send() -> None:
        block = b"x" * 1_000_000
        for _ in range(100):
            sock.sendall(block)
        sock.sendall(b'\n{"n": 1}\n')
        sock.close()

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    chunks: list[Chunk] = []
    while not (chunks and chunks[-1].ended):
        polled = reader.poll(1_000)
        peak = max(peak, resident_megabytes())
        if isinstance(polled, Chunk):
            chunks.append(polled)
    sender.join()
    reader.close()
    assert [n for chunk in chunks for n in chunk.frame["n"].to_list()] == [1]
    assert sum(chunk.rejected.height for chunk in chunks if chunk.rejected is not None) == 1
    assert peak - before < 50


def test_many_slow_connections_do_not_hold_up_a_good_one() -> None:
    reader = TcpSource(":0", SCHEMA, listen=True, on_error="collect", max_connections=16).open({}, Request())
    place = ("127.0.0.1", reader.address.port)
    good = socket.create_connection(place, timeout=20)
    slow = [socket.create_connection(place, timeout=20) for _ in range(100)]
    numbers: list[int] = []
    for turn in range(100):
        for sock in slow:
            sock.sendall(b" ")
        good.sendall(b'{"n": %d}\n' % turn)
        polls = 0
        while len(numbers) <= turn:
            polled = reader.poll(1_000)
            polls += 1
            assert polls < 200
            if isinstance(polled, Chunk):
                numbers += polled.frame["n"].to_list()
    assert numbers == list(range(100))
    for sock in (good, *slow):
        sock.close()
    reader.close()
