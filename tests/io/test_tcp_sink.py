"""Rows as lines to real sockets: whole lines, in order, with backpressure and new connections."""

from __future__ import annotations

import pickle
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import polars as pl
import pytest

from unistream.clock import SystemClock
from unistream.errors import ConnectorError, InvalidQuery, InvalidSettings
from unistream.expressions.schema import StreamSchema
from unistream.io.base import WriterContext
from unistream.io.tcp_sink import TcpSink, TcpWriter

SCHEMA = StreamSchema(pl.Schema({"n": pl.Int64, "t": pl.String}))


class HandClock(SystemClock):
    """Real time that can be pushed forward."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def steady(self) -> float:
        return super().steady() + self.ahead

    def wait(self, event: threading.Event, seconds: float) -> bool:
        self.ahead += seconds
        return event.is_set()


def frame(*numbers: int) -> pl.DataFrame:
    return pl.DataFrame({"n": numbers, "t": [f"{n}\n" for n in numbers]}, schema=SCHEMA.columns)


@contextmanager
def writing(sink: TcpSink, clock: SystemClock | None = None) -> Iterator[TcpWriter]:
    options = {"clock": clock} if clock is not None else {}
    writer = sink.open(WriterContext("job", SCHEMA, options=options))
    try:
        yield writer
    finally:
        writer.close()


@contextmanager
def server() -> Iterator[tuple[socket.socket, str]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)
        yield listener, f"127.0.0.1:{listener.getsockname()[1]}"


def numbers(data: bytes) -> list[int]:
    assert data.endswith(b"\n") or not data
    rows = [msgspec.json.decode(line) for line in data.splitlines()]
    assert all(row["t"] == f"{row['n']}\n" for row in rows)
    return [row["n"] for row in rows]


def receive(sock: socket.socket, nbytes: int | None = None) -> bytes:
    """So many bytes, or all until the end."""
    sock.settimeout(20)
    data = b""
    while nbytes is None or len(data) < nbytes:
        part = sock.recv(1 << 16)
        if not part:
            break
        data += part
    return data


def test_rows_arrive_in_order() -> None:
    with server() as (listener, address):
        with writing(TcpSink(address)) as writer:
            writer.write(frame(1, 2))
            peer = listener.accept()[0]
            writer.write(frame(3))
            assert writer.prepare(1) is None
        assert numbers(receive(peer)) == [1, 2, 3]
        peer.close()


@pytest.mark.parametrize(("name", "expected"), [("csv", b'1,"1\n"\n'), ("text", b"1\n")])
def test_other_formats(name: str, expected: bytes) -> None:
    with server() as (listener, address):
        sink = TcpSink(address, format=name)
        rows = frame(1) if name == "csv" else pl.DataFrame({"only": ["1"]})
        schema = StreamSchema(rows.schema)
        sink.check(schema)
        writer = sink.open(WriterContext("job", schema))
        writer.write(rows)
        peer = listener.accept()[0]
        writer.prepare(1)
        writer.close()
        assert receive(peer) == expected
        peer.close()


def test_rows_wait_for_a_server_that_is_away() -> None:
    clock = HandClock()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with writing(TcpSink(f"127.0.0.1:{port}"), clock) as writer:
        writer.write(frame(1))
        writer.write(frame(2))
        with socket.create_server(("127.0.0.1", port)) as again:
            writer.prepare(1)
            peer = again.accept()[0]
        writer.close()
        assert numbers(receive(peer)) == [1, 2]
        peer.close()


def test_a_server_that_stays_away_fails_the_job() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with writing(TcpSink(f"127.0.0.1:{port}", timeout="20s"), HandClock()) as writer:
        writer.write(frame(1))
        with pytest.raises(ConnectorError, match="for 20 s: Connection refused") as raised:
            writer.prepare(1)
        assert raised.value.retry_after == 1.0


def test_a_slow_server_holds_the_job_up_and_memory_stays_bounded() -> None:
    rows = frame(*range(2_000))
    with server() as (listener, address), writing(TcpSink(address, buffer_bytes=100_000)) as writer:
        written = []

        def write() -> None:
            for _ in range(400):
                writer.write(rows)
                written.append(rows.height)
            writer.prepare(1)

        job = threading.Thread(target=write, daemon=True)
        job.start()
        peer = listener.accept()[0]
        before, deadline = -1, time.monotonic() + 20
        while len(written) != before and time.monotonic() < deadline:  # until nothing moves any more
            before = len(written)
            job.join(0.2)
        assert job.is_alive()
        assert len(written) < 400
        size = len(rows.write_ndjson().encode()) * 400
        data = receive(peer, size)
        job.join(20)
        assert not job.is_alive()
        assert numbers(data) == list(range(2_000)) * 400
        peer.close()


def test_a_broken_connection_is_made_again_at_the_beginning_of_a_line() -> None:
    with server() as (listener, address), writing(TcpSink(address, buffer_bytes=50 << 20)) as writer:
        for start in range(0, 400_000, 10_000):  # more than the network takes unread
            writer.write(frame(*range(start, start + 10_000)))
        peer = listener.accept()[0]
        first = receive(peer, 1_000_000)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        job = threading.Thread(target=writer.prepare, args=(1,), daemon=True)
        job.start()
        peer = listener.accept()[0]
        parts: list[bytes] = []
        reading = threading.Thread(target=lambda: parts.append(receive(peer)), daemon=True)
        reading.start()
        job.join(20)
        assert not job.is_alive()
        writer.close()
        reading.join(20)
        second = numbers(parts[0])
        assert second == list(range(second[0], 400_000))
        assert second[0] >= len(numbers(first[: first.rfind(b"\n") + 1]))
        peer.close()


def connect(writer: TcpWriter) -> socket.socket:
    return socket.create_connection((writer.address.host, writer.address.port), timeout=20)


def test_everybody_connected_gets_every_row() -> None:
    with writing(TcpSink(":0", listen=True)) as writer:
        writer.write(frame(1))
        one, two = connect(writer), connect(writer)
        writer.write(frame(2, 3))
        late = connect(writer)
        writer.write(frame(4))
        writer.prepare(1)
        writer.close()
        assert [numbers(receive(sock)) for sock in (one, two, late)] == [[2, 3, 4], [2, 3, 4], [4]]
        for sock in (one, two, late):
            sock.close()


def test_a_slow_reader_is_disconnected_and_others_lose_nothing() -> None:
    rows = frame(*range(5_000))
    with writing(TcpSink(":0", listen=True, buffer_bytes=200_000)) as writer:
        slow, quick = connect(writer), connect(writer)
        gone = connect(writer)
        gone.close()
        parts: list[bytes] = []
        size = len(rows.write_ndjson().encode())
        for _ in range(200):
            writer.write(rows)
            parts.append(receive(quick, size))
        writer.close()
        assert numbers(b"".join(parts) + receive(quick)) == list(range(5_000)) * 200
        assert len(receive(slow)) < 200 * size
        slow.close()
        quick.close()


def test_configuration() -> None:
    with pytest.raises(InvalidSettings, match="did you mean 'ndjson'"):
        TcpSink("h:1", format="njson")
    with pytest.raises(InvalidSettings, match="buffer_bytes"):
        TcpSink("h:1", buffer_bytes=0)
    with pytest.raises(InvalidSettings, match="has no port"):
        TcpSink("h")
    with pytest.raises(InvalidQuery, match="one text column"):
        TcpSink("h:1", format="text").check(SCHEMA)
    sink = TcpSink("h:1")
    assert pickle.loads(pickle.dumps(sink)) == sink
    assert sink.promise == "best effort"
    assert sink.describe() == {"address": "h:1", "format": "ndjson"}
    with socket.create_server(("127.0.0.1", 0)) as busy:
        address: Any = f":{busy.getsockname()[1]}"
        with pytest.raises(ConnectorError, match="Cannot listen"):
            TcpSink(address, listen=True).open(WriterContext("job", SCHEMA))
