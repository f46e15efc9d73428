"""What feeds the live job: a folder that fills and a TCP server that sends."""

from __future__ import annotations

import contextlib
import socket
import threading
from pathlib import Path

import polars as pl


class Server:
    """Sends lines to whoever connects, at a steady pace, from the first line each time."""

    def __init__(self, rows: pl.DataFrame, seconds: float) -> None:
        self._lines = rows.write_ndjson().encode().splitlines(keepends=True)
        self._pace = len(self._lines) / seconds
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._over = threading.Event()
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.connections = 0
        self.sent = 0
        """Lines of the connection that is open."""
        threading.Thread(target=self._accept, name="demo-server", daemon=True).start()

    @property
    def done(self) -> bool:
        """Whether the connection that is open has been sent everything."""
        return self.sent == len(self._lines)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while not self._over.is_set():
                peer, _ = self._listener.accept()
                self._send(peer)

    def _send(self, peer: socket.socket) -> None:
        self.connections += 1
        furthest, self.sent = self.sent, 0
        with peer, contextlib.suppress(OSError):
            while self.sent < len(self._lines) and not self._over.is_set():
                # What was sent before the break goes out at once, the rest at its pace.
                step = max(furthest - self.sent, int(self._pace / 100), 1)
                peer.sendall(b"".join(self._lines[self.sent : self.sent + step]))
                self.sent = min(self.sent + step, len(self._lines))
                self._over.wait(0.01)
            peer.settimeout(0.2)
            while not self._over.is_set():
                with contextlib.suppress(TimeoutError):
                    if not peer.recv(1):
                        return

    def close(self) -> None:
        """Hang up."""
        self._over.set()
        self._listener.close()


class Dropper:
    """Puts files into a folder one after the other, each whole under its name."""

    def __init__(self, sources: list[Path], folder: Path, seconds: float) -> None:
        self._sources = sources
        self._folder = folder
        self._pause = seconds / max(len(sources), 1)
        self._over = threading.Event()
        self.dropped = 0
        threading.Thread(target=self._drop, name="demo-files", daemon=True).start()

    @property
    def done(self) -> bool:
        """Whether all files are there."""
        return self.dropped == len(self._sources)

    def _drop(self) -> None:
        for source in self._sources:
            hidden = self._folder / f".{source.name}"
            hidden.write_bytes(source.read_bytes())
            hidden.rename(self._folder / source.name)
            self.dropped += 1
            if self._over.wait(self._pause):
                return

    def close(self) -> None:
        """Stop dropping."""
        self._over.set()
