"""Whether the rows of an engine are those of the reference, which is DuckDB over all rows at once."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path

import duckdb
import polars as pl
from polars.testing import assert_frame_equal

from benchmarks.compare import inputs
from benchmarks.compare.engines.embedded_queries import DUCKDB
from benchmarks.compare.tables import reads
from unistream.nexmark.sources import side_input

DECIDED = {"q19": ["auction", "price"]}
"""Columns that a query decides; among bids of one price it may take any."""

UNCHECKED = {("flink", "q12"): "windows of the clock that are open when the input ends give no rows"}
"""Results that cannot be compared, and why."""

LEFT_OPEN = {("spark", query) for query in ("q5", "q7", "q8", "q11")}
"""Results without the windows that the watermark has not passed when the input ends."""

DELAY = timedelta(seconds=4)

TOLERANCE = 1e-9


def expected(query: str, folder: Path) -> pl.DataFrame:
    """The answer of the reference over the files of a folder."""
    with duckdb.connect() as database:
        for name in reads(query):
            database.register(name, inputs.table(folder, name).to_arrow())
        database.register("side_input", side_input().to_arrow())
        answer: pl.DataFrame = database.sql(DUCKDB[query]).pl()
        return answer


def closed(query: str, folder: Path, answer: pl.DataFrame) -> pl.DataFrame:
    """The part of an answer that belongs to windows which the watermark has passed at the end."""
    ends = [inputs.table(folder, name)["dateTime"].max() for name in reads(query)]
    watermark = min(end for end in ends if isinstance(end, datetime)) - DELAY
    if "window_end" in answer.columns:
        end = pl.col("window_end")
    else:
        start = pl.col("window_start" if "window_start" in answer.columns else "dateTime")
        end = start.dt.truncate("10s").dt.offset_by("10s")
    return answer.filter(end <= watermark)


def received(file: Path, like: pl.DataFrame) -> pl.DataFrame:
    """The rows that an engine wrote, with the types of the reference."""
    lines = file.read_text().splitlines()
    names = json.loads(lines[0])
    frame = pl.DataFrame(
        [json.loads(line) for line in lines[1:]], schema=names, orient="row", infer_schema_length=None
    )
    columns = [name for name in like.columns if name in names]
    return frame.with_columns(_typed(name, like.schema[name], frame.schema[name]) for name in columns)


def _typed(name: str, kind: pl.DataType, given: pl.DataType) -> pl.Expr:
    if isinstance(kind, pl.Datetime) and isinstance(given, pl.String):
        return pl.col(name).str.to_datetime("%Y-%m-%dT%H:%M:%S%.f", time_unit=kind.time_unit)
    return pl.col(name).cast(kind)


def difference(query: str, got: pl.DataFrame, reference: pl.DataFrame) -> str:
    """What is wrong with the rows of an engine; nothing when they are right."""
    if missing := [name for name in reference.columns if name not in got.columns]:
        return f"columns are missing: {', '.join(missing)}"
    if query == "q12":  # the clock cuts the windows, wherever it stands
        got = got.group_by("bidder").agg(pl.col("bids").sum())
    names = DECIDED.get(query, reference.columns)
    names = sorted(names, key=lambda name: reference.schema[name].is_float())  # sorted by what is exact
    if got.height != reference.height:
        return f"{got.height:,} rows instead of {reference.height:,}"
    if not reference.height:
        return "the reference has no rows: the input is too small to check anything"
    got, reference = got.select(names), reference.select(names).cast(got.select(names).schema)
    try:
        assert_frame_equal(got, reference, check_row_order=False, rel_tol=TOLERANCE, check_dtypes=False)
    except AssertionError as error:
        return " ".join(str(error).split())[:300]
    return ""
