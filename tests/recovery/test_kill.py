"""kill -9 of real processes at random moments: nothing lost, nothing twice, nothing wrong."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from recovery_forks import Forks
from recovery_jobs import RESULTS, check_all, make_rows, write_input, written

from unistream.clock import Random
from unistream.testing.ways import folder_in_memory

LONGEST = 0.5
"""Seconds after the start of a process within which it is killed."""


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    with folder_in_memory() as folder:
        made = Forks(folder)
        yield made
        made.close()


@dataclass
class Siege:
    """Rounds of one input each, worked off by processes that are killed over and over."""

    forks: Forks
    function: str
    rows: int = 3000
    tick_rows: int = 25

    def run(self, kills: int, seed: int) -> None:
        random, killed, rounds = Random(seed), 0, 0
        while killed < kills:
            rounds += 1
            with folder_in_memory() as folder:
                killed += self._round(folder, random, kills - killed, rounds)
        assert killed >= kills

    def _round(self, folder: Path, random: Random, most: int, number: int) -> int:
        rows = make_rows(self.rows, seed=number)
        write_input(folder / "in", rows, files=12)
        killed = 0
        while not self._once(folder, random.uniform(0, LONGEST) if killed < most else 120.0):
            killed += 1
        check_all(rows, {name: written(folder / "out", name) for name in RESULTS})
        return killed

    def _once(self, folder: Path, seconds: float) -> bool:
        """Whether a process came to the end before it was killed."""
        child = self.forks.start(
            "recovery_jobs", self.function, folder / "in", folder, "30ms", self.tick_rows
        )
        child.wait(seconds)
        if child.kill():
            return False
        assert "returned" in child.outcome, child.outcome
        return True


def test_fifty_kills(forks: Forks) -> None:
    Siege(forks, "run_to_the_end").run(kills=50, seed=1)


@pytest.mark.nightly
@pytest.mark.parametrize("seed", range(10))
def test_a_thousand_kills(forks: Forks, seed: int) -> None:
    Siege(forks, "run_to_the_end").run(kills=100, seed=100 + seed)
