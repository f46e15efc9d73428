"""Connections of a socket source: accepted by a listener, or dialled again and again."""

from __future__ import annotations

import errno
import logging
import os
import selectors
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable

from unistream.clock import Clock, Random
from unistream.errors import ConnectorError
from unistream.io.base import Wait
from unistream.io.format_base import BYTE_ORDER_MARK
from unistream.io.line_buffer import KEPT_BYTES, Kind, LineBuffer, Piece
from unistream.io.tcp_address import Address, Backoff, listening_socket

logger = logging.getLogger(__name__)

DRAIN_BYTES = 1 << 20
"""Most bytes taken from one connection before its lines are decoded."""
CONNECT_SECONDS = 10.0
_ACCEPT_PAUSE = 1.0
_IDLE_CHECK = 0.25
_NEWLINE = 10

BufferMaker = Callable[[], LineBuffer]


class Connection:
    """One peer, its unfinished line and the number of its next line."""

    def __init__(self, sock: socket.socket, split: str, buffer: LineBuffer, now: float) -> None:
        self.socket = sock
        self.split = split
        self.next_line = 1
        self.last_line_at = now
        self.closed = False
        self.broken = False
        self._buffer = buffer
        self._begun = False
        self._in_line = False

    def receive(self, scratch: bytearray) -> None:
        """Take what the kernel has, at least half of `scratch` if there is so much.

        `closed` and `broken` tell how the connection ended.
        """
        filled = 0
        with memoryview(scratch) as view:
            while filled < len(scratch) and not self.closed:
                try:
                    count = self.socket.recv_into(view[filled:])
                except (BlockingIOError, InterruptedError):
                    break
                except OSError:
                    self.broken = True
                    count = 0
                filled += count
                self.closed = count == 0
                if filled < len(scratch) // 2:
                    break  # asking again would mostly say that there is no more, and the next look tells
        self._buffer.feed(scratch, filled)
        if filled:
            self._in_line = scratch[filled - 1] != _NEWLINE

    def take(self, max_rows: int, now: float) -> list[Piece]:
        """Whole lines, about `max_rows`; behind the end of the connection also the last, unfinished one."""
        pieces: list[Piece] = []
        while max_rows > 0 and (piece := self._buffer.take(max_rows)) is not None:
            max_rows -= piece.lines
            pieces.append(piece)
        if self.closed and not self.has_lines() and (rest := self._buffer.rest()):
            self._buffer.clear()
            if self.broken:
                pieces.append(Piece(Kind.TORN, rest[:KEPT_BYTES]))
            else:
                pieces.append(Piece.of(Kind.LINES, rest + b"\n"))
        if pieces:
            self.last_line_at = now
        if pieces and not self._begun:
            self._begun = True
            pieces[0] = pieces[0]._replace(data=pieces[0].data.removeprefix(BYTE_ORDER_MARK))
        return pieces

    def has_lines(self) -> bool:
        """Whether `take` has more to give without `receive`."""
        return self._buffer.has_lines()

    def has_begun_line(self) -> bool:
        """Whether the rest of a line is awaited, also of one that was given up, or of a quoted field."""
        return self._in_line or bool(self._buffer.rest())


class Peers(ABC):
    """Who sends the rows."""

    exhausted = False
    """Whether nobody will ever send again."""

    @abstractmethod
    def readable(self, seconds: float) -> list[Connection]:
        """Connections with something to read or closed by now; waits up to `seconds` for the first."""

    @abstractmethod
    def lose(self, connection: Connection) -> bool:
        """Forget a closed connection; whether its split has ended with it."""

    @abstractmethod
    def waiting(self) -> Wait:
        """When to ask again, and what for."""

    @abstractmethod
    def close(self) -> None:
        """Close everything."""


class Listener(Peers):
    """Accepts up to `most` connections; further ones wait in the kernel until one of them goes.

    Who ends no line for `idle` seconds is sent away when a line was begun, or when others wait: of those
    who are merely quiet one at a time, the longest quiet first. What such a one sends next is lost.
    """

    def __init__(
        self, address: Address, most: int, idle: float | None, buffers: BufferMaker, clock: Clock
    ) -> None:
        self._most = most
        self._idle = idle
        self._buffers = buffers
        self._clock = clock
        self._socket = listening_socket(address)
        host, port = self._socket.getsockname()[:2]
        self.address = Address(host, port)
        self._connections: dict[Connection, None] = {}
        self._accepted = 0
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._socket, selectors.EVENT_READ)
        self._accepting = True
        self._accept_again = 0.0
        self._idle_checked = clock.steady()

    def readable(self, seconds: float) -> list[Connection]:
        if not self._accepting and self._clock.steady() >= self._accept_again:
            self._accept_while(len(self._connections) < self._most)
        found: list[Connection] = []
        for key, _ in self._selector.select(seconds):
            if key.data is None:
                self._accept()
            else:
                found.append(key.data)
        return found + self._idlers(found)

    def _accept(self) -> None:
        while len(self._connections) < self._most:
            try:
                peer, where = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:  # too many open files: those that wait are taken later
                logger.warning("Cannot accept connections on %s for now: %s", self.address, error)
                self._accept_again = self._clock.steady() + _ACCEPT_PAUSE
                break
            peer.setblocking(False)
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # quiet ones may stay, dead ones not
            self._accepted += 1
            split = f"{Address(where[0], where[1])}#{self._accepted}"
            connection = Connection(peer, split, self._buffers(), self._clock.steady())
            self._connections[connection] = None
            self._selector.register(peer, selectors.EVENT_READ, connection)
        self._accept_while(False)

    def _accept_while(self, accepting: bool) -> None:
        if accepting and not self._accepting:
            self._selector.register(self._socket, selectors.EVENT_READ)
        elif not accepting and self._accepting:
            self._selector.unregister(self._socket)
        self._accepting = accepting

    def _idlers(self, busy: list[Connection]) -> list[Connection]:
        """Connections that have not ended a line for too long and may not stay, now closed."""
        now = self._clock.steady()
        if self._idle is None or now - self._idle_checked < _IDLE_CHECK:
            return []
        self._idle_checked = now
        still = [c for c in self._connections if not (c.closed or c.has_lines() or c in busy)]
        idle = [c for c in still if now - c.last_line_at > self._idle]
        going = [c for c in idle if c.has_begun_line()]
        for connection in going:
            self._send_away(connection, f"did not end its line for {self._idle:g} s")
        if idle and not going and self._others_wait():
            going = [min(idle, key=lambda c: c.last_line_at)]
            self._send_away(going[0], f"ended no line for {self._idle:g} s while others wait for a place")
        return going

    def _others_wait(self) -> bool:
        """Whether somebody asks for a place and none is free, or about to be."""
        if len(self._connections) < self._most or any(c.closed for c in self._connections):
            return False
        with selectors.DefaultSelector() as selector:
            selector.register(self._socket, selectors.EVENT_READ)
            return bool(selector.select(0))

    @staticmethod
    def _send_away(connection: Connection, reason: str) -> None:
        logger.warning("%s is closed: it %s (idle_timeout)", connection.split, reason)
        connection.closed = connection.broken = True

    def lose(self, connection: Connection) -> bool:
        self._selector.unregister(connection.socket)
        connection.socket.close()
        del self._connections[connection]
        return True

    def waiting(self) -> Wait:
        return Wait(0.0, f"{self.address}: {len(self._connections)} connections, no new rows")

    def close(self) -> None:
        for connection in self._connections:
            connection.socket.close()
        self._socket.close()
        self._selector.close()


class Dialer(Peers):
    """Connects to a server, with growing pauses while it is away; one split over all its connections."""

    def __init__(
        self,
        address: Address,
        split: str,
        end_on_close: bool,
        give_up_after: float | None,
        buffers: BufferMaker,
        clock: Clock,
        random: Random,
    ) -> None:
        self.address = address
        self._split = split
        self._end_on_close = end_on_close
        self._give_up_after = give_up_after
        self._buffers = buffers
        self._clock = clock
        self._backoff = Backoff(clock, random)
        self._selector = selectors.DefaultSelector()
        self._dialling: socket.socket | None = None
        self._dialled_at = 0.0
        self._away_since = clock.steady()
        self._connection: Connection | None = None
        self._error: ConnectorError | None = None

    def readable(self, seconds: float) -> list[Connection]:
        if self._error is not None:
            raise self._error
        if self._connection is not None:
            found = [key.data for key, _ in self._selector.select(seconds)]
            if found:
                self._backoff.reset()
            return found
        if self._dialling is None and self._backoff.due():
            self._dial()
        if self._dialling is not None and self._dialled(self._dialling, seconds):
            return self.readable(0.0)
        if self._error is not None:
            raise self._error
        return []

    def _dial(self) -> None:
        self._dialled_at = self._clock.steady()
        try:
            family, where = self._backoff.choice(self.address.resolve())
            self._dialling = socket.socket(family, socket.SOCK_STREAM)
            self._dialling.setblocking(False)
            code = self._dialling.connect_ex(where)
        except OSError as error:
            self._failed(str(error.strerror or error))
            return
        if code not in (0, errno.EINPROGRESS, errno.EWOULDBLOCK):
            self._failed(os.strerror(code))
            return
        self._selector.register(self._dialling, selectors.EVENT_WRITE)

    def _dialled(self, sock: socket.socket, seconds: float) -> bool:
        """Whether the connection stands by now."""
        if not self._selector.select(seconds):
            if self._clock.steady() - self._dialled_at > CONNECT_SECONDS:
                self._failed(f"no answer within {CONNECT_SECONDS:g} s")
            return False
        if code := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._failed(os.strerror(code))
            return False
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._connection = Connection(sock, self._split, self._buffers(), self._clock.steady())
        self._dialling = None
        self._selector.modify(sock, selectors.EVENT_READ, self._connection)
        return True

    def _failed(self, reason: str) -> None:
        if self._dialling is not None:
            if self._dialling.fileno() in self._selector.get_map():
                self._selector.unregister(self._dialling)
            self._dialling.close()
            self._dialling = None
        self._backoff.failed(f"{self.address} cannot be reached: {reason}")
        away = self._clock.steady() - self._away_since
        if self._give_up_after is not None and away >= self._give_up_after:
            self._error = ConnectorError(
                f"{self._backoff.reason} (for {away:.1f} s)",
                hint="start the server, correct the address, or raise give_up_after",
            )

    def lose(self, connection: Connection) -> bool:
        self._selector.unregister(connection.socket)
        connection.socket.close()
        self._connection = None
        self._away_since = self._clock.steady()
        if not self._end_on_close:
            self._backoff.failed(f"{self.address} closed the connection")
        elif connection.broken:
            self._error = ConnectorError(f"The connection to {self.address} broke off before its end")
        else:
            self.exhausted = True
        return self.exhausted

    def waiting(self) -> Wait:
        if self._connection is not None:
            return Wait(0.0, f"{self.address}: no new rows")
        if self._dialling is not None:
            return Wait(0.0, f"connecting to {self.address}")
        pause = self._backoff.left()
        return Wait(pause, f"{self._backoff.reason}; next attempt in {pause:.1f} s")

    def close(self) -> None:
        for sock in (self._dialling, self._connection and self._connection.socket):
            if sock:
                sock.close()
        self._selector.close()
