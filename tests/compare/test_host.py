"""What the host took away while something was measured."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import host
from benchmarks.compare import measure
from benchmarks.compare.protocol import Answer
from benchmarks.compare.runs import CONTENDERS


def test_the_part_that_was_taken_is_counted_for_all_processors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stat = tmp_path / "stat"
    monkeypatch.setattr(host, "_STAT", stat)
    monkeypatch.setattr(host.os, "cpu_count", lambda: 2)
    clock = iter([100.0, 104.0])
    monkeypatch.setattr(host.time, "perf_counter", lambda: next(clock))
    ticks = host.os.sysconf("SC_CLK_TCK")
    stat.write_text(f"cpu  1 2 3 4 5 6 7 {10 * ticks} 0 0\n")
    taken = host.Taken()
    stat.write_text(f"cpu  1 2 3 4 5 6 7 {12 * ticks} 0 0\n")
    assert taken.part() == pytest.approx(2 / (4 * 2))


def test_nothing_is_taken_where_nobody_counts_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "_STAT", tmp_path / "missing")
    assert host.Taken().part() == 0.0


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Answer]]:
    """Answers that an engine gives, one by one."""
    answers: list[Answer] = []
    monkeypatch.setattr(measure, "attempt", lambda *_, **__: answers.pop(0))
    monkeypatch.setattr(measure.inputs, "fetch_pages", lambda: None)
    yield answers


def test_a_disturbed_run_is_made_again(runs: list[Answer]) -> None:
    runs += [Answer(2.0, 2.0, stolen=0.3), Answer(1.0, 1.0, stolen=0.01), Answer(0.5, 0.5, stolen=0.0)]
    assert measure.undisturbed(CONTENDERS["polars"], "q0", Path(), Path()).seconds == 1.0
    assert len(runs) == 1, "it was run again after one that nobody disturbed"


@pytest.mark.parametrize(("lasting", "made"), [(1.0, 6), (25.0, 3), (100.0, 1)])
def test_patience_has_an_end(runs: list[Answer], lasting: float, made: int) -> None:
    runs += [Answer(lasting, lasting, stolen=0.5 - number / 100) for number in range(10)]
    kept = measure.undisturbed(CONTENDERS["polars"], "q0", Path(), Path())
    assert kept.stolen == pytest.approx(0.5 - (made - 1) / 100)
    assert len(runs) == 10 - made
