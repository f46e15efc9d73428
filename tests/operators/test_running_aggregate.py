"""Running aggregates against a dictionary of rows per key."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import date
from typing import Any

import polars as pl
import pytest

import unistream as us
from unistream.clock import Random
from unistream.elements import Batch
from unistream.errors import InvalidQuery
from unistream.expressions.analysis import expand
from unistream.expressions.schema import CHANGE, Change, Changes, StreamSchema
from unistream.operators import accumulators
from unistream.operators.running_aggregate import RunningAggregate, what_is_kept
from unistream.testing import ListSource, Pause, verify
from unistream.testing.asserts import assert_same_rows
from unistream.testing.bench import OperatorBench
from unistream.testing.harness import OperatorHarness

COLUMNS = pl.Schema({"k": pl.String, "d": pl.Date, "i": pl.Int64, "f": pl.Float64, "s": pl.String})
APPEND = StreamSchema(COLUMNS)
RETRACT = StreamSchema(COLUMNS, changes=Changes.RETRACT)

FOLDED = {
    "n": pl.len(),
    "known": pl.col("i").count(),
    "total": pl.col("i").sum(),
    "least": pl.col("f").min(),
    "most": pl.col("i").max(),
    "last_day": pl.col("d").max(),
    "first": pl.col("f").first(),
    "last": pl.col("i").last(),
    "any": (pl.col("i") > 3).any(),
    "least_text": pl.col("s").min(),
    "kinds": pl.col("s").n_unique(),
    "ratio": pl.col("f").sum() / pl.len(),
}
BUFFERED = {"rank": pl.col("f").rank().max(), "n": pl.len()}
TAKEN_BACK = {"n": pl.len(), "total": pl.col("i").sum(), "mean": pl.col("i").mean()}
TAKEN_BACK_EXACTLY = {"total": pl.col("f").sum(), "most": pl.col("i").max(), "last": pl.col("i").last()}
DECIMALS = {"total": pl.col("i").cast(pl.Decimal(20, 2)).sum(), "wide": pl.col("i").cast(pl.Int128).sum()}

Replay = Callable[..., dict[str, pl.DataFrame]]
Seeds = Callable[[int], range]


def spec(aggregates: dict[str, pl.Expr], schema: StreamSchema, by: tuple[str, ...]) -> RunningAggregate:
    return RunningAggregate(by=by, exprs=tuple(expand([], aggregates, schema.columns, "agg", None, by)))


def random_rows(random: Random, count: int) -> pl.DataFrame:
    rows = [
        {
            "k": random.choice(["a", "b", "c", None]),
            "d": random.choice([date(2026, 1, 1), date(2026, 1, 2), None]),
            "i": random.choice([0, 1, 5, -7, None]),
            "f": random.choice([0.1, 2.5, 1e16, -3.0, math.nan, None]),
            "s": random.choice(["x", "y", "", None]),
        }
        for _ in range(count)
    ]
    return pl.DataFrame(rows, schema=COLUMNS)


def with_deletions(random: Random, rows: pl.DataFrame) -> pl.DataFrame:
    """A changelog: each row comes, and some that have come go again."""
    standing: list[tuple[Any, ...]] = []
    changes: list[tuple[Any, ...]] = []
    for row in rows.rows():
        while standing and random.random() < 0.4:
            gone = standing.pop(random.randrange(len(standing)))
            changes.append((*gone, random.choice([Change.DELETE, Change.UPDATE_BEFORE]).value))
        standing.append(row)
        changes.append((*row, random.choice([Change.INSERT, Change.UPDATE_AFTER]).value))
    return pl.DataFrame(changes, schema=RETRACT.physical, orient="row")


def standing_rows(changes: pl.DataFrame, aggregates: dict[str, pl.Expr], by: tuple[str, ...]) -> pl.DataFrame:
    """Row by row: a row that goes is the earliest equal one, in the columns that are read."""
    read = set(by).union(*(expr.meta.root_names() for expr in aggregates.values()))
    changes = changes.select(name for name in changes.columns if name in {*read, CHANGE})
    standing: list[tuple[Any, ...]] = []
    for *row, change in changes.rows():
        if change in (Change.INSERT.value, Change.UPDATE_AFTER.value):
            standing.append(tuple(row))
        else:
            standing.pop(next(at for at, one in enumerate(standing) if str(one) == str(tuple(row))))
    return pl.DataFrame(standing, schema=changes.drop(CHANGE).schema, orient="row")


def reference(rows: pl.DataFrame, aggregates: dict[str, pl.Expr], by: tuple[str, ...]) -> pl.DataFrame:
    """Each key's rows picked out one by one, and the expressions over them alone."""
    groups: dict[str, list[int]] = {}
    for at, key in enumerate(rows.select(by).rows()):
        groups.setdefault(str(key), []).append(at)
    parts = [
        pl.concat([part.select(by).head(1), part.select(**aggregates)], how="horizontal")
        for part in (rows[places] for places in groups.values())
    ]
    empty = rows.clear().group_by(by).agg(**aggregates)
    return pl.concat([empty, *parts], how="vertical")


@pytest.mark.parametrize("by", [("k",), ("i",), ("d",), ("k", "d"), ("f",)], ids=", ".join)
@pytest.mark.parametrize("aggregates", [FOLDED, BUFFERED, DECIMALS], ids=["folded", "buffered", "decimals"])
def test_the_last_row_of_each_key(
    replay: Replay, seeds: Seeds, aggregates: dict[str, pl.Expr], by: tuple[str, ...]
) -> None:
    aggregates = {name: expr for name, expr in aggregates.items() if name not in by}
    for seed in seeds(10):
        rows = random_rows(Random(seed), 25)
        got = replay(spec(aggregates, APPEND, by), [APPEND], [Batch(rows)], seed)
        assert_same_rows(got[""], reference(rows, aggregates, by), key=by)


@pytest.mark.parametrize(
    "aggregates",
    [TAKEN_BACK, TAKEN_BACK_EXACTLY, BUFFERED, DECIMALS],
    ids=["folded", "floats", "buffered", "decimals"],
)
def test_rows_that_are_taken_back(replay: Replay, seeds: Seeds, aggregates: dict[str, pl.Expr]) -> None:
    for seed in seeds(25):
        random = Random(seed)
        changes = with_deletions(random, random_rows(random, 20))
        by = ("k",) if seed % 2 else ("k", "d")
        got = replay(spec(aggregates, RETRACT, by), [RETRACT], [Batch(changes)], seed)
        assert_same_rows(
            got[""],
            reference(standing_rows(changes, aggregates, by), aggregates, by),
            key=by,
            tolerance=1e-12,
        )


@pytest.mark.parametrize(
    ("dtype", "values"),
    [
        (pl.Int64, [10**18, 2**63 - 1, -(2**63), -(10**18) + 1, 1, -1, 0, None]),
        (pl.UInt64, [2**64 - 1, 2**53 + 1, 2**32, 2**32 - 1, 1, 0, None]),
        (pl.Int32, [2**31 - 1, -(2**31), 1, None]),
        (pl.UInt32, [2**32 - 1, 1, 0]),
        (pl.Int8, [127, -128, None]),
        (pl.Boolean, [True, False, None]),
        (pl.Int128, [2**100, -(2**100), 1]),
    ],
    ids=str,
)
def test_means_do_not_remember_what_was_taken_back(
    replay: Replay, seeds: Seeds, dtype: pl.DataType, values: list[Any]
) -> None:
    columns = pl.Schema({"k": pl.String, "v": dtype})
    schema = StreamSchema(columns, changes=Changes.RETRACT)
    means = {"mean": pl.col("v").mean(), "some": pl.col("v").filter(pl.col("v") != 1).mean()}
    for seed in seeds(10):
        random = Random(seed)
        size = 12
        coming = [(random.choice(["a", "b"]), random.choice(values)) for _ in range(size)]
        stays = [random.random() < 0.3 for _ in range(size)]
        going = [row for row, stay in zip(coming, stays, strict=True) if not stay]
        marks = [Change.INSERT.value] * size + [Change.DELETE.value] * len(going)
        changes = pl.DataFrame(coming + going, schema=columns, orient="row").with_columns(
            pl.Series(CHANGE, marks, dtype=schema.physical[CHANGE])
        )
        got = replay(spec(means, schema, ("k",)), [schema], [Batch(changes)], seed)
        left = [row for row, stay in zip(coming, stays, strict=True) if stay]
        rows = pl.DataFrame(left, schema=columns, orient="row").with_columns(pl.col("v").cast(pl.Int128))
        whole, n = pl.col("v").sum().cast(pl.Float64), pl.col("v").count()
        kept = rows.filter(pl.col("v") != 1).group_by("k").agg(some=pl.when(n > 0).then(whole / n))
        expected = rows.group_by("k").agg(mean=pl.when(n > 0).then(whole / n)).join(kept, on="k", how="left")
        assert_same_rows(got[""], expected, key=("k",), tolerance=1e-12)


def test_every_step_is_a_change() -> None:
    rows = ListSource(
        {"k": pl.String, "v": pl.Int64}, [frame([("a", 1), ("b", 2)]), Pause("1s"), frame([("a", 3)])]
    )
    changes = us.scan(rows).group_by("k").agg(pl.col("v").sum()).changes().collect()
    assert changes.rows() == [("+I", "a", 1), ("+I", "b", 2), ("-U", "a", 1), ("+U", "a", 4)]


def frame(rows: list[tuple[str, int]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema={"k": pl.String, "v": pl.Int64}, orient="row")


def test_the_harness_agrees() -> None:
    rows = random_rows(Random(3), 12)
    harness = OperatorHarness(spec(FOLDED, APPEND, ("k",)), APPEND)
    harness.feeds(rows[:5], rows[5:]).expects(reference(rows, FOLDED, ("k",)))


def test_keys_come_out_in_the_same_order_every_time(replay: Replay) -> None:
    rows = pl.DataFrame({"k": [f"key {n * 7919 % 5000}" for n in range(20_000)]})
    schema = StreamSchema(rows.schema)
    one, other = (
        replay(spec({"n": pl.len()}, schema, ("k",)), [schema], [Batch(rows)], 1)[""] for _ in range(2)
    )
    assert one.equals(other)


@pytest.mark.parametrize("text", [False, True], ids=["numbers", "text"])
def test_large_ticks_of_few_and_of_many_keys(text: bool) -> None:
    """Which of them are grouped and which put in their places must not be seen."""
    few, many = pl.int_range(40_000, eager=True) % 100, pl.int_range(40_000, eager=True) * 7919 % 30_011
    ticks = [
        pl.DataFrame({"k": keys, "v": many - 9_000}) for keys in (few, many, many, few, few, many + 20_000)
    ]
    if text:
        ticks = [tick.with_columns(pl.format("key {}", "k").alias("k")) for tick in ticks]
    schema = StreamSchema(ticks[0].schema)
    aggregates = {"n": pl.len(), "total": pl.col("v").sum(), "least": pl.col("v").min()}
    with OperatorBench(spec(aggregates, schema, ("k",)), [schema]) as bench:
        for tick in ticks:
            bench.process(Batch(tick))
        got = pl.concat(bench.frames[""])
    assert_same_rows(got, pl.concat(ticks).group_by("k").agg(**aggregates), key=("k",))


def test_batch_and_stream_agree() -> None:
    rows = us.from_frame(random_rows(Random(5), 40))
    verify(rows.group_by("k", "d").agg(n=pl.len(), total=pl.col("i").sum()), seeds=5)
    verify(rows.group_by("k").agg(pl.col("i").median(), pl.col("f").rank().sum().alias("r")), seeds=5)


def test_explain_tells_what_is_kept() -> None:
    rows = us.from_frame({"k": [1], "v": [1.0]})
    assert "keeps: 1 running values per key" in rows.group_by("k").agg(pl.col("v").sum()).explain()
    text = rows.group_by("k").agg(pl.col("v").rank().max()).explain()
    assert "keeps: v of all rows of a key, because" in text
    counts = rows.group_by("k").agg(m=pl.col("v").max())
    assert "cannot take a row back exactly" in counts.group_by("m").agg(pl.col("k").max()).explain()


def test_folding_is_chosen_where_it_is_exact() -> None:
    exprs = expand([], TAKEN_BACK, COLUMNS, "agg", None, ["k"])
    assert what_is_kept(["k"], exprs, RETRACT).startswith("5 running values")  # two make the mean
    exprs = expand([], {"x": pl.col("f").sum()}, COLUMNS, "agg", None, ["k"])
    assert what_is_kept(["k"], exprs, RETRACT).startswith("f of all rows")


def test_agg_needs_an_aggregate() -> None:
    with pytest.raises(InvalidQuery, match="at least one aggregate"):
        us.from_frame({"k": [1]}).group_by("k").agg()


def test_long_lists_are_merged_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accumulators, "_BYTES_AT_ONCE", 1_000)
    rows = pl.DataFrame({"k": [n * 7 % 50 for n in range(3_000)], "v": [n * n % 997 for n in range(3_000)]})
    schema = StreamSchema(rows.schema)
    aggregates = {"kinds": pl.col("v").n_unique(), "all": pl.col("v"), "total": pl.col("v").sum()}
    with OperatorBench(spec(aggregates, schema, ("k",)), [schema]) as bench:
        for tick in rows.iter_slices(500):
            bench.process(Batch(tick))
        frames = bench.frames[""]
    assert len(frames) > 6  # more than one for a tick
    assert_same_rows(pl.concat(frames), rows.group_by("k").agg(**aggregates), key=("k",))
