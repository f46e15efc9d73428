"""What came over a socket, kept in files until a checkpoint covers it."""

from __future__ import annotations

import fcntl
import logging
import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from zlib import crc32

from unistream.errors import ConnectorError, StateError
from unistream.io.line_buffer import Kind, Piece

logger = logging.getLogger(__name__)

SEGMENT_BYTES = 16 << 20
_HEADER = struct.Struct("<IBI")  # bytes of the piece, its kind, crc32 of the piece
_CHECK = struct.Struct("<I")  # crc32 of the header, which stands behind it
_HEADER_BYTES = _HEADER.size + _CHECK.size
_SUFFIX = ".spool1"


class Spool:
    """A log of pieces in segment files named by the offset they begin at.

    A piece is a header with checksums and its bytes. Offsets count from the first byte ever written and
    are positions of the source. Only the last segment can end in a torn piece, which is cut off when the
    spool is opened; any other damage is an error.
    """

    def __init__(self, folder: Path, resume: int | None) -> None:
        self._folder = folder
        self._lock = _locked(folder)
        try:
            self._starts = sorted(int(file.stem) for file in folder.glob(f"*{_SUFFIX}"))
            self.end = self._repair()
            self._begin_at(resume)
            self._file = self._opened(self._starts[-1])
        except BaseException:
            os.close(self._lock)
            raise
        self.unsynced = False

    def append(self, pieces: Sequence[Piece]) -> int:
        """Add the pieces; the offset behind them."""
        data = b"".join(_header(piece) + piece.data for piece in pieces)
        try:
            _write_all(self._file, data)
        except OSError as error:
            os.ftruncate(self._file, self.end - self._starts[-1])
            raise ConnectorError(
                f"Cannot write {len(data):,} bytes to the spool {self._folder}: {error.strerror}",
                hint="free space, or give another folder as spool=",
            ) from error
        self.end += len(data)
        self.unsynced = True
        if self.end - self._starts[-1] >= SEGMENT_BYTES:
            self._rotate()
        return self.end

    def replay(self) -> Iterator[tuple[Piece, int]]:
        """The pieces from the resume offset to the end, each with the offset behind it."""
        end = self.end
        for start in list(self._starts):
            for piece, behind in self._pieces(start, max(start, self._resume), complete=True):
                if behind > end:
                    return
                yield piece, behind

    def sync(self) -> None:
        """Make what was added survive a power failure."""
        os.fsync(self._file)
        self.unsynced = False

    def release(self, offset: int) -> None:
        """Remove the segments that lie wholly before `offset`."""
        while len(self._starts) > 1 and self._starts[1] <= offset:
            self._path(self._starts.pop(0)).unlink(missing_ok=True)

    def close(self) -> None:
        """Sync and let another process use the folder."""
        self.sync()
        os.close(self._file)
        os.close(self._lock)

    def _path(self, start: int) -> Path:
        return self._folder / f"{start:020d}{_SUFFIX}"

    def _rotate(self) -> None:
        self.sync()
        os.close(self._file)
        self._starts.append(self.end)
        self._file = self._opened(self.end)

    def _opened(self, start: int) -> int:
        """The segment, with its name in the folder made durable."""
        file = os.open(self._path(start), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        folder = os.open(self._folder, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)
        return file

    def _repair(self) -> int:
        """The offset behind the last whole piece; a torn one at the end is cut off."""
        for start, following in zip(self._starts, self._starts[1:], strict=False):
            if start + self._path(start).stat().st_size != following:
                raise _damaged(self._path(start), "it does not reach to the next segment")
        if not self._starts:
            return 0
        last = self._starts[-1]
        whole = last
        for _, behind in self._pieces(last, last, complete=False):
            whole = behind
        size = self._path(last).stat().st_size
        if last + size > whole:
            logger.warning("Cut a torn piece of %d bytes off %s", last + size - whole, self._path(last))
            os.truncate(self._path(last), whole - last)
        return whole

    def _begin_at(self, resume: int | None) -> None:
        first = self._starts[0] if self._starts else 0
        self._resume = first if resume is None else resume
        if self._resume < first or (resume and not self._starts):
            raise StateError(
                f"The checkpoint stands at byte {resume:,} of the spool {self._folder}, "
                f"which {f'begins at byte {first:,}' if self._starts else 'is empty'}",
                hint="resume from a newer checkpoint, or start afresh without one",
            )
        if self._resume > self.end:  # a power failure took bytes that the checkpoint has used already
            for start in self._starts:
                self._path(start).unlink()
            self._starts, self.end = [], self._resume
        if not self._starts:
            self._starts = [self.end]

    def _pieces(self, start: int, begin: int, complete: bool) -> Iterator[tuple[Piece, int]]:
        """Pieces of one segment from offset `begin`; a bad one ends it quietly only where it may be torn."""
        path = self._path(start)
        if not path.exists():
            return
        data = path.read_bytes()
        at = begin - start
        while at < len(data):
            body = at + _HEADER_BYTES
            header = data[at : body - _CHECK.size]
            whole = body <= len(data)
            sound = whole and _CHECK.unpack_from(data, body - _CHECK.size)[0] == _checksum(header)
            size, kind, checksum = _HEADER.unpack(header) if sound else (0, 0, 0)
            piece = data[body : body + size]
            if not sound or len(piece) < size or _checksum(piece) != checksum:
                nothing_behind = not data[body + size :].strip(b"\0")
                if complete or not nothing_behind:
                    raise _damaged(path, f"the piece at byte {at:,} is not what was written")
                return
            at = body + size
            yield Piece.of(Kind(kind), piece), start + at


def _header(piece: Piece) -> bytes:
    header = _HEADER.pack(len(piece.data), piece.kind, _checksum(piece.data))
    return header + _CHECK.pack(_checksum(header))


def _locked(folder: Path) -> int:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise ConnectorError(
            f"The spool {folder} is in use by another job",
            hint="stop that job, or give this one its own folder as spool=",
        ) from error
    return lock


def _write_all(file: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(file, rest) :]


def _checksum(data: bytes) -> int:
    return crc32(data, 1)  # not from 0, so that a page of zeros is no piece


def _damaged(path: Path, what: str) -> StateError:
    return StateError(
        f"The spool file {path} is damaged: {what}",
        hint="rows in it are lost; move the folder away to go on without them",
    )
