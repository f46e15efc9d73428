"""The command line: what it runs, prints as JSON, and exits with."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner, Result

from unistream.cli import main

PROGRAM = """
import polars as pl
import unistream as us

orders = us.scan_csv("in", watch=True, poll="20ms", schema={"item": pl.String, "n": pl.Int64})
job = orders.unique("item").sink_csv("out")
"""

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command in a folder that holds a program and two rows."""
    monkeypatch.chdir(tmp_path)
    Path("job.py").write_text(PROGRAM)
    Path("in").mkdir()
    Path("in/1.csv").write_text("item,n\na,1\nb,2\n")
    return lambda *arguments: CliRunner().invoke(main, arguments, prog_name="unistream")


def step(run: Run) -> dict[str, object]:
    """Work off what is there, with checkpoints."""
    result = run("run", "job.py", "--until", "available", "--checkpoint", "ckpt", "--every", "1s", "--json")
    assert result.exit_code == 0, result.output
    return dict(json.loads(result.output))


def test_run_goes_on_from_its_checkpoint(run: Run) -> None:
    assert (step(run)["rows_in"], step(run)["rows_in"]) == (2, 0)
    Path("in/2.csv").write_text("item,n\nb,3\nc,4\n")
    assert step(run)["rows_in"] == 2
    assert pl.read_csv("out/*.csv")["item"].sort().to_list() == ["a", "b", "c"]


def test_run_tells_where_it_goes_on(run: Run) -> None:
    assert "restored" not in run("run", "job.py:job", "--checkpoint", "ckpt", "--until", "available").output
    assert (
        "restored checkpoint"
        in run("run", "job.py:job", "--checkpoint", "ckpt", "--until", "available").output
    )


def test_explain_runs_nothing(run: Run) -> None:
    graph = json.loads(run("explain", "job.py:job", "--json").output)
    assert [vertex["id"] for vertex in graph["physical"]] == ["csv-1", "unique-1", "csv-2"]
    assert not Path("out").exists()


def test_checkpoints_are_listed_inspected_and_compared(run: Run) -> None:
    step(run)
    Path("in/2.csv").write_text("item,n\nc,4\n")
    step(run)
    listed = json.loads(run("checkpoints", "ls", "ckpt", "--json").output)
    first, last = listed[0]["id"], listed[-1]["id"]
    assert first < last
    inside = json.loads(run("checkpoints", "inspect", "ckpt", "--json").output)
    assert inside["summary"][0]["id"] == last
    assert {row["table"] for row in inside["tables"]} >= {"seen"}
    changed = json.loads(run("checkpoints", "diff", "ckpt", str(first), str(last), "--json").output)
    assert "position" in {row["what"] for row in changed}
    for command in ("ls", "inspect", "verify"):
        assert run("checkpoints", command, "ckpt").exit_code == 0


def test_damage_is_found_and_named(run: Run) -> None:
    step(run)
    assert run("checkpoints", "verify", "ckpt").exit_code == 0
    damaged = max(Path("ckpt/files").iterdir(), key=lambda file: file.stat().st_size)
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    result = run("checkpoints", "verify", "ckpt")
    assert result.exit_code == 4
    assert damaged.name[:20] in result.output


@pytest.mark.parametrize("command", ["ls", "verify", "inspect"])
def test_a_folder_without_checkpoints_is_no_crash(run: Run, command: str) -> None:
    result = run("checkpoints", command, "nothing")
    assert result.exit_code == 4, "a typing error is not all well"
    assert result.exception is None or isinstance(result.exception, SystemExit)


def test_doctor_tells_in_json(run: Run) -> None:
    findings = json.loads(run("doctor", "--json").output)
    assert {"Python", "polars", "query"} <= {finding["what"] for finding in findings}
