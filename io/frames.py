"""Data in memory: whatever users hold as a Polars frame, and that frame as a bounded source."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from unistream.errors import ConnectorError, InvalidQuery, InvalidSettings
from unistream.expressions.schema import CHANGE, typed
from unistream.io.base import Backlog, Chunk, Exhausted, Position, Reader, Request, Source, Wait
from unistream.io.rows import ACCEPTED, column, conform, rows_to_frame
from unistream.location import user_location
from unistream.one_query import Terms

SchemaLike = Mapping[str, Any]
"""Column names and types: a `pl.Schema`, or a dict with Polars or Python types as values."""

_SPLIT = "rows"


def as_schema(schema: SchemaLike) -> pl.Schema:
    """Names and types as a `pl.Schema`; Python types and types without parameters are understood.

    >>> as_schema({"user": str, "amount": pl.Float64})
    Schema([('user', String), ('amount', Float64)])
    """
    checked = typed(schema)
    _refuse_columns(checked)
    return checked


def as_frame(data: object, schema: SchemaLike | None = None) -> pl.DataFrame:
    """Tabular data in memory as a Polars frame, without a copy where the memory layout allows it.

    Takes Polars frames and series, everything that speaks the Arrow C interface (PyArrow, pandas from
    2.2, DuckDB relations), a dict of columns, a list of dicts, and with `schema` a list of tuples.
    With `schema` the result has exactly these columns in this order; only lossless changes of type are made.

    >>> as_frame([{"item": "a", "n": 1}, {"item": "b"}]).rows()
    [('a', 1), ('b', None)]
    >>> as_frame([("a", 1)], schema={"item": str, "n": pl.Int64}).schema
    Schema([('item', String), ('n', Int64)])
    """
    wanted = None if schema is None else as_schema(schema)
    frame = _converted(data, wanted)
    _refuse_columns(frame.schema)
    return frame if wanted is None else conform(frame, wanted, "the data")


def _converted(data: object, schema: pl.Schema | None) -> pl.DataFrame:
    if isinstance(data, pl.DataFrame):
        return data
    if isinstance(data, pl.Series):
        return data.to_frame()
    if isinstance(data, pl.LazyFrame):
        raise InvalidQuery("A LazyFrame has no rows yet", user_location(), "pass frame.collect()")
    if hasattr(data, "__arrow_c_stream__") or hasattr(data, "__arrow_c_array__"):
        read = pl.from_arrow(data)
        return read if isinstance(read, pl.DataFrame) else read.to_frame()
    if isinstance(data, Mapping):
        return _from_columns(data, schema)
    if isinstance(data, Sequence) and not isinstance(data, (str, bytes, bytearray)):
        return rows_to_frame(data, schema)
    hint = f"pass {ACCEPTED}"
    if isinstance(data, Iterator) or callable(data):
        hint = "an iterator or a function goes to scan_iterable(function, schema=...)"
    raise InvalidQuery(f"{type(data).__name__!r} cannot be read as a frame", user_location(), hint)


def _from_columns(data: Mapping[str, Any], schema: pl.Schema | None) -> pl.DataFrame:
    columns: dict[str, pl.Series] = {}
    for name, values in data.items():
        if not isinstance(name, str) or isinstance(values, (str, bytes)) or not hasattr(values, "__len__"):
            raise InvalidQuery(
                f"Column {name!r} holds {type(values).__name__}, not a sequence of values",
                user_location(),
                "one row is written as a list of one dict: [{...}]",
            )
        dtype = schema.get(name) if schema is not None else None
        if hasattr(values, "dtype"):  # NumPy and pandas columns know their type
            columns[name] = pl.Series(name, values)
        else:
            columns[name] = column(name, list(values), dtype, "the data")
    lengths = {name: len(series) for name, series in columns.items()}
    if len(set(lengths.values())) > 1:
        hint = "each column needs a value for every row; None where there is none"
        raise InvalidQuery(f"Columns have different lengths: {lengths}", user_location(), hint)
    return pl.DataFrame(columns)


@dataclass(frozen=True, slots=True, eq=False)
class FrameSource(Source):
    """A frame in memory as a bounded source; the position is the index of the next row.

    Use it for tests, small tables and the bounded side of joins. `chunk_rows` limits the rows of one
    chunk below what the engine asks for; slices share the frame's memory.

    >>> source = FrameSource(as_frame({"n": [1, 2, 3]}), chunk_rows=2)
    >>> reader = source.open({}, Request())
    >>> reader.poll(100).frame["n"].to_list(), reader.poll(100).frame["n"].to_list()
    ([1, 2], [3])
    """

    frame: pl.DataFrame
    chunk_rows: int | None = None

    name = "frame"

    def __post_init__(self) -> None:
        if self.chunk_rows is not None and self.chunk_rows < 1:
            raise InvalidSettings(f"chunk_rows must be at least 1, not {self.chunk_rows}", user_location())

    @property
    def bounded(self) -> bool:
        return True

    @property
    def pushes(self) -> frozenset[str]:
        return frozenset({"columns", "predicate"})

    def schema(self) -> pl.Schema:
        return self.frame.schema

    def open(self, positions: Mapping[str, Position], request: Request) -> Reader:
        return _FrameReader(self, int(positions.get(_SPLIT, 0)), request)

    def lazy(self, terms: Terms) -> pl.LazyFrame:
        return watched(self.frame, terms)

    def size(self) -> int:
        return int(self.frame.estimated_size())

    def extremes(self, column: str) -> tuple[Any, Any] | None:
        values = self.frame.get_column(column)
        return None if values.null_count() or values.is_empty() else (values.min(), values.max())

    def count_rows(self) -> int:
        return self.frame.height

    def describe(self) -> dict[str, str]:
        return {"rows": f"{self.frame.height:,}", "columns": str(self.frame.width)}

    def identity(self) -> Hashable:
        return ("frame", id(self.frame), self.chunk_rows)


def watched(frame: pl.DataFrame, terms: Terms) -> pl.LazyFrame:
    """A frame as the beginning of a query; a watch sees all of it before the query runs."""
    if terms.watch is not None:
        watch = terms.watch()
        terms.conditions.before(lambda: watch.see(0, frame))
    return frame.lazy() if terms.columns is None else frame.lazy().select(terms.columns)


class _FrameReader(Reader):
    def __init__(self, source: FrameSource, start: int, request: Request) -> None:
        height = source.frame.height
        if start > height:
            raise ConnectorError(
                f"The checkpoint stands at row {start:,} of a frame that has {height:,} rows",
                hint="resume with the frame the job was started with",
            )
        self._narrow = _narrowing(source.frame.schema, request)
        self._frame = source.frame.select(_read_columns(source.frame.columns, request))
        self._row_bytes = self._frame.estimated_size() / max(height, 1)
        self._chunk_rows = source.chunk_rows
        self._row = start

    def poll(self, max_rows: int) -> Chunk | Wait | Exhausted:
        height = self._frame.height
        if self._row >= height:
            return Exhausted()
        rows = self._frame.slice(self._row, min(max_rows, self._chunk_rows or max_rows))
        self._row += rows.height
        return Chunk(
            _SPLIT,
            self._narrow(rows),
            position=self._row,
            nbytes=int(rows.height * self._row_bytes),
            scanned_rows=rows.height,
            ended=self._row == height,
        )

    def backlog(self) -> Backlog:
        left = self._frame.height - self._row
        return Backlog(
            left, int(left * self._row_bytes), self._frame.height, int(self._frame.height * self._row_bytes)
        )


def _read_columns(columns: Sequence[str], request: Request) -> list[str]:
    """What must be looked at: the wanted columns and those the predicate reads."""
    if request.columns is None:
        return list(columns)
    reads = set() if request.predicate is None else set(request.predicate.meta.root_names())
    return [name for name in columns if name in request.columns or name in reads]


def _narrowing(schema: pl.Schema, request: Request) -> Callable[[pl.DataFrame], pl.DataFrame]:
    """The step that applies the request to one slice."""
    columns = list(request.columns if request.columns is not None else schema)
    predicate = request.predicate
    if predicate is None:
        return lambda rows: rows.select(columns)
    as_written = pl.QueryOptFlags.none()
    return lambda rows: (
        rows.lazy().filter(predicate).select(columns).collect(engine="in-memory", optimizations=as_written)
    )


def _refuse_columns(schema: pl.Schema) -> None:
    if CHANGE in schema:
        raise InvalidQuery(
            f"Column name {CHANGE!r} is reserved for changelogs", user_location(), "rename the column"
        )
    for name, dtype in schema.items():
        if dtype == pl.Object:
            raise InvalidQuery(
                f"Column {name!r} holds Python objects, which cannot be stored",
                user_location(),
                "give it a Polars type, for example a Struct or JSON text",
            )
