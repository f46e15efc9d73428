"""A job that came to its end is started again with more input: what is new is not late."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

import unistream as us
from unistream.api.stream import Stream
from unistream.testing import assert_same_rows

DAY = datetime(2026, 1, 1)


class Beats(us.ProcessFunction):
    """Tells an hour after each row of a key how many there were."""

    output = {"k": pl.String, "n": pl.Int64}
    seen = us.ValueState(pl.Int64, default=0)

    def process(self, key: str, row: us.Row, ctx: us.ProcessContext) -> None:
        self.seen.value += 1
        assert not ctx.ended
        ctx.set_timer(ctx.time + 3_600_000_000)

    def on_timer(self, key: str, time: int, ctx: us.ProcessContext) -> Iterator[dict[str, object]]:
        yield {"k": key, "n": self.seen.value}
        self.seen.value = 0


def prices(rows: Stream) -> Stream:
    """The even minutes, as a second stream."""
    even = rows.filter(pl.col("t").dt.minute() % 2 == 0)
    return even.select("k", "t", price="v").with_event_time("t", delay="5m")


STEPS: dict[str, Callable[[Stream], Stream]] = {
    "tumbling": lambda rows: rows.group_by("k").window(us.tumbling("1h")).agg(n=pl.len()),
    "sliding": lambda rows: rows.window(us.sliding("1h", every="20m")).agg(n=pl.len()),
    "cumulating": lambda rows: rows.window(us.cumulating("1h", step="15m")).agg(n=pl.len()),
    "session": lambda rows: rows.group_by("k").window(us.session("30m")).agg(n=pl.len()),
    "corrected": lambda rows: rows.window(us.tumbling("1h"), allowed_lateness="20m").agg(n=pl.len()),
    "corrected sessions": lambda rows: (
        rows.group_by("k").window(us.session("30m"), allowed_lateness="20m").agg(n=pl.len())
    ),
    "given before": lambda rows: rows.window(us.tumbling("1h"), emit="change").agg(n=pl.len()),
    "windows of windows": lambda rows: (
        rows.group_by("k").window(us.tumbling("1h")).agg(n=pl.len()).window().agg(most=pl.col("n").max())
    ),
    "over": lambda rows: rows.group_by("k").over(range="1h").agg(sum=pl.col("v").sum()),
    "unique": lambda rows: rows.unique("k", within="1h"),
    "process": lambda rows: rows.group_by("k").process(Beats()),
    "interval join": lambda rows: rows.join(prices(rows), on="k", how="left", within=("-10m", "10m")),
    "window join": lambda rows: rows.join(prices(rows), on="k", window=us.tumbling("1h")),
    "asof": lambda rows: rows.join_asof(prices(rows), by="k", tolerance="10m"),
    "nearest": lambda rows: rows.join_asof(prices(rows), by="k", tolerance="10m", strategy="nearest"),
}


def put(folder: Path, hour: int, minutes: range = range(60)) -> None:
    """A file of one hour."""
    folder.mkdir(exist_ok=True)
    times = [DAY + timedelta(hours=hour, minutes=minute) for minute in minutes]
    rows = {"t": times, "k": [f"{minute % 3}" for minute in minutes], "v": list(minutes)}
    pl.DataFrame(rows).write_parquet(folder / f"{hour:02}-{minutes.start:02}.parquet")


def read(folder: Path) -> Stream:
    return us.scan_parquet(folder).with_event_time("t", delay="5m")


def table(rows: Stream, checkpoint: Path, seen: dict[str, list[pl.DataFrame]]) -> us.Progress:
    """Run to the end; what comes is put behind what came before."""
    job = rows.changes().sink_batches(seen.setdefault("rows", []).append)
    return job.run(checkpoint=checkpoint, progress=False)


@pytest.mark.parametrize("name", STEPS)
def test_what_comes_after_the_end_is_as_if_it_came_alone(name: str, tmp_path: Path) -> None:
    step, seen = STEPS[name], {}
    put(tmp_path / "in", 8)
    first = table(step(read(tmp_path / "in")), tmp_path / "ckpt", seen)
    put(tmp_path / "in", 13)
    second = table(step(read(tmp_path / "in")), tmp_path / "ckpt", seen)
    put(tmp_path / "in", 18)
    third = table(step(read(tmp_path / "in")), tmp_path / "ckpt", seen)

    alone: list[pl.DataFrame] = []
    for hour in (8, 13, 18):
        put(tmp_path / f"{hour}", hour)
        found: dict[str, list[pl.DataFrame]] = {}
        table(step(read(tmp_path / f"{hour}")), tmp_path / f"{hour} ckpt", found)
        alone += found["rows"]

    assert (first.late, second.late, third.late) == (0, 0, 0)
    assert_same_rows(pl.concat(seen["rows"]), pl.concat(alone))


def test_rows_of_a_window_that_the_end_has_closed_are_late(tmp_path: Path) -> None:
    put(tmp_path / "in", 8, range(30))
    hourly = STEPS["tumbling"]
    out = tmp_path / "out"
    hourly(read(tmp_path / "in")).sink_parquet(out).run(checkpoint=tmp_path / "ckpt", progress=False)
    put(tmp_path / "in", 8, range(30, 60))
    put(tmp_path / "in", 9)
    again = hourly(read(tmp_path / "in")).sink_parquet(out).run(checkpoint=tmp_path / "ckpt", progress=False)
    assert again.late == 30
    counts = pl.read_parquet(out).group_by("window_start").agg(pl.col("n").sum()).sort("window_start")
    assert counts["n"].to_list() == [30, 60]


def test_with_allowed_lateness_they_correct_it(tmp_path: Path) -> None:
    seen: dict[str, list[pl.DataFrame]] = {}
    put(tmp_path / "in", 8, range(30))
    corrected = STEPS["corrected"]
    table(corrected(read(tmp_path / "in")), tmp_path / "ckpt", seen)
    put(tmp_path / "in", 8, range(30, 60))
    again = table(corrected(read(tmp_path / "in")), tmp_path / "ckpt", seen)
    assert again.late == 0
    changes = pl.concat(seen["rows"]).select("op", "n").rows()
    assert changes[0] == ("+I", 30)
    assert changes[-1] == ("+U", 60)


def test_a_job_that_was_drained_goes_on(tmp_path: Path) -> None:
    put(tmp_path / "in", 8)
    hourly, seen = STEPS["tumbling"], []

    def watched() -> us.Job:
        rows = us.scan_parquet(tmp_path / "in", watch=True).with_event_time("t")
        return hourly(rows).sink_batches(seen.append)

    for hour, until in ((8, 3), (9, 6)):
        put(tmp_path / "in", hour)
        run = watched().start(checkpoint=tmp_path / "ckpt")
        try:
            while run.progress.rows_in < 60:
                assert not run.wait(0.05)
        finally:
            assert run.stop(drain=True, timeout=30)
        assert run.progress.late == 0
        assert sum(frame.height for frame in seen) == until
