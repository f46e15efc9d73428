"""DuckDB, by way of Arrow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import polars as pl

from unistream.errors import ConnectorError, DataError
from unistream.io.table_database import (
    INCOMING,
    Column,
    Connection,
    Database,
    names,
    quoted,
    quoted_table,
)
from unistream.io.table_values import as_microseconds, without_nanoseconds

_TYPES: dict[type[pl.DataType], str] = {
    pl.Int8: "TINYINT",
    pl.Int16: "SMALLINT",
    pl.Int32: "INTEGER",
    pl.Int64: "BIGINT",
    pl.UInt8: "UTINYINT",
    pl.UInt16: "USMALLINT",
    pl.UInt32: "UINTEGER",
    pl.UInt64: "UBIGINT",
    pl.Float32: "FLOAT",
    pl.Float64: "DOUBLE",
    pl.Boolean: "BOOLEAN",
    pl.String: "VARCHAR",
    pl.Categorical: "VARCHAR",
    pl.Enum: "VARCHAR",
    pl.Binary: "BLOB",
    pl.Date: "DATE",
    pl.Time: "TIME",
    pl.Duration: "BIGINT",
    pl.Null: "VARCHAR",
}

_FAMILIES = (
    (("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER"), "integer"),
    (("UBIGINT", "UHUGEINT"), "integer"),
    (("FLOAT", "DOUBLE"), "float"),
    (("DECIMAL",), "decimal"),
    (("VARCHAR",), "text"),
    (("BLOB",), "binary"),
    (("BOOLEAN",), "boolean"),
    (("DATE",), "date"),
    (("TIMESTAMP",), "timestamp"),
    (("TIME",), "time"),
)


@dataclass(frozen=True, slots=True)
class DuckDatabase(Database):
    """A file, opened for each commit alone, so that others can read it in between.

    Types are DuckDB's own; durations are kept as microseconds.
    """

    path: str
    name = "duckdb"
    folds_names = True

    def connect(self) -> Connection:
        return _DuckConnection(duckdb.connect(self.path))

    @property
    def place(self) -> str:
        return self.path

    @property
    def staging(self) -> Path:
        return Path(self.path + ".unistream-staging")

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        return (duckdb.Error,)

    def failed(self, error: Exception, what: str) -> Exception:
        message = f"DuckDB {self.path}: {what} failed: {error}"
        broken = (duckdb.ConstraintException, duckdb.ConversionException, duckdb.OutOfRangeException)
        if isinstance(error, broken):
            return DataError(message, hint="the table has a type or a constraint that the rows break")
        hint = "another process or connection may hold the file: DuckDB lets one write at a time"
        return ConnectorError(message, hint=hint, retry_after=1.0)


class _DuckConnection(Connection):
    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        return self._connection.execute(sql, list(parameters)).fetchall()

    def columns(self, table: str) -> dict[str, Column]:
        try:
            found = self.execute(f"DESCRIBE {quoted_table(table)}")
        except duckdb.CatalogException:
            return {}
        return {
            name: Column(name, declared, _family(declared), null == "NO" and default is None)
            for name, declared, null, _, default, *_ in found
        }

    def insert(self, table: str, frame: pl.DataFrame) -> None:
        self._bring(frame)
        columns = names(frame.columns)
        self.execute(
            f"INSERT INTO {quoted_table(table)} ({columns}) SELECT {columns} FROM {quoted(INCOMING)}"
        )

    def column_type(self, dtype: pl.DataType) -> str | None:
        if isinstance(dtype, pl.Decimal):
            return f"DECIMAL({dtype.precision or 38},{dtype.scale})"
        if isinstance(dtype, pl.Datetime):
            if dtype.time_zone is not None:
                return "TIMESTAMP WITH TIME ZONE"
            return "TIMESTAMP_NS" if dtype.time_unit == "ns" else "TIMESTAMP"
        if isinstance(dtype, pl.Array):
            inner = self.column_type(_inner(dtype))
            return None if inner is None else f"{inner}[{dtype.shape[0]}]"
        if isinstance(dtype, pl.List):
            inner = self.column_type(_inner(dtype))
            return None if inner is None else f"{inner}[]"
        if isinstance(dtype, pl.Struct):
            fields = {field.name: self.column_type(_known(field.dtype)) for field in dtype.fields}
            if not fields or None in fields.values():
                return None
            return f"STRUCT({', '.join(f'{quoted(name)} {kind}' for name, kind in fields.items())})"
        return _TYPES.get(type(dtype))

    def create_index(self, table: str, key: Sequence[str]) -> None:
        """None: its joins do without, and one would be checked before a deletion has made room."""

    def _bring(self, rows: pl.DataFrame) -> None:
        plain = rows.with_columns(
            *(as_microseconds(name) for name, kind in rows.schema.items() if isinstance(kind, pl.Duration)),
            *(without_nanoseconds(name) for name, kind in rows.schema.items() if isinstance(kind, pl.Time)),
            *(
                pl.col(name).cast(pl.String)
                for name, kind in rows.schema.items()
                if isinstance(kind, (pl.Categorical, pl.Enum, pl.Null))
            ),
        )
        self._connection.register(INCOMING, plain.to_arrow())

    def close(self) -> None:
        self._connection.close()


def _family(declared: str) -> str | None:
    if declared.endswith("]") or declared.startswith(("STRUCT", "MAP")):
        return "nested"
    for types, family in _FAMILIES:
        if any(
            declared == name or declared.startswith((f"{name}(", f"{name} ", f"{name}_")) for name in types
        ):
            return family
    return None


def _inner(dtype: pl.List | pl.Array) -> pl.DataType:
    return _known(dtype.inner)


def _known(dtype: Any) -> pl.DataType:
    found: pl.DataType = dtype() if isinstance(dtype, type) else dtype
    return found
