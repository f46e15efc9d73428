"""A bounded job with checkpoints whose result has no rows replaces the old one all the same."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

import unistream as us
from unistream.api.stream import Stream

SINKS = ["sink_parquet", "sink_csv", "sink_ndjson"]


def small(limit: int, folder: Path) -> Stream:
    return us.scan_parquet(folder).filter(pl.col("a") < limit)


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("sink", SINKS)
def test_the_old_rows_go(sink: str, tmp_path: Path) -> None:
    pl.DataFrame({"a": range(10)}).write_parquet(tmp_path / "in.parquet")
    getattr(small(5, tmp_path / "in.parquet"), sink)(tmp_path / "out").run(progress=False)
    assert visible(tmp_path / "out")
    again = getattr(small(0, tmp_path / "in.parquet"), sink)(tmp_path / "out", mode="overwrite")
    assert again.run(checkpoint=tmp_path / "ckpt", progress=False).rows_out == 0
    assert visible(tmp_path / "out") == []


@pytest.mark.parametrize("sink", SINKS)
def test_rows_that_were_committed_stay_when_none_come_after_a_restart(sink: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    pl.DataFrame({"a": range(10)}).write_parquet(tmp_path / "in" / "1.parquet")

    def run() -> us.Progress:
        job = getattr(small(5, tmp_path / "in"), sink)(tmp_path / "out", mode="overwrite")
        return job.run(checkpoint=tmp_path / "ckpt", progress=False)

    run()
    first = visible(tmp_path / "out")
    assert first
    pl.DataFrame({"a": range(50, 60)}).write_parquet(tmp_path / "in" / "2.parquet")
    run()
    assert visible(tmp_path / "out") == first
