"""One bit flipped anywhere in a checkpoint: the job does not start, and says which file is damaged."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

import unistream as us
from unistream.clock import Random
from unistream.testing.ways import folder_in_memory

ROWS = us.from_frame({"k": ["a", "b", "a"], "v": [1, 2, 3]})


class Untouched:
    """Fails the test when a row arrives."""

    def __call__(self, frame: pl.DataFrame) -> None:
        raise AssertionError("a row was read before the damage was noticed")


def job(sink: object = None) -> us.Job:
    counts = ROWS.group_by("k").agg(total=pl.col("v").sum()).changes()
    return counts.sink_batches(sink or Untouched())  # type: ignore[arg-type]


@pytest.fixture
def folder() -> Iterator[Path]:
    with folder_in_memory() as path:
        runtime = job(lambda frame: None).runtime(checkpoint=path / "whole", threads=False)
        runtime.open()
        runtime.run()
        runtime.close()
        yield path


def bytes_of(folder: Path) -> list[tuple[str, int]]:
    """Every byte of every file that a restart relies on."""
    return [
        (str(file.relative_to(folder)), place)
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != "lock"
        for place in range(file.stat().st_size)
    ]


def test_there_is_something_to_damage(folder: Path) -> None:
    names = {name.split("/")[0] for name, _ in bytes_of(folder / "whole")}
    assert names == {"checkpoints", "files", "owners", "newest.json"}


def start_with_a_flip(folder: Path, name: str, place: int, bit: int) -> None:
    damaged = folder / "damaged"
    shutil.rmtree(damaged, ignore_errors=True)
    shutil.copytree(folder / "whole", damaged)
    content = bytearray((damaged / name).read_bytes())
    content[place] ^= 1 << bit
    (damaged / name).unlink()  # it may be a second name of the same file
    (damaged / name).write_bytes(content)
    with pytest.raises(us.StateError, match=re.escape(name)):
        job().start(checkpoint=damaged)


def test_a_flip_in_any_file_is_noticed(folder: Path) -> None:
    """A few hundred places, each file's ends among them."""
    random = Random(17)
    every = bytes_of(folder / "whole")
    by_file: dict[str, list[int]] = {}
    for name, place in every:
        by_file.setdefault(name, []).append(place)
    for name, places in by_file.items():
        for place in {places[0], places[-1], *random.sample(places, min(30, len(places)))}:
            start_with_a_flip(folder, name, place, random.randrange(8))


@pytest.mark.slow
def test_a_flip_in_every_byte_is_noticed(folder: Path) -> None:
    random = Random(18)
    for name, place in bytes_of(folder / "whole"):
        start_with_a_flip(folder, name, place, random.randrange(8))


@pytest.mark.parametrize("name", ["checkpoints", "files", "newest.json"])
def test_a_file_that_is_missing_or_cut_is_noticed(name: str, folder: Path) -> None:
    def victim(where: Path) -> Path:
        found = where / name
        return found if found.is_file() else next(file for file in sorted(found.rglob("*")) if file.is_file())

    for cut in (True, False):
        damaged = folder / f"damaged-{cut}"
        shutil.copytree(folder / "whole", damaged)
        file = victim(damaged)
        content = file.read_bytes()
        file.unlink()
        if cut:
            file.write_bytes(content[:-1])
        elif name == "newest.json":
            continue  # it tells of the loss of others; its own is none
        with pytest.raises(us.StateError, match=re.escape(str(file.relative_to(damaged)))):
            job().start(checkpoint=damaged)


def test_an_older_checkpoint_by_its_id_is_the_way_out(folder: Path) -> None:
    kept = folder / "kept"
    seen: list[pl.DataFrame] = []
    for _ in range(2):
        job(seen.append).run(checkpoint=kept, progress=False)
    ids = sorted(int(file.stem) for file in (kept / "checkpoints").glob("*.json"))
    newest = kept / "checkpoints" / f"{ids[-1]:08}.json"
    newest.write_bytes(newest.read_bytes()[:-5])
    with pytest.raises(us.StateError, match=f"{ids[-1]:08}.json.*(?s:.)*by its id|copy"):
        job(seen.append).start(checkpoint=kept)
    for _ in range(2):  # again: it goes on from what followed, not back a second time
        job(seen.append).run(checkpoint=kept, restore=ids[0], progress=False)
    assert us.read_state(kept, "aggregate-1").sort("k").height == 2
    assert pl.concat(seen).height == 2, "both runs began where everything was read"
