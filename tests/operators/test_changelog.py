"""Streams that update behind each other, against dictionaries; what cannot take updates says so."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import unistream as us
from unistream.api.stream import Stream
from unistream.clock import Random
from unistream.elements import Batch
from unistream.errors import InvalidQuery
from unistream.expressions.changelog import fold_changes
from unistream.expressions.schema import CHANGE, Change, Changes, StreamSchema
from unistream.operators.changelog import Retractions
from unistream.testing import ListSource, Pause, verify
from unistream.testing.asserts import assert_same_rows, fold
from unistream.testing.harness import OperatorHarness

COLUMNS = pl.Schema({"k": pl.String, "v": pl.Int64})
UPSERT = StreamSchema(COLUMNS, changes=Changes.UPSERT, key=("k",))
RETRACT = StreamSchema(COLUMNS, changes=Changes.RETRACT)
Replay = Callable[..., dict[str, pl.DataFrame]]
Seeds = Callable[[int], range]


def upserts(random: Random, count: int = 20) -> pl.DataFrame:
    """Changes of a table by key: rows that come, are replaced, and go."""
    there: set[Any] = set()
    rows = []
    for _ in range(count):
        key, value = random.choice(["a", "b", "c", None]), random.choice([1, 2, None])
        if key in there and random.random() < 0.3:
            there.discard(key)
            rows.append((key, value, Change.DELETE.value))
        else:
            change = Change.UPDATE_AFTER if key in there else Change.INSERT
            there.add(key)
            rows.append((key, value, change.value))
    return pl.DataFrame(rows, schema=UPSERT.physical, orient="row")


def test_upserts_become_pairs(replay: Replay, seeds: Seeds) -> None:
    for seed in seeds(120):
        changes = upserts(Random(seed))
        got = replay(Retractions(), [UPSERT], [Batch(changes)], seed)[""]
        # `fold` refuses to take back what is not there.
        assert_same_rows(fold(got), fold(changes, ["k"]))


def test_the_harness_agrees() -> None:
    changes = upserts(Random(7))
    harness = OperatorHarness(Retractions(), UPSERT).feeds(changes[:8], changes[8:])
    harness.expects(fold(changes, ["k"]))


def test_a_row_that_stays_as_it_is_does_not_change(replay: Replay) -> None:
    rows = pl.DataFrame([("a", 1, 0), ("a", 1, 2)], schema=UPSERT.physical, orient="row")
    for seed in range(5):
        assert replay(Retractions(), [UPSERT], [Batch(rows)], seed)[""].rows() == [("a", 1, 0)]


def test_folds_agree_with_the_slow_one() -> None:
    for seed in range(50):
        changes = upserts(Random(seed))
        assert_same_rows(fold_changes(changes, UPSERT), fold(changes, ["k"]))
        coming = changes.with_columns(pl.lit(Change.INSERT.value, pl.Int8).alias(CHANGE))
        assert_same_rows(fold_changes(coming, UPSERT), fold(coming, ["k"]))
        once = coming.unique("k")
        assert_same_rows(fold_changes(once, UPSERT), once.drop(CHANGE))
        rows = changes.with_columns(pl.lit(0, pl.Int8).alias(CHANGE))
        twice = pl.concat([rows, rows[:5].with_columns(pl.lit(3, pl.Int8).alias(CHANGE))])
        assert_same_rows(fold_changes(twice, RETRACT), fold(twice))


# Queries: counts of counts, averages of maxima, filters and tops behind aggregates


def source(seed: int) -> tuple[list[tuple[str, str, int]], us.Stream]:
    """Rows, and a stream of them that comes in ticks."""
    random = Random(seed)
    rows = [(random.choice("abcd"), random.choice("xy"), random.randint(0, 5)) for _ in range(20)]
    frame = pl.DataFrame(rows, schema={"k": pl.String, "g": pl.String, "v": pl.Int64}, orient="row")
    items: list[Any] = []
    step = random.randint(1, 7)
    for start in range(0, 20, step):
        items += [frame.slice(start, step), Pause("1s")]
    return rows, us.scan(ListSource(frame.schema, items))


QUERIES = range(25)


@pytest.mark.parametrize("seed", QUERIES)
def test_counts_of_counts(seed: int) -> None:
    rows, stream = source(seed)
    counts = Counter(key for key, _, _ in rows)
    got = stream.group_by("k").agg(n=pl.len()).group_by("n").agg(keys=pl.len()).collect()
    assert dict(got.rows()) == Counter(counts.values())


@pytest.mark.parametrize("seed", QUERIES)
def test_averages_of_maxima(seed: int) -> None:
    rows, stream = source(seed)
    most: dict[tuple[str, str], int] = {}
    for key, group, value in rows:
        most[group, key] = max(value, most.get((group, key), value))
    by_group = defaultdict(list)
    for (group, _), value in most.items():
        by_group[group].append(value)
    query = stream.group_by("g", "k").agg(pl.col("v").max()).group_by("g").agg(pl.col("v").mean())
    assert dict(query.collect().rows()) == {g: sum(v) / len(v) for g, v in by_group.items()}


@pytest.mark.parametrize("seed", QUERIES)
def test_filters_that_rows_leave_again(seed: int) -> None:
    rows, stream = source(seed)
    counts = Counter(key for key, _, _ in rows)
    few = stream.group_by("k").agg(n=pl.len()).filter(pl.col("n") < 5)
    assert dict(few.collect().rows()) == {key: n for key, n in counts.items() if n < 5}
    total = few.group_by(one=pl.lit(1)).agg(pl.col("n").sum(), keys=pl.len()).collect()
    expected = [(1, sum(n for n in counts.values() if n < 5), sum(n < 5 for n in counts.values()))]
    assert total.rows() == (expected if expected[0][2] else [])


@pytest.mark.parametrize("seed", QUERIES)
def test_steps_that_lose_the_key(seed: int) -> None:
    rows, stream = source(seed)
    counts = Counter(key for key, _, _ in rows)
    table = stream.group_by("k").agg(n=pl.len())
    kept = sorted(counts.values())
    assert sorted(table.select("n").collect()["n"]) == kept
    assert sorted(table.drop("k").collect()["n"]) == kept
    assert sorted(table.with_columns(k=pl.col("k") + "!").collect()["n"]) == kept
    exploded = table.with_columns(each=pl.concat_list("n", pl.col("n") + 1)).explode("each")
    assert sorted(exploded.collect()["each"]) == sorted([*kept, *(n + 1 for n in kept)])
    both = table.union(stream.group_by("k").agg(n=pl.len()))
    assert sorted(both.collect().rows()) == sorted([*counts.items(), *counts.items()])
    again = table.select("n").group_by("n").agg(keys=pl.len()).collect()
    assert dict(again.rows()) == Counter(counts.values())


@pytest.mark.parametrize("tick_rows", [1, 2, 10])
def test_a_field_that_has_the_name_of_its_struct_is_not_the_key(tick_rows: int) -> None:
    """Rows of several keys have the same value in it, and replaced each other."""
    points = [{"k": 1, "x": 1}, {"k": 1, "x": 2}, {"k": 1, "x": 1}, {"k": 2, "x": 1}]
    counts = us.from_frame(pl.DataFrame({"k": points})).group_by("k").agg(n=pl.len())
    for whole in (True, False):
        settings = us.Settings(whole_query=whole, tick_rows=tick_rows)
        found = counts.unnest("k").collect(settings=settings)
        assert sorted(found.rows()) == [(1, 1, 2), (1, 2, 1), (2, 1, 1)]
        totals = counts.unnest("k").group_by("k").agg(pl.col("n").sum()).collect(settings=settings)
        assert sorted(totals.rows()) == [(1, 3), (2, 1)]
    named = us.from_frame(pl.DataFrame({"p": points, "q": [1, 1, 1, 1]})).group_by("p", "q").agg(n=pl.len())
    both = named.rename({"p": "k"}).unnest("k").select("k", "x", "n").collect()
    assert sorted(both.rows()) == [(1, 1, 2), (1, 2, 1), (2, 1, 1)]


def test_a_key_beside_a_struct_that_is_unnested_stays() -> None:
    rows = us.from_frame(pl.DataFrame({"k": [1, 1, 2], "p": [{"x": 1}, {"x": 2}, {"x": 3}]}))
    table = rows.unique("k", keep="last").unnest("p")
    assert sorted(table.collect().rows()) == [(1, 2), (2, 3)]
    assert "retractions" not in table.explain()


def test_batch_and_stream_agree() -> None:
    random = Random(3)
    rows = us.from_frame(
        {"k": [random.choice("abc") for _ in range(25)], "v": [random.randint(0, 9) for _ in range(25)]}
    )
    best = rows.group_by("k").agg(pl.col("v").max(), n=pl.len())
    verify(best.group_by("n").agg(pl.col("v").mean(), pl.col("k").n_unique()), seeds=5)
    verify(best.filter(pl.col("n") > 2).select("v").group_by("v").agg(n=pl.len()), seeds=5)


ROW_STEPS: dict[str, Callable[[Stream], Stream]] = {
    "a column more": lambda table: table.with_columns(twice=pl.col("n") * 2),
    "one more and one replaced": lambda table: table.with_columns(pl.col("n") + 1, twice=pl.col("n") * 2),
    "two shared": lambda table: table.with_columns(a=pl.col("n") * 7 + 1, b=(pl.col("n") * 7 + 1) * 2),
    "the key again": lambda table: table.with_columns(k2="k"),
    "another type": lambda table: table.cast({"n": pl.String}),
    "another name": lambda table: table.rename({"n": "m"}).with_columns(k2=pl.col("k")),
    "fields": lambda table: table.with_columns(s=pl.struct("n", x="top")).drop("n").unnest("s"),
    "items": lambda table: table.with_columns(l=pl.concat_list("n", "top")).explode("l"),
}


@pytest.mark.parametrize("settings", [us.Settings(whole_query=False, tick_rows=2), us.Settings(), None])
@pytest.mark.parametrize("name", ROW_STEPS)
def test_steps_over_single_rows_of_a_table(name: str, settings: us.Settings | None) -> None:
    rows = us.from_frame({"k": [1, 1, 2, 3, 1], "v": [5, 4, 3, 2, 1]})
    table = ROW_STEPS[name](rows.group_by("k").agg(n=pl.len(), top=pl.col("v").max().cast(pl.UInt32)))
    expected = ROW_STEPS[name](
        us.from_frame({"k": [1, 2, 3], "n": [3, 1, 1], "top": [5, 3, 2]}).cast(
            {"n": pl.UInt32, "top": pl.UInt32}
        )
    ).collect()
    assert_same_rows(table.collect(settings=settings), expected)
    assert_same_rows(table.head(10), expected)


def test_changes_are_rows() -> None:
    parts = [pl.DataFrame({"k": ["a"], "v": [value]}) for value in (1, 1, 3)]
    items = [parts[0], Pause("1s"), parts[1], Pause("1s"), parts[2]]
    stream = us.scan(ListSource(COLUMNS, items)).group_by("k").agg(pl.col("v").max())
    changes = stream.changes()
    assert changes.collect().rows() == [("+I", "a", 1), ("-U", "a", 1), ("+U", "a", 3)]
    assert changes.group_by("op").agg(n=pl.len()).collect().height == 3
    with pytest.raises(InvalidQuery, match="there already"):
        changes.changes()


def test_what_cannot_take_updates_says_so(tmp_path: Path) -> None:
    table = us.from_frame({"k": ["a"], "v": [1]}).group_by("k").agg(pl.col("v").sum())
    with pytest.raises(InvalidQuery, match=r"updates(.|\n)*changes"):
        table.sink_parquet(tmp_path / "out").run()
    with pytest.raises(InvalidQuery, match="map_batches takes rows that are only added"):
        table.map_batches(lambda frame: frame)
    with pytest.raises(InvalidQuery, match="only added"):
        table.unique("k")
    table.changes().sink_parquet(tmp_path / "changes").run()
    assert us.scan_parquet(tmp_path / "changes").collect()["op"].to_list() == ["+I"]
