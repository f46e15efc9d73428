"""Windows of so many rows against a list per key, under random cuts and restores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import polars as pl
import pytest

from unistream.clock import Random
from unistream.config import Settings
from unistream.elements import Batch
from unistream.errors import InvalidQuery, InvalidSettings
from unistream.expressions.analysis import expand
from unistream.expressions.schema import CHANGE, Change, Changes, StreamSchema
from unistream.metrics import Metrics
from unistream.operators.base import Context, Operator
from unistream.operators.count_window import CountingWindowSpec
from unistream.operators.window_contents import Aggregation, Top
from unistream.operators.windows import Counting, Emit
from unistream.state.memory import MemoryBackend
from unistream.state.rocksdb import RocksBackend
from unistream.testing.asserts import assert_same_rows, fold
from unistream.testing.bench import Gathered, OperatorBench
from unistream.testing.clock import VirtualClock
from unistream.testing.harness import OperatorHarness

SCHEMA = StreamSchema(pl.Schema({"k": pl.String, "v": pl.Int64}))
AGGREGATES = {
    "n": pl.len(),
    "total": pl.col("v").sum(),
    "first": pl.col("v").first(),
    "last": pl.col("v").last(),
}
ALL_ROWS = {"median": pl.col("v").median(), "values": pl.col("v").implode()}
SECOND = 1_000_000
AT_CHANGE, BY_THE_CLOCK = Emit(when="change"), Emit(when="every", every=5 * SECOND)
INSERT, UPDATE = Change.INSERT.value, Change.UPDATE_AFTER.value


def spec(
    n: int,
    every: int,
    aggregates: dict[str, pl.Expr],
    by: tuple[str, ...] = ("k",),
    emit: Emit | None = None,
) -> CountingWindowSpec:
    exprs = expand([], aggregates, SCHEMA.columns, "agg", None, by)
    return CountingWindowSpec(
        window=Counting(n=n, every=every), by=by, calculation=Aggregation.of(exprs), emit=emit or Emit()
    )


def reference(
    rows: pl.DataFrame, n: int, every: int, aggregates: dict[str, pl.Expr], by: tuple[str, ...] = ("k",)
) -> pl.DataFrame:
    names = [*by, "window_start", "window_end"]
    found: list[pl.DataFrame] = []
    for _, group in rows.group_by(by or pl.lit(0), maintain_order=True):
        for start in range(0, group.height, every):
            marks = {"window_start": pl.lit(start, pl.Int64), "window_end": pl.lit(start + n, pl.Int64)}
            found.append(group.slice(start, n).with_columns(**marks))
    return pl.concat(found).group_by(names).agg(**aggregates).select(*names, *aggregates)


def random_rows(seed: int, count: int) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    keys = rng.choice(["a", "b", "c", None], count, p=[0.6, 0.2, 0.1, 0.1]).tolist()
    return pl.DataFrame({"k": keys, "v": rng.integers(0, 100, count)}, schema=SCHEMA.columns)


@pytest.mark.parametrize("aggregates", [AGGREGATES, ALL_ROWS], ids=["folded", "all rows"])
@pytest.mark.parametrize(("n", "every"), [(3, 3), (4, 2), (5, 3)])
def test_windows_equal_the_reference(n: int, every: int, aggregates: dict[str, pl.Expr]) -> None:
    rows = random_rows(1, 25)
    harness = OperatorHarness(spec(n, every, aggregates), SCHEMA)
    harness.feeds(rows[:11], rows[11:]).expects(reference(rows, n, every, aggregates))


@pytest.mark.parametrize("emit", [AT_CHANGE, BY_THE_CLOCK], ids=lambda emit: emit.text)
def test_updates_come_to_the_reference(emit: Emit) -> None:
    rows = random_rows(1, 25)
    harness = OperatorHarness(spec(4, 2, AGGREGATES, emit=emit), SCHEMA)
    harness.feeds(rows[:11], rows[11:]).expects(reference(rows, 4, 2, AGGREGATES))


@pytest.mark.parametrize("seed", range(30))
def test_random_sizes_in_random_parts(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 12))
    every = int(rng.integers(1, n + 1))
    by: Any = ("k",) if seed % 3 else ()
    rows = random_rows(seed, 150)
    aggregates = AGGREGATES if seed % 2 else ALL_ROWS
    with OperatorBench(spec(n, every, aggregates, by), [SCHEMA]) as bench:
        for part in rows.iter_slices(1 + seed):
            bench.process(Batch(part))
        bench.finish()
        got = pl.concat(bench.frames[""])
    order = [*by, "window_start"]
    assert got.sort(order).equals(reference(rows, n, every, aggregates, by).sort(order))


def test_full_windows_are_given_at_once_and_forgotten() -> None:
    with OperatorBench(spec(100, 100, AGGREGATES, ()), [SCHEMA]) as bench:
        for part in random_rows(1, 350).iter_slices(70):
            bench.process(Batch(part))
        assert pl.concat(bench.frames[""])["window_end"].to_list() == [100, 200, 300]
        assert bench.metrics.get("panes_kept") == 1


def changes(bench: OperatorBench) -> list[tuple[Any, ...]]:
    """What came out since the last call, with the change in front."""
    frames = bench.frames.get("", [])
    found = [frame.select(CHANGE, pl.exclude(CHANGE)).rows() for frame in frames]
    frames.clear()  # type: ignore[attr-defined]
    return [row for rows in found for row in rows]


def rows_of(key: str, *values: int) -> Batch:
    return Batch(pl.DataFrame({"k": [key] * len(values), "v": values}, schema=SCHEMA.columns))


@pytest.mark.parametrize("restores", [False, True])
def test_open_windows_are_given_with_every_change(restores: bool) -> None:
    asked = spec(4, 2, {"total": pl.col("v").sum()}, emit=AT_CHANGE)
    assert asked.schema([SCHEMA]).changes is Changes.UPSERT
    assert asked.schema([SCHEMA]).key == ("k", "window_start", "window_end")
    with OperatorBench(asked, [SCHEMA], restores=restores) as bench:
        bench.process(rows_of("a", 1))
        assert changes(bench) == [(INSERT, "a", 0, 4, 1)]
        bench.process(rows_of("a", 2, 3))
        assert changes(bench) == [(INSERT, "a", 2, 6, 3), (UPDATE, "a", 0, 4, 6)]
        bench.process(rows_of("b", 9))
        assert changes(bench) == [(INSERT, "b", 0, 4, 9)]
        bench.process(rows_of("a", 4))
        assert changes(bench) == [(UPDATE, "a", 0, 4, 10), (UPDATE, "a", 2, 6, 7)]
        bench.process(rows_of("a", 5, 6, 7, 8, 9))
        assert changes(bench) == [
            (INSERT, "a", 4, 8, 26),
            (INSERT, "a", 6, 10, 24),
            (INSERT, "a", 8, 12, 9),
            (UPDATE, "a", 2, 6, 18),
        ]
        bench.finish()
        assert changes(bench) == []


@pytest.mark.parametrize("restores", [False, True])
def test_by_the_clock_full_windows_are_given_at_once_and_open_ones_when_it_is_time(restores: bool) -> None:
    asked = spec(3, 3, {"total": pl.col("v").sum()}, emit=BY_THE_CLOCK)
    with OperatorBench(asked, [SCHEMA], restores=restores) as bench:
        bench.process(rows_of("a", 1, 2))
        assert changes(bench) == []
        bench.pass_time("5s")
        assert changes(bench) == [(INSERT, "a", 0, 3, 3)]
        bench.process(rows_of("a", 3, 4, 5, 6, 7))
        assert changes(bench) == [(INSERT, "a", 3, 6, 15), (UPDATE, "a", 0, 3, 6)]
        bench.process(rows_of("b", 1))
        bench.pass_time("5s")
        assert sorted(changes(bench)) == [(INSERT, "a", 6, 9, 7), (INSERT, "b", 0, 3, 1)]
        bench.process(rows_of("a", 8))
        bench.finish()
        assert changes(bench) == [(UPDATE, "a", 6, 9, 15)]


def test_full_windows_that_were_given_before_are_forgotten() -> None:
    with OperatorBench(spec(100, 50, AGGREGATES, (), AT_CHANGE), [SCHEMA]) as bench:
        for part in random_rows(1, 360).iter_slices(70):
            bench.process(Batch(part))
        assert bench.metrics.get("open_windows") == 2
        assert bench.frames[""][-1]["window_end"].to_list() == [400]


@dataclass
class Updates:
    """What is handed on, kept in lists, one row after the other."""

    n: int
    every: int
    keyed: bool
    emit: Emit
    seen: dict[Any, int] = field(default_factory=dict)
    open: dict[tuple[Any, int], list[int]] = field(default_factory=dict)
    given: set[tuple[Any, int]] = field(default_factory=set)
    changed: set[tuple[Any, int]] = field(default_factory=set)
    wakeup: int | None = None

    def rows(self, rows: pl.DataFrame, now: int) -> list[tuple[Any, ...]]:
        for key, value in rows.iter_rows():
            owner = key if self.keyed else "all"
            at = self.seen[owner] = self.seen.get(owner, -1) + 1
            for start in range(at + 1):
                if start % self.every == 0 and at < start + self.n:
                    self.open.setdefault((owner, start), []).append(value)
                    self.changed.add((owner, start))
        full = {window for window, values in self.open.items() if len(values) == self.n}
        found = self.give(self.changed if self.emit.when == "change" else full)
        self.open = {window: values for window, values in self.open.items() if window not in full}
        self.schedule(now)
        return found

    def give(self, windows: set[tuple[Any, int]]) -> list[tuple[Any, ...]]:
        found = []
        for owner, start in windows:
            values = self.open[owner, start]
            change = UPDATE if (owner, start) in self.given else INSERT
            key = (owner,) if self.keyed else ()
            made = (len(values), sum(values), values[0], values[-1], float(median(values)), values)
            found.append((change, *key, start, start + self.n, *made))
        self.given |= windows
        self.changed = self.changed - windows
        return found

    def schedule(self, now: int) -> None:
        if self.emit.when == "every" and self.wakeup is None and self.open:
            self.wakeup = now + self.emit.every

    def time(self, now: int) -> list[tuple[Any, ...]]:
        if self.wakeup is None or self.wakeup > now:
            return []
        self.wakeup = None
        return self.give(self.changed)

    def restart(self, now: int) -> None:
        self.wakeup = None
        self.schedule(now)


class Job:
    """The operator over a backend; it can die and come back from a snapshot."""

    def __init__(self, asked: CountingWindowSpec, kind: Callable[[Path], Any], folder: Path) -> None:
        self.asked, self.kind, self.folder, self.life = asked, kind, folder, 0
        self.clock = VirtualClock()
        self.out = Gathered(asked.schema([SCHEMA]), Metrics())
        self.backend = self.new_backend()
        self.operator = self.opened()

    def new_backend(self) -> Any:
        self.life += 1
        folder = self.folder / str(self.life)
        folder.mkdir(parents=True)
        return self.kind(folder)

    def opened(self) -> Operator:
        operator = self.asked.build([SCHEMA])
        store = self.backend.store("operator", self.asked.by)
        operator.open(Context("operator", self.clock, Metrics(), Settings(), store))
        return operator

    def die(self) -> None:
        self.operator.before_checkpoint()
        old, snapshot = self.backend, self.backend.snapshot(self.life).finish()
        self.backend = self.new_backend()
        self.backend.restore(snapshot.tables, {file.logical_name: file.path for file in snapshot.files})
        snapshot.release()
        old.close()
        self.operator = self.opened()

    def wake(self) -> None:
        wakeup = self.operator.next_wakeup()
        if wakeup is not None and wakeup <= self.clock.now():
            self.operator.on_processing_time(self.clock.now(), self.out)

    def taken(self) -> list[tuple[Any, ...]]:
        """What came out since the last call."""
        frames = self.out.frames.pop("", [])
        return [row for frame in frames for row in frame.select(CHANGE, pl.exclude(CHANGE)).rows()]


@pytest.mark.parametrize(
    ("emit", "when"),
    [
        (Emit(), "it fires with row 4"),
        (AT_CHANGE, "it is given at change, and for the last time with row 4"),
        (BY_THE_CLOCK, "it is given every 5s, and for the last time with row 4"),
    ],
    ids=["at close", "at change", "by the clock"],
)
def test_what_open_windows_wait_for(emit: Emit, when: str, tmp_path: Path) -> None:
    job = Job(spec(4, 2, AGGREGATES, emit=emit), MemoryBackend, tmp_path)
    job.operator.process(rows_of("a", 1, 2, 3), job.out)
    found = job.operator.open_windows(pl.DataFrame({"k": ["a"]}))
    job.backend.close()
    assert found is not None
    assert found.frame.rows() == [("a", 0, 4, 3), ("a", 2, 6, 1)]
    assert found.fires == [f"3 of 4 rows are there: {when}", f"1 of 4 rows are there: {when}"]


def check_updates(seed: int, emit: Emit, folder: Path) -> None:
    random = Random(seed)
    n = random.randint(1, 12)
    every = random.randint(1, n)
    by = ("k",) if random.random() < 0.7 else ()
    aggregates = {**AGGREGATES, **ALL_ROWS} if seed % 3 == 0 else AGGREGATES
    asked = spec(n, every, aggregates, by, emit)
    job = Job(asked, random.choice((MemoryBackend, RocksBackend)), folder)
    model = Updates(n, every, bool(by), emit)
    rows, at, width = random_rows(seed, random.randint(1, 60)), 0, 3 + len(by) + len(aggregates)
    schema = asked.schema([SCHEMA])
    log: list[tuple[Any, ...]] = []

    def compare(expected: list[tuple[Any, ...]]) -> None:
        came = job.taken()
        log.extend(came)
        assert sorted(came, key=repr) == sorted((row[:width] for row in expected), key=repr), seed

    while at < rows.height:
        size = random.choice((1, 3, 10, 30))
        job.operator.process(Batch(rows[at : at + size]), job.out)
        compare(model.rows(rows[at : at + size], job.clock.now()))
        at += size
        if random.random() < 0.4:
            job.clock.advance(f"{random.randint(1, 6)}s")
            job.wake()
            compare(model.time(job.clock.now()))
        if random.random() < 0.3:
            job.die()
            model.restart(job.clock.now())
    job.operator.finish(job.out)
    compare(model.give(model.changed))
    job.backend.close()
    found = pl.DataFrame([(*row[1:], row[0]) for row in log], schema=schema.physical, orient="row")
    assert_same_rows(fold(found, schema.key), reference(rows, n, every, aggregates, by))


@pytest.mark.parametrize("emit", [AT_CHANGE, BY_THE_CLOCK], ids=lambda emit: emit.text)
def test_each_result_is_what_lists_come_to(emit: Emit, tmp_path: Path, seeds: Callable[[int], range]) -> None:
    for seed in seeds(120):
        check_updates(seed, emit, tmp_path / str(seed))


def test_what_cannot_be_counted_is_refused() -> None:
    for n, every in ((0, 1), (2, 3), (True, 1), (2, 0)):
        with pytest.raises(InvalidSettings):
            Counting(n=n, every=every)
    with pytest.raises(InvalidQuery, match="No row is late for a counting window"):
        exprs = expand([], AGGREGATES, SCHEMA.columns, "agg", None, ())
        window = Counting(n=2, every=2)
        CountingWindowSpec(window=window, by=(), calculation=Aggregation.of(exprs), lateness=1).schema(
            [SCHEMA]
        )
    top = Top(frozenset(SCHEMA.columns), 2, (pl.col("v"),), (False,))
    asked = CountingWindowSpec(window=Counting(n=2, every=2), by=("k",), calculation=top, emit=AT_CHANGE)
    with pytest.raises(InvalidQuery, match="updates of aggregates"):
        asked.schema([SCHEMA])
