"""Every kind of window against one pass of plain Python over the rows, on many random sequences.

The sequences have disorder, ties, nulls, NaN and late rows; they are cut anywhere, and the operator dies
anywhere, on both backends. The reference keeps lists in dictionaries.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
import pytest

from unistream.elements import MIN_TIME, Batch, Watermark
from unistream.expressions.analysis import expand
from unistream.expressions.schema import EventTime, StreamSchema
from unistream.operators.base import OperatorSpec
from unistream.operators.count_window import CountingWindowSpec
from unistream.operators.session_window import SessionWindowSpec
from unistream.operators.window_aggregate import AlignedWindowSpec
from unistream.operators.window_contents import Aggregation
from unistream.operators.windows import Counting, Cumulating, Emit, Session, Sliding, Span, Tumbling
from unistream.testing.asserts import assert_same_rows

SECOND = 1_000_000
SCHEMA = StreamSchema(
    pl.Schema({"t": pl.Int64, "k": pl.String, "v": pl.Float64}), event_time=EventTime("t", "s")
)
FOLDED = {
    "n": pl.len(),
    "known": pl.col("v").count(),
    "total": pl.col("v").sum(),
    "least": pl.col("v").min(),
    "most": pl.col("v").max(),
}
BUFFERED = {"n": pl.len(), "middle": pl.col("v").median(), "values": pl.col("v").sort()}
Row = tuple[int, str | None, float | None]
Bounds = tuple[int, int]


@dataclass
class Case:
    """One sequence, and what is asked of it."""

    seed: int
    rng: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        draw = lambda low, high: int(self.rng.integers(low, high))  # noqa: E731
        self.by: tuple[str, ...] = ("k",) if draw(0, 5) else ()
        self.aggregates = BUFFERED if draw(0, 3) == 0 else FOLDED
        self.disorder = draw(0, 10)
        self.delay = max(0, self.disorder - draw(0, 5))
        self.lateness = draw(1, 12) if draw(0, 4) == 0 else 0
        self.emit = Emit(when="change") if draw(0, 4) == 0 else Emit()
        step, times = draw(1, 7), draw(1, 5)
        self.step, self.size = step, step * times + (draw(0, step) if draw(0, 3) == 0 else 0)
        self.offset = draw(-9, 10) if draw(0, 3) == 0 else 0

    def events(self) -> list[Batch | Watermark]:
        """Batches, some with the watermark behind them that a delay allows; it may be too short."""
        rng, found = self.rng, list[Batch | Watermark]()
        at, newest, mark = int(rng.integers(-40, 40)), -(10**6), MIN_TIME
        for _ in range(int(rng.integers(1, 9))):
            size = int(rng.integers(1, 9))
            times = at + np.sort(rng.integers(0, 8, size)) - rng.integers(0, self.disorder + 1, size)
            keys = rng.choice(["a", "b", "c", None], size, p=[0.5, 0.2, 0.1, 0.2]).tolist()
            values = rng.choice([1.0, 2.5, -3.0, math.nan, None], size, p=[0.3, 0.3, 0.2, 0.1, 0.1]).tolist()
            columns = {"t": times.tolist(), "k": keys, "v": values}
            found.append(Batch(pl.DataFrame(columns, schema=SCHEMA.columns)))
            at += int(rng.integers(0, 25 if rng.random() < 0.1 else 6))
            newest = max(newest, int(times.max()))
            if rng.random() < 0.7 and (newest - self.delay) * SECOND > mark:
                mark = (newest - self.delay) * SECOND
                found.append(Watermark(mark))
        return found

    def calculation(self) -> Aggregation:
        return Aggregation.of(expand([], self.aggregates, SCHEMA.columns, "agg", None, self.by))

    def table(self, windows: dict[tuple[Any, Bounds], list[Row]]) -> pl.DataFrame:
        """The aggregates of each window, by Polars over its rows alone."""
        named = [*self.by, "window_start", "window_end"]
        marked = [
            {**dict(zip(("t", "k", "v"), row, strict=True)), "window_start": start, "window_end": end}
            for (_, (start, end)), rows in windows.items()
            for row in rows
        ]
        bounds = {"window_start": pl.Int64, "window_end": pl.Int64}
        frame = pl.DataFrame(marked, schema={**SCHEMA.columns, **bounds})
        return frame.group_by(named).agg(**self.aggregates).select(*named, *self.aggregates)


def rows_of(events: list[Batch | Watermark]) -> Iterator[tuple[Row, float]]:
    """Each row with the watermark it meets, in seconds."""
    mark = -math.inf
    for event in events:
        if isinstance(event, Watermark):
            mark = event.time / SECOND
        else:
            for row in event.frame.iter_rows():
                yield row, mark


def aligned(case: Case, window: Any, bounds: Callable[[int], list[Bounds]]) -> tuple[OperatorSpec, Any]:
    spec = AlignedWindowSpec(
        window=window,
        by=case.by,
        calculation=case.calculation(),
        emit=case.emit,
        lateness=case.lateness * SECOND,
    )

    def reference(events: list[Batch | Watermark]) -> tuple[pl.DataFrame, list[int]]:
        windows: dict[tuple[Any, Bounds], list[Row]] = {}
        late = []
        for row, mark in rows_of(events):
            open_ones = [(start, end) for start, end in bounds(row[0]) if end + case.lateness > mark]
            for one in open_ones:
                windows.setdefault((row[1] if case.by else None, one), []).append(row)
            if not open_ones and bounds(row[0]):
                late.append(row[0])
        return case.table(windows), late

    return spec, reference


def seconds(count: int) -> Span:
    return Span(micros=count * SECOND)


def tumbling(case: Case) -> tuple[OperatorSpec, Any]:
    size = case.size
    window = Tumbling(size=seconds(size), offset=case.offset * SECOND)

    def bounds(t: int) -> list[Bounds]:
        start = (t - case.offset) // size * size + case.offset
        return [(start, start + size)]

    return aligned(case, window, bounds)


def sliding(case: Case) -> tuple[OperatorSpec, Any]:
    size, every = case.size, case.step
    window = Sliding(size=seconds(size), every=seconds(every), offset=case.offset * SECOND)

    def bounds(t: int) -> list[Bounds]:
        starts = [start for start in range(t - size + 1, t + 1) if (start - case.offset) % every == 0]
        return [(start, start + size) for start in starts]

    return aligned(case, window, bounds)


def cumulating(case: Case) -> tuple[OperatorSpec, Any]:
    step = case.step
    size = step * max(1, case.size // step)
    window = Cumulating(size=seconds(size), step=seconds(step), offset=case.offset * SECOND)

    def bounds(t: int) -> list[Bounds]:
        start = (t - case.offset) // size * size + case.offset
        return [(start, end) for end in range(start + step, start + size + 1, step) if t < end]

    return aligned(case, window, bounds)


def sessions(case: Case) -> tuple[OperatorSpec, Any]:
    gap = case.step + 1
    spec = SessionWindowSpec(
        window=Session(gap=gap * SECOND),
        by=case.by,
        calculation=case.calculation(),
        emit=case.emit,
        lateness=case.lateness * SECOND,
    )

    def reference(events: list[Batch | Watermark]) -> tuple[pl.DataFrame, list[int]]:
        windows: dict[tuple[Any, Bounds], list[Row]] = {}
        late = []
        for row, mark in rows_of(events):
            key = row[1] if case.by else None
            start, end = row[0], row[0] + gap
            touched = [
                (owner, bounds)
                for owner, bounds in windows
                if owner == key and bounds[1] + case.lateness > mark and bounds[0] < end and start < bounds[1]
            ]
            start, end = min([start, *(b[0] for _, b in touched)]), max([end, *(b[1] for _, b in touched)])
            if end + case.lateness <= mark:
                late.append(row[0])
                continue
            rows = [kept for window in touched for kept in windows.pop(window)]
            windows[key, (start, end)] = [*rows, row]
        return case.table(windows), late

    return spec, reference


def counting(case: Case) -> tuple[OperatorSpec, Any]:
    n, every = max(case.size, case.step), case.step
    spec = CountingWindowSpec(
        window=Counting(n=n, every=every), by=case.by, calculation=case.calculation(), emit=case.emit
    )

    def reference(events: list[Batch | Watermark]) -> tuple[pl.DataFrame, list[int]]:
        seen: dict[Any, int] = {}
        windows: dict[tuple[Any, Bounds], list[Row]] = {}
        for row, _ in rows_of(events):
            key = row[1] if case.by else None
            at = seen.get(key, 0)
            seen[key] = at + 1
            for start in range(max(0, at - n + 1), at + 1):
                if start % every == 0:
                    windows.setdefault((key, (start, start + n)), []).append(row)
        return case.table(windows), []

    return spec, reference


KINDS = {kind.__name__: kind for kind in (tumbling, sliding, cumulating, sessions, counting)}
PER_KIND = 400
BY_NIGHT = 10_000


def check(kind: Any, seed: int, replay: Any) -> None:
    case = Case(seed)
    spec, reference = kind(case)
    events = case.events()
    got = replay(spec, [SCHEMA], events, seed)
    rows, late = reference(events)
    try:
        assert_same_rows(got[""], rows, key=spec.schema([SCHEMA]).key)
        if "late" in got:
            assert sorted(got["late"]["t"].to_list()) == sorted(late)
    except AssertionError as error:
        raise AssertionError(f"{kind.__name__}, seed {seed}: {error}") from None


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_random_sequences(kind: Any, replay: Any) -> None:
    for seed in range(PER_KIND):
        check(kind, seed, replay)


@pytest.mark.nightly
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_many_random_sequences(kind: Any, replay: Any) -> None:
    for seed in range(PER_KIND, PER_KIND + BY_NIGHT):
        check(kind, seed, replay)
