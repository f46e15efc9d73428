"""Folders of one job that lie in each other: refused before anything is locked, made or removed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

import unistream as us
from unistream.errors import InvalidSettings

ROWS = us.from_frame({"a": [1, 2]})


def everything_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


SINKS: dict[str, Callable[[Path], us.Job]] = {
    "parquet-1": lambda path: ROWS.sink_parquet(path, mode="overwrite"),
    "csv-1": lambda path: ROWS.sink_csv(path),
    "ndjson-1": lambda path: ROWS.sink_ndjson(path, mode="append"),
    "table-1": lambda path: ROWS.sink_table(f"sqlite:///{path.parent}/x.db", "t", staging=path),
}


@pytest.mark.parametrize("name", SINKS)
@pytest.mark.parametrize(
    ("checkpoint", "problem"),
    [
        ("out/ckpt", "The checkpoint folder lies in the folder of sink '{}'"),
        ("out", "The checkpoint folder is the folder of sink '{}'"),
        (".", "The folder of sink '{}' lies in the checkpoint folder"),
        ("link/deeper/ckpt", "The checkpoint folder lies in the folder of sink '{}'"),
    ],
)
def test_a_checkpoint_folder_within_that_of_a_sink(
    tmp_path: Path, name: str, checkpoint: str, problem: str
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "out")
    before = everything_in(tmp_path)
    for kept in (tmp_path / checkpoint, f"file://{tmp_path}/{checkpoint}"):
        with pytest.raises(InvalidSettings) as caught:
            SINKS[name](tmp_path / "out").start(checkpoint=kept)
        assert problem.format(name) in str(caught.value)
        assert "beside it" in str(caught.value)
    assert everything_in(tmp_path) == before


def test_a_checkpoint_folder_within_the_spool_of_a_socket(tmp_path: Path) -> None:
    lines = us.scan_socket("127.0.0.1:0", schema={"a": pl.Int64}, listen=True, spool=tmp_path / "spool")
    with pytest.raises(InvalidSettings, match=r"lies in the folder of source 'socket-1'"):
        lines.sink_batches(lambda frame: None).start(checkpoint=tmp_path / "spool" / "ckpt")


def test_folders_beside_each_other_and_names_that_begin_alike(tmp_path: Path) -> None:
    ROWS.sink_parquet(tmp_path / "out").run(checkpoint=tmp_path / "out-ckpt", progress=False)
    assert pl.read_parquet(tmp_path / "out" / "*.parquet").height == 2


def job_over(folder: Path) -> us.Job:
    return us.scan_csv(folder, schema={"a": pl.Int64}).sink_parquet(folder, mode="overwrite")


def test_what_a_job_reads_is_not_replaced_before_it_was_read(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "x.csv").write_text("a\n1\n2\n")
    with pytest.raises(InvalidSettings, match=r"'parquet-1' replaces what the job reads: .*x\.csv"):
        job_over(tmp_path / "d").start(checkpoint=tmp_path / "ckpt")
    assert everything_in(tmp_path) == {"d", "d/x.csv"}
    endless = us.scan_rate(100).select(a="value").sink_batches(lambda frame: None)
    with pytest.raises(InvalidSettings, match="replaces what the job reads"):
        us.job(job_over(tmp_path / "d"), endless).start()


def test_a_job_that_commits_at_its_end_may_replace_what_it_reads(tmp_path: Path) -> None:
    for whole in (True, False):
        folder = tmp_path / str(whole)
        folder.mkdir()
        (folder / "x.csv").write_text("a\n1\n2\n")
        job_over(folder).run(settings=us.Settings(whole_query=whole), progress=False)
        assert {path.suffix for path in folder.iterdir()} == {".parquet"}
        assert pl.read_parquet(folder / "*.parquet")["a"].to_list() == [1, 2]
