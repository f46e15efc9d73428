"""`unistream bench`: what it measures, shows, writes as JSON and refuses."""

from __future__ import annotations

import inspect
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from unistream import errors
from unistream.cli import main
from unistream.nexmark import measure, report
from unistream.nexmark.files import count_events, generate_events
from unistream.nexmark.lateness import WINDOWED, Lateness
from unistream.nexmark.queries import QUERIES
from unistream.nexmark.trial import Case, Sample, run_case

EVENTS = 3_000
BIDS = EVENTS * 46 // 50

Bench = Callable[..., Result]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Run the command in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(main, ["bench", *arguments], prog_name="unistream")


def events(folder: Path, form: str = "parquet", **options: Any) -> str:
    """Events as files, few in a second of event time, so that windows close on the way."""
    for _ in generate_events(folder, EVENTS, form=form, event_rate=100, progress=False, **options):
        pass
    return str(folder)


def a_sample(query: str = "q0", **given: Any) -> Sample:
    """One that needs no run."""
    stated: dict[str, Any] = {
        "query": query,
        "mode": "stream",
        "round": 1,
        "events": 1_000_000,
        "seconds": 1.0,
        "cpu_seconds": 1.5,
        "peak_bytes": 200_000_000,
        "rows_out": 920_000,
        "tick_ms": (2.0, 4.0),
    }
    return Sample(**{**stated, **given})


# The whole way


def test_two_queries_are_measured_in_both_modes(bench: Bench, tmp_path: Path) -> None:
    folder = events(tmp_path / "events")
    result = bench("q0", "q5", "--input", folder, "--rounds", "1", "--tick-rows", "500", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["complete"] is True
    assert found["machine"]["usable_cores"] >= 1
    assert found["plan"]["queries"] == ["q0", "q5"]
    assert found["settings"]["tick_rows"] == 500
    by_case = {(one["query"], one["mode"]): one for one in found["results"]}
    assert list(by_case) == [(query, mode) for query in ("q0", "q5") for mode in ("batch", "stream")]
    for one in by_case.values():
        assert one["events"] == EVENTS, "events of all kinds, as the folder has them"
        assert [run["round"] for run in one["runs"]] == [1], "the warm-up does not count"
        speed = one["events_per_second"]
        assert 0 < speed["least"] <= speed["median"] <= speed["most"]
        assert one["cores"] > 0
        assert one["peak_bytes"] > 10_000_000
    assert by_case["q0", "batch"]["rows_out"] == by_case["q0", "stream"]["rows_out"] == BIDS
    assert by_case["q5", "batch"]["rows_out"] == by_case["q5", "stream"]["rows_out"] > 1
    assert by_case["q0", "batch"]["state_bytes"] is None
    assert by_case["q0", "stream"]["state_bytes"] == 0
    assert by_case["q5", "stream"]["state_bytes"] > 0, "of the windows that were open on the way"
    assert by_case["q5", "stream"]["ticks"] >= EVENTS // 500 - 1
    assert by_case["q5", "stream"]["checkpoints"] >= 1
    assert "4 of 6: q5 stream, warm-up" in result.stderr


def test_without_folder_events_are_generated_and_the_table_is_plain(bench: Bench) -> None:
    result = bench("q15", "--events", str(EVENTS), "--mode", "stream", "--rounds", "1", "--json", "out.json")
    assert result.exit_code == 0, result.output
    heads, line = result.stdout.splitlines()
    assert heads.split("  ")[0] == "query"
    assert line.split()[:2] == ["q15", "stream"]
    assert "\x1b" not in result.stdout
    [found] = json.loads(Path("out.json").read_text())["results"]
    assert found["events"] == EVENTS
    # One checkpoint at the end is smaller than the chain of changes of which the state is told.
    assert found["checkpoint_bytes"] > 0 and found["state_bytes"] > 0
    assert report.size(found["state_bytes"]) in line


def test_at_a_rate_it_tells_how_late_results_are(bench: Bench) -> None:
    result = bench("q0", "--rate", "5000", "--events", str(EVENTS), "--rounds", "1", "--json")
    assert result.exit_code == 0, result.output
    [found] = json.loads(result.stdout)["results"]
    assert found["mode"] == "stream"
    assert found["rows_out"] == BIDS
    assert found["seconds"] >= (EVENTS - 1) / 5000, "no event comes before it is due"
    assert 0 < found["latency_ms"]["p50"] <= found["latency_ms"]["p99"]


@pytest.mark.parametrize(("query", "timed"), [("q7", False), ("q15", True)])
def test_results_of_windows_are_not_called_late(query: str, timed: bool) -> None:
    sample = run_case(Case(query=query, mode="stream", events=500, rate=5000))
    assert (sample.latency_ms is not None) == timed


@pytest.mark.parametrize("form", ["ndjson", "csv"])
def test_events_may_lie_there_as_lines(form: str, tmp_path: Path) -> None:
    folder = events(tmp_path, form)
    assert count_events(folder) == EVENTS
    sample = run_case(Case(query="q1", mode="batch", events=EVENTS, folder=folder))
    assert sample.rows_out == BIDS


def test_an_interrupt_shows_what_was_measured(tmp_path: Path) -> None:
    """As Ctrl-C does: the signal goes to the command and to the process that measures."""
    command = [sys.executable, "-m", "unistream.cli", "bench", "q0", "q1", "--rounds", "50", "--json", "out"]
    folder = events(tmp_path / "events")
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [*command, "--input", folder, "--mode", "batch"],
        cwd=tmp_path,
        stdout=pipe,
        stderr=pipe,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        try:
            assert process.stderr is not None
            for line in process.stderr:
                if "round 2" in line:
                    break
            os.killpg(process.pid, signal.SIGINT)
            shown, told = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130
    assert told.splitlines()[-1] == "interrupted"
    assert "Traceback" not in told
    assert [line.split()[:2] for line in shown.splitlines()[1:]] == [["q0", "batch"]]
    found = json.loads((tmp_path / "out").read_text())
    assert found["complete"] is False
    assert 1 <= len(found["results"][0]["runs"]) < 50


# Mistakes


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["q55"], 2, "did you mean 'q5'?"),
        (["genrate", "events"], 2, "did you mean 'generate'?"),
        (["--json", "q5"], 2, "unistream bench q5 --json"),
        (["q0", "--json", "no/such/folder.json"], 3, "cannot be written"),
        (["q0", "--json", "."], 3, "cannot be written"),
        (["q0", "--json", "x" * 300], 3, "cannot be written"),
        (["q0", "--input", "nowhere"], 2, "There is no folder"),
        (["q0", "--input", "."], 2, "There is no folder 'person'"),
        (["q0", "--input", ".", "--events", "5"], 2, "leave out the number"),
        (["q0", "--rate", "0"], 2, "rate must lie between"),
        (["q0", "--rate", "5", "--mode", "both"], 2, "A rate is for a live stream"),
        (["q0", "--checkpoint", "often"], 2, 'write "5s"'),
        (["q0", "--checkpoint", "0s"], 2, "must be positive"),
        (["q0", "--rounds", "0"], 2, "--rounds"),
        (["q0", "--mode", "fast"], 2, "--mode"),
    ],
)
def test_mistakes_are_explained_before_anything_runs(
    bench: Bench, arguments: list[str], code: int, told: str
) -> None:
    result = bench(*arguments)
    assert result.exit_code == code, result.output
    assert told in result.output
    assert "warm-up" not in result.output
    assert "core.py" not in result.output


def test_a_folder_must_hold_all_kinds_in_one_format(bench: Bench, tmp_path: Path) -> None:
    folder = events(tmp_path / "events", kinds=("bid",))
    assert "There is no folder 'person'" in bench("q0", "--input", folder).output
    events(tmp_path / "events", kinds=("person", "auction"))
    (tmp_path / "events/person/more.csv").write_text("id\n1\n")
    assert "2 formats" in bench("q0", "--input", folder).output
    for file in (tmp_path / "events/person").iterdir():
        file.unlink()
    assert "no Parquet, NDJSON or CSV files" in bench("q0", "--input", folder).output


def test_events_that_cannot_be_read_are_named(bench: Bench, tmp_path: Path) -> None:
    folder = events(tmp_path / "events")
    next((tmp_path / "events/bid").glob("*.parquet")).write_bytes(b"PAR1 and nothing else")
    result = bench("q0", "--input", folder)
    assert result.exit_code == 2
    assert "bid" in result.output


def test_without_a_place_for_files_it_says_so(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    result = bench("q0")
    assert result.exit_code == 3
    assert "set TMPDIR" in result.output


def test_an_error_of_the_other_process_is_raised_here(tmp_path: Path) -> None:
    case = Case(query="q0", mode="batch", events=1, folder=str(tmp_path / "gone"))
    with pytest.raises(errors.InvalidSettings, match="There is no folder") as caught:
        measure.run_apart(case)
    assert caught.value.hint


def test_a_process_that_dies_is_an_error(monkeypatch: pytest.MonkeyPatch, bench: Bench) -> None:
    """What was measured before is shown; the exit code is that of a job that failed."""
    last_words = "import os, sys; sys.stderr.write('out of luck'); os.kill(os.getpid(), {})"

    def dying(case: Case) -> Sample:
        if case.query == "q0":
            return a_sample(round=case.round, mode=case.mode)
        monkeypatch.setattr(
            measure, "COMMAND", (sys.executable, "-c", last_words.format(int(signal.SIGKILL)))
        )
        return run_apart(case)

    run_apart = measure.run_apart
    monkeypatch.setattr(measure, "run_apart", dying)
    result = bench("q0", "q4", "--events", "50", "--mode", "stream")
    assert result.exit_code == 1
    assert "signal 9" in result.stderr and "--events" in result.stderr
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["query", "q0"]
    monkeypatch.setattr(measure, "COMMAND", (sys.executable, "-c", "raise SystemExit('no such luck')"))
    with pytest.raises(errors.JobFailed, match="no such luck"):
        run_apart(Case(query="q4", mode="batch", events=50))


# Figures


def test_figures_are_medians_over_the_rounds_that_count() -> None:
    runs = [
        a_sample(round=0, seconds=100.0, state_bytes=500),
        a_sample(seconds=2.0, state_bytes=20, checkpoint_bytes=5, tick_ms=(1.0, 9.0)),
        a_sample(round=2, seconds=1.0, state_bytes=10, checkpoint_bytes=7, tick_ms=(3.0, 3.0)),
        a_sample(round=3, seconds=4.0, state_bytes=10, checkpoint_bytes=6, tick_ms=(2.0, 5.0)),
        a_sample("q1", round=0),
    ]
    [found] = measure.results(runs)
    assert found.events_per_second == (500_000, 250_000, 1_000_000)
    assert found.state_bytes == 500
    assert found.median("checkpoint_bytes") == 6
    assert found.medians("tick_ms") == (2.0, 5.0)
    assert found.medians("latency_ms") is None
    assert report.rows([found])[1][2:4] == ("0.5", "0.25 - 1")
    assert "latency p50 / p99" not in report.plain_table([found])


def test_a_terminal_shows_the_same_cells() -> None:
    results = measure.results([a_sample(latency_ms=(1.5, 20.0)), a_sample("q4", mode="batch")])
    table = report.rich_table(results)
    columns = zip(*report.rows(results), strict=True)
    assert [(str(one.header), *one.cells) for one in table.columns] == list(columns)


def test_queries_that_are_not_timed_are_those_with_windows() -> None:
    with_windows = {name for name, query in QUERIES.items() if ".window(" in inspect.getsource(query)}
    assert with_windows == WINDOWED


def test_lateness_counts_events_from_when_they_were_due() -> None:
    """Ten events a second from time 0; a quarter of them is warm-up."""
    lateness = Lateness(start=0, rate=10)

    def tick(reached: dict[str, int], at: float | None) -> None:
        lateness.ticked(
            [a_source(next=one) for one in reached.values()], None if at is None else int(at * 1e6)
        )

    tick({"person": 4, "bid": 5}, 1.0)
    tick({"person": 10, "bid": 12}, 1.5)  # the event 9 counts, 10 and 11 of persons are still to come
    tick({"person": 14, "bid": 14}, None)  # no result: these are left out
    tick({"person": 16, "bid": 16}, 2.0)
    events = [(number, 1.0 if number < 4 else 1.5) for number in range(4, 10)] + [(14, 2.0), (15, 2.0)]
    late = [(at - number / 10) * 1000 for number, at in events]
    assert lateness.percentiles() == pytest.approx(tuple(np.percentile(late, [50, 99])))


def a_source(**position: int) -> Any:
    """A source task as far as lateness looks at it."""
    from unistream.runtime.task import SourceTask

    task = SourceTask.__new__(SourceTask)
    task.positions = {"events": position}
    return task


@pytest.mark.parametrize(("load", "warned"), [(0.1, False), (7.5, True)])
def test_a_busy_machine_is_mentioned(
    load: float, warned: bool, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "run_apart", lambda case: a_sample(round=case.round, mode=case.mode))
    monkeypatch.setattr("os.getloadavg", lambda: (load, 0.0, 0.0))
    result = bench("q0", "--events", "50", "--json")
    assert ("figures will be lower" in result.stderr) == warned
    assert json.loads(result.stdout)["machine"]["load_before"] == load


def test_the_command_needs_no_name_for_run(bench: Bench) -> None:
    for arguments in (["-h"], ["run", "-h"]):
        shown = bench(*arguments).output
        assert "--tick-rows" in shown and "--rate" in shown
    assert "generate" in bench("--help").output
    assert "unistream bench q5 q7" in bench("--help").output
