"""Lines over TCP as a source, from a server or from whoever connects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path

import polars as pl

from unistream.clock import fresh_random
from unistream.durations import Duration, seconds
from unistream.errors import InvalidSettings
from unistream.io.base import Chunk, Exhausted, Position, Reader, Replay, Request, Source, Wait
from unistream.io.format_base import (
    Decoded,
    Format,
    checked_policy,
    in_columns,
    joined,
    rejected_rows,
    unreadable,
)
from unistream.io.formats import CsvFormat, format_named
from unistream.io.frames import SchemaLike, as_schema
from unistream.io.line_buffer import Kind, LineBuffer, Piece
from unistream.io.tcp_address import Address
from unistream.io.tcp_connections import DRAIN_BYTES, Connection, Dialer, Listener
from unistream.io.tcp_spool import Spool
from unistream.location import user_location

_POLL_SECONDS = 0.05
_SYNC_SECONDS = 0.1
_REPLAY_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, init=False)
class TcpSource(Source):
    """Lines of NDJSON, CSV (without header) or text from a server, or with `listen` from all who connect.

    A row is handed on as soon as its line is whole. The last line of a connection needs no newline; one
    that a reset cuts off is an unreadable row. Lines beyond `max_line_bytes` are unreadable rows too and
    the next line is read again. Unreadable rows follow `on_error`.

    To connect (`listen=False`): a server that is away or closes is tried again after 0.1 to 5 s, for ever or
    for `give_up_after`; `on_close="end"` makes the source bounded, it ends when the server closes.

    To listen: at most `max_connections` are read at a time, others wait their turn. One that ends no line
    within `idle_timeout` is closed if it has begun one, or if others wait for its place. An address without
    host (":9000") is reached from this machine only; write "0.0.0.0:9000" to let others send. Each
    connection is a split with a watermark of its own.

    A socket cannot be read again: at most once. With `spool`, a folder of this job alone, bytes are kept in
    files before their rows go on, and removed when a checkpoint covers them: no row is lost when the
    process dies, and of the rows of the last 0.1 s some may be when the machine does. All connections are
    then one split.

    >>> source = TcpSource("127.0.0.1:9000", {"user": pl.String, "amount": pl.Int64})
    >>> source.bounded, source.replay.value
    (False, 'none')
    """

    address: Address
    format: Format
    listen: bool
    spool: Path | None
    on_error: str
    on_close: str
    max_line_bytes: int
    max_connections: int
    idle_timeout: float | None
    give_up_after: float | None

    name = "socket"

    def __init__(
        self,
        address: str,
        schema: SchemaLike | None = None,
        *,
        format: str | Format = "ndjson",
        listen: bool = False,
        spool: str | Path | None = None,
        on_error: str = "fail",
        on_close: str = "reconnect",
        max_line_bytes: int = 1 << 20,
        max_connections: int = 64,
        idle_timeout: Duration | None = 30.0,
        give_up_after: Duration | None = None,
    ) -> None:
        if on_close not in ("reconnect", "end"):
            raise InvalidSettings.from_unknown("on_close", on_close, ("reconnect", "end"), user_location())
        for what, value in (("max_line_bytes", max_line_bytes), ("max_connections", max_connections)):
            if value < 1:
                raise InvalidSettings(f"{what} must be at least 1, not {value}", user_location())
        idle_seconds = None if idle_timeout is None else seconds(idle_timeout, "idle_timeout")
        if idle_seconds is not None and idle_seconds <= 0:
            raise InvalidSettings(
                f"idle_timeout must be more than zero, not {idle_timeout!r}",
                user_location(),
                "None closes nobody",
            )
        fields = {
            "address": Address.parse(address, listen),
            "format": line_format(format, schema),
            "listen": listen,
            "spool": None if spool is None else Path(spool),
            "on_error": checked_policy(on_error),
            "on_close": on_close,
            "max_line_bytes": max_line_bytes,
            "max_connections": max_connections,
            "idle_timeout": idle_seconds,
            "give_up_after": None if give_up_after is None else seconds(give_up_after, "give_up_after"),
        }
        for name, checked in fields.items():
            object.__setattr__(self, name, checked)

    @property
    def bounded(self) -> bool:
        return not self.listen and self.on_close == "end"

    @property
    def replay(self) -> Replay:
        return Replay.NONE if self.spool is None else Replay.EXACT

    @property
    def folders(self) -> tuple[str, ...]:
        return () if self.spool is None else (str(self.spool),)

    @property
    def pushes(self) -> frozenset[str]:
        return frozenset({"columns"})

    def schema(self) -> pl.Schema:
        return self.format.columns

    def open(self, positions: Mapping[str, Position], request: Request) -> TcpReader:
        return TcpReader(self, positions, request)

    def describe(self) -> dict[str, str]:
        return {
            "address": f"{'listen on ' if self.listen else ''}{self.address}",
            "format": self.format.name,
            "delivery": "at most once" if self.spool is None else f"at least once, spool {self.spool}",
            "on_error": self.on_error,
        }


def line_format(format: str | Format, schema: SchemaLike | None) -> Format:
    """The format itself, or the one of that name; over a socket CSV has no header line."""
    if isinstance(format, Format):
        return format
    return format_named(format, None if schema is None else as_schema(schema))


class TcpReader(Reader):
    """Reads the sockets of one source; `address` is the one listened on, with its real port."""

    def __init__(self, source: TcpSource, positions: Mapping[str, Position], request: Request) -> None:
        self._source = source
        self._clock = request.clock
        self._format = source.format if request.columns is None else source.format.project(request.columns)
        self._columns = list(source.format.columns if request.columns is None else request.columns)
        self._split = str(source.address)
        resume = positions.get(self._split) if source.spool is not None else None
        offset: int | None = None if resume is None else int(resume[0])
        self._next_line = 1 if resume is None else int(resume[1])
        self._spool = None if source.spool is None else Spool(source.spool, offset)
        self._replay = None if self._spool is None else _Ahead(self._spool.replay())
        self._synced = self._clock.steady()
        self._scratch = bytearray(DRAIN_BYTES)
        self._waiting: dict[Connection, None] = {}
        try:
            self._peers = self._open_peers()
        except BaseException:
            if self._spool is not None:
                self._spool.close()
            raise
        self.address = self._peers.address

    def _open_peers(self) -> Listener | Dialer:
        source = self._source
        splits_rows = isinstance(source.format, CsvFormat)
        buffers = partial(
            LineBuffer, source.max_line_bytes, source.format.records_end if splits_rows else None
        )
        if source.listen:
            return Listener(source.address, source.max_connections, source.idle_timeout, buffers, self._clock)
        return Dialer(
            source.address,
            self._split,
            source.on_close == "end",
            source.give_up_after,
            buffers,
            self._clock,
            fresh_random(),
        )

    def poll(self, max_rows: int) -> Chunk | Wait | Exhausted:
        if self._replay is not None:
            pieces, offset = self._replay.take(max_rows)
            if pieces:
                return self._spooled(pieces, offset)
            self._replay = None
        self._sync()
        if self._peers.exhausted:
            return Exhausted()
        for connection in self._peers.readable(0.0 if self._waiting else _POLL_SECONDS):
            self._waiting[connection] = None
        for connection in list(self._waiting):
            del self._waiting[connection]
            chunk = self._read(connection, max_rows)
            if chunk is not None:
                return chunk
        return Exhausted() if self._peers.exhausted else self._peers.waiting()

    def _read(self, connection: Connection, max_rows: int) -> Chunk | None:
        if not connection.closed and not connection.has_lines():
            connection.receive(self._scratch)
        pieces = connection.take(max_rows, self._clock.steady())
        split_ended = False
        if connection.has_lines():
            self._waiting[connection] = None  # behind the others
        elif connection.closed:
            split_ended = self._peers.lose(connection)
        if self._spool is not None:
            ended = self._peers.exhausted
            return self._spooled(pieces, self._spool.append(pieces), ended) if pieces or ended else None
        if not pieces and not split_ended:
            return None
        first_line = connection.next_line
        connection.next_line += sum(piece.lines for piece in pieces)
        return self._chunk(connection.split, pieces, first_line, connection.next_line, split_ended)

    def _spooled(self, pieces: Sequence[Piece], offset: int, ended: bool = False) -> Chunk:
        first_line = self._next_line
        self._next_line += sum(piece.lines for piece in pieces)
        return self._chunk(self._split, pieces, first_line, [offset, self._next_line], ended)

    def _chunk(
        self, split: str, pieces: Sequence[Piece], first_line: int, position: Position, ended: bool
    ) -> Chunk:
        decoded = self._decoded(pieces, first_line)
        return Chunk(
            split,
            in_columns(decoded.frame, self._columns),
            position=position,
            nbytes=sum(len(piece.data) for piece in pieces),
            scanned_rows=decoded.rows,
            rejected=rejected_rows(decoded, self._source.on_error, self._source.name, split),
            ended=ended,
        )

    def _decoded(self, pieces: Sequence[Piece], line: int) -> Decoded:
        parts: list[Decoded] = []
        for kind, group in groupby(pieces, key=lambda piece: piece.kind):
            run = list(group)
            if kind is Kind.LINES:
                parts.append(self._format.decode(b"".join(piece.data for piece in run), first_line=line))
            else:
                parts += [self._given_up(kind, piece.data, line) for piece in run]
            line += sum(piece.lines for piece in run)
        return joined(parts, self._format.columns)

    def _given_up(self, kind: Kind, data: bytes, line: int) -> Decoded:
        if kind is Kind.TOO_LONG:
            reason = f"the line is longer than {self._source.max_line_bytes:,} bytes"
        else:
            reason = "the connection broke off in the middle of the line"
        return Decoded(pl.DataFrame(schema=self._format.columns), unreadable([(line, reason, data)]), 1)

    def _sync(self) -> None:
        now = self._clock.steady()
        if self._spool is not None and self._spool.unsynced and now - self._synced >= _SYNC_SECONDS:
            self._spool.sync()
            self._synced = now

    def acknowledge(self, positions: Mapping[str, Position]) -> None:
        if self._spool is not None and self._split in positions:
            self._spool.release(int(positions[self._split][0]))

    def close(self) -> None:
        self._peers.close()
        if self._spool is not None:
            self._spool.close()


class _Ahead:
    """Pieces of a spool, gathered into chunks of a useful size."""

    def __init__(self, pieces: Iterator[tuple[Piece, int]]) -> None:
        self._pieces = pieces

    def take(self, max_rows: int) -> tuple[list[Piece], int]:
        taken: list[Piece] = []
        offset = rows = nbytes = 0
        for piece, behind in self._pieces:
            taken.append(piece)
            offset = behind
            rows += piece.lines
            nbytes += len(piece.data)
            if rows >= max_rows or nbytes >= _REPLAY_BYTES:
                break
        return taken, offset
