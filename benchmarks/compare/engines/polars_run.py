"""One query of Polars' streaming engine in a process of its own, over all rows at once."""

from __future__ import annotations

import polars as pl

from benchmarks.compare.engines.embedded_queries import POLARS_QUERIES, TIME_FORMAT, schema
from benchmarks.compare.protocol import Answer, Request, Unable, measured, serve, write_rows
from benchmarks.compare.tables import TABLES


def scan(request: Request, folder: str, table: str) -> pl.LazyFrame:
    """A table; moments are read as text first, whose format Polars would else have to guess."""
    types = schema(table)
    times = [name for name, kind in types.items() if isinstance(kind, pl.Datetime)]
    texts = {name: pl.String() if name in times else kind for name, kind in types.items()}
    rows = pl.scan_csv(request.files(table, folder=folder) / "*.csv", has_header=False, schema=texts)
    return rows.with_columns(pl.col(times).str.to_datetime(TIME_FORMAT, time_unit="us"))


def collect(request: Request, folder: str) -> pl.DataFrame:
    """The answer."""
    tables = {table: scan(request, folder, table) for table in TABLES}
    return POLARS_QUERIES[request.query](tables).collect(engine="streaming")


def run(request: Request, answer: Answer) -> None:
    """Rows when they are asked for, else times."""
    answer.version = pl.__version__
    if request.query not in POLARS_QUERIES:
        raise Unable("no one query over all rows states it: sessions, or windows of the clock")
    if request.rows:
        result = collect(request, request.folder)
        return write_rows(request.rows, result.columns, result.iter_rows())
    if request.warm:
        collect(request, request.warm)
    with measured(answer):
        answer.extra = {"rows out": collect(request, request.folder).height}
    return None


if __name__ == "__main__":
    serve(run)
