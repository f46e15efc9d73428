"""Joins in windows against a loop over all windows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import polars as pl
import pytest

from unistream.elements import MIN_TIME, Batch, Watermark
from unistream.errors import InvalidQuery
from unistream.expressions.schema import EventTime, StreamSchema
from unistream.operators import join_matching, window_join
from unistream.operators.join_layout import HOWS
from unistream.operators.window_join import WindowJoin
from unistream.operators.windows import AlignedWindow, Cumulating, Sliding, Span, Tumbling
from unistream.testing.asserts import assert_same_rows
from unistream.testing.bench import OperatorBench
from unistream.testing.harness import OperatorHarness, Schedule

SECOND = 1_000_000
LEFT = StreamSchema(pl.Schema({"t": pl.Int64, "k": pl.String, "a": pl.Int64}), event_time=EventTime("t", "s"))
RIGHT = StreamSchema(
    pl.Schema({"u": pl.Int64, "k": pl.String, "b": pl.Int64}), event_time=EventTime("u", "s")
)
ODD_SUM = (pl.col("a") + pl.col("b")) % 2 == 1
WINDOWS: list[AlignedWindow] = [
    Tumbling(size=Span.parse("10s", "size")),
    Sliding(size=Span.parse("9s", "size"), every=Span.parse("3s", "every")),
    Tumbling(size=Span.parse("7s", "size"), offset=2 * SECOND),
    Cumulating(size=Span.parse("12s", "size"), step=Span.parse("4s", "step")),
]


def bounds(window: AlignedWindow, t: int) -> list[tuple[int, int]]:
    """The windows a second is in, found by trying all of them."""
    size = (window.size.fixed or 0) // SECOND
    offset = window.offset // SECOND
    match window:
        case Sliding():
            every = (window.every.fixed or 0) // SECOND
            starts = [s for s in range(t - size, t + 1) if s % every == 0]
            found = [(s, s + size) for s in starts]
        case Cumulating():
            step = (window.step.fixed or 0) // SECOND
            begin = t // size * size
            found = [(begin, begin + step * n) for n in range(1, size // step + 1)]
        case _:
            begin = (t - offset) // size * size + offset
            found = [(begin, begin + size)]
    return [(start, end) for start, end in found if start <= t < end]


def random_script(seed: int, count: int = 25) -> list[Any]:
    """Batches of both sides in disorder, with duplicates and nulls; watermarks make some late."""
    rng = np.random.default_rng(seed)
    script: list[Any] = []
    at, mark = int(rng.integers(-30, 30)), MIN_TIME
    for number in range(count):
        port = int(rng.integers(0, 2))
        size = int(rng.integers(1, 5))
        at += int(rng.integers(0, 5))
        times = (at - rng.integers(0, 9, size)).tolist()
        keys = rng.choice(["x", "y", "z", None], size, p=[0.5, 0.3, 0.1, 0.1]).tolist()
        values = list(range(number, number + size))
        script.append(Batch(pl.DataFrame([times, keys, values], schema=(LEFT, RIGHT)[port].columns), port))
        if rng.random() < 0.5 and (at - 3) * SECOND > mark:
            mark = (at - 3) * SECOND
            script.append(Watermark(mark))
    return script


Row = dict[str, Any]


def in_windows(script: Sequence[Any], window: AlignedWindow) -> tuple[tuple[list[Row], list[Row]], int]:
    """The rows of each side, once for each window that was open when they came; and how many had none."""
    rows: tuple[list[Row], list[Row]] = ([], [])
    mark, late = MIN_TIME, 0
    for event in script:
        if isinstance(event, Watermark):
            mark = event.time
            continue
        for row in event.frame.rows(named=True):
            open_ones = [w for w in bounds(window, row["tu"[event.port]]) if w[1] * SECOND > mark]
            late += not open_ones
            rows[event.port].extend({**row, "window_start": s, "window_end": e} for s, e in open_ones)
    return rows, late


def reference(script: Sequence[Any], how: str, window: AlignedWindow, odd: bool = False) -> pl.DataFrame:
    """Every left row with every right row of the same window."""
    (lefts, rights), _ = in_windows(script, window)
    pairs = [
        (x, y)
        for x, left in enumerate(lefts)
        for y, right in enumerate(rights)
        if left["k"] is not None
        and all(left[name] == right[name] for name in ("k", "window_start", "window_end"))
        and (not odd or (left["a"] + right["b"]) % 2 == 1)
    ]
    met = {x for x, _ in pairs}, {y for _, y in pairs}
    ends = {"window_start": pl.Int64, "window_end": pl.Int64}
    if how in ("semi", "anti"):
        kept = [left for x, left in enumerate(lefts) if (x in met[0]) == (how == "semi")]
        return pl.DataFrame(kept, schema={**LEFT.columns, **ends})
    rows = [lefts[x] | rights[y] for x, y in pairs]
    rows += [row for x, row in enumerate(lefts) if x not in met[0] and how in ("left", "full")]
    rows += [row for y, row in enumerate(rights) if y not in met[1] and how in ("right", "full")]
    return pl.DataFrame(rows, schema={**LEFT.columns, "u": pl.Int64, "b": pl.Int64, **ends})


def check(script: Sequence[Any], how: str, window: AlignedWindow, schedule: Schedule, odd: bool) -> None:
    join = WindowJoin(by=("k",), how=how, window=window, predicate=ODD_SUM if odd else None)  # type: ignore[arg-type]
    bench = OperatorHarness(join, LEFT, RIGHT).feeds(*script).run(schedule)
    got = pl.concat([join.schema([LEFT, RIGHT]).empty(), *bench.frames.get("", [])])
    assert_same_rows(got, reference(script, how, window, odd))
    late = sum(frame.height for frame in bench.frames.get("late", []))
    assert late == bench.metrics.get("late") == in_windows(script, window)[1]


def cases(seeds: range) -> Iterator[tuple[int, str, AlignedWindow, Schedule, bool]]:
    for seed in seeds:
        schedule = Schedule(cuts=seed, restores=seed % 5 == 0, subtasks=1 + 2 * (seed % 4 == 0))
        yield seed, HOWS[seed % 6], WINDOWS[seed // 6 % 4], schedule, seed % 7 == 0


def test_random_scripts_equal_a_loop_over_windows() -> None:
    for seed, how, window, schedule, odd in cases(range(96)):
        check(random_script(seed), how, window, schedule, odd)


@pytest.mark.nightly
def test_many_random_scripts_equal_a_loop_over_windows() -> None:
    for seed, how, window, schedule, odd in cases(range(96, 20_000)):
        check(random_script(seed, 40), how, window, schedule, odd)


def test_some_windows_and_some_pairs_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(join_matching, "MOST_PAIRS", 3)
    monkeypatch.setattr(window_join, "MOST_PAIRS", 3)
    for seed in range(24):
        check(random_script(seed), HOWS[seed % 6], WINDOWS[seed // 6], Schedule(cuts=seed), False)


@pytest.mark.parametrize("how", ["inner", "full", "anti"])
def test_every_schedule_gives_the_same_rows(how: str) -> None:
    script = [event for event in random_script(3, 12) if isinstance(event, Batch)]
    join = WindowJoin(by=("k",), how=how, window=WINDOWS[0])  # type: ignore[arg-type]
    OperatorHarness(join, LEFT, RIGHT).feeds(*script).expects(reference(script, how, WINDOWS[0]))


def test_closed_windows_are_forgotten() -> None:
    with OperatorBench(WindowJoin(by=("k",), window=WINDOWS[1]), [LEFT, RIGHT]) as bench:
        for second in range(200):
            bench.process(Batch(pl.DataFrame({"t": [second], "k": ["x"], "a": [1]}), 0))
            bench.process(Batch(pl.DataFrame({"u": [second], "k": ["y"], "b": [1]}), 1))
            bench.advance_watermark(second * SECOND)
            assert bench.metrics.get("rows_kept") <= 2 * 16


def test_times_that_count_differently() -> None:
    right = StreamSchema(pl.Schema({"u": pl.Date, "k": pl.String, "b": pl.Int64}), event_time=EventTime("u"))
    with pytest.raises(InvalidQuery, match="event time is Int64 on the left, Date on the right"):
        WindowJoin(by=("k",), window=WINDOWS[0]).schema([LEFT, right])
