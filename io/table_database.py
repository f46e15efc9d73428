"""The contract of a database that takes rows, and the SQL that all of them understand."""

from __future__ import annotations

import string
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote, unquote

import polars as pl

from unistream.errors import InvalidQuery, nearest, some_of
from unistream.io.table_values import has_nanoseconds
from unistream.location import user_location

_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)

COMMITS = "_unistream_commits"
"""Table of the newest checkpoint of each subtask whose rows are in the database."""

INCOMING = "_unistream_incoming"
"""Temporary table of the rows of one commit."""

FILES = ("sqlite", "duckdb")
"""Databases that are a file each."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table that exists: `family` is what kind of values it takes, None when unknown.

    `required` says that a row without it is refused.
    """

    name: str
    declared: str
    family: str | None
    required: bool = False


class Connection(ABC):
    """An open database. Names are quoted and values passed beside the SQL, always."""

    placeholder: ClassVar[str] = "?"

    @abstractmethod
    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run one statement; its rows, if it has any."""

    @abstractmethod
    def columns(self, table: str) -> dict[str, Column]:
        """The columns of a table, in order; none when there is no such table."""

    @abstractmethod
    def insert(self, table: str, frame: pl.DataFrame) -> None:
        """Add rows as fast as the database can."""

    @abstractmethod
    def column_type(self, dtype: pl.DataType) -> str | None:
        """How a column of this type is declared; None for types that cannot be stored."""

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All of the body is done, or nothing."""
        self.execute("BEGIN")
        try:
            yield
        except BaseException:
            self.execute("ROLLBACK")
            raise
        self.execute("COMMIT")

    @abstractmethod
    def close(self) -> None:
        """Give it back."""

    def create(self, table: str, schema: pl.Schema, key: Sequence[str]) -> None:
        """Make a table for these columns, with an index on its key."""
        columns = ", ".join(f"{quoted(name)} {self.declaration(name, kind)}" for name, kind in schema.items())
        self.execute(f"CREATE TABLE IF NOT EXISTS {quoted_table(table)} ({columns})")
        if key:
            self.create_index(table, key)

    def create_index(self, table: str, key: Sequence[str]) -> None:
        """Rows are found by their key without reading the table."""
        index = quoted(index_of(table.rpartition(".")[2]))
        self.execute(f"CREATE UNIQUE INDEX IF NOT EXISTS {index} ON {quoted_table(table)} ({names(key)})")

    def declaration(self, name: str, kind: pl.DataType) -> str:
        """The type of a column, or an error that says that there is none."""
        declared = self.column_type(kind)
        if declared is None:
            raise InvalidQuery(
                f"Column {name!r} of type {kind} cannot be stored in a table",
                user_location(),
                f'cast or drop it: pl.col("{name}").cast(...)',
            )
        return declared

    def create_incoming(self, schema: pl.Schema) -> None:
        """An empty temporary table for the rows of one commit."""
        columns = ", ".join(f"{quoted(name)} {self.declaration(name, kind)}" for name, kind in schema.items())
        self.execute(f"DROP TABLE IF EXISTS {quoted(INCOMING)}")
        self.execute(f"CREATE TEMPORARY TABLE {quoted(INCOMING)} ({columns})")

    def has_rows(self, table: str) -> bool:
        """Whether a table that exists holds anything."""
        return bool(self.execute(f"SELECT 1 FROM {quoted_table(table)} LIMIT 1"))

    def clear(self, table: str) -> None:
        """Remove all rows."""
        self.execute(f"DELETE FROM {quoted_table(table)}")

    # Which checkpoints are in

    def make_commits(self) -> None:
        """The table of checkpoints, if it is not there."""
        self.execute(
            f"CREATE TABLE IF NOT EXISTS {quoted(COMMITS)} "
            "(job_id TEXT, subtask INTEGER, checkpoint_id BIGINT, PRIMARY KEY (job_id, subtask))"
        )

    def last_commit(self, job_id: str, subtask: int) -> int | None:
        """The newest checkpoint whose rows are in."""
        mark = self.placeholder
        found = self.execute(
            f"SELECT checkpoint_id FROM {quoted(COMMITS)} WHERE job_id = {mark} AND subtask = {mark}",
            (job_id, subtask),
        )
        return int(found[0][0]) if found else None

    def note_commit(self, job_id: str, subtask: int, checkpoint_id: int) -> None:
        """Within the transaction that brings the rows: they are in."""
        mark, values = self.placeholder, (checkpoint_id, job_id, subtask)
        if self.last_commit(job_id, subtask) is None:
            columns = "(checkpoint_id, job_id, subtask)"
            self.execute(f"INSERT INTO {quoted(COMMITS)} {columns} VALUES ({mark}, {mark}, {mark})", values)
        else:
            where = f"job_id = {mark} AND subtask = {mark}"
            self.execute(f"UPDATE {quoted(COMMITS)} SET checkpoint_id = {mark} WHERE {where}", values)

    def forget_commit(self, job_id: str, subtask: int) -> None:
        """Take a note back."""
        mark = self.placeholder
        self.execute(
            f"DELETE FROM {quoted(COMMITS)} WHERE job_id = {mark} AND subtask = {mark}", (job_id, subtask)
        )

    # Rows by key

    def with_stored_keys(self, rows: pl.DataFrame, key: Sequence[str]) -> pl.DataFrame:
        """The rows with keys as the table holds them, where two that differ here are one there."""
        return rows

    def delete_by_key(self, table: str, rows: pl.DataFrame, key: Sequence[str]) -> None:
        """Remove the rows that have these keys."""
        for part, nulls in _by_nulls(rows.select(key), key):
            self._bring(part)
            self.execute(
                f"DELETE FROM {quoted_table(table)} WHERE EXISTS "
                f"(SELECT 1 FROM {quoted(INCOMING)} AS i WHERE {self.match(table, key, nulls)})"
            )

    def put_by_key(self, table: str, rows: pl.DataFrame, key: Sequence[str]) -> None:
        """Replace the rows that have these keys, column by column, and add those that are new."""
        target = quoted_table(table)
        others = [name for name in rows.columns if name not in key]
        sets = ", ".join(f"{quoted(name)} = i.{quoted(name)}" for name in others)
        for part, nulls in _by_nulls(rows, key):
            self._bring(part)
            match = self.match(table, key, nulls)
            if others:
                self.execute(f"UPDATE {target} SET {sets} FROM {quoted(INCOMING)} AS i WHERE {match}")
            self.execute(
                f"INSERT INTO {target} ({names(rows.columns)}) "
                f"SELECT {names(rows.columns)} FROM {quoted(INCOMING)} AS i "
                f"WHERE NOT EXISTS (SELECT 1 FROM {target} WHERE {match})"
            )

    def match(self, table: str, key: Sequence[str], nulls: bool) -> str:
        """Rows of the table and of `i` have the same key. Equality finds its way through indexes."""
        same = "IS NOT DISTINCT FROM" if nulls else "="
        target = quoted_table(table)
        return " AND ".join(f"{target}.{quoted(name)} {same} i.{quoted(name)}" for name in key)

    def _bring(self, rows: pl.DataFrame) -> None:
        self.create_incoming(rows.schema)
        self.insert(INCOMING, rows)


class Database(ABC):
    """Frozen configuration of one kind of database, made from a URL."""

    name: ClassVar[str]

    folds_names: ClassVar[bool] = False
    """Whether names of columns that differ in case alone are one."""

    @abstractmethod
    def connect(self) -> Connection:
        """Open it. Raises `ConnectorError`."""

    @abstractmethod
    def failed(self, error: Exception, what: str) -> Exception:
        """An error of the database's own kind as one of ours."""

    @property
    @abstractmethod
    def errors(self) -> tuple[type[Exception], ...]:
        """What its client raises."""

    @property
    @abstractmethod
    def place(self) -> str:
        """The database for messages and plans, without secrets."""

    @property
    def address(self) -> str:
        """A URL without secrets, by which a checkpoint remembers it."""
        return f"{self.name}:///{quote(self.place)}"

    def way_to(self, address: str) -> str | None:
        """The URL of another database, with what this one knows of the way; None when it is not there."""
        scheme, _, path = address.partition(":///")
        return address if scheme in FILES and Path(unquote(path)).exists() else None

    @property
    def staging(self) -> Path:
        """Where rows lie that are prepared and not committed."""
        return Path.home() / ".unistream" / "staging"

    @contextmanager
    def session(self, what: str) -> Iterator[Connection]:
        """A connection for one purpose; its errors name the purpose."""
        try:
            connection = self.connect()
            try:
                yield connection
            finally:
                connection.close()
        except self.errors as error:
            raise self.failed(error, what) from error


def check_names(columns: Sequence[str]) -> None:
    """Raise `InvalidQuery` for two names that are one for a database that folds them."""
    known: dict[str, str] = {}
    for name in columns:
        other = known.setdefault(name.translate(_LOWER), name)
        if other != name:
            raise InvalidQuery(
                f"{other!r} and {name!r} are one name for this database: they differ in case alone",
                user_location(),
                f"rename one: .rename({{{name!r}: ...}})",
            )


def check_columns(
    table: str, found: Mapping[str, Column], schema: pl.Schema, families: Mapping[str, frozenset[str]]
) -> None:
    """Raise `InvalidQuery` unless a table that exists can take rows of this schema."""
    folded = {name.casefold(): name for name in found}
    for name, kind in schema.items():
        column = found.get(name)
        if column is None:
            near = folded.get(name.casefold()) or nearest(name, found)
            hint = (
                f"did you mean {near!r}? .rename({{{name!r}: {near!r}}})"
                if near
                else "drop it, or add it there"
            )
            raise InvalidQuery(
                f"Table {table!r} has no column {name!r}. Columns: {some_of(found, near)}",
                user_location(),
                hint,
            )
        takers = families.get(family_of(kind), frozenset())
        if column.family is not None and column.family not in takers:
            raise InvalidQuery(
                f"Column {name!r} of table {table!r} is {column.declared}, which cannot hold {kind}",
                user_location(),
                f'cast it: pl.col("{name}").cast(...), or name another table',
            )
    missing = [name for name, column in found.items() if column.required and name not in schema]
    if missing:
        raise InvalidQuery(
            f"Table {table!r} needs a value for {some_of(missing)}, which the stream does not have",
            user_location(),
            "add the columns with .with_columns(...)",
        )


TAKERS: Mapping[str, frozenset[str]] = {
    "integer": frozenset({"integer", "float", "decimal"}),
    "float": frozenset({"float"}),
    "decimal": frozenset({"decimal", "float"}),
    "text": frozenset({"text"}),
    "binary": frozenset({"binary"}),
    "boolean": frozenset({"boolean"}),
    "date": frozenset({"date", "timestamp"}),
    "timestamp": frozenset({"timestamp"}),
    "time": frozenset({"time"}),
    "nested": frozenset({"nested"}),
}
"""Which families of columns take values of which family."""


def family_of(kind: pl.DataType) -> str:
    """The kind of values that a Polars type has.

    >>> family_of(pl.UInt8()), family_of(pl.Duration()), family_of(pl.List(pl.Int8))
    ('integer', 'integer', 'nested')
    """
    if kind.is_integer() or isinstance(kind, pl.Duration):
        return "integer"
    if kind.is_float():
        return "float"
    if kind.is_nested():
        return "nested"
    simple = {
        pl.Decimal: "decimal",
        pl.Boolean: "boolean",
        pl.Binary: "binary",
        pl.Date: "date",
        pl.Datetime: "timestamp",
        pl.Time: "time",
    }
    return simple.get(type(kind), "text")


def coarse_keys(found: Mapping[str, Column], schema: pl.Schema, key: Sequence[str]) -> list[str]:
    """Key columns that can have nanoseconds where the table keeps microseconds."""
    fine = {name for name, column in found.items() if column.declared == "TIMESTAMP_NS"}
    return [name for name in key if has_nanoseconds(schema[name]) and name not in fine]


def index_of(table: str) -> str:
    """The index on the key of a table; SQLite has one set of names for indexes and tables."""
    return f"_unistream_{table}_key"


def quoted(name: str) -> str:
    """A name as SQL takes it, whatever it holds.

    >>> quoted('a"b')
    '"a""b"'
    """
    if "\0" in name:
        raise InvalidQuery(f"{name!r} cannot name a column or a table", user_location())
    return '"' + name.replace('"', '""') + '"'


def quoted_table(table: str) -> str:
    """The name of a table, with that of its schema where it has one."""
    return ".".join(quoted(part) for part in table.split("."))


def names(columns: Sequence[str]) -> str:
    """A list of columns."""
    return ", ".join(quoted(name) for name in columns)


def _by_nulls(rows: pl.DataFrame, key: Sequence[str]) -> list[tuple[pl.DataFrame, bool]]:
    """Rows with whole keys, then those with a null in it, which are compared in another way."""
    has_null = rows.select(pl.any_horizontal(pl.col(key).is_null())).to_series()
    parts = [(rows.filter(~has_null), False), (rows.filter(has_null), True)]
    return [(part, nulls) for part, nulls in parts if part.height]
