"""Every listed point is reached, once it is asked for, and a crash is no failure."""

from __future__ import annotations

import polars as pl
import pytest

import unistream as us
from unistream import faults
from unistream.errors import InvalidSettings
from unistream.io.memory import MemorySink
from unistream.testing import Crashed, ListSource, crash_at, crash_points

IN_A_PLAIN_RUN = [
    "tick",
    "source.take",
    "operator.process",
    "operator.watermark",
    "operator.finish",
    "sink.write",
    "sink.prepare",
]


def run(frames: list[pl.DataFrame]) -> None:
    source = ListSource({"n": pl.Int64}, [(1,), (2,), (3,)])
    job = us.scan(source).with_columns(m=pl.col("n") * 2).sink_batches(frames.append)
    runtime = job.runtime(threads=False)
    runtime.open()
    runtime.run()


@pytest.mark.parametrize("point", IN_A_PLAIN_RUN)
@pytest.mark.parametrize("before", [True, False])
def test_the_engine_dies_where_it_is_told(point: str, before: bool) -> None:
    with crash_at(point, before=before) as crash, pytest.raises(Crashed, match=point):
        run([])
    assert crash.happened


def test_the_hit_is_counted_and_the_step_done_or_not() -> None:
    seen: list[pl.DataFrame] = []
    with crash_at("sink.write", hit=2), pytest.raises(Crashed):
        run(seen)
    assert len(seen) == 1
    seen.clear()
    with crash_at("sink.write", before=False, hit=2), pytest.raises(Crashed):
        run(seen)
    assert len(seen) == 2


def test_a_point_that_is_not_reached_leaves_no_trace() -> None:
    seen: list[pl.DataFrame] = []
    with crash_at("sink.write", hit=100) as crash:
        run(seen)
    assert (crash.happened, crash.hits, len(seen)) == (False, 3, 3)
    with crash_at("tick"), pytest.raises(Crashed):
        run(seen)
    run(seen)
    assert len(seen) == 6


def test_names_are_checked() -> None:
    with pytest.raises(InvalidSettings, match="did you mean 'sink"), crash_at("sink.comit"):
        pass
    before = faults.listen(lambda name, before: None)
    try:
        with pytest.raises(KeyError, match="not listed"):
            faults.point("nowhere")
    finally:
        faults.listen(before)


def test_points_are_documented() -> None:
    assert set(IN_A_PLAIN_RUN) <= set(crash_points())
    assert all(faults.POINTS[name] for name in crash_points())


def test_a_crash_reaches_through_the_whole_job() -> None:
    job = us.from_frame({"n": [1]}).filter(pl.col("n") > 0).sink(MemorySink())
    settings = us.Settings(whole_query=False)
    with crash_at("sink.write"), pytest.raises(us.JobFailed, match="Crashed"):
        job.run(progress=False, settings=settings)
