"""kill -9 of real processes at random moments: nothing lost, nothing twice, nothing wrong."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from recovery_forks import Forks
from recovery_jobs import (
    RESULTS,
    check_all,
    check_pairs,
    check_tables,
    clear_postgres,
    in_tables,
    make_rows,
    write_input,
    written,
)

from unistream.clock import Random
from unistream.testing.ways import folder_in_memory

EARLY = 0.3
"""Share of the kills that come while a process starts, at the latest after as many seconds."""

MOST_CHECKPOINTS = 5
"""Other kills come after so many checkpoints of the process, and a little later."""


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
    tables: str = ""
    joins: bool = False
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
        if "://" in self.tables:
            clear_postgres(self.tables)
        killed = 0
        while not self._once(folder, random if killed < most else None):
            killed += 1
        if self.joins:
            check_pairs(rows, written(folder / "out", "pairs"))
        elif self.tables:
            check_tables(rows, in_tables(folder, self.tables))
        else:
            check_all(rows, {name: written(folder / "out", name) for name in RESULTS})
        return killed

    def _once(self, folder: Path, random: Random | None) -> bool:
        """Whether a process came to its end, which it does at the latest when nobody kills it."""
        known = newest(folder / "ckpt")
        function = "into_tables" if self.tables else "join_to_the_end" if self.joins else "run_to_the_end"
        arguments = [folder / "in", folder, "20ms", self.tick_rows, *([self.tables] if self.tables else [])]
        child = self.forks.start("recovery_jobs", function, *arguments)
        if random is None:
            assert child.wait(120), "the job does not end"
        elif random.random() < EARLY:
            child.wait(random.uniform(0, EARLY))
        else:
            aim = (
                known + 2 + random.randint(0, MOST_CHECKPOINTS)
            )  # its first id closes that of the one before
            while newest(folder / "ckpt") < aim and not child.wait(0.002):
                pass
            child.wait(random.uniform(0, 0.03))
        if child.kill():
            return False
        assert "returned" in child.outcome, child.outcome
        return True


def newest(checkpoints: Path) -> int:
    """The last id in a checkpoint directory that may not be there yet."""
    folder = checkpoints / "checkpoints"
    return max((int(file.stem) for file in folder.glob("*.json")), default=0) if folder.is_dir() else 0


def test_fifty_kills_of_a_job_that_writes_files(forks: Forks) -> None:
    Siege(forks).run(kills=50, seed=1)


def test_fifty_kills_of_a_job_that_writes_tables(forks: Forks) -> None:
    Siege(forks, "sqlite").run(kills=50, seed=2)


def test_fifty_kills_of_a_job_that_joins(forks: Forks) -> None:
    Siege(forks, joins=True).run(kills=50, seed=4)


@pytest.mark.nightly
@pytest.mark.parametrize("seed", range(10))
def test_a_thousand_kills_of_a_job_that_joins(forks: Forks, seed: int) -> None:
    Siege(forks, joins=True).run(kills=100, seed=300 + seed)


@pytest.mark.slow
def test_fifty_kills_of_a_job_that_writes_to_a_server(forks: Forks, postgres: str) -> None:
    Siege(forks, postgres).run(kills=50, seed=3)


@pytest.mark.nightly
@pytest.mark.parametrize("seed", range(10))
def test_a_thousand_kills_with_a_server(forks: Forks, postgres: str, seed: int) -> None:
    Siege(forks, postgres).run(kills=100, seed=200 + seed)


@pytest.mark.nightly
@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("tables", ["", "sqlite", "duckdb"], ids=["parquet", "sqlite", "duckdb"])
def test_a_thousand_kills(forks: Forks, tables: str, seed: int) -> None:
    Siege(forks, tables).run(kills=100, seed=100 + seed)
