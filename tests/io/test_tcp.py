"""Lines over real sockets on this machine: every row, in order, as soon as its line is whole."""

from __future__ import annotations

import pickle
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import polars as pl
import pytest

import unistream as us
from unistream.clock import Clock, Random, SystemClock
from unistream.errors import ConnectorError, DataError, InvalidQuery, InvalidSettings
from unistream.io.base import Chunk, Exhausted, Replay, Request, Wait
from unistream.io.tcp import TcpReader, TcpSource
from unistream.io.tcp_address import Backoff

SCHEMA = {"n": pl.Int64, "t": pl.String}


def line(n: int, text: str = "x") -> bytes:
    return b'{"n": %d, "t": "%s"}\n' % (n, text.encode())


@contextmanager
def listening(clock: Clock | None = None, **options: object) -> Iterator[TcpReader]:
    source = TcpSource(":0", SCHEMA, listen=True, **{"on_error": "collect", **options})  # type: ignore[arg-type]
    reader = source.open({}, Request(clock=clock or SystemClock()))
    try:
        yield reader
    finally:
        reader.close()


def port_of(sock: socket.socket) -> int:
    return int(sock.getsockname()[1])


def connect(reader: TcpReader) -> socket.socket:
    return socket.create_connection((reader.address.host, reader.address.port), timeout=20)


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def read_until(
    reader: TcpReader, enough: Callable[[list[Chunk]], bool], max_rows: int = 250_000
) -> list[Chunk]:
    found: list[Chunk] = []
    deadline = time.monotonic() + 20
    while not enough(found):
        assert time.monotonic() < deadline, f"not enough after 20 s: {found}"
        polled = reader.poll(max_rows)
        if isinstance(polled, Chunk):
            found.append(polled)
        elif isinstance(polled, Exhausted):
            raise AssertionError("ended too early")
    return found


def numbers(chunks: list[Chunk]) -> list[int]:
    return [n for chunk in chunks for n in chunk.frame["n"].to_list()]


def rejected(chunks: list[Chunk]) -> list[tuple[int, str]]:
    parts = [chunk.rejected for chunk in chunks if chunk.rejected is not None]
    return [(row["position"], row["reason"]) for part in parts for row in part.iter_rows(named=True)]


def ended(count: int) -> Callable[[list[Chunk]], bool]:
    return lambda chunks: sum(chunk.ended for chunk in chunks) == count


def test_rows_come_in_order_and_the_last_needs_no_newline() -> None:
    with listening() as reader:
        with connect(reader) as sock:
            sock.sendall(line(1) + line(2) + line(3)[:5])
            assert numbers(read_until(reader, lambda c: len(numbers(c)) == 2)) == [1, 2]
            sock.sendall(line(3)[5:] + line(4).rstrip())
        chunks = read_until(reader, ended(1))
        assert numbers(chunks) == [3, 4]
        assert chunks[-1].split == chunks[0].split
        assert [chunk.position for chunk in chunks][-1] == 5


def test_a_row_waits_for_nothing_but_its_newline() -> None:
    with listening() as reader, connect(reader) as sock:
        for n in range(50):
            sock.sendall(line(n))
            assert numbers(read_until(reader, lambda c: bool(numbers(c)))) == [n]


def test_each_connection_is_a_split_and_none_starves() -> None:
    with listening() as reader:
        socks = [connect(reader) for _ in range(5)]
        for number, sock in enumerate(socks):
            sock.sendall(b"".join(line(number * 1000 + i) for i in range(300)))
        chunks = read_until(reader, lambda c: len(numbers(c)) == 1500, max_rows=100)
        assert len({chunk.split for chunk in chunks[:5]}) == 5
        by_split: dict[str, list[Chunk]] = {}
        for chunk in chunks:
            assert chunk.frame.height <= 100
            by_split.setdefault(chunk.split, []).append(chunk)
        found = sorted(numbers(part) for part in by_split.values())
        assert found == [[k * 1000 + i for i in range(300)] for k in range(5)]
        for sock in socks:
            sock.close()
        assert {chunk.split for chunk in read_until(reader, ended(5))} == set(by_split)


def test_bad_lines_are_told_apart_and_counted() -> None:
    with listening(max_line_bytes=100) as reader:
        with connect(reader) as sock:
            bad = [b"{broken\n", b'{"n": 1, "t": "\x00"}\n', b'{"n": 1, "t": "\xff"}\n', b"y" * 500 + b"\n"]
            sock.sendall(b"".join(line(k) + b for k, b in enumerate(bad)) + line(4) + b"z" * 5_000)
        chunks = read_until(reader, ended(1))
        assert numbers(chunks) == [0, 1, 2, 3, 4]
        assert [position for position, _ in rejected(chunks)] == [2, 4, 6, 8, 10]
        assert [reason for _, reason in rejected(chunks)][3:] == ["the line is longer than 100 bytes"] * 2
        assert sum(chunk.scanned_rows or 0 for chunk in chunks) == 10


def test_a_reset_in_mid_line_loses_that_line_only() -> None:
    with listening() as reader:
        sock = connect(reader)
        sock.sendall(line(1) + line(2)[:-3])
        before = read_until(reader, lambda c: numbers(c) == [1])
        reset(sock)
        chunks = before + read_until(reader, ended(1))
        assert numbers(chunks) == [1]
        assert rejected(chunks) == [(2, "the connection broke off in the middle of the line")]


def test_policies() -> None:
    with listening(on_error="fail") as reader, connect(reader) as sock:
        sock.sendall(line(1) + b"{broken\n")
        with pytest.raises(DataError, match=r"127\.0\.0\.1:\d+#1, line 2"):
            read_until(reader, lambda c: False)
    with listening(on_error="skip") as reader:
        with connect(reader) as sock:
            sock.sendall(line(1) + b"{broken\n")
        chunks = read_until(reader, ended(1))
        assert (numbers(chunks), rejected(chunks)) == ([1], [])
        assert sum(chunk.scanned_rows or 0 for chunk in chunks) == 2


def test_a_byte_order_mark_at_the_beginning_is_dropped() -> None:
    with listening() as reader:
        for start in (1, 2):
            with connect(reader) as sock:
                sock.sendall(b"\xef\xbb\xbf" + line(start))
            assert numbers(read_until(reader, ended(1))) == [start]


def test_further_connections_wait_their_turn() -> None:
    with listening(max_connections=2) as reader:
        socks = [connect(reader) for _ in range(4)]
        for number, sock in enumerate(socks):
            sock.sendall(line(number))
        first = read_until(reader, lambda c: len(numbers(c)) == 2)
        assert isinstance(reader.poll(10), Wait)
        for sock in socks:
            sock.close()
        assert sorted(numbers(first + read_until(reader, ended(4)))) == [0, 1, 2, 3]


class HandClock(SystemClock):
    """Real waiting, steady time by hand."""

    def __init__(self) -> None:
        self.time = 0.0

    def steady(self) -> float:
        return self.time


def poll_idle(reader: TcpReader, clock: HandClock, seconds: int) -> None:
    """Let so many seconds pass in which nobody sends and nobody is closed."""
    for _ in range(10):
        clock.time += seconds / 10
        assert isinstance(reader.poll(10), Wait)


@pytest.mark.parametrize("format", ["ndjson", "csv"])
def test_a_connection_that_does_not_end_its_line_in_time_is_closed(
    format: str, caplog: pytest.LogCaptureFixture
) -> None:
    begun = {"ndjson": b'{"n"', "csv": b'1,"two\n'}[format]
    whole = {"ndjson": line(9), "csv": b"9,x\n"}[format]
    clock = HandClock()
    with listening(clock, idle_timeout="30s", format=format) as reader, connect(reader) as quiet:
        quiet.sendall(whole)
        assert numbers(read_until(reader, lambda c: bool(numbers(c)))) == [9]
        with connect(reader) as slow:
            slow.sendall(begun)
            poll_idle(reader, clock, 29)
            clock.time += 5
            chunks = read_until(reader, ended(1))
            assert rejected(chunks) == [(1, "the connection broke off in the middle of the line")]
            assert slow.recv(10) == b""
        assert "did not end its line for 30 s" in caplog.text
        quiet.sendall(whole)
        assert numbers(read_until(reader, lambda c: bool(numbers(c)))) == [9]


def test_a_line_that_is_too_long_is_not_ended_either() -> None:
    clock = HandClock()
    with listening(clock, idle_timeout="30s", max_line_bytes=10) as reader, connect(reader) as slow:
        slow.sendall(b"x" * 50)
        chunks = read_until(reader, lambda c: bool(rejected(c)))
        clock.time += 31
        chunks += read_until(reader, ended(1))
        assert rejected(chunks) == [(1, "the line is longer than 10 bytes")]


def test_a_quiet_connection_keeps_its_place_until_others_wait_for_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = HandClock()
    with listening(clock, idle_timeout="30s", max_connections=2) as reader:
        quiet, busy = connect(reader), connect(reader)
        for sock in (quiet, busy):
            sock.sendall(line(1))
        read_until(reader, lambda c: len(numbers(c)) == 2)
        poll_idle(reader, clock, 200)
        busy.sendall(line(2))
        assert numbers(read_until(reader, lambda c: bool(numbers(c)))) == [2]
        with connect(reader) as third:
            third.sendall(line(3))
            clock.time += 1
            chunks = read_until(reader, lambda c: numbers(c) == [3])
            assert [chunk.split for chunk in chunks if chunk.ended] == [f"127.0.0.1:{port_of(quiet)}#1"]
            assert rejected(chunks) == []
            assert quiet.recv(10) == b""
            assert "ended no line for 30 s while others wait" in caplog.text
            poll_idle(reader, clock, 20)
            busy.sendall(line(4))
            assert numbers(read_until(reader, lambda c: bool(numbers(c)))) == [4]
        quiet.close()
        busy.close()


def test_no_more_quiet_connections_are_closed_than_others_wait() -> None:
    clock = HandClock()
    with listening(clock, idle_timeout="30s", max_connections=3) as reader:
        socks = [connect(reader) for _ in range(3)]
        for sock in socks:
            sock.sendall(line(1))
            read_until(reader, lambda c: bool(numbers(c)))
            clock.time += 1
        clock.time += 60
        with connect(reader) as other:
            other.sendall(line(2))
            chunks = read_until(reader, lambda c: numbers(c) == [2])
            assert sum(chunk.ended for chunk in chunks) == 1
            assert socks[0].recv(10) == b""
            poll_idle(reader, clock, 20)
            for sock in socks[1:]:
                sock.sendall(line(3))
            assert numbers(read_until(reader, lambda c: len(numbers(c)) == 2)) == [3, 3]
        for sock in socks:
            sock.close()


def test_without_an_idle_timeout_nobody_is_closed() -> None:
    clock = HandClock()
    with listening(clock, idle_timeout=None, max_connections=1) as reader:
        with connect(reader) as slow, connect(reader):
            slow.sendall(line(1)[:5])
            poll_idle(reader, clock, 200)
            slow.sendall(line(1)[5:])
            assert numbers(read_until(reader, lambda c: bool(numbers(c)))) == [1]
        read_until(reader, ended(2))


def test_the_idle_timeout_is_more_than_zero() -> None:
    for none in ("0s", -1):
        with pytest.raises(InvalidSettings, match="idle_timeout must be more than zero"):
            us.scan_socket(":9000", schema=SCHEMA, listen=True, idle_timeout=none)
    scan = us.scan_socket(":9000", schema=SCHEMA, listen=True, idle_timeout="5m")
    assert scan.schema == SCHEMA


def test_csv_and_text() -> None:
    with listening(format="csv") as reader:
        with connect(reader) as sock:
            sock.sendall(b'1,"a\nb"\nx,y\n2,c')
        chunks = read_until(reader, ended(1))
        assert pl.concat(chunk.frame for chunk in chunks).rows() == [(1, "a\nb"), (2, "c")]
        assert len(rejected(chunks)) == 1
    source = TcpSource(":0", format="text", listen=True)
    assert source.schema() == {"line": pl.String}


def test_pushed_columns() -> None:
    source = TcpSource(":0", SCHEMA, listen=True)
    reader = source.open({}, Request(columns=("t",)))
    with connect(reader) as sock:
        sock.sendall(line(1, "only"))
    assert read_until(reader, ended(1))[0].frame.to_dict(as_series=False) == {"t": ["only"]}
    reader.close()


@contextmanager
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)
        yield listener


def dialling(listener: socket.socket, clock: Clock | None = None, **options: object) -> TcpReader:
    port = listener.getsockname()[1]
    source = TcpSource(f"localhost:{port}", SCHEMA, **{"on_error": "collect", **options})  # type: ignore[arg-type]
    return source.open({}, Request(clock=clock or SystemClock()))


def accepted(reader: TcpReader, listener: socket.socket, clock: HandClock | None = None) -> socket.socket:
    """The server's side of the connection that the reader makes while it is polled."""
    listener.settimeout(0.01)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        assert isinstance(reader.poll(10), Wait)
        if clock is not None:
            clock.time += 1
        try:
            return listener.accept()[0]
        except TimeoutError:
            continue
    raise AssertionError("no connection within 20 s")


def test_a_client_reads_and_ends_with_the_server() -> None:
    with server() as listener:
        reader = dialling(listener, on_close="end")
        with accepted(reader, listener) as peer:
            peer.sendall(line(1) + line(2).rstrip())
        chunks = read_until(reader, ended(1))
        assert numbers(chunks) == [1, 2]
        assert isinstance(reader.poll(10), Exhausted)
        reader.close()
    assert TcpSource("h:1", SCHEMA, on_close="end").bounded


def test_a_bounded_client_does_not_take_a_reset_for_the_end() -> None:
    with server() as listener:
        reader = dialling(listener, on_close="end")
        peer = accepted(reader, listener)
        peer.sendall(line(1))
        assert numbers(read_until(reader, lambda c: bool(numbers(c)))) == [1]
        reset(peer)
        with pytest.raises(ConnectorError, match="broke off before its end"):
            read_until(reader, lambda c: False)
        reader.close()


def test_a_client_connects_again() -> None:
    clock = HandClock()
    with server() as listener:
        reader = dialling(listener, clock)
        splits = set()
        for n in range(3):
            with accepted(reader, listener, clock) as peer:
                peer.sendall(line(n))
                chunks = read_until(reader, lambda c: bool(numbers(c)))
                assert numbers(chunks) == [n]
                splits |= {chunk.split for chunk in chunks}
        assert splits == {f"localhost:{listener.getsockname()[1]}"}
        reader.close()


def test_an_absent_server_is_tried_with_growing_pauses_and_then_given_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    clock = HandClock()
    source = TcpSource(f"127.0.0.1:{port}", SCHEMA, give_up_after="1m")
    reader = source.open({}, Request(clock=clock))
    pauses = []
    with pytest.raises(ConnectorError, match="cannot be reached: Connection refused"):
        while clock.time < 100:
            polled = reader.poll(10)
            assert isinstance(polled, Wait)
            if polled.seconds > 0:
                assert "Connection refused; next attempt in" in polled.reason
                pauses.append(polled.seconds)
                clock.time += polled.seconds
    assert 60 <= clock.time < 66
    (told,) = caplog.messages  # once, not for each attempt
    assert told == f"127.0.0.1:{port} cannot be reached: Connection refused; trying again"
    assert 0.05 <= pauses[0] <= 0.1
    assert all(pause <= 5 for pause in pauses)
    assert pauses[-1] >= 2.5
    reader.close()


def test_a_port_in_use_is_named() -> None:
    with listening() as reader:
        port = reader.address.port
        with pytest.raises(ConnectorError, match=rf"port {port}") as raised:
            TcpSource(f":{port}", SCHEMA, listen=True).open({}, Request())
        assert "choose another port" in (raised.value.hint or "")


@pytest.mark.parametrize(
    ("address", "listen", "message"),
    [
        ("localhost", False, "has no port"),
        ("localhost:", False, "has no port"),
        ("localhost:http", False, "'http' of address 'localhost:http' is not a number"),
        ("localhost:70000", False, "between 1 and 65535"),
        ("localhost:0", False, "between 1 and 65535"),
        (":9000", False, "has no host"),
        ("a:b:1", False, "more than one port"),
        ("*:9000", True, "0.0.0.0:port"),
        (9000, True, "is not text"),
    ],
)
def test_addresses_are_checked(address: str, listen: bool, message: str) -> None:
    with pytest.raises(InvalidSettings, match=message):
        TcpSource(address, SCHEMA, listen=listen)


def test_listening_is_on_this_machine_unless_written_out() -> None:
    assert TcpSource(":9000", SCHEMA, listen=True).address.host == "127.0.0.1"
    assert TcpSource("0.0.0.0:9000", SCHEMA, listen=True).address.host == "0.0.0.0"
    assert str(TcpSource("[::1]:9000", SCHEMA).address) == "[::1]:9000"


def test_configuration_is_checked_compares_and_pickles() -> None:
    for options in (
        {"on_close": "stop"},
        {"max_line_bytes": 0},
        {"on_error": "x"},
        {"idle_timeout": "soon"},
        {"format": "xml"},
    ):
        with pytest.raises(InvalidSettings):
            TcpSource("h:1", SCHEMA, **options)  # type: ignore[arg-type]
    with pytest.raises(InvalidQuery, match="needs a schema"):
        TcpSource("h:1")
    source = TcpSource("h:1", SCHEMA)
    assert pickle.loads(pickle.dumps(source)) == source
    assert source.identity() == TcpSource("h:1", SCHEMA).identity()
    assert len({source, TcpSource("h:1", SCHEMA), TcpSource("h:2", SCHEMA)}) == 2
    assert source.replay is Replay.NONE
    assert not source.bounded
    assert source.describe()["delivery"] == "at most once"


def test_a_fast_sender_comes_in_large_chunks() -> None:
    data = b"".join(line(n) for n in range(200_000))
    with listening() as reader:
        sock = connect(reader)
        sender = threading.Thread(target=lambda: (sock.sendall(data), sock.close()))
        sender.start()
        chunks = read_until(reader, ended(1))
        sender.join()
    assert numbers(chunks) == list(range(200_000))
    assert len(chunks) < 1_000


def test_a_server_that_goes_away_is_told_of_once_each_time(caplog: pytest.LogCaptureFixture) -> None:
    backoff = Backoff(HandClock(), Random(1))
    for _ in range(2):
        backoff.failed("it closed the connection")
        backoff.failed("it cannot be reached")
        backoff.reset()
    assert caplog.messages == 2 * ["it closed the connection; trying again"]
