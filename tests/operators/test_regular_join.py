"""Joins of whole tables, corrected as rows come and go, against nested loops over what is left at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pytest

import unistream as us
from unistream.elements import Batch
from unistream.expressions.schema import CHANGE, Changes, EventTime, StreamSchema
from unistream.operators import join_matching
from unistream.operators.join_layout import HOWS
from unistream.operators.regular_join import RegularJoin
from unistream.testing import verify
from unistream.testing.asserts import assert_same_rows
from unistream.testing.bench import OperatorBench
from unistream.testing.harness import OperatorHarness, Schedule

SECOND = 1_000_000
COLUMNS = (pl.Schema({"k": pl.String, "a": pl.Int64}), pl.Schema({"k": pl.String, "b": pl.Int64}))
ODD_SUM = (pl.col("a") + pl.col("b")) % 2 == 1


def schemas(changes: Sequence[Changes]) -> list[StreamSchema]:
    return [StreamSchema(one, changes=mode) for one, mode in zip(COLUMNS, changes, strict=True)]


def random_script(seed: int, modes: Sequence[Changes], count: int = 25) -> list[Batch]:
    """Rows of both sides; those of a side that updates are sometimes taken back, also in the same batch."""
    rng = np.random.default_rng(seed)
    script: list[Batch] = []
    standing: tuple[list[Any], list[Any]] = ([], [])
    for _ in range(count):
        port = int(rng.integers(0, 2))
        rows = []
        for _ in range(int(rng.integers(1, 5))):
            if modes[port] is Changes.RETRACT and standing[port] and rng.random() < 0.4:
                gone = standing[port].pop(int(rng.integers(0, len(standing[port]))))
                rows.append((*gone, int(rng.choice([1, 3]))))
            else:
                key = str(rng.choice(["x", "y", "z"])) if rng.random() < 0.9 else None
                row = (key, int(rng.integers(0, 4)))
                standing[port].append(row)
                rows.append((*row, int(rng.choice([0, 2]))))
        schema = StreamSchema(COLUMNS[port], changes=modes[port]).physical
        width = len(schema)
        script.append(Batch(pl.DataFrame([row[:width] for row in rows], schema=schema, orient="row"), port))
    return script


def left_over(script: Sequence[Batch]) -> tuple[list[Any], list[Any]]:
    """The rows of each side at the end."""
    counts: tuple[Counter[Any], Counter[Any]] = (Counter(), Counter())
    for batch in script:
        for row in batch.frame.rows():
            going = len(row) == 3 and row[2] in (1, 3)
            counts[batch.port][row[:2]] += -1 if going else 1
    return list(counts[0].elements()), list(counts[1].elements())


def reference(script: Sequence[Batch], how: str, odd: bool) -> pl.DataFrame:
    lefts, rights = left_over(script)
    pairs = [
        (x, y)
        for x, left in enumerate(lefts)
        for y, right in enumerate(rights)
        if left[0] is not None and left[0] == right[0] and (not odd or (left[1] + right[1]) % 2 == 1)
    ]
    met = {x for x, _ in pairs}, {y for _, y in pairs}
    if how in ("semi", "anti"):
        kept = [left for x, left in enumerate(lefts) if (x in met[0]) == (how == "semi")]
        return pl.DataFrame(kept, schema=COLUMNS[0], orient="row")
    rows = [(*lefts[x], rights[y][1]) for x, y in pairs]
    rows += [(*row, None) for x, row in enumerate(lefts) if x not in met[0] and how in ("left", "full")]
    rows += [(k, None, b) for y, (k, b) in enumerate(rights) if y not in met[1] and how in ("right", "full")]
    return pl.DataFrame(rows, schema={**COLUMNS[0], "b": pl.Int64}, orient="row")


MODES = [
    (one, other) for one in (Changes.APPEND, Changes.RETRACT) for other in (Changes.APPEND, Changes.RETRACT)
]


def check(
    seed: int, how: str, modes: Sequence[Changes], schedule: Schedule, odd: bool, count: int = 25
) -> None:
    script = random_script(seed, modes, count)
    join = RegularJoin(by=("k",), how=how, predicate=ODD_SUM if odd else None)  # type: ignore[arg-type]
    bench = OperatorHarness(join, *schemas(modes)).feeds(*script).run(schedule)
    got = pl.concat([join.schema(schemas(modes)).empty(), *bench.frames.get("", [])])
    assert_same_rows(got, reference(script, how, odd))
    assert bench.metrics.get("unknown_retractions") == 0


def cases(seeds: range) -> Iterator[tuple[int, str, Sequence[Changes], Schedule, bool]]:
    for seed in seeds:
        schedule = Schedule(cuts=seed, restores=seed % 5 == 0, subtasks=1 + 2 * (seed % 7 == 0))
        yield seed, HOWS[seed % 6], MODES[seed // 6 % 4], schedule, seed % 5 == 1


def test_random_changelogs_equal_nested_loops() -> None:
    for seed, how, modes, schedule, odd in cases(range(72)):
        check(seed, how, modes, schedule, odd)


@pytest.mark.nightly
def test_many_random_changelogs_equal_nested_loops() -> None:
    for seed, how, modes, schedule, odd in cases(range(72, 20_000)):
        check(seed, how, modes, schedule, odd, 40)


def test_some_pairs_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(join_matching, "MOST_PAIRS", 3)
    monkeypatch.setattr(join_matching, "MOST_ROWS", 2)
    for seed, how, modes, schedule, odd in cases(range(24)):
        check(seed, how, modes, schedule, odd)


@pytest.mark.parametrize("how", ["inner", "full", "anti"])
def test_every_schedule_gives_the_same_rows(how: str) -> None:
    modes = (Changes.RETRACT, Changes.APPEND)
    script = random_script(3, modes, 12)
    join = RegularJoin(by=("k",), how=how)  # type: ignore[arg-type]
    OperatorHarness(join, *schemas(modes)).feeds(*script).expects(reference(script, how, False))


def test_rows_are_forgotten_by_the_clock_and_their_results_stand() -> None:
    row = [pl.DataFrame({"k": ["x"], name: [1]}) for name in "ab"]
    with OperatorBench(RegularJoin(by=("k",), how="left", ttl=10 * SECOND), schemas(MODES[0])) as bench:
        bench.process(Batch(row[0], 0))
        bench.pass_time("10s")
        bench.process(Batch(row[1], 1))
        bench.pass_time("1s")
        bench.process(Batch(row[1], 1))
        changes = [row for frame in bench.frames[""] for row in frame.rows()]
        assert changes == [("x", 1, None, 0), ("x", 1, None, 3), ("x", 1, 1, 0)]
        assert bench.metrics.get("rows_kept") == 1


def test_rows_are_forgotten_by_event_time() -> None:
    inputs = [
        StreamSchema(pl.Schema({"k": pl.String, "t": pl.Int64}), event_time=EventTime("t", "s")),
        StreamSchema(pl.Schema({"k": pl.String, "u": pl.Int64}), event_time=EventTime("u", "s")),
    ]
    with OperatorBench(RegularJoin(by=("k",), ttl=10 * SECOND), inputs) as bench:
        for second in range(100):
            bench.process(Batch(pl.DataFrame({"k": ["x"], "t": [second]}), 0))
            bench.process(Batch(pl.DataFrame({"k": ["y"], "u": [second]}), 1))
            bench.advance_watermark(second * SECOND)
            assert bench.metrics.get("rows_kept") <= 22
        bench.process(Batch(pl.DataFrame({"k": ["x"], "u": [100]}), 1))
        assert sum(frame.height for frame in bench.frames[""]) == 11


def test_a_row_taken_back_that_is_not_there_is_counted() -> None:
    modes = (Changes.RETRACT, Changes.APPEND)
    with OperatorBench(RegularJoin(by=("k",), how="full"), schemas(modes)) as bench:
        gone = pl.DataFrame({"k": ["x"], "a": [1], CHANGE: [3]}, schema_overrides={CHANGE: pl.Int8})
        bench.process(Batch(gone, 0))
        assert bench.metrics.get("unknown_retractions") == 1
        assert not bench.frames


def random_table(seed: int, value: str) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    keys = rng.choice(["x", "y", "z", "w", None], 30, p=[0.4, 0.2, 0.2, 0.1, 0.1]).tolist()
    return pl.DataFrame({"k": keys, value: rng.integers(0, 5, 30)})


@pytest.mark.parametrize("how", HOWS)
def test_bounded_joins_are_one_query_with_the_rows_of_duckdb(how: str) -> None:
    left, right = random_table(1, "a"), random_table(2, "b")
    joined = us.from_frame(left).join(us.from_frame(right), on="k", how=how)  # type: ignore[arg-type]
    assert "one Polars streaming query" in joined.explain()
    connection = duckdb.connect()
    connection.register("l", left.to_arrow())
    connection.register("r", right.to_arrow())
    columns = "l.k, l.a" if how in ("semi", "anti") else "coalesce(l.k, r.k) AS k, l.a, r.b"
    condition = {"semi": "WHERE EXISTS", "anti": "WHERE NOT EXISTS"}.get(how)
    if condition:
        query = f"SELECT {columns} FROM l {condition} (SELECT 1 FROM r WHERE r.k = l.k)"
    else:
        query = f"SELECT {columns} FROM l {how} JOIN r ON l.k = r.k"
    expected = pl.DataFrame(connection.sql(query).to_arrow_table())
    assert_same_rows(joined.collect(), expected)
    verify(joined, seeds=3)


def test_a_join_of_running_results_is_corrected() -> None:
    orders = us.from_frame({"user": ["a", "b", "a", "c"], "item": [1, 1, 2, 3]})
    count = orders.group_by("user").agg(n=pl.len())
    names = us.from_frame({"user": ["a", "b", "a"], "name": ["A", "B", "A2"]}).unique("user", keep="last")
    joined = count.join(names, on="user", how="left")
    assert sorted(joined.collect().rows()) == [("a", 2, "A2"), ("b", 1, "B"), ("c", 1, None)]
    verify(joined, seeds=5)


def test_streams_without_end_need_a_bound() -> None:
    live, table = us.scan_rate(10), us.from_frame({"value": [1]})
    with pytest.raises(us.InvalidQuery) as caught:
        live.join(table, on="value")
    for way in ("within=", "window=", "ttl=", ".lookup(", "unbounded=True", "test_regular_join.py"):
        assert way in str(caught.value)
    assert "rows for 1d" in live.join(table, on="value", ttl="1d").explain()
    assert "all rows for ever" in live.join(table, on="value", unbounded=True).explain()
