"""The command: what it measures, and how it goes on with figures that are there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.compare.__main__ import arguments, begun, main
from benchmarks.compare.runs import CONTENDERS


def test_an_engine_brings_its_variants_and_unistream_is_always_there() -> None:
    ours = ["unistream", "unistream-bounded"]
    assert arguments([]).names == list(CONTENDERS)
    assert arguments(["--engines", "flink"]).names == [*ours, "flink", "flink-heap", "flink-minibatch"]
    assert arguments(["--engines", "flink-heap,spark", "q3"]).names == [*ours, "flink-heap", "spark"]


@pytest.mark.parametrize("given", [["q23"], ["--engines", "storm"]])
def test_what_is_unknown_is_refused(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        arguments(given)
    assert "unknown" in capsys.readouterr().err


def test_figures_are_kept_when_settings_are_the_same(tmp_path: Path) -> None:
    file = tmp_path / "page.json"
    first = begun(arguments(["--events", "50000"]), file, "one")
    runs = [{"contender": "polars", "query": "q0", "round": number} for number in range(3)]
    checks = {"flink": {"q0": {"verdict": "right", "why": ""}}}
    file.write_text(json.dumps({**first, "checks": checks, "runs": runs}))
    resumed = arguments(["--events", "50000", "--rounds", "5", "--resume"])
    goes_on = begun(resumed, file, "one")
    assert goes_on["checks"] and goes_on["rounds"] == 5
    assert (goes_on["command"], goes_on["first_round"]) == ("one", 0)
    other = begun(resumed, file, "two")
    file.write_text(json.dumps(other))
    for found in (other, begun(resumed, file, "two")):  # its runs are compared with one another alone
        assert (found["command"], found["first_round"], found["runs"]) == ("one\ntwo --resume", 3, runs)
    assert begun(arguments(["--events", "50000"]), file, "two")["checks"] == {}
    with pytest.raises(SystemExit, match="other settings"):
        begun(arguments(["--events", "60000", "--resume"]), file, "two")


def test_the_page_is_written_again_from_its_figures(tmp_path: Path) -> None:
    page = tmp_path / "comparison.md"
    kept = begun(arguments(["--events", "50000"]), page.with_suffix(".json"), "python -m benchmarks.compare")
    figures = {"query": "q0", "round": 0, "wall_seconds": 1.0, "cpu_seconds": 1.0, "peak_mb": 100.0}
    kept["runs"] = [
        {"contender": "unistream", "seconds": 0.5, **figures},
        {"contender": "polars", "seconds": 0.25, **figures},
    ]
    page.with_suffix(".json").write_text(json.dumps(kept))
    main(["--only-page", "--page", str(page)])
    assert "unistream is slower than Polars in q0 0.50" in page.read_text()
    assert (tmp_path / "comparison.svg").read_text().startswith("<svg")
    assert (tmp_path / "comparison.bounded.svg").exists()
