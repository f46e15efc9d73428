"""Medians, ratios, goals and the page that is made of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks.compare.page import charts, page
from benchmarks.compare.table import Measured, Runs, geometric_mean, losses, misses


def run(contender: str, query: str, number: int, seconds: float, peak_mb: float = 100.0) -> Measured:
    return Measured(contender, query, number, seconds, 2 * seconds, 3 * seconds, peak_mb, 0.01)


def some() -> Runs:
    """Twelve times as fast as Flink in q0, half as fast in q1; a third round without Flink."""
    seconds = {
        ("unistream", "q0"): [1.0, 2.0, 1.5],
        ("flink", "q0"): [12.0, 20.0],
        ("unistream", "q1"): [4.0, 4.0, 4.0],
        ("flink", "q1"): [2.0, 2.0],
    }
    return Runs(
        3_000_000,
        [
            run(*pair, number, each, 100.0 if pair[0] == "unistream" else 200.0)
            for pair, times in seconds.items()
            for number, each in enumerate(times)
        ],
    )


def document(runs: Runs) -> dict[str, Any]:
    return {
        "events": runs.events,
        "rounds": 3,
        "warm": 300_000,
        "check_events": 100_000,
        "command": "python -m benchmarks.compare q0 q1",
        "machine": {"processor": "Some CPU", "cores": 2, "memory_gb": 23.4, "system": "Linux 6.1"},
        "versions": {"unistream": "0.1.0", "flink": "2.3.0"},
        "skipped": {"spark": "needs Java 17 or 21 on the path, found none"},
        "checks": {
            "unistream": {"q0": {"verdict": "right", "why": ""}, "q1": {"verdict": "right", "why": ""}},
            "flink": {"q6": {"verdict": "unable", "why": "no words"}, "q9": {"verdict": "wrong", "why": "2"}},
        },
        "runs": [one.__dict__ for one in runs.measured],
    }


def test_medians_and_spread() -> None:
    runs = some()
    assert runs.queries == ["q0", "q1"]
    assert runs.rate("unistream", "q0") == pytest.approx(2.0)
    assert runs.spread("unistream", "q0") == pytest.approx(1 / 1.5)
    assert runs.of("unistream", "q1")[0].cores == pytest.approx(1.5)


def test_ratios_are_taken_round_by_round() -> None:
    runs = some()
    assert runs.ratio("unistream", "flink", "q0") == pytest.approx((12 + 10) / 2)
    assert runs.ratio("unistream", "spark", "q0") is None
    assert runs.ratios("unistream", "flink") == pytest.approx({"q0": 11.0, "q1": 0.5})
    assert runs.memory_ratio("unistream", "flink", "q0") == pytest.approx(0.5)


def test_twice_and_half_as_fast_are_as_fast_on_average() -> None:
    assert geometric_mean([2.0, 0.5]) == pytest.approx(1.0)


def test_goals_that_are_missed_are_named() -> None:
    missed = {(miss.theirs, miss.what): miss.found for miss in misses(some())}
    assert missed == pytest.approx(
        {
            ("flink", "geometric mean"): geometric_mean([11, 0.5]),
            ("flink", "q1"): 0.5,
            ("flink", "memory of q0"): 0.5,
            ("flink", "memory of q1"): 0.5,
        }
    )


def test_a_faster_engine_is_a_loss() -> None:
    assert losses(some(), ["unistream"], ["flink"]) == [("unistream", "flink", "q1", 0.5)]


def test_the_page_says_where_we_lose_and_why_there_are_gaps() -> None:
    text = page(document(some()))
    assert "unistream is slower than Flink in q1 0.50" in text
    assert "Spark is left out: needs Java 17 or 21" in text
    assert "q6: cannot be stated: no words." in text
    assert "q9: **wrong**: 2." in text
    assert "| q0 | 2.00 (67) | 0.19 (50) |" in text
    assert "| unistream / Flink | 2 | 2.35 | 0.50 (q1) | 11.00 (q0) |" in text


def test_every_table_of_the_page_has_as_many_cells_in_each_line() -> None:
    lines = page(document(some())).splitlines()
    tables = "\n".join(line if line.startswith("|") else "" for line in lines).split("\n\n")
    sizes = [{line.count("|") for line in table.splitlines() if line} for table in tables]
    assert any(sizes)
    assert all(len(size) <= 1 for size in sizes)


def test_the_picture_has_a_mark_for_each_figure() -> None:
    drawn = charts(document(some()))
    assert list(drawn) == ["comparison.svg"]  # nothing was measured over all rows at once
    circles = ElementTree.fromstring(drawn["comparison.svg"]).iter("{http://www.w3.org/2000/svg}circle")
    assert len(list(circles)) == 4 + 2  # two engines, two queries, and the legend


def test_what_the_host_took_is_told_where_it_was_counted() -> None:
    runs = some()
    assert "What others took" in page(document(runs)) and "| 1% |" in page(document(runs))
    runs.measured[0] = replace(runs.measured[0], stolen=None)
    assert "What others took" not in page(document(runs))


def test_only_engines_that_ran_are_described() -> None:
    text = page(document(some()))
    assert "**Flink**" in text and "**Spark**" not in text


def test_the_page_says_how_often_each_was_run() -> None:
    often = document(some())
    assert "rounds: 2 to 3, as" in page(often) and "Some were run once" not in page(often)
    once = {**often, "runs": [run for run in often["runs"] if run["round"] == 0]}
    assert "rounds: 1," in page(once) and "One run of each" in page(once)
    [first, *_] = [run for run in often["runs"] if run["round"] == 1]
    mixed = {**often, "runs": [*once["runs"], first]}
    assert "rounds: 1 to 2, as the commands say" in page(mixed) and "Some were run once" in page(mixed)
