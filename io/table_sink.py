"""Tables of SQLite, DuckDB and PostgreSQL: rows and checkpoint id in one transaction, so exactly once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

import polars as pl

from unistream.durations import Duration, microseconds
from unistream.errors import ConnectorError, InvalidQuery, InvalidSettings, StateError
from unistream.expressions.schema import Changes, StreamSchema
from unistream.io.base import Sink, Token, Writer, WriterContext
from unistream.io.table_database import TAKERS, Connection, Database, check_columns, check_names, coarse_keys
from unistream.io.table_rows import (
    StagedRows,
    changes_by_key,
    forget,
    moved_to,
    pieces_by_key,
    staged_folder,
    staged_rows,
)
from unistream.io.table_values import check_whole_microseconds
from unistream.location import user_location

Mode = Literal["append", "error", "overwrite"]
MODES = ("append", "error", "overwrite")

DATABASES = {
    "sqlite": ("unistream.io.table_sqlite", "SqliteDatabase"),
    "duckdb": ("unistream.io.table_duckdb", "DuckDatabase"),
    "postgres": ("unistream.io.table_postgres", "PostgresDatabase"),
    "postgresql": ("unistream.io.table_postgres", "PostgresDatabase"),
}
"""What the scheme of a URL names."""

BUFFER_BYTES = 64 << 20
"""Rows beyond this are moved from memory to the staging folder before their checkpoint."""

_TO_BE_REPLACED = "to be replaced"


@dataclass(frozen=True)
class TableSink(Sink):
    """Writes rows to `table` of the database at `url`; the table is made when it is not there.

    URLs are `sqlite:///relative.db` or `sqlite:////absolute.db`, `duckdb:///...` and
    `postgresql://user@host/database`. `table` may name a schema: `"sales.orders"`.

    Without `key` rows are added. With it a row takes the place of the one with the same key, and a stream
    that updates deletes what it takes back; streams that update by a key (aggregates) have theirs already.
    Columns of the table that the stream does not have keep their values. An index on the key, which a new
    table gets (DuckDB needs none), makes that fast.

    Rows of a checkpoint are staged durably, in the checkpoint itself or in files under `staging`, and come
    into the table in one transaction together with the id of the checkpoint (table
    `_unistream_commits`): committed again, they are skipped. Without checkpoints they come at the end of a
    bounded job, else every `max_age`.

    | Polars | SQLite | DuckDB | PostgreSQL |
    |---|---|---|---|
    | integers | INTEGER | TINYINT to UBIGINT | SMALLINT to BIGINT, UInt64 NUMERIC(20) |
    | Float32, Float64 | REAL | FLOAT, DOUBLE | REAL, DOUBLE PRECISION |
    | Decimal | TEXT | DECIMAL | NUMERIC |
    | String, Categorical, Enum | TEXT | VARCHAR | TEXT |
    | Binary, Boolean | BLOB, BOOLEAN | BLOB, BOOLEAN | BYTEA, BOOLEAN |
    | Date, Time | TEXT | DATE, TIME | DATE, TIME |
    | Datetime, with zone | TEXT, in UTC | TIMESTAMP, TIMESTAMPTZ | TIMESTAMP, TIMESTAMPTZ |
    | Duration | INTEGER (microseconds) | BIGINT | BIGINT |
    | List, Array, Struct | TEXT (JSON) | their own | JSONB |

    SQLite has no NaN: it becomes NULL there, in keys too. Moments have microseconds, but for DuckDB's own;
    keys that are finer are an error. Names of columns that differ in case alone are one in SQLite and DuckDB.
    """

    url: str
    table: str
    key: str | Sequence[str] = ()
    mode: Mode = "append"
    max_age: Duration = "1s"
    staging: str | Path | None = None

    name = "table"

    def __post_init__(self) -> None:
        key = (self.key,) if isinstance(self.key, str) else tuple(self.key)
        object.__setattr__(self, "key", key)
        if self.mode not in MODES:
            raise InvalidSettings.from_unknown("mode", str(self.mode), MODES, user_location())
        if not self.table or not all(self.table.split(".")):
            raise InvalidQuery(f"{self.table!r} cannot name a table", user_location(), 'as in "orders"')
        _ = self.max_age_micros, self.database  # both check what they are given

    @property
    def database(self) -> Database:
        """What the URL names."""
        return database_of(self.url)

    @property
    def max_age_micros(self) -> int:
        """How long rows may wait in a job without checkpoints."""
        return microseconds(self.max_age, "max_age")

    def __repr__(self) -> str:
        return f"TableSink({self.database.place!r}, {self.table!r})"

    @property
    def accepts(self) -> frozenset[Changes]:
        """All: what updates needs a key, which `check` sees to."""
        return frozenset(Changes)

    @property
    def promise(self) -> str:
        """Rows and the id of their checkpoint are one transaction."""
        return "exactly once"

    @property
    def folders(self) -> tuple[str, ...]:
        """Where rows wait for their commit."""
        return (str(self._staging),)

    def check(self, schema: StreamSchema) -> None:
        """Refuse keys that are not there, updates without one, and names that are one for the database."""
        if self.database.folds_names:
            check_names(schema.columns.names())
        for name in self.key:
            if name not in schema.columns:
                raise InvalidQuery.from_missing_column(name, schema.columns, "sink_table", user_location())
        if schema.changes is Changes.RETRACT and not self.key:
            raise InvalidQuery(
                "The stream takes rows back, and a table needs a key to find them",
                user_location(),
                "name the columns that tell rows apart: key=[...]",
            )
        if schema.changes is Changes.UPSERT and self.key and set(self.key) != set(schema.key):
            raise InvalidQuery(
                f"The stream updates rows by {list(schema.key)}, not by {list(self.key)}",
                user_location(),
                "leave key= out",
            )
        if schema.changes is Changes.UPSERT and not schema.key:
            raise InvalidQuery(
                "The stream updates rows by a key that was dropped",
                user_location(),
                "keep the key columns in the select before",
            )

    def key_of(self, schema: StreamSchema) -> list[str]:
        """The columns by which rows are found."""
        return list(self.key or schema.key)

    def prepare_target(self, restored: bool) -> None:
        """See that the database answers; with `mode` "error" that the table holds nothing."""
        with self.database.session("connecting") as connection:
            there = bool(connection.columns(self.table))
            if restored or not there:
                return
            if self.mode == "error" and connection.has_rows(self.table):
                raise ConnectorError(
                    f"Table {self.table!r} of {self.database.place} holds rows already",
                    user_location(),
                    'mode="append" adds to it, mode="overwrite" replaces it; or name another table',
                )
            if self.mode == "overwrite":
                # Noted, not done: readers see the old rows until the first commit brings new ones.
                connection.make_commits()
                with connection.transaction():
                    connection.note_commit(self._replacing, 0, 0)

    def open(self, context: WriterContext) -> Writer:
        """Make the table or compare it with the stream, then take rows."""
        key = self.key_of(context.schema)
        with self.database.session("preparing the table") as connection:
            self._check_table(connection, context.schema.columns, key)
            if context.checkpoints or self.mode == "overwrite":
                connection.make_commits()
            last = connection.last_commit(context.job_id, context.subtask) if context.checkpoints else None
            coarse = coarse_keys(connection.columns(self.table), context.schema.columns, key)
        return _TableWriter(self, context, last, coarse)

    def commit(self, tokens: Sequence[Token]) -> None:
        """Bring the rows of these checkpoints into the table, those that are not there yet."""
        homes: dict[TableSink, list[Token]] = {}
        for token in sorted(tokens, key=lambda token: int(token["checkpoint"])):
            homes.setdefault(self._home(token), []).append(token)
        for home, its in homes.items():
            with home.database.session("committing rows") as connection:
                for token in its:
                    home._commit(connection, token)
            for token in its:
                for place in home._places(token):
                    forget(place)

    def recover(self, tokens: Sequence[Token], context: WriterContext) -> None:
        """Commit the rows of the restored checkpoint, if the crash came before that; drop what came later."""
        if tokens:
            with self.database.session("preparing the table") as connection:
                connection.make_commits()
        homes = {self, *map(self._home, tokens)}
        self.commit(tokens)
        for home in homes:
            home.abort(context)

    def abort(self, context: WriterContext) -> None:
        """Remove what was staged and will not be committed."""
        self.staged(context).clear()

    def describe(self) -> dict[str, str]:
        """What `explain` prints of it."""
        shown = {"database": self.database.place, "table": self.table, "mode": self.mode}
        if self.key:
            shown["key"] = ", ".join(self.key)
        return shown

    def staged(self, context: WriterContext) -> StagedRows:
        """Where the rows of a writer lie until they are committed."""
        return StagedRows(self._staged(context.job_id, context.subtask))

    def _staged(self, job_id: str, subtask: int) -> Path:
        return staged_folder(self._staging, job_id, subtask)

    @property
    def _staging(self) -> Path:
        base = self.database.staging if self.staging is None else Path(self.staging)
        return base.absolute()

    def _places(self, token: dict[str, Any]) -> list[dict[str, Any]]:
        """Where the rows of a token lie; files beside a database that was moved have moved with it."""
        folder = self._staged(token["job"], int(token["subtask"]))
        return [moved_to(folder, place) for place in token["rows"]]

    @property
    def _replacing(self) -> str:
        """Under this name is noted that the rows of the table go with the first commit."""
        return f"{_TO_BE_REPLACED}: {self.table}"

    def _home(self, token: dict[str, Any]) -> TableSink:
        """The table a token is committed in: this one, or that of a program that wrote somewhere else."""
        if "database" not in token:  # older versions did not name it
            return self
        address, table = str(token["database"]), str(token["table"])
        if (address, table) == (self.database.address, self.table):
            return self
        url = self.url if self._continues(token) else self.database.way_to(address)
        if url is None:
            raise StateError(
                f"What a checkpoint left is for table {table!r} of {address}, which is not there",
                hint="bring that database back, or restore an earlier checkpoint and write to a new one",
            )
        home = replace(self, url=url, table=table, mode=token["mode"])
        return home if home._is_there() else replace(home, table=self.table)  # it was renamed

    def _continues(self, token: dict[str, Any]) -> bool:
        """Whether a token was made for this database, under whatever name: it knows the checkpoint before."""
        if token["database"] == self.database.address:
            return True
        with self.database.session("looking for the rows of a checkpoint") as connection:
            last = connection.last_commit(token["job"], int(token["subtask"]))
        return last is not None and last in (token["after"], token["checkpoint"])

    def _is_there(self) -> bool:
        with self.database.session("looking for the table") as connection:
            return bool(connection.columns(self.table))

    def _check_table(self, connection: Connection, columns: pl.Schema, key: Sequence[str]) -> None:
        for name, kind in columns.items():
            connection.declaration(name, kind)
        found = connection.columns(self.table)
        if found:
            check_columns(self.table, found, columns, TAKERS)
        else:
            connection.create(self.table, columns, key)

    def _commit(self, connection: Connection, token: dict[str, Any]) -> None:
        job, subtask, checkpoint = token["job"], int(token["subtask"]), int(token["checkpoint"])
        kept = bool(token["kept"])
        with connection.transaction():
            if kept and checkpoint <= (connection.last_commit(job, subtask) or 0):
                return
            if self.mode == "overwrite" and connection.last_commit(self._replacing, 0) is not None:
                connection.clear(self.table)
                connection.forget_commit(self._replacing, 0)
            for rows in self._pieces(connection, token):
                self._apply(connection, rows, token["key"], Changes(token["changes"]))
            if kept:
                connection.note_commit(job, subtask, checkpoint)

    def _pieces(self, connection: Connection, token: dict[str, Any]) -> Iterator[pl.DataFrame]:
        """The rows of a token, in pieces that can be applied one after the other."""
        places, key = self._places(token), token["key"]

        def read() -> Iterator[pl.DataFrame]:
            return (connection.with_stored_keys(staged_rows(place), key) for place in places)

        takes_back = Changes(token["changes"]) is Changes.RETRACT
        return pieces_by_key(read, len(places), key) if takes_back else read()

    def _apply(self, connection: Connection, rows: pl.DataFrame, key: list[str], changes: Changes) -> None:
        if not key:
            connection.insert(self.table, rows)
            return
        gone, put = changes_by_key(rows, key, changes)
        connection.delete_by_key(self.table, gone, key)
        connection.put_by_key(self.table, put, key)


class _TableWriter(Writer):
    """Gathers rows in memory, and in files when they are many."""

    def __init__(self, sink: TableSink, context: WriterContext, last: int | None, coarse: list[str]) -> None:
        self._sink = sink
        self._context = context
        self._address = sink.database.address
        self._last, self._coarse = last, coarse
        self._staged = sink.staged(context)
        self._frames: list[pl.DataFrame] = []
        self._nbytes = self._pieces = 0
        self._rows: list[dict[str, Any]] = []
        self._waiting_since: int | None = None
        self._replaces = sink.mode == "overwrite"

    def write(self, frame: pl.DataFrame) -> None:
        if frame.is_empty():
            return
        for name in self._coarse:  # told before a checkpoint holds the rows
            check_whole_microseconds(frame[name])
        self._frames.append(frame)
        self._nbytes += int(frame.estimated_size())
        if self._nbytes >= BUFFER_BYTES:
            self._keep()

    def due(self, now: int) -> bool:
        if not self._frames and not self._rows:
            return False
        if self._waiting_since is None or now < self._waiting_since:  # the clock may have been put back
            self._waiting_since = now
        return now - self._waiting_since >= self._sink.max_age_micros

    def prepare(self, checkpoint_id: int) -> Token | None:
        self._keep()
        if not self._rows and not self._replaces:
            return None
        self._staged.sync()
        rows, self._rows = self._rows, []
        self._waiting_since, self._replaces = None, False
        after, self._last = self._last, checkpoint_id
        return {
            "database": self._address,
            "table": self._sink.table,
            "mode": self._sink.mode,
            "after": after,
            "job": self._context.job_id,
            "subtask": self._context.subtask,
            "checkpoint": checkpoint_id,
            "kept": self._context.checkpoints,
            "key": self._sink.key_of(self._context.schema),
            "changes": self._context.schema.changes.value,
            "rows": rows,
        }

    def _keep(self) -> None:
        if self._frames:
            # A name that an earlier attempt used may be used again: its file was of no checkpoint.
            self._pieces += 1
            self._rows.append(self._staged.keep(self._frames, str(self._pieces)))
            self._frames, self._nbytes = [], 0

    def close(self) -> None:
        self._frames = []


def database_of(url: str) -> Database:
    """The database that a URL names; the client of a server is imported here.

    >>> database_of("sqlite:///orders.db").name
    'sqlite'
    """
    scheme = urlsplit(url).scheme.partition("+")[0]
    if "://" not in url:
        hint = f"for a file write sqlite:///{url} or duckdb:///{url}"
        raise InvalidSettings(f"Unknown database {url!r}", user_location(), hint)
    if scheme not in DATABASES:
        raise InvalidSettings.from_unknown("database", scheme or url, DATABASES, user_location())
    module, kind = DATABASES[scheme]
    made = getattr(import_module(module), kind)
    if scheme.startswith("postgres"):
        found: Database = made(url)
    else:
        path = unquote(url.partition("://")[2]).removeprefix("/")
        if not path or path == ":memory:":
            hint = f"as in {scheme}:///orders.db; a database in memory would end with each commit"
            raise InvalidSettings(f"{url!r} names no file", user_location(), hint)
        found = made(str(Path(path).expanduser().absolute()))
    return found
