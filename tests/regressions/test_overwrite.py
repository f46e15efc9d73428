""" "overwrite" replaces what was there, also by nothing, and leaves no trace when the job fails."""

import polars as pl
import pytest

import unistream as us

ROWS = us.from_frame({"k": ["a", "b"], "v": ["1", "x"]})
NONE = ROWS.filter(pl.col("k") == "z")
VARIANTS = [("parquet", True), ("parquet", False), ("csv", False), ("ndjson", False)]


def write(stream, kind, folder, whole, **options):
    job = getattr(stream, f"sink_{kind}")(folder, mode="overwrite", **options)
    job.run(progress=False, settings=us.Settings(whole_query=whole))


def files(folder):
    return [path.name for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize(("kind", "whole"), VARIANTS)
@pytest.mark.parametrize("partition_by", [(), "k"])
def test_rows_are_replaced_by_no_rows(tmp_path, kind, whole, partition_by):
    write(ROWS, kind, tmp_path, whole, partition_by=partition_by)
    write(NONE, kind, tmp_path, whole, partition_by=partition_by)
    if partition_by:
        assert files(tmp_path) == []
    else:
        assert (
            getattr(us, f"scan_{kind}")(tmp_path, **({"schema": ROWS.schema} if kind == "ndjson" else {}))
            .collect()
            .height
            == 0
        )


@pytest.mark.parametrize(("kind", "whole"), VARIANTS)
def test_a_job_that_fails_leaves_the_old_files_alone_and_nothing_else(tmp_path, kind, whole):
    write(ROWS, kind, tmp_path, whole)
    before = files(tmp_path)
    with pytest.raises(us.JobFailed):
        write(ROWS.with_columns(pl.col("v").cast(pl.Int64)), kind, tmp_path, whole)
    assert files(tmp_path) == before
