"""The rows a join keeps, against a list of them: merged, thinned out, written, restored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from unistream.clock import Random
from unistream.operators import join_buffer
from unistream.operators.join_buffer import SliceBuffer
from unistream.operators.join_matching import TICK, in_order
from unistream.state.rocksdb import RocksBackend

COLUMNS = pl.Schema({"row": pl.Int64})
WIDTH = 50


def opened(backend: RocksBackend, marked: bool, exact: bool) -> SliceBuffer:
    return SliceBuffer(backend.store("op"), "kept", COLUMNS, WIDTH, marked=marked, exact=exact)


def rows_in(frame: pl.DataFrame) -> list[int]:
    return sorted(frame["row"].to_list()) if frame.height else []


@pytest.mark.parametrize("marked", [True, False], ids=["marked", "plain"])
@pytest.mark.parametrize("exact", [True, False], ids=["exact", "not exact"])
def test_the_same_rows_as_a_list(
    marked: bool, exact: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(join_buffer, "MOST_PIECES", 2)
    for seed in range(40):
        random = Random(seed)
        backend = RocksBackend(tmp_path / f"{seed}-0")
        buffer = opened(backend, marked, exact)
        model: dict[int, int] = {}  # row to its time
        done: set[int] = set()
        now, number = 0, 0
        for step in range(40):
            what = random.random()
            if what < 0.6:  # long frames and short ones, so that some are merged and others are not
                count = random.choice((1, 2, 3, 60))
                times = sorted(random.randint(now, now + 2 * WIDTH) for _ in range(count))
                fresh = dict(zip(range(number, number + count), times, strict=True))
                number += count
                model |= fresh
                frame = pl.DataFrame({"row": list(fresh), TICK: times}, schema={**COLUMNS, TICK: pl.Int64})
                buffer.add(in_order(frame), np.zeros(count, dtype=np.bool_) if marked else None)
            elif what < 0.75:
                now += random.randint(0, WIDTH)
                if marked:
                    alone = [row for frame in buffer.settle(now) for row in frame["row"]]
                    assert sorted(alone) == [row for row in model if model[row] < now and row not in done]
                    done.update(alone)
                buffer.drop(now)
                model = {row: time for row, time in model.items() if time >= now}
            elif what < 0.85:  # a checkpoint, and perhaps a crash
                if marked:
                    buffer.write_marks()
                snapshot = backend.snapshot(step + 1).finish()
                if random.random() < 0.5:
                    other = RocksBackend(tmp_path / f"{seed}-{step + 1}")
                    other.restore(snapshot.tables, {file.logical_name: file.path for file in snapshot.files})
                    buffer = opened(other, marked, exact)
                    backend.close()
                    backend = other
                snapshot.release()
            low = now + random.randint(0, WIDTH)
            high = low + random.randint(0, WIDTH)
            view = buffer.view(low, high)
            within = sorted(row for row, time in model.items() if low <= time <= high)
            found = [row for row in rows_in(view.frame) if low <= model.get(row, low - 1) <= high]
            assert found == within, seed
            if exact or marked:
                assert rows_in(view.frame) == within
            parts = [rows_in(part.frame) for part in buffer.views(low, high, 100)]
            assert sorted(row for part in parts for row in part) == rows_in(view.frame)
        assert len(buffer) >= len(model)
        backend.close()
