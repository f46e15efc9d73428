"""Pairs of one tick do not pile up in front of the step that takes them."""

from __future__ import annotations

import polars as pl
import pytest

import unistream as us
from unistream.operators import join_matching
from unistream.runtime import task
from unistream.testing import VirtualClock

ROWS = pl.DataFrame({"k": [1] * 300, "t": range(300), "n": range(300)})


@pytest.mark.parametrize("bounds", [{"within": "1h"}, {"window": us.tumbling("1h")}, {"ttl": "1d"}])
def test_pairs_are_taken_while_they_are_made(
    bounds: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(join_matching, "MOST_ROWS", 1_000)
    monkeypatch.setattr(task, "MOST_WAITING", 5_000)
    left, right = (us.from_frame(ROWS).with_event_time("t", unit="s") for _ in range(2))
    taken, waiting = [0], [0]

    def take(frame: pl.DataFrame) -> None:
        assert runtime is not None
        made = sum(int(runtime.metrics.scoped(name).get("rows_out")) for name in joins)
        waiting[0] = max(waiting[0], made - taken[0])
        taken[0] += frame.height

    job = left.join(right, on="k", **bounds).sink_batches(take)  # type: ignore[arg-type]
    runtime = job.runtime(clock=VirtualClock(), threads=False, settings=us.Settings(whole_query=False))
    runtime.open()
    joins = [name for name in runtime.tasks if name.startswith("join")]
    assert joins
    runtime.run()
    runtime.close()
    assert taken[0] == 300 * 300
    assert 0 < waiting[0] <= 6_000
