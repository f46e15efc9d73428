"""Checkpoints, state and savepoints from the command line: what is printed, and the exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner, Result

import unistream as us
from unistream.cli import main
from unistream.io.memory import MemorySink
from unistream.testing import ListSource

ROWS = [("a", 1), ("b", 2), ("a", 3)]
MORE = [("c", 4)]


def totals(rows: list[tuple[str, int]]) -> us.Job:
    source = us.scan(ListSource({"k": pl.String, "v": pl.Int64}, rows))
    return source.group_by("k").agg(total=pl.col("v").sum()).sink(MemorySink())


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """Two checkpoints, the second with one more key."""
    for rows in (ROWS, ROWS + MORE):
        totals(rows).run(checkpoint=tmp_path / "ckpt", progress=False)
    return str(tmp_path / "ckpt")


def call(*arguments: str | int) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def data(*arguments: str | int) -> Any:
    result = call(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def ids(folder: str) -> list[int]:
    return [entry["id"] for entry in data("checkpoints", "ls", folder)]


def a_file_of(folder: str, number: int) -> Path:
    stored = data("checkpoints", "inspect", folder, "--id", number)["files"][0]["stored"]
    return Path(folder, stored)


def test_ls(folder: str) -> None:
    listed = data("checkpoints", "ls", folder)
    assert [entry["kind"] for entry in listed] == ["checkpoint", "checkpoint"]
    assert [entry["problem"] for entry in listed] == [None, None]
    assert "checkpoint" in call("checkpoints", "ls", folder).output


def test_inspect_shows_the_newest_or_another(folder: str) -> None:
    first, second = ids(folder)
    newest = data("checkpoints", "inspect", folder)
    assert newest["summary"][0]["id"] == second
    assert newest["positions"][0]["vertex"] == "list-1"
    rows = {table["table"]: table["rows"] for table in newest["tables"]}
    older = data("checkpoints", "inspect", folder, "--id", first)
    assert older["summary"][0]["id"] == first
    assert {table["table"]: table["rows"] for table in older["tables"]} != rows
    assert "positions" in call("checkpoints", "inspect", folder).output


def test_diff(folder: str) -> None:
    differences = data("checkpoints", "diff", folder, *ids(folder))
    assert {"table", "position", "file"} <= {entry["what"] for entry in differences}
    assert data("checkpoints", "diff", folder, ids(folder)[0], ids(folder)[0]) == []


def test_verify_is_content_with_what_is_whole(folder: str) -> None:
    assert data("checkpoints", "verify", folder) == []
    assert "all as recorded: 2 checkpoints" in call("checkpoints", "verify", folder).output


@pytest.mark.parametrize("how", ["flipped", "cut", "missing"])
def test_verify_ends_with_4_on_damage_and_names_the_file(how: str, folder: str) -> None:
    first, second = ids(folder)
    file = a_file_of(folder, second)
    content = bytearray(file.read_bytes())
    content[7] ^= 16
    file.unlink()
    if how != "missing":
        file.write_bytes(content if how == "flipped" else content[:-1])
    for arguments in ([], ["--id", second]):
        for form in ([], ["--json"]):
            result = call("checkpoints", "verify", folder, *arguments, *form)
            assert result.exit_code == 4
            assert file.name[:20] in result.output
    assert call("checkpoints", "verify", folder, "--id", first).exit_code in (0, 4), "they may share the file"


def test_ls_shows_a_damaged_manifest_with_the_others(folder: str) -> None:
    _, second = ids(folder)
    (Path(folder) / "checkpoints" / f"{second:08}.json").write_text("{}")
    listed = data("checkpoints", "ls", folder)
    assert [bool(entry["problem"]) for entry in listed] == [False, True]


# Removing


def test_rm_removes_a_checkpoint_and_its_files(folder: str) -> None:
    first, second = ids(folder)
    gone = data("checkpoints", "rm", folder, first)
    assert gone["checkpoints"] == [first]
    assert ids(folder) == [second]
    assert data("checkpoints", "verify", folder) == []
    totals(ROWS + MORE).run(checkpoint=folder, progress=False)


def test_rm_of_the_newest_goes_back_to_the_one_before(folder: str) -> None:
    _, second = ids(folder)
    assert "removed 1 checkpoints" in call("checkpoints", "rm", folder, second).output
    assert totals(ROWS + MORE).run(checkpoint=folder, progress=False).rows_in == len(MORE)


def test_rm_of_a_damaged_one_is_the_way_out(folder: str) -> None:
    _, second = ids(folder)
    (Path(folder) / "checkpoints" / f"{second:08}.json").write_text("{}")
    with pytest.raises(us.StateError):
        totals(ROWS + MORE).run(checkpoint=folder, progress=False)
    assert call("checkpoints", "rm", folder, second).exit_code == 0
    assert totals(ROWS + MORE).run(checkpoint=folder, progress=False).rows_in == len(MORE)


def test_rm_keep(folder: str) -> None:
    _, second = ids(folder)
    assert call("checkpoints", "rm", folder, "--keep", 1).exit_code == 0
    assert ids(folder) == [second]


def test_rm_wants_to_know_which(folder: str) -> None:
    for arguments in ([], [1, "--keep", 1]):
        result = call("checkpoints", "rm", folder, *arguments)
        assert result.exit_code == 2
        assert "Say which" in result.output
    assert call("checkpoints", "rm", folder, 999).exit_code == 4
    assert len(ids(folder)) == 2


def test_rm_is_refused_while_the_job_runs(folder: str) -> None:
    source = us.scan(ListSource({"k": pl.String, "v": pl.Int64}, ROWS + MORE, bounded=False))
    job = source.group_by("k").agg(total=pl.col("v").sum()).sink(MemorySink())
    with job.start(checkpoint=folder):
        result = call("checkpoints", "rm", folder, "--keep", 1)
        assert result.exit_code == 4
        assert "is in use by" in result.output
        assert ids(folder), "looking is allowed"
        assert call("checkpoints", "verify", folder).exit_code == 0


# State


def test_state_lists_tables_and_shows_rows(folder: str) -> None:
    assert "aggregate-1" in {entry["operator"] for entry in data("state", folder)}
    assert sorted(row["k"] for row in data("state", folder, "aggregate-1")) == ["a", "b", "c"]
    first, _ = ids(folder)
    assert sorted(row["k"] for row in data("state", folder, "aggregate-1", "--id", first)) == ["a", "b"]
    table = data("state", folder)[0]["table"]
    assert len(data("state", folder, "aggregate-1", table, "--rows", 2)) == 2
    shown = call("state", folder, "aggregate-1", "--rows", 1)
    assert "1 of 3 rows" in shown.output


def test_state_of_what_is_not_there(folder: str, tmp_path: Path) -> None:
    wrong = call("state", folder, "agregate-1")
    assert (wrong.exit_code, "did you mean 'aggregate-1'" in wrong.output) == (2, True)
    assert call("state", folder, "aggregate-1", "no-table").exit_code == 2
    assert call("state", folder, "aggregate-1", "--id", 99).exit_code == 4
    assert call("state", tmp_path / "nowhere").exit_code == 4


# Savepoints


def test_a_savepoint_starts_another_job(folder: str, tmp_path: Path) -> None:
    first, second = ids(folder)
    assert data("savepoint", folder, tmp_path / "kept")["id"] == second
    assert "checkpoint" in call("savepoint", folder, tmp_path / "older", "--id", first).output
    for target, expected in (("kept", 0), ("older", len(MORE))):
        assert call("checkpoints", "verify", tmp_path / target).exit_code == 0
        progress = totals(ROWS + MORE).run(
            checkpoint=tmp_path / f"from-{target}", restore=tmp_path / target, progress=False
        )
        assert progress.rows_in == expected
    taken = call("savepoint", folder, tmp_path / "kept")
    assert (taken.exit_code, "holds checkpoints already" in taken.output) == (4, True)


def test_run_restores(folder: str, tmp_path: Path) -> None:
    program = tmp_path / "job.py"
    program.write_text(
        "import polars as pl, unistream as us\n"
        "from unistream.testing import ListSource\n"
        f"source = us.scan(ListSource({{'k': pl.String, 'v': pl.Int64}}, {ROWS + MORE}))\n"
        "totals = source.group_by('k').agg(total=pl.col('v').sum())\n"
        f"job = totals.changes().sink_ndjson({str(tmp_path / 'out')!r})\n"
    )
    first, _ = ids(folder)
    done = data("run", program, "--checkpoint", folder, "--restore", first)
    assert done["rows_in"] == len(MORE)
    call("savepoint", folder, tmp_path / "kept")
    done = data("run", program, "--checkpoint", tmp_path / "next", "--restore", tmp_path / "kept")
    assert done["rows_in"] == 0
    assert call("run", program, "--restore", tmp_path / "kept").exit_code == 2


@pytest.mark.parametrize(
    "command",
    [
        ["checkpoints", "ls"],
        ["checkpoints", "verify"],
        ["checkpoints", "inspect"],
        ["checkpoints", "rm", "--keep", "1"],
        ["state"],
    ],
    ids=lambda command: command[-1],
)
def test_a_folder_without_checkpoints(command: list[str], tmp_path: Path) -> None:
    result = call(*command, tmp_path / "nothing")
    assert result.exit_code == 4
    assert "There is no checkpoint in" in result.output
    assert not (tmp_path / "nothing").exists(), "looking makes no folder"
