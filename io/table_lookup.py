"""Rows of a database table by key: many keys in one question, answered by SQLite or DuckDB."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from unistream.clock import Clock
from unistream.errors import ConnectorError, InvalidQuery

_MOST_VALUES = 20_000
"""SQLite takes at most 32,766 parameters."""

_SQLITE_TYPES = {
    "INT": pl.Int64(),
    "CHAR": pl.String(),
    "CLOB": pl.String(),
    "TEXT": pl.String(),
    "BLOB": pl.Binary(),
    "REAL": pl.Float64(),
    "FLOA": pl.Float64(),
    "DOUB": pl.Float64(),
    "BOOL": pl.Boolean(),
    "NUMERIC": pl.Float64(),
    "DEC": pl.Float64(),
    "DATE": pl.String(),
    "TIME": pl.String(),
}
"""By the part of a declared type that decides, in order, as SQLite itself does it."""

SCHEMES = ("sqlite", "duckdb")


@dataclass(frozen=True, slots=True)
class TableLookup:
    """A table of a database file: `sqlite:///shop.db` or `duckdb:///shop.duckdb`."""

    url: str
    table: str
    where: str | None = None

    @property
    def scheme(self) -> str:
        """sqlite or duckdb."""
        return self.url.partition("://")[0]

    @property
    def path(self) -> Path:
        """The database file: three slashes for a relative path, four for an absolute one."""
        return Path(self.url.partition("://")[2].removeprefix("/"))

    @property
    def text(self) -> str:
        """For `explain`."""
        return f"table {self.table!r} of {self.url}"

    def columns(self) -> pl.Schema:
        """Names and types of its columns."""
        asker = self.open(None)
        try:
            return asker.columns()
        finally:
            asker.close()

    def open(self, clock: Clock | None) -> _SqliteAsker | _DuckdbAsker:
        """A connection that only reads."""
        if self.scheme not in SCHEMES:
            hint = "sqlite:///shop.db and duckdb:///shop.duckdb are; for others pass a function"
            raise InvalidQuery(f"{self.url!r} is no database that lookup knows", self.where, hint)
        if not self.path.exists():
            hint = "sqlite:///relative.db has three slashes, sqlite:////absolute.db four"
            raise ConnectorError(f"There is no database file {str(self.path)!r}", self.where, hint)
        return _SqliteAsker(self) if self.scheme == "sqlite" else _DuckdbAsker(self)


class _SqliteAsker:
    def __init__(self, config: TableLookup) -> None:
        self._config = config
        self._table = _quoted(config.table)
        # Opened and used by the thread of the operator, but perhaps closed by another.
        uri = f"{config.path.absolute().as_uri()}?mode=ro"
        self._connection = sqlite3.connect(uri, uri=True, check_same_thread=False)
        self._types: pl.Schema | None = None

    def columns(self) -> pl.Schema:
        """Types as declared; a column declared as nothing SQLite knows is text."""
        rows = self._run(f"PRAGMA table_info({self._table})", [])
        if not rows:
            names = [row[0] for row in self._run("SELECT name FROM sqlite_master WHERE type = 'table'", [])]
            raise _no_table(self._config, names)
        return pl.Schema({name: _sqlite_type(declared) for _, name, declared, *_ in rows})

    def ask(self, keys: pl.DataFrame) -> pl.DataFrame:
        """All rows of these keys."""
        if self._types is None:
            self._types = self.columns()
        names = ", ".join(_quoted(name) for name in keys.columns)
        found: list[Any] = []
        for part in keys.iter_slices(_MOST_VALUES // keys.width):
            one = "(" + ", ".join("?" * keys.width) + ")"
            values = ", ".join([one] * part.height)
            text = f"SELECT * FROM {self._table} WHERE ({names}) IN (VALUES {values})"
            found += self._run(text, [value for row in part.rows() for value in row])
        return pl.DataFrame(found, schema=self._types, orient="row", strict=False)

    def _run(self, text: str, values: Sequence[Any]) -> list[Any]:
        try:
            return self._connection.execute(text, values).fetchall()
        except sqlite3.Error as error:
            raise ConnectorError(
                f"{self._config.text}: {error}", self._config.where, retry_after=1
            ) from error

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


class _DuckdbAsker:
    def __init__(self, config: TableLookup) -> None:
        import duckdb

        self._config = config
        self._error = duckdb.Error
        try:
            self._connection = duckdb.connect(str(config.path), read_only=True)
        except duckdb.Error as error:
            hint = "another process may hold it open for writing"
            raise ConnectorError(f"{config.text}: {error}", config.where, hint, retry_after=1) from error

    def columns(self) -> pl.Schema:
        """Types as Polars reads them."""
        names = [
            row[0] for row in self._connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()
        ]
        if self._config.table not in names:
            raise _no_table(self._config, names)
        return self._frame(f"SELECT * FROM {_quoted(self._config.table)} LIMIT 0").schema

    def ask(self, keys: pl.DataFrame) -> pl.DataFrame:
        """All rows of these keys."""
        self._connection.register("__keys", keys.to_arrow())
        names = ", ".join(_quoted(name) for name in keys.columns)
        return self._frame(
            f"SELECT t.* FROM {_quoted(self._config.table)} t SEMI JOIN __keys USING ({names})"
        )

    def _frame(self, text: str) -> pl.DataFrame:
        try:
            found = pl.from_arrow(self._connection.sql(text).to_arrow_table())
        except self._error as error:
            raise ConnectorError(
                f"{self._config.text}: {error}", self._config.where, retry_after=1
            ) from error
        assert isinstance(found, pl.DataFrame)
        return found

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def _sqlite_type(declared: str) -> pl.DataType:
    upper = declared.upper()
    return next((dtype for part, dtype in _SQLITE_TYPES.items() if part in upper), pl.String())


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _refused(config: TableLookup, error: Exception) -> ConnectorError:
    return ConnectorError(f"{config.text}: {error}", config.where, retry_after=1)


def _no_table(config: TableLookup, names: Sequence[str]) -> InvalidQuery:
    hint = f"it has {', '.join(sorted(names)) or 'none'}"
    return InvalidQuery(f"There is no table {config.table!r} in {config.url}", config.where, hint)
