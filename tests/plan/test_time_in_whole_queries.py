"""Event time within one Polars query: only where no row can be rejected."""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import unistream as us

ONE = "one Polars streaming query"
OR_ELSE = "or else: ticks"
START = datetime(2024, 1, 1)
ROWS = pl.DataFrame({"t": [START, datetime(2024, 1, 2), datetime(2023, 1, 1)], "a": [1, 2, 3]})
TICKS = us.Settings(whole_query=False)


def as_parquet(rows: pl.DataFrame, folder: Path, **options: Any) -> us.Stream:
    for number in range(2):
        rows.write_parquet(folder / f"{number}.parquet", **options)
    return us.scan_parquet(folder)


@pytest.mark.parametrize(
    "kind", [pl.Datetime("ms"), pl.Datetime("us", "Europe/Berlin"), pl.Datetime("ns"), pl.Date]
)
def test_rows_that_all_have_a_time_are_read_by_one_query(kind: Any, tmp_path: Path) -> None:
    rows = ROWS.with_columns(
        pl.col("t").dt.replace_time_zone("UTC").cast(kind) if kind != pl.Date else pl.col("t").dt.date()
    )
    for stream in (us.from_frame(rows), as_parquet(rows, tmp_path)):
        query = stream.with_event_time("t", delay="1s").filter(pl.col("a") > 1).select("t", b=pl.col("a") * 2)
        assert query.collect().sort("b").equals(query.collect(settings=TICKS).sort("b"))
    assert ONE in us.from_frame(rows).with_event_time("t").select("a").explain()


def test_files_tell_by_their_statistics(tmp_path: Path) -> None:
    assert (
        ONE in as_parquet(ROWS, tmp_path).with_event_time("t").filter(pl.col("a") > 1).select("a").explain()
    )
    unknown = as_parquet(ROWS, tmp_path, statistics=False).with_event_time("t").select("a")
    assert ONE in unknown.explain() and OR_ELSE in unknown.explain()
    assert unknown.collect().height == 6


@pytest.mark.parametrize("bad", [None, datetime(9999, 1, 1)])
def test_rows_that_may_be_rejected_run_as_ticks(bad: Any, tmp_path: Path) -> None:
    rows = pl.concat([ROWS, pl.DataFrame({"t": [bad], "a": [4]}, schema=ROWS.schema)])
    for stream in (us.from_frame(rows), as_parquet(rows, tmp_path)):
        timed = stream.with_event_time("t", max_ahead="1d" if bad else None)
        assert ONE not in timed.select("a").explain() or OR_ELSE in timed.select("a").explain()
        progress = timed.sink_batches(lambda frame: None).run(progress=False)
        assert progress.rejected * 4 == progress.rows_in
        assert timed.select("a").collect().height * 4 == 3 * progress.rows_in


def test_impossible_numbers_run_as_ticks() -> None:
    rows = pl.DataFrame({"t": [0, 2**62], "a": [1, 2]})
    assert ONE in us.from_frame(rows[:1]).with_event_time("t", unit="s").select("a").explain()
    assert OR_ELSE in us.from_frame(rows).with_event_time("t", unit="s").select("a").explain()
    assert us.from_frame(rows).with_event_time("t", unit="s").select("a").collect().rows() == [(1,)]


def test_a_time_that_is_made_runs_as_ticks() -> None:
    made = us.from_frame(ROWS).with_columns(t=pl.when(pl.col("a") > 1).then("t"))
    query = made.with_event_time("t").select("a", "t")
    assert ONE not in query.explain()
    assert query.collect()["a"].to_list() == [2, 3]
    assert date(2024, 1, 2) in query.collect()["t"].dt.date()
