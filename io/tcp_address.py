"""Network addresses as users write them, and how both ends of a connection use them."""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from unistream.clock import Clock, Random
from unistream.errors import ConnectorError, InvalidSettings
from unistream.location import user_location

logger = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
"""Seconds between the first attempts to connect, and between later ones."""
BACKLOG = 128
"""Connections that wait in the kernel to be accepted."""
_HINT = 'write "host:port", for example "127.0.0.1:9000" or "[::1]:9000"'

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Address:
    """A host and a port."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str, listen: bool) -> Address:
        """The address in `text`; to listen, the host may be left out and is then this machine alone.

        >>> Address.parse("example.org:9000", listen=False)
        Address(host='example.org', port=9000)
        >>> str(Address.parse(":9000", listen=True))
        '127.0.0.1:9000'
        """
        if not isinstance(text, str):
            raise InvalidSettings(f"Address {text!r} is not text", user_location(), _HINT)
        host, colon, port = text.strip().removeprefix("tcp://").rpartition(":")
        if not colon or not port:
            raise InvalidSettings(f"Address {text!r} has no port", user_location(), _HINT)
        if not (port.isascii() and port.isdigit()):
            raise InvalidSettings(
                f"Port {port!r} of address {text!r} is not a number", user_location(), _HINT
            )
        if not (0 if listen else 1) <= int(port) <= 65_535:
            problem = f"Port {port} of address {text!r} does not lie between 1 and 65535"
            raise InvalidSettings(problem, user_location(), _HINT)
        return cls(_host(host, text, listen), int(port))

    def resolve(self) -> list[tuple[socket.AddressFamily, tuple[str, int]]]:
        """The network addresses behind the name; raises `OSError` when it has none."""
        found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        return [(family, (str(where[0]), int(where[1]))) for family, _, _, _, where in found]

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _host(host: str, text: str, listen: bool) -> str:
    if host.startswith("[") and host.endswith("]"):
        return host[1:-1]
    if ":" in host:
        raise InvalidSettings(f"Address {text!r} has more than one port", user_location(), _HINT)
    if host == "*":
        hint = 'write "0.0.0.0:port" to listen on all networks: anybody who reaches them can then send rows'
        raise InvalidSettings(f"Address {text!r} has no host", user_location(), hint)
    if not host and not listen:
        raise InvalidSettings(f"Address {text!r} has no host", user_location(), _HINT)
    return host or LOOPBACK


class Backoff:
    """When to try again: after pauses that double, shortened by chance so that many do not come at once."""

    def __init__(self, clock: Clock, random: Random) -> None:
        self.reason = ""
        self._clock = clock
        self._random = random
        self._failures = 0
        self._attempts = 0
        self._next = clock.steady()

    def due(self) -> bool:
        """Whether it is time for another attempt."""
        return self._clock.steady() >= self._next

    def left(self) -> float:
        """Seconds until the next attempt."""
        return max(0.0, self._next - self._clock.steady())

    def failed(self, reason: str) -> None:
        """An attempt failed, or a connection was lost: said once, until the other side works again."""
        if not self._failures:
            logger.warning("%s; trying again", reason)
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(self._failures, 10))
        self._failures += 1
        self._next = self._clock.steady() + pause * (1 - self._random.random() / 2)
        self.reason = reason

    def reset(self) -> None:
        """The other side works: begin with short pauses next time."""
        self._failures = 0

    def choice(self, places: Sequence[T]) -> T:
        """Another one of several addresses at each attempt."""
        self._attempts += 1
        return places[(self._attempts - 1) % len(places)]


def listening_socket(address: Address) -> socket.socket:
    """A non-blocking socket that listens there; `ConnectorError` names the port when it cannot."""
    sock = None
    try:
        family, where = address.resolve()[0]
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(where)
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError as error:
        if sock is not None:
            sock.close()
        hints = {
            errno.EADDRINUSE: f"another program has port {address.port}: stop it, or choose another port",
            errno.EACCES: f"ports below 1024 need rights this process does not have: choose one above {1023}",
        }
        hint = hints.get(error.errno or 0, "choose an address of this machine")
        reason = error.strerror or error
        raise ConnectorError(
            f"Cannot listen on {address} (port {address.port}): {reason}", hint=hint
        ) from error
    return sock
