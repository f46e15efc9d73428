"""The bytes of a file, plain or decompressed as they stream."""

from __future__ import annotations

import gzip
import io
import zlib
from abc import ABC, abstractmethod
from typing import IO, Any

from unistream.errors import ConnectorError, DataError

COMPRESSED = (".gz", ".zst")
"""Suffixes of files that are decompressed."""

BOMB_BYTES = 64 << 20
BOMB_RATIO = 1000
"""A file that gives more than `BOMB_BYTES` and is `BOMB_RATIO` times larger than itself is refused.

Real logs reach 20 to 200 times; gzip cannot exceed 1,032. Memory is bounded in any case.
"""


class ByteStream(ABC):
    """Bytes of one file from a place on. Raises `DataError` for what cannot be decompressed."""

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            self.file: IO[bytes] = open(path, "rb", buffering=0)  # noqa: SIM115, PTH123 (closed by `close`)
        except OSError as error:
            raise ConnectorError(f"Cannot read {path}: {error.strerror}") from error

    @abstractmethod
    def read(self, nbytes: int) -> bytes:
        """As many bytes as asked for; fewer only at the end."""

    def read_lines(self, nbytes: int) -> tuple[bytes, bool]:
        """About as many bytes, to the end of a line where that is easily found; whether they are the last."""
        data = self.read(nbytes)
        return data, len(data) < nbytes

    @abstractmethod
    def skip(self, nbytes: int) -> bytes:
        """Go `nbytes` on and give the last bytes before that place, as many as `KEPT_BEFORE`."""

    def close(self) -> None:
        """Give the file back."""
        self.file.close()


KEPT_BEFORE = 1024
"""Bytes before a position that tell whether the file is still the same."""


PEEK_BYTES = 64 << 10
"""How far before the end of a read a newline is looked for."""

LITTLE_LESS = 0.9
"""A read may be so much smaller than asked for."""


class PlainBytes(ByteStream):
    """A file as it is."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._last_read = 0

    def read(self, nbytes: int) -> bytes:
        return _read_fully(self.file, nbytes)

    def read_lines(self, nbytes: int) -> tuple[bytes, bool]:
        # Not a little more than the last time: the C library would find no room where those bytes were,
        # and take twice the memory in the end.
        if LITTLE_LESS * nbytes < self._last_read < nbytes:
            nbytes = self._last_read
        if nbytes > PEEK_BYTES:  # bytes are copied when a line has to be put together from two reads
            place = self.file.tell()
            self.file.seek(place + nbytes - PEEK_BYTES)
            nbytes -= len(self.file.read(PEEK_BYTES).rpartition(b"\n")[2])
            self.file.seek(place)
            self._last_read = nbytes
        return super().read_lines(nbytes)

    def skip(self, nbytes: int) -> bytes:
        self.file.seek(max(0, nbytes - KEPT_BEFORE))
        return self.read(min(nbytes, KEPT_BEFORE))


class CompressedBytes(ByteStream):
    """A gzip or zstd file, also of several parts; places count decompressed bytes."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._given = 0
        self._stream: Any
        if path.endswith(".gz"):
            self._stream = gzip.GzipFile(fileobj=self.file, mode="rb")
        else:
            import pyarrow as pa

            self._stream = pa.CompressedInputStream(pa.PythonFile(self.file, "r"), "zstd")

    def read(self, nbytes: int) -> bytes:
        try:
            data = _read_fully(self._stream, nbytes)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(
                f"{self.path} cannot be decompressed after {self._given} bytes: {error}",
                hint="the file is cut, damaged or still being written; replace it, or move it out of the way",
            ) from error
        self._given += len(data)
        if self._given > BOMB_BYTES and self._given > BOMB_RATIO * self.file.tell():
            raise DataError(
                f"{self.path} grows to more than {BOMB_RATIO} times its size when decompressed",
                hint="decompress it yourself if that is meant to be",
            )
        return data

    def skip(self, nbytes: int) -> bytes:
        before = b""
        while nbytes > 0:
            data = self.read(min(nbytes, 1 << 20))
            if not data:
                break
            nbytes -= len(data)
            before = (before + data)[-KEPT_BEFORE:]
        return before

    def close(self) -> None:
        self._stream.close()
        super().close()


def open_bytes(path: str) -> ByteStream:
    """The bytes of a file, decompressed when its name says so."""
    return CompressedBytes(path) if path.endswith(COMPRESSED) else PlainBytes(path)


def _read_fully(file: Any, nbytes: int) -> bytes:
    data = file.read(nbytes) or b""
    if len(data) == nbytes or not data:
        return bytes(data)
    parts = io.BytesIO()
    while data:
        parts.write(data)
        data = file.read(nbytes - parts.tell()) if parts.tell() < nbytes else b""
    return parts.getvalue()
