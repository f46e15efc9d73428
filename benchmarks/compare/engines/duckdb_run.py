"""One query of DuckDB in a process of its own, over all rows at once."""

from __future__ import annotations

import duckdb

from benchmarks.compare.engines.embedded_queries import DUCKDB
from benchmarks.compare.protocol import Answer, Request, Unable, measured, serve, write_rows
from benchmarks.compare.tables import INTEGER, TABLES, TEXT, TIME, reads
from unistream.nexmark.sources import side_input

TYPES = {INTEGER: "BIGINT", TEXT: "VARCHAR", TIME: "TIMESTAMP"}


def answer_to(request: Request, folder: str) -> duckdb.DuckDBPyRelation:
    """The query over views of the files."""
    database = duckdb.connect()
    for table in reads(request.query):
        columns = ", ".join(f"'{name}': '{TYPES[kind]}'" for name, kind in TABLES[table].items())
        files = request.files(table, folder=folder) / "*.csv"
        database.execute(
            f"create view {table} as from read_csv('{files}', header = false, delim = ',',"
            f" auto_detect = false, columns = {{{columns}}})"
        )
    if request.query == "q13":
        database.register("side_input", side_input().to_arrow())
    return database.sql(DUCKDB[request.query])


def run(request: Request, answer: Answer) -> None:
    """Rows when they are asked for, else times."""
    answer.version = duckdb.__version__
    if request.query == "q12":
        raise Unable("windows of the clock have no meaning over all rows at once")
    if request.rows:
        result = answer_to(request, request.folder).pl()
        return write_rows(request.rows, result.columns, result.iter_rows())
    if request.warm:
        answer_to(request, request.warm).to_arrow_table()
    with measured(answer):
        answer.extra = {"rows out": answer_to(request, request.folder).to_arrow_table().num_rows}
    return None


if __name__ == "__main__":
    serve(run)
