"""Damage of any kind is found before a row is read."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from unistream.errors import ConnectorError, StateError
from unistream.state import segments
from unistream.state.segment_backend import SegmentBackend
from unistream.state.segments import Block, cut_into_blocks, read_segment, write_segment

FRAME = pl.DataFrame(
    {"k": [1, None], "s": ["a", "b" * 20], "l": [[1.5], None], "f": [float("nan"), 0.0]},
)


@pytest.fixture
def written(tmp_path: Path) -> tuple[Path, list[Block], int]:
    path = tmp_path / "one.seg"
    blocks, length = write_segment(path, [FRAME, FRAME[:1]])
    assert length == path.stat().st_size
    return path, blocks, length


def test_reads_what_was_written(written: Any) -> None:
    path, blocks, length = written
    first, second = read_segment(path, blocks, length)
    assert first.equals(FRAME) and second.equals(FRAME[:1])
    assert first.schema == FRAME.schema


def test_a_flipped_bit_in_any_byte_is_found(written: Any) -> None:
    path, blocks, length = written
    data = bytearray(path.read_bytes())
    for at in range(length):
        data[at] ^= 1 << at % 8
        path.write_bytes(data)
        with pytest.raises(StateError, match=r"one\.seg"):
            read_segment(path, blocks, length)
        data[at] ^= 1 << at % 8


@pytest.mark.parametrize("change", ["cut", "longer", "zeroed", "swapped", "older", "missing"])
def test_other_damage_is_found(written: Any, tmp_path: Path, change: str) -> None:
    path, blocks, length = written
    data = path.read_bytes()
    if change == "cut":
        path.write_bytes(data[:-1])
    elif change == "longer":
        path.write_bytes(data + b"\0")
    elif change == "zeroed":
        path.write_bytes(data[:64] + bytes(64) + data[128:])
    elif change == "missing":
        path.unlink()
    elif change == "swapped":
        write_segment(path, [FRAME[:1], FRAME])
    else:
        write_segment(path, [FRAME.with_columns(k=pl.lit(2, dtype=pl.Int64)), FRAME[:1]])
    with pytest.raises(StateError, match=r"one\.seg"):
        read_segment(path, blocks, length)


def test_a_newer_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "new.seg"
    with monkeypatch.context() as patched:
        patched.setattr(segments, "VERSION", 2)
        blocks, length = write_segment(path, [FRAME])
    with pytest.raises(StateError, match="has format 2; this version reads 1"):
        read_segment(path, blocks, length)


def test_an_unfinished_file_is_never_seen(tmp_path: Path) -> None:
    def broken() -> Any:
        yield FRAME
        raise OSError("disk full")

    with pytest.raises(ConnectorError, match=r"one\.seg: disk full"):
        write_segment(tmp_path / "one.seg", broken())
    assert not (tmp_path / "one.seg").exists()


def test_large_cells_make_small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "BLOCK_BYTES", 1000)
    frame = pl.DataFrame({"s": ["x" * 500] * 10})
    heights = [block.height for block in cut_into_blocks(frame)]
    assert sum(heights) == 10 and max(heights) <= 2
    assert list(cut_into_blocks(frame[:0])) == []


def test_damage_in_a_checkpoint_stops_the_restore(tmp_path: Path) -> None:
    backend = SegmentBackend(tmp_path / "live")
    table = backend.store("op").keyed("t", pl.Schema({"k": pl.Int64}), pl.Schema({"v": pl.Int64}))
    table.upsert(pl.DataFrame({"k": range(3)}))
    backend.store("op").log("log", pl.Schema({"x": pl.Int64})).append(1, pl.DataFrame({"x": [1]}))
    snapshot = backend.snapshot(1).finish()
    (file,) = snapshot.files
    data = bytearray(file.path.read_bytes())
    damaged = tmp_path / "damaged.seg"
    for at in range(0, len(data), 7):
        data[at] ^= 1
        damaged.write_bytes(data)
        data[at] ^= 1
        again = SegmentBackend(tmp_path / "again")
        again.restore(snapshot.tables, {file.logical_name: damaged})
        store = again.store("op")
        with pytest.raises(StateError, match="damaged"):
            store.keyed("t", pl.Schema({"k": pl.Int64}), pl.Schema({"v": pl.Int64}))
            store.log("log", pl.Schema({"x": pl.Int64}))
        again.close()
    damaged.unlink()
    with pytest.raises(StateError, match="missing"):
        SegmentBackend(tmp_path / "again").restore(snapshot.tables, {file.logical_name: damaged})
