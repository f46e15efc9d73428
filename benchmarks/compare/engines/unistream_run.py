"""One query of unistream in a process of its own: in ticks with checkpoints every ten seconds, or bounded."""

from __future__ import annotations

from typing import Any

import unistream as us
from benchmarks.compare.engines.embedded_queries import count, schema, tumbling
from benchmarks.compare.engines.nothing import Nothing
from benchmarks.compare.protocol import Answer, Request, measured, serve, write_rows
from benchmarks.compare.tables import reads
from unistream.io.base import Sink
from unistream.io.memory import MemorySink
from unistream.nexmark.queries import QUERIES
from unistream.nexmark.sources import KINDS, timed

KEYED = {"count": count, "tumbling": tumbling}


def stream(request: Request, folder: str) -> us.Stream:
    """The query over the files of this folder."""

    def scan(table: str) -> us.Stream:
        files = request.files(table, folder=folder)
        return us.scan_csv(files, schema=dict(schema(table)), has_header=False)

    if request.query in KEYED:
        return KEYED[request.query](scan(*reads(request.query)))
    return QUERIES[request.query](timed({kind: scan(kind) for kind in KINDS}))


def discard(request: Request, folder: str, kept: str) -> dict[str, Any]:
    """Run the query into nothing; as one bounded query its rows are gathered in memory, as Polars does."""
    asked = stream(request, folder)
    if request.variant == "bounded":
        sink: Sink = MemorySink()
        progress = asked.sink(sink).run(progress=False)
    else:
        settings = us.Settings(whole_query=False)
        job = asked.sink(Nothing())
        progress = job.run(
            progress=False, settings=settings, checkpoint=f"{request.scratch}/{kept}", every="10s"
        )
    return {"rows out": progress.rows_out}


def run(request: Request, answer: Answer) -> None:
    """Rows when they are asked for, else times."""
    answer.version = us.__version__
    if request.rows:
        settings = us.Settings(whole_query=request.variant == "bounded", tick_rows=20_000)
        result = stream(request, request.folder).collect(settings=settings)
        return write_rows(request.rows, result.columns, result.iter_rows())
    if request.warm:
        discard(request, request.warm, "warm")
    with measured(answer):
        answer.extra = discard(request, request.folder, "kept")
    return None


if __name__ == "__main__":
    serve(run)
