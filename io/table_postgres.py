"""PostgreSQL, by COPY; the one file that needs psycopg."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import polars as pl

from unistream.errors import ConnectorError, DataError, MissingDependency
from unistream.io.table_database import (
    INCOMING,
    Column,
    Connection,
    Database,
    family_of,
    names,
    quoted,
    quoted_table,
)
from unistream.io.table_values import as_json, as_microseconds, as_text

try:
    import psycopg
except ImportError as missing:
    raise MissingDependency.from_extra("A PostgreSQL table", "postgres") from missing

CONNECT_SECONDS = 10

_TYPES: dict[type[pl.DataType], str] = {
    pl.Int8: "SMALLINT",
    pl.Int16: "SMALLINT",
    pl.Int32: "INTEGER",
    pl.Int64: "BIGINT",
    pl.UInt8: "SMALLINT",
    pl.UInt16: "INTEGER",
    pl.UInt32: "BIGINT",
    pl.UInt64: "NUMERIC(20)",
    pl.Float32: "REAL",
    pl.Float64: "DOUBLE PRECISION",
    pl.Boolean: "BOOLEAN",
    pl.Binary: "BYTEA",
    pl.Date: "DATE",
    pl.Time: "TIME",
    pl.Duration: "BIGINT",
}

_FAMILIES = {
    "int2": "integer",
    "int4": "integer",
    "int8": "integer",
    "float4": "float",
    "float8": "float",
    "numeric": "decimal",
    "text": "text",
    "varchar": "text",
    "bpchar": "text",
    "bytea": "binary",
    "bool": "boolean",
    "date": "date",
    "timestamp": "timestamp",
    "timestamptz": "timestamp",
    "time": "time",
    "json": "nested",
    "jsonb": "nested",
}

_COLUMNS = """
SELECT a.attname, format_type(a.atttypid, a.atttypmod), t.typname,
       a.attnotnull AND NOT a.atthasdef AND a.attidentity = '' AND a.attgenerated = ''
FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
WHERE a.attrelid = to_regclass(%s) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""


@dataclass(frozen=True, slots=True)
class PostgresDatabase(Database):
    """A server by its URL. Nested values are JSONB, durations microseconds, moments have microseconds."""

    url: str
    name = "postgres"

    def connect(self) -> Connection:
        return _PostgresConnection(
            psycopg.connect(self.url, autocommit=True, connect_timeout=CONNECT_SECONDS)
        )

    @property
    def place(self) -> str:
        parts = urlsplit(self.url)
        host = parts.netloc.rpartition("@")[2]
        user = parts.username
        return urlunsplit((parts.scheme, f"{user}@{host}" if user else host, parts.path, "", ""))

    @property
    def address(self) -> str:
        return self.place

    def way_to(self, address: str) -> str | None:
        there, here = urlsplit(address), urlsplit(self.place)
        if (there.scheme, there.netloc) == (here.scheme, here.netloc):
            return urlunsplit(urlsplit(self.url)._replace(path=there.path))
        return Database.way_to(self, address)

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        return (psycopg.Error,)

    def failed(self, error: Exception, what: str) -> Exception:
        first = str(error).strip().splitlines()
        message = f"PostgreSQL {self.place}: {what} failed: {first[0] if first else type(error).__name__}"
        if isinstance(error, (psycopg.DataError, psycopg.IntegrityError)):
            return DataError(message, hint="the table has a type or a constraint that the rows break")
        if isinstance(error, psycopg.ProgrammingError):
            return ConnectorError(message, hint="check the rights of the user and the name of the schema")
        return ConnectorError(message, hint="check that the server runs and answers", retry_after=1.0)


class _PostgresConnection(Connection):
    placeholder = "%s"

    def __init__(self, connection: psycopg.Connection[tuple[Any, ...]]) -> None:
        self._connection = connection

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        # Without parameters a % in a name is just that.
        cursor = self._connection.execute(sql.encode(), parameters or None)
        return cursor.fetchall() if cursor.description else []

    def columns(self, table: str) -> dict[str, Column]:
        return {
            name: Column(name, declared, _FAMILIES.get(kind), required)
            for name, declared, kind, required in self.execute(_COLUMNS, (quoted_table(table),))
        }

    def insert(self, table: str, frame: pl.DataFrame) -> None:
        plain = frame.select(_plain(name, kind) for name, kind in frame.schema.items())
        # All text is quoted: nothing stands for null, and a lone \\. for the end.
        text = plain.write_csv(include_header=False, quote_style="non_numeric")
        sql = f"COPY {quoted_table(table)} ({names(frame.columns)}) FROM STDIN (FORMAT csv)"
        with self._connection.cursor() as cursor, cursor.copy(sql.encode()) as copy:
            copy.write(text.encode())

    def column_type(self, dtype: pl.DataType) -> str | None:
        if isinstance(dtype, (pl.Object, pl.Int128)):
            return None
        if isinstance(dtype, pl.Decimal):
            return f"NUMERIC({dtype.precision or 38},{dtype.scale})"
        if isinstance(dtype, pl.Datetime):
            return "TIMESTAMP" if dtype.time_zone is None else "TIMESTAMPTZ"
        if dtype.is_nested():
            return "JSONB"
        return _TYPES.get(type(dtype), "TEXT")

    def _bring(self, rows: pl.DataFrame) -> None:
        super()._bring(rows)
        self.execute(f"ANALYZE {quoted(INCOMING)}")  # so that a large table is not read to find a few rows

    def close(self) -> None:
        self._connection.close()


def _plain(name: str, kind: pl.DataType) -> pl.Expr:
    """As COPY reads it from CSV."""
    if isinstance(kind, pl.Duration):
        return as_microseconds(name)
    match family_of(kind):
        case "nested":
            return as_json(name)
        case "timestamp" | "time" | "date":
            return as_text(name, kind)
        case "binary":
            return pl.lit("\\x") + pl.col(name).bin.encode("hex")
        case "text":
            return pl.col(name).cast(pl.String)
    return pl.col(name)
