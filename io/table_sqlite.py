"""SQLite, from the standard library."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from unistream.errors import ConnectorError, DataError
from unistream.io.table_database import (
    INCOMING,
    Column,
    Connection,
    Database,
    family_of,
    index_of,
    names,
    quoted,
    quoted_table,
)
from unistream.io.table_values import as_json, as_microseconds, as_text

BUSY_SECONDS = 30.0
"""How long to wait for another process that writes."""

_TYPES = {
    "integer": "INTEGER",
    "float": "REAL",
    "boolean": "BOOLEAN",
    "binary": "BLOB",
}


@dataclass(frozen=True, slots=True)
class SqliteDatabase(Database):
    """A file. Dates, times, decimals and nested values are kept as text, durations as microseconds."""

    path: str
    name = "sqlite"
    folds_names = True

    def connect(self) -> Connection:
        return _SqliteConnection(
            sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        )

    @property
    def place(self) -> str:
        return self.path

    @property
    def staging(self) -> Path:
        return Path(self.path + ".unistream-staging")

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        return (sqlite3.Error, OverflowError)

    def failed(self, error: Exception, what: str) -> Exception:
        message = f"SQLite {self.path}: {what} failed: {error}"
        if isinstance(error, OverflowError):
            return DataError(message, hint="SQLite's integers have 64 bits with a sign; cast to text")
        if isinstance(error, (sqlite3.IntegrityError, sqlite3.DataError)):
            return DataError(message, hint="the table has a constraint that the rows break")
        busy = "locked" in str(error) or "busy" in str(error)
        hint = "another process holds the file" if busy else "check the path and who may write there"
        return ConnectorError(message, hint=hint, retry_after=1.0)


class _SqliteConnection(Connection):
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        # To write is declared at once: two readers that both go on to write would block each other.
        return self._connection.execute("BEGIN IMMEDIATE" if sql == "BEGIN" else sql, parameters).fetchall()

    def columns(self, table: str) -> dict[str, Column]:
        *schema, bare = table.split(".")
        prefix = f"{quoted(schema[0])}." if schema else ""
        found = self.execute(f"PRAGMA {prefix}table_info({quoted(bare)})")
        return {
            name: Column(name, declared or "untyped", None, bool(required) and default is None and not key)
            for _, name, declared, required, default, key in found
        }

    def insert(self, table: str, frame: pl.DataFrame) -> None:
        marks = ", ".join("?" * frame.width)
        sql = f"INSERT INTO {quoted_table(table)} ({names(frame.columns)}) VALUES ({marks})"
        plain = frame.select(_plain(name, kind) for name, kind in frame.schema.items())
        self._connection.executemany(sql, plain.iter_rows())

    def column_type(self, dtype: pl.DataType) -> str | None:
        if isinstance(dtype, (pl.Object, pl.Int128)):
            return None
        return _TYPES.get(family_of(dtype), "TEXT")

    def create_index(self, table: str, key: Sequence[str]) -> None:
        *schema, bare = table.split(".")  # which schema is said of the index, not of its table
        index = quoted_table(".".join([*schema, index_of(bare)]))
        self.execute(f"CREATE UNIQUE INDEX IF NOT EXISTS {index} ON {quoted(bare)} ({names(key)})")

    def with_stored_keys(self, rows: pl.DataFrame, key: Sequence[str]) -> pl.DataFrame:
        floats = [name for name in key if rows.schema[name].is_float()]
        return rows.with_columns(pl.col(floats).fill_nan(None))  # it stores NaN as NULL

    def delete_by_key(self, table: str, rows: pl.DataFrame, key: Sequence[str]) -> None:
        target = quoted_table(table)
        for nulls in (False, True):
            part = _with_nulls(rows.select(key), nulls)
            if part.height:
                self._bring(part)
                # Each key is looked up in the table's index: CROSS keeps the order of the two.
                found = (
                    f"SELECT {target}.rowid FROM {quoted(INCOMING)} AS i CROSS JOIN {target} "
                    f"WHERE {self.match(table, key, nulls)}"
                )
                self.execute(f"DELETE FROM {target} WHERE rowid IN ({found})")

    def match(self, table: str, key: Sequence[str], nulls: bool) -> str:
        same = "IS" if nulls else "="
        target = quoted_table(table)
        return " AND ".join(f"{target}.{quoted(name)} {same} i.{quoted(name)}" for name in key)

    def close(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()


def _plain(name: str, kind: pl.DataType) -> pl.Expr:
    if isinstance(kind, pl.Duration):
        return as_microseconds(name)
    match family_of(kind):
        case "nested":
            return as_json(name)
        case "date" | "time" | "timestamp" | "decimal":
            return as_text(name, kind)
        case "text":
            return pl.col(name).cast(pl.String)
    return pl.col(name)


def _with_nulls(rows: pl.DataFrame, nulls: bool) -> pl.DataFrame:
    has_null = pl.any_horizontal(pl.all().is_null())
    return rows.filter(has_null if nulls else ~has_null)
