"""Two processes on one checkpoint directory: the second is refused, the first does not notice."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from recovery_forks import Forks
from recovery_jobs import RESULTS, check_all, make_rows, write_input, written

from unistream.testing.ways import folder_in_memory

ROWS = make_rows(1500, seed=5)


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    with folder_in_memory() as folder:
        made = Forks(folder)
        yield made
        made.close()


def test_the_second_process_is_refused(forks: Forks) -> None:
    with folder_in_memory() as folder:
        write_input(folder / "in", ROWS, files=6)
        first = forks.start("recovery_jobs", "run_to_the_end", folder / "in", folder, "20ms", 25)
        while not list((folder / "ckpt/owners").glob("*.json")):
            assert not first.wait(0.002), first.outcome
        refused = 0
        while not first.wait(0):
            second = forks.start("recovery_jobs", "run_to_the_end", folder / "in", folder, "20ms", 25)
            assert second.wait(60)
            if first.wait(0):
                break
            assert f"is in use by process {first.pid} on" in second.outcome["raised"]
            refused += 1
        assert refused
        assert first.outcome == {"returned": ROWS.height}
        check_all(ROWS, {name: written(folder / "out", name) for name in RESULTS})


def test_of_many_at_once_one_gets_it(forks: Forks) -> None:
    with folder_in_memory() as folder:
        write_input(folder / "in", ROWS, files=6)
        children = [
            forks.start("recovery_jobs", "run_to_the_end", folder / "in", folder, "20ms", 25)
            for _ in range(4)
        ]
        assert all(child.wait(120) for child in children)
        ended = [child for child in children if "returned" in child.outcome]
        # One that came when another had ended goes on from its last checkpoint, and has nothing to do.
        assert sum(child.outcome["returned"] for child in ended) == ROWS.height
        for child in children:
            if child not in ended:
                assert "StateError" in child.outcome["raised"]
                assert "is in use by" in child.outcome["raised"]
        check_all(ROWS, {name: written(folder / "out", name) for name in RESULTS})
