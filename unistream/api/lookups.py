"""What the user passed to `lookup` as a table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from unistream.causes import first_words
from unistream.durations import Duration, microseconds
from unistream.errors import ConnectorError, InvalidQuery, InvalidSettings
from unistream.expressions.refusal import POLARS_ERRORS
from unistream.expressions.schema import Changes, StreamSchema
from unistream.io.frames import as_schema
from unistream.operators.lookup import Lookup
from unistream.operators.lookup_tables import AskedTable, Calls, LookupTable, WholeTable
from unistream.operators.lookup_unordered import UnorderedLookup

_MINUTE = 60_000_000
_LEAST = {"batch": 1, "concurrency": 1, "retries": 0, "cache_keys": 1, "waiting_rows": 1}
_DATABASES = {".db": "sqlite", ".sqlite": "sqlite", ".sqlite3": "sqlite", ".duckdb": "duckdb"}
_READERS = {".csv": "pl.read_csv", ".json": "pl.read_json"}
_READERS |= dict.fromkeys((".ndjson", ".jsonl"), "pl.read_ndjson")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of `lookup` that concern its source."""

    table: str | None
    schema: Any
    refresh: Duration | None
    cache: Duration | None
    cache_keys: int
    batch: int
    concurrency: int
    timeout: Duration
    retries: int
    ordered: bool
    waiting_rows: int


def table_of(source: Any, keys: pl.Schema, options: Options, where: str | None) -> LookupTable:
    """The table behind a frame, a stream, a path, a URL or a function; `keys` are its key columns."""
    from unistream.api.stream import Stream

    _check(source, options, where)
    match source:
        case pl.DataFrame() | pl.LazyFrame():
            return _frame(source)
        case Stream():
            return _stream(source, where)
        case str() if "://" in source and not source.startswith("file://"):
            return _database(source, options, where)
        case str() | Path():
            return _parquet(str(source), options, where)
    if callable(source):
        return _function(source, keys, options, where)
    hint = "a frame, a bounded stream, the path of Parquet files, a database URL with table=, or a function"
    raise InvalidQuery(f"lookup cannot look into a {type(source).__name__}", where, hint)


def _check(source: Any, options: Options, where: str | None) -> None:
    for name, least in _LEAST.items():
        value = getattr(options, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise InvalidSettings(f"lookup: {name} must be a whole number from {least}, not {value!r}", where)
    for name in ("refresh", "cache", "timeout"):
        length = getattr(options, name)
        if length is not None and microseconds(length, name) <= 0:
            raise InvalidSettings(f"lookup: {name}={length!r} is not longer than nothing", where)
    if options.refresh is not None and not isinstance(source, (str, Path)):
        hint = "pass the path of the Parquet files; what a function or a database says is kept by cache="
        raise InvalidQuery("refresh= is for tables in files", where, hint)
    if options.schema is not None and not callable(source):
        hint = "tables know their types; for others add .cast({...}) or .with_columns(...) behind the lookup"
        raise InvalidQuery("schema= is for functions", where, hint)
    if not options.ordered and not callable(source):
        hint = "leave it out: rows do not wait for each other's answers where all are given at once"
        raise InvalidQuery("ordered=False is for functions", where, hint)


def spec_of(found: LookupTable, options: Options, rows: StreamSchema, **shared: Any) -> Lookup:
    """The step that looks into the table, in order or not."""
    if options.ordered:
        return Lookup(table=found, **shared)
    if rows.changes is not Changes.APPEND:
        what = "lookup with ordered=False lets rows overtake each other, and this stream updates its rows"
        hint = "look up before the step that makes it update, or take .changes() for the changes as rows"
        raise InvalidQuery(what, shared["where"], hint)
    return UnorderedLookup(table=found, most_waiting=options.waiting_rows, **shared)


def _frame(frame: pl.DataFrame | pl.LazyFrame) -> LookupTable:
    query = frame.lazy()
    columns = query.collect_schema()
    rows = f" of {frame.height:,} rows" if isinstance(frame, pl.DataFrame) else ""
    return WholeTable(
        columns=columns, load=lambda: query.collect(engine="in-memory"), text=f"a frame{rows}", query=query
    )


def _stream(stream: Any, where: str | None) -> LookupTable:
    if not stream.bounded:
        hint = "join two unbounded streams with join(within=...) or join_asof"
        raise InvalidQuery("lookup reads its table whole first, and this stream has no end", where, hint)
    return WholeTable(columns=stream.schema, load=stream.collect, text="a bounded stream, read first")


def _parquet(path: str, options: Options, where: str | None) -> LookupTable:
    query = pl.scan_parquet(path)
    refresh = None if options.refresh is None else microseconds(options.refresh, "refresh")
    try:
        columns = query.collect_schema()
    except FileNotFoundError as error:
        hint = "give a Parquet file, a folder or a glob of them"
        raise ConnectorError(f"There is no file {path!r} for lookup", where, hint) from error
    except POLARS_ERRORS as error:
        problem = f"lookup cannot read {path!r} as Parquet: {first_words(error)}"
        raise InvalidQuery(problem, where, _instead_of_parquet(path)) from error
    return WholeTable(
        columns=columns,
        load=lambda: pl.scan_parquet(path).collect(engine="in-memory"),
        text=f"Parquet {path}",
        refresh=refresh,
        query=None if refresh else query,
    )


def _instead_of_parquet(path: str) -> str:
    """What to write for a file that is perhaps of another kind."""
    suffix = Path(path).suffix
    if suffix in _DATABASES:
        return f'write "{_DATABASES[suffix]}:///{path}" with table='
    if suffix in _READERS:
        return f"pass {_READERS[suffix]}({path!r})"
    return 'pass other files as frames, as in pl.read_csv(path); a database is written "sqlite:///shop.db"'


def _database(url: str, options: Options, where: str | None) -> LookupTable:
    from unistream.io.table_lookup import TableLookup

    if options.table is None:
        raise InvalidQuery("lookup in a database needs the name of the table", where, 'as in table="users"')
    config = TableLookup(url, options.table, where)
    keep = _MINUTE if options.cache is None else microseconds(options.cache, "cache")
    return AskedTable(
        columns=config.columns(),
        open=config.open,
        text=config.text,
        keep=keep,
        most_keys=options.cache_keys,
    )


def _function(function: Any, keys: pl.Schema, options: Options, where: str | None) -> LookupTable:
    calls = Calls(
        function=function,
        batch=options.batch,
        concurrency=options.concurrency,
        timeout=microseconds(options.timeout, "timeout"),
        retries=options.retries,
    )
    return AskedTable(
        columns=_promised(function, keys, options.schema, where),
        open=calls.open,
        text=f"function {getattr(function, '__name__', type(function).__name__)}",
        keep=0 if options.cache is None else microseconds(options.cache, "cache"),
        most_keys=options.cache_keys,
        begin=calls.begin,
    )


def _promised(function: Any, keys: pl.Schema, schema: Any, where: str | None) -> pl.Schema:
    """The columns of its answers: as said, or as it gives them for no keys."""
    if schema is not None:
        return as_schema(schema)
    hint = "pass schema= with all columns it returns, those of the key included"
    from unistream.operators.lookup_calls import called_once

    try:
        answer = called_once(function, pl.DataFrame(schema=keys))
    except Exception as error:
        what = f"{type(error).__name__}: {error}"
        raise InvalidQuery(
            f"lookup asked the function with no keys and it raised {what}", where, hint
        ) from error
    if not isinstance(answer, pl.DataFrame):
        message = f"lookup: the function returned {type(answer).__name__}, not a frame"
        raise InvalidQuery(message, where, "return a pl.DataFrame; for no rows return frame.clear()")
    return answer.schema
