"""The two queries beside Nexmark's, in unistream, Polars and DuckDB."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import polars as pl

import unistream as us
from benchmarks.compare.tables import INTEGER, TABLES, TEXT, TIME
from benchmarks.nexmark import reference
from benchmarks.nexmark.polars_queries import POLARS, TEN_SECONDS

Tables = Mapping[str, pl.LazyFrame]
TIME_FORMAT = "%Y-%m-%d %H:%M:%S%.3f"
DELAY = "4s"
TYPES: Mapping[str, pl.DataType] = {INTEGER: pl.Int64(), TEXT: pl.String(), TIME: pl.Datetime("us")}

DUCKDB: Mapping[str, str] = {
    **reference.SQL,
    "count": "select key, count(*) as n from counts group by key",
    "tumbling": """
        select key, time_bucket(interval 10 second, dateTime) as window_start, count(*) as n,
               sum(amount)::bigint as total
        from readings group by all
    """,
}


def count(counts: us.Stream) -> us.Stream:
    """The running count of each key."""
    return counts.group_by("key").agg(n=pl.len())


def tumbling(readings: us.Stream) -> us.Stream:
    """Counts and sums of each key in ten seconds."""
    timed = readings.with_event_time("dateTime", delay=DELAY).group_by("key")
    return timed.window(us.tumbling("10s")).agg(n=pl.len(), total=pl.col("amount").sum())


def _polars_count(tables: Tables) -> pl.LazyFrame:
    return tables["counts"].group_by("key").agg(n=pl.len())


def _polars_tumbling(tables: Tables) -> pl.LazyFrame:
    keys = tables["readings"].group_by("key", window_start=TEN_SECONDS)
    return keys.agg(n=pl.len(), total=pl.col("amount").sum())


POLARS_QUERIES: Mapping[str, Callable[[Tables], pl.LazyFrame]] = {
    **POLARS,
    "count": _polars_count,
    "tumbling": _polars_tumbling,
}


def schema(table: str) -> pl.Schema:
    """The columns of a table."""
    return pl.Schema({column: TYPES[kind] for column, kind in TABLES[table].items()})
