"""Joins that keep four times the memory budget: the results are those of Polars, the rest lies on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from unistream.config import Settings
from unistream.elements import MAX_TIME, Batch
from unistream.expressions.schema import EventTime, StreamSchema
from unistream.metrics import Metrics
from unistream.operators.base import Context, OperatorSpec
from unistream.operators.interval_join import IntervalJoin
from unistream.operators.join_buffer import View
from unistream.operators.regular_join import RegularJoin
from unistream.operators.versioned_join import VersionedJoin
from unistream.operators.window_join import WindowJoin
from unistream.operators.windows import Span, Tumbling
from unistream.state import array_space
from unistream.state.rocks_store import RocksFrame, RocksStore
from unistream.state.rocksdb import RocksBackend
from unistream.testing.asserts import assert_same_rows, fold
from unistream.testing.bench import Gathered
from unistream.testing.clock import VirtualClock

SECOND = 1_000_000
TICKS = 16
SIDES = ("t", "a"), ("u", "b")
INPUTS = [
    StreamSchema(
        pl.Schema({time: pl.Int64, "k": pl.Int64, **{f"{value}{n}": pl.Int64 for n in range(3)}}),
        event_time=EventTime(time, "s"),
    )
    for time, value in SIDES
]
SPECS: dict[str, OperatorSpec] = {
    "interval": IntervalJoin(by=("k",), how="full", low=-TICKS * SECOND, high=TICKS * SECOND),
    "window": WindowJoin(by=("k",), how="full", window=Tumbling(size=Span.parse(f"{TICKS}s", "size"))),
    "regular": RegularJoin(by=("k",), how="full", unbounded=True),
    "versioned": VersionedJoin(by=("k",), strategy="forward", tolerance=TICKS * SECOND),
}


def rows(side: int, tick: int, count: int) -> pl.DataFrame:
    rng = np.random.default_rng(2 * tick + side)
    columns = [np.full(count, tick), rng.integers(0, 20 * count, count), *rng.integers(0, 9, (3, count))]
    return pl.DataFrame(columns, schema=INPUTS[side].columns)


def run(kind: str, folder: Path, budget: int, count: int) -> tuple[Gathered, bool]:
    """Both sides tick by tick, logs keep no more than the budget in memory; whether the rest is on disk."""
    spec, backend = SPECS[kind], RocksBackend(folder, memory_budget_bytes=budget)
    out, metrics = Gathered(spec.schema(INPUTS), Metrics()), Metrics()
    budgeted: Any = backend._budget
    operator = spec.build(INPUTS)
    store = backend.store("op", spec.keys or ())
    settings = Settings(memory_budget_bytes=budget)
    operator.open(Context("op", VirtualClock(), metrics, settings, store))
    for tick in range(TICKS):
        for side in (0, 1):
            operator.process(Batch(rows(side, tick, count), side), out)
            assert budgeted.log_bytes <= budget
        operator.on_watermark(tick * SECOND, out)
    on_disk = (folder / "cold").exists() or budgeted.arrays.bounded
    operator.on_watermark(MAX_TIME, out)
    operator.close()
    backend.close()
    return out, on_disk


def sizes_of_views(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How much memory kept rows take while they are matched, each time."""
    sizes: list[int] = []
    whole, some = View.frame.fget, View.where
    assert whole is not None

    def noted(frame: pl.DataFrame) -> pl.DataFrame:
        sizes.append(int(frame.estimated_size()))
        return frame

    monkeypatch.setattr(View, "frame", property(lambda view: noted(whole(view))))
    monkeypatch.setattr(View, "where", lambda view, chosen: noted(some(view, chosen)))
    return sizes


@pytest.mark.parametrize("kind", SPECS)
def test_results_are_right(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(array_space, "SMALL_BYTES", 0)
    monkeypatch.setattr(array_space, "_RESIDENT_BYTES", 0)
    count = 1_000
    state = 2 * TICKS * count * 5 * 8
    looked_at = sizes_of_views(monkeypatch)
    out, on_disk = run(kind, tmp_path, state // 4, count)
    if kind in ("interval", "window"):
        # a quarter of the budget, twice for two sides of which one may come to more, and the last frame
        assert looked_at and max(looked_at) <= state // 4 // 2, (max(looked_at), state // 4)
    left, right = (pl.concat([rows(side, tick, count) for tick in range(TICKS)]) for side in (0, 1))
    if kind == "versioned":
        last = right.unique(["k", "u"], keep="last", maintain_order=True)
        on = {"left_on": "t", "right_on": "u", "by": "k", "coalesce": False, "check_sortedness": False}
        expected = left.join_asof(last, strategy="forward", **on)  # type: ignore[arg-type]
    else:
        expected = left.join(right, on="k", how="full", coalesce=True)
    got = fold(pl.concat(out.frames[""])).select(expected.columns)
    assert_same_rows(got, expected)
    assert on_disk


def test_rows_of_an_open_window_are_spilled_few_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spilled, read = [0], [0]
    put, look = RocksStore.put, RocksFrame.read

    def counted_put(store: RocksStore, frame: pl.DataFrame) -> RocksFrame:
        spilled[0] += frame.height
        return put(store, frame)

    def counted_read(frame: RocksFrame) -> pl.DataFrame:
        found = look(frame)
        read[0] += found.height
        return found

    monkeypatch.setattr(RocksStore, "put", counted_put)
    monkeypatch.setattr(RocksFrame, "read", counted_read)
    spec, backend = SPECS["window"], RocksBackend(tmp_path, memory_budget_bytes=200_000)
    operator, out = spec.build(INPUTS), Gathered(spec.schema(INPUTS), Metrics())
    operator.open(Context("op", VirtualClock(), Metrics(), Settings(), backend.store("op", spec.keys or ())))
    for tick in range(4 * TICKS):
        for side in (0, 1):
            operator.process(Batch(rows(side, tick % TICKS, 500), side), out)
    backend.close()
    assert spilled[0] > 4 * TICKS * 500, "too few to say anything"
    # Short frames are merged into longer ones, a row each time into one twice as long; long ones stay.
    rows_kept = 2 * 4 * TICKS * 500
    assert spilled[0] <= 4 * rows_kept
    assert read[0] <= 3 * rows_kept
