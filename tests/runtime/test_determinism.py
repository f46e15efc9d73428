"""The same input under the same schedule gives the same frames, in the same order, every time."""

from __future__ import annotations

import polars as pl
import pytest

import unistream as us
from unistream.io.memory import MemorySink
from unistream.testing import VirtualClock
from unistream.testing.schedules import Schedule, SourceRows

ROWS = pl.DataFrame({"k": [n % 5 for n in range(60)], "x": [n / 7 for n in range(60)]})


def frames(seed: int) -> list[pl.DataFrame]:
    (source,) = Schedule(seed, "random").sources([SourceRows({"a": ROWS, "b": ROWS.reverse()}, {})])
    rows = us.scan(source)
    stream = rows.filter(pl.col("k") > 1).union(rows.with_columns(pl.col("x") * 2))
    sink = MemorySink()
    settings = us.Settings(whole_query=False)
    runtime = stream.sink(sink).runtime(threads=False, clock=VirtualClock(), settings=settings)
    runtime.open()
    runtime.run()
    runtime.close()
    return sink.frames()


@pytest.mark.parametrize("seed", range(5))
def test_frame_for_frame(seed: int) -> None:
    first, second = frames(seed), frames(seed)
    assert len(first) > 1
    assert [frame.rows() for frame in first] == [frame.rows() for frame in second]


def test_another_seed_is_another_schedule() -> None:
    assert [f.rows() for f in frames(1)] != [f.rows() for f in frames(2)]
