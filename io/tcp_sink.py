"""Rows as lines over TCP, to a server or to whoever connects."""

from __future__ import annotations

import logging
import selectors
import socket
import threading
from abc import abstractmethod
from collections import deque
from dataclasses import dataclass

import polars as pl

from unistream.clock import Clock, SystemClock, fresh_random
from unistream.durations import Duration, seconds
from unistream.errors import ConnectorError, InvalidQuery, InvalidSettings
from unistream.expressions.schema import StreamSchema
from unistream.io.base import Sink, Token, Writer, WriterContext
from unistream.io.format_base import Format
from unistream.io.formats import FORMATS, format_named
from unistream.io.tcp_address import Address, Backoff, listening_socket
from unistream.location import user_location

logger = logging.getLogger(__name__)

STOP_SECONDS = 0.5
"""How long a job that is being stopped waits for the other side."""

_STEP = 0.05
_CONNECT_SECONDS = 3.0
_SEND_BYTES = 256 << 10


@dataclass(frozen=True, slots=True, init=False)
class TcpSink(Sink):
    """Writes rows as lines of NDJSON, CSV (without header) or text (one text column).

    To connect (`listen=False`): rows wait in a buffer of `buffer_bytes` while the server is slow or away;
    when it is full the job waits, and after `timeout` without any progress it fails. A connection that
    breaks is made again and goes on with the first row that was not handed to the network whole. A server
    that ends its own side of the connection is taken to have closed it.

    To listen: every row goes to all who are connected at that moment, to nobody when there is none. One
    who reads so slowly that its buffer fills is disconnected, so that it cannot hold up the others.

    TCP does not say whether the other side has used what it was sent: rows under way when a connection
    breaks are lost, and after a restart of the job some come again.

    >>> TcpSink("127.0.0.1:9000").promise
    'best effort'
    """

    address: Address
    format: str | Format
    listen: bool
    buffer_bytes: int
    timeout: float

    name = "socket"

    def __init__(
        self,
        address: str,
        *,
        format: str | Format = "ndjson",
        listen: bool = False,
        buffer_bytes: int = 8 << 20,
        timeout: Duration = 30.0,
    ) -> None:
        if isinstance(format, str) and format not in FORMATS:
            raise InvalidSettings.from_unknown("line format", format, FORMATS, user_location())
        if buffer_bytes < 1:
            raise InvalidSettings(f"buffer_bytes must be at least 1, not {buffer_bytes}", user_location())
        object.__setattr__(self, "address", Address.parse(address, listen))
        object.__setattr__(self, "format", format)
        object.__setattr__(self, "listen", listen)
        object.__setattr__(self, "buffer_bytes", buffer_bytes)
        object.__setattr__(self, "timeout", seconds(timeout, "timeout"))

    @property
    def promise(self) -> str:
        return "best effort"

    def check(self, schema: StreamSchema) -> None:
        if self.format == "text" and list(schema.columns.values()) != [pl.String]:
            raise InvalidQuery(
                f"Lines of text hold one text column, not {dict(schema.columns)}",
                user_location(),
                'select one text column, or write format="ndjson"',
            )
        self._line_format(schema.columns)

    def _line_format(self, columns: pl.Schema) -> Format:
        if isinstance(self.format, Format):
            return self.format
        if self.format == "text":
            return format_named("text", column=next(iter(columns)))
        return format_named(self.format, columns)

    def open(self, context: WriterContext) -> TcpWriter:
        line_format = self._line_format(context.schema.columns)
        clock = context.options.get("clock", SystemClock())
        if self.listen:
            return _Broadcaster(self, line_format, clock, context.stopping)
        return _Sender(self, line_format, clock, context.stopping)

    def describe(self) -> dict[str, str]:
        name = self.format if isinstance(self.format, str) else self.format.name
        return {"address": f"{'listen on ' if self.listen else ''}{self.address}", "format": name}


class TcpWriter(Writer):
    """Encodes rows and sends them; `address` is the one in use, with its real port."""

    address: Address

    def __init__(self, line_format: Format) -> None:
        self._format = line_format

    def write(self, frame: pl.DataFrame) -> None:
        self.send(self._format.encode(frame))

    @abstractmethod
    def send(self, lines: bytes) -> None:
        """Hand these lines over; waits where that is the backpressure."""


class _Outbox:
    """Bytes on their way to one peer; knows where lines begin, for a new connection to start at one."""

    def __init__(self) -> None:
        self.nbytes = 0
        self._blocks: deque[bytes] = deque()
        self._sent = 0  # of the first block

    def put(self, lines: bytes) -> None:
        if lines:
            self._blocks.append(lines)
            self.nbytes += len(lines)

    def send(self, sock: socket.socket) -> bool:
        """Send what the network takes now; whether it took anything."""
        progress = False
        while self._blocks:
            try:
                count = sock.send(memoryview(self._blocks[0])[self._sent : self._sent + _SEND_BYTES])
            except (BlockingIOError, InterruptedError):
                return progress
            progress = True
            self.nbytes -= count
            self._sent += count
            if self._sent == len(self._blocks[0]):
                self._blocks.popleft()
                self._sent = 0
        return progress

    def back_to_line(self) -> None:
        """Go back to the beginning of the line that was sent in part."""
        if self._sent:
            begin = self._blocks[0].rfind(b"\n", 0, self._sent) + 1
            self.nbytes += self._sent - begin
            self._sent = begin


class _Sender(TcpWriter):
    """Sends to one server; what the network does not take at once goes with the next call."""

    def __init__(self, sink: TcpSink, line_format: Format, clock: Clock, stopping: threading.Event) -> None:
        super().__init__(line_format)
        self._stopping = stopping
        self.address = sink.address
        self._buffer_bytes = sink.buffer_bytes
        self._timeout = sink.timeout
        self._clock = clock
        self._outbox = _Outbox()
        self._backoff = Backoff(clock, fresh_random())
        self._pause = threading.Event()
        self._socket: socket.socket | None = None

    def send(self, lines: bytes) -> None:
        self._outbox.put(lines)
        self._push()
        self._wait_until_below(self._buffer_bytes)

    def prepare(self, checkpoint_id: int) -> Token | None:
        self._wait_until_below(0)
        return None

    def due(self, now: int) -> bool:
        self._push()  # called after every tick: sends what the network did not take before
        return False

    def _wait_until_below(self, nbytes: int) -> None:
        since = self._clock.steady()
        while self._outbox.nbytes > nbytes:
            if self._push():
                since = self._clock.steady()
            elif self._stopping.is_set() and self._clock.steady() - since > STOP_SECONDS:
                logger.warning("%s: %s bytes were not sent before the end", self.address, self._outbox.nbytes)
                self._outbox = _Outbox()
            elif self._clock.steady() - since > self._timeout:
                reason = self._backoff.reason or f"{self.address} does not read what it is sent"
                problem = f"No row could be sent to {self.address} for {self._timeout:g} s: {reason}"
                raise ConnectorError(problem, hint="start the server, or raise timeout", retry_after=1.0)
            elif self._socket is None:
                self._clock.wait(self._pause, min(_STEP, self._backoff.left()))
            else:
                _wait_for(self._socket, selectors.EVENT_WRITE, _STEP)

    def _push(self) -> bool:
        """Send what goes now, connecting first where needed; whether anything went."""
        try:
            if self._socket is None:
                if not self._outbox.nbytes or not self._backoff.due():
                    return False
                self._socket = self._connected()
            elif _hung_up(self._socket):
                raise ConnectionResetError("closed by the other side")
            progress = self._outbox.send(self._socket)
        except OSError as error:
            self._lost(str(error.strerror or error))
            return False
        if progress:
            self._backoff.reset()
        return progress

    def _connected(self) -> socket.socket:
        family, where = self._backoff.choice(self.address.resolve())
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.settimeout(max(0.1, min(self._timeout, _CONNECT_SECONDS)))
            sock.connect(where)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setblocking(False)
        except OSError:
            sock.close()
            raise
        return sock

    def _lost(self, reason: str) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._outbox.back_to_line()
        self._backoff.failed(reason)

    def close(self) -> None:
        if self._socket is not None:
            _end(self._socket)


class _Broadcaster(TcpWriter):
    """Sends to all who are connected; each has a buffer of its own."""

    def __init__(self, sink: TcpSink, line_format: Format, clock: Clock, stopping: threading.Event) -> None:
        super().__init__(line_format)
        self._stopping = stopping
        self._buffer_bytes = sink.buffer_bytes
        self._timeout = sink.timeout
        self._clock = clock
        self._socket = listening_socket(sink.address)
        self.address = Address(*self._socket.getsockname()[:2])
        self._outboxes: dict[socket.socket, _Outbox] = {}

    def send(self, lines: bytes) -> None:
        self._accept()
        for sock, outbox in list(self._outboxes.items()):
            outbox.put(lines)
            self._push(sock, outbox)
            if outbox.nbytes > self._buffer_bytes:
                self._drop(sock, "it reads too slowly")

    def prepare(self, checkpoint_id: int) -> Token | None:
        """Give the slower ones the time they need, together no longer than the timeout."""
        began = self._clock.steady()
        while behind := [sock for sock, outbox in self._outboxes.items() if outbox.nbytes]:
            patience = STOP_SECONDS if self._stopping.is_set() else self._timeout
            if self._clock.steady() - began > patience:
                self._drop(behind[0], "it does not read")
                continue
            _wait_for(behind[0], selectors.EVENT_WRITE, _STEP)
            self._push_all()
        return None

    def due(self, now: int) -> bool:
        self._accept()
        self._push_all()
        return False

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:  # too many open files: those that wait are taken later
                logger.warning("Cannot accept connections on %s for now: %s", self.address, error)
                return
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._outboxes[sock] = _Outbox()

    def _push_all(self) -> None:
        for sock, outbox in list(self._outboxes.items()):
            self._push(sock, outbox)

    def _push(self, sock: socket.socket, outbox: _Outbox) -> None:
        try:
            outbox.send(sock)
        except OSError as error:
            self._drop(sock, str(error.strerror or error))

    def _drop(self, sock: socket.socket, reason: str) -> None:
        if self._outboxes.pop(sock, None) is not None:
            logger.info("A reader of %s was disconnected: %s", self.address, reason)
            sock.close()

    def close(self) -> None:
        for sock in self._outboxes:
            _end(sock)
        self._socket.close()


def _end(sock: socket.socket) -> None:
    """Close so that what was sent still arrives: unread bytes would turn the end into a reset."""
    try:
        sock.shutdown(socket.SHUT_WR)
        _hung_up(sock)
    except OSError:
        pass  # gone already
    sock.close()


def _wait_for(sock: socket.socket, event: int, limit: float) -> None:
    with selectors.DefaultSelector() as selector:
        selector.register(sock, event)
        selector.select(limit)


def _hung_up(sock: socket.socket) -> bool:
    """Whether the other side has closed; what it says otherwise is read and forgotten."""
    try:
        while data := sock.recv(4096):
            del data
    except (BlockingIOError, InterruptedError):
        return False
    return True
