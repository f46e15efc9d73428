"""Tables larger than a block go into checkpoints slice by slice, as they were at the cut."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from unistream.state import columns, segments
from unistream.state.picked import PickedRows, picked_frame
from unistream.state.rocksdb import RocksBackend
from unistream.state.snapshot import Snapshot

KEYS = pl.Schema({"user": pl.String, "day": pl.Int32})
BIDS = pl.List(pl.Struct({"price": pl.Int64, "note": pl.String}))
VALUES = pl.Schema({"n": pl.Int64, "text": pl.String, "bids": BIDS})
ROWS = 4000
BLOCK = 20_000


class Died(BaseException):
    """The process, as far as the test is concerned."""


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "BLOCK_BYTES", BLOCK)
    monkeypatch.setattr(columns, "_SMALL_HEAP", 100)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Heights of the slices that were read, in order."""
    heights: list[int] = []
    read = PickedRows.read

    def noted(self: PickedRows, start: int, stop: int) -> pl.DataFrame:
        frame = read(self, start, stop)
        heights.append(frame.height)
        return frame

    monkeypatch.setattr(PickedRows, "read", noted)
    return heights


def rows_of(numbers: range, turn: int) -> list[tuple[Any, ...]]:
    """Keys and values; some texts, lists and structs in them are null."""
    return [
        (
            f"user with the number {i}",
            i % 7,
            i * turn,
            None if i % 11 == 0 else f"note {i} of turn {turn}, longer than a view",
            bids_of(i, turn),
        )
        for i in numbers
    ]


def bids_of(number: int, turn: int) -> list[dict[str, Any]] | None:
    if number % 13 == 0:
        return None
    return [{"price": number, "note": None if j else f"{turn}/{number}"} for j in range(number % 4)]


def open_table(backend: RocksBackend) -> Any:
    return backend.store("op").keyed("t", KEYS, VALUES)


def put(table: Any, numbers: range, turn: int, step: int = 500) -> None:
    """In several batches, so that the values lie in several parts."""
    for start in range(0, len(numbers), step):
        rows = rows_of(numbers[start : start + step], turn)
        frame = pl.DataFrame(rows, schema={**KEYS, **VALUES}, orient="row")
        ids, _ = table.upsert(frame.select(list(KEYS)))
        table.write(ids, frame.select(list(VALUES)))


def contents(frame: pl.DataFrame) -> list[Any]:
    return sorted(frame.rows(), key=lambda row: row[0])


def restored(snapshot: Snapshot, folder: Path) -> list[Any]:
    backend = RocksBackend(folder)
    backend.restore(snapshot.tables, {file.logical_name: file.path for file in snapshot.files})
    found = contents(open_table(backend).scan())
    backend.close()
    return found


def blocks(snapshot: Snapshot) -> Iterator[segments.Block]:
    for file in snapshot.tables["files"].values():
        yield from (segments.Block(*numbers) for numbers in file["blocks"])


def test_slices_are_read_when_they_are_written_and_show_the_cut(tmp_path: Path, reads: list[int]) -> None:
    backend = RocksBackend(tmp_path / "live")
    table = open_table(backend)
    put(table, range(ROWS), turn=1)
    pending = backend.snapshot(1)
    assert reads == []
    table.delete(table.rows()[::3])
    put(table, range(0, ROWS, 2), turn=2)  # every second row is written again, and the heaps are compacted
    table.column("n")[:] = -1
    snapshot = pending.finish()
    assert sum(reads) == ROWS and len(reads) > 10
    assert [block.rows for block in blocks(snapshot)] == reads
    assert max(block.length for block in blocks(snapshot)) < 2 * BLOCK
    assert restored(snapshot, tmp_path / "again") == contents(
        pl.DataFrame(rows_of(range(ROWS), 1), schema={**KEYS, **VALUES}, orient="row")
    )


def test_a_crash_between_two_slices_leaves_the_checkpoint_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And whoever goes on in the same process writes what was to be written, whatever changed meanwhile."""
    backend = RocksBackend(tmp_path / "live")
    table = open_table(backend)
    put(table, range(ROWS), turn=1)
    first = backend.snapshot(1).finish()
    put(table, range(ROWS // 2), turn=2)
    pending = backend.snapshot(2)
    encode, encoded = segments.encode, 0

    def dying(frame: pl.DataFrame) -> Any:
        nonlocal encoded
        encoded += 1
        if encoded == 4:
            raise Died
        return encode(frame)

    with monkeypatch.context() as patched, pytest.raises(Died):
        patched.setattr(segments, "encode", dying)
        pending.finish()
    before, after = rows_of(range(ROWS), 1), rows_of(range(ROWS // 2), 2) + rows_of(range(ROWS // 2, ROWS), 1)
    assert len(list((tmp_path / "live").glob("*.seg"))) == len(first.files) == 1
    assert restored(first, tmp_path / "first") == sorted(before)
    put(table, range(ROWS), turn=3)
    assert restored(pending.finish(), tmp_path / "second") == sorted(after)
    assert restored(backend.snapshot(3).finish(), tmp_path / "third") == sorted(rows_of(range(ROWS), 3))


@pytest.mark.parametrize("pieces", [1, 5])
def test_slices_of_a_frame_hold_its_rows_and_no_more(pieces: int) -> None:
    rows = [row[2:] for row in rows_of(range(ROWS), 1)]
    each = ROWS // pieces
    frame = pl.concat(
        [pl.DataFrame(rows[at : at + each], schema=VALUES, orient="row") for at in range(0, ROWS, each)],
        rechunk=False,
    )
    picked = picked_frame(frame)
    slices = [picked.slice(start, start + 300).read() for start in range(0, ROWS, 300)]
    assert pl.concat(slices).equals(frame)
    held = [part["bids"].to_arrow().values for part in slices]
    assert [len(values) for values in held] == [part["bids"].list.len().sum() for part in slices]
    in_one = [segments.encode(part)[0] for part in segments.cut_into_blocks(frame)]
    assert len(in_one) > 10 and max(map(len, in_one)) < 2 * BLOCK
