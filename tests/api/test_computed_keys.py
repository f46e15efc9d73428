"""Keys computed under the name of a column: what is made of each group sees the column, as in Polars."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import polars as pl
import pytest

import unistream as us
from unistream.testing import assert_same_rows, verify

MIDNIGHT = datetime(2024, 5, 1, 23, 59, 30)
FRAME = pl.DataFrame(
    {
        "t": [1, 5, 12, 13, 25, 27, 31, 44, 58],
        "a": [1, 5, 12, 14, None, 19, 8, 11, 25],
        "name": ["Ada", "ada", "Bob", "bob", "ADA", "Cy", "bob", None, "cy"],
        "v": [3, 1, 4, 1, 5, 9, 2, 6, 5],
    }
).with_columns(ts=MIDNIGHT + pl.duration(seconds="t"))
A, T, V = pl.col("a"), pl.col("t"), pl.col("v")

TICKS = us.Settings(whole_query=False, tick_rows=2)
EITHER = pytest.mark.parametrize("settings", [us.Settings(), TICKS], ids=["whole", "ticks"])

KEYS: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "positional": ((A // 10,), {}),
    "keyword": ((), {"a": V % 3}),
    "another column": ((V.alias("a"),), {}),
    "of another type": ((A.cast(pl.String).str.slice(0, 1),), {}),
    "beside a plain key": (("name", A // 10), {}),
    "beside a key of a new name": ((A // 10,), {"odd": V % 2}),
    "two that change places": ((), {"a": V % 3, "v": A // 10}),
}

AGGREGATES: dict[str, dict[str, Any]] = {
    "parts": {"top": A.max(), "total": A.sum(), "n": pl.len()},
    "all rows": {"middle": A.median(), "ranked": A.rank().max()},
    "kinds": {"kinds": A.n_unique(), "both": (A * V).sum()},
    "nothing of it": {"n": pl.len(), "late": T.max()},
}


def stream() -> us.Stream:
    return us.from_frame(FRAME)


def timed() -> us.Stream:
    return stream().with_event_time("t", unit="s")


def assert_equal(got: pl.DataFrame, expected: pl.DataFrame) -> None:
    assert got.schema == expected.schema
    assert_same_rows(got, expected)


@EITHER
@pytest.mark.parametrize("aggregates", AGGREGATES.values(), ids=AGGREGATES)
@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_running_aggregates(key: Any, aggregates: dict[str, Any], settings: us.Settings) -> None:
    by, named = key
    made = stream().group_by(*by, **named).agg(**aggregates)
    assert_equal(made.collect(settings=settings), FRAME.group_by(*by, **named).agg(**aggregates))


@EITHER
def test_the_last_moment_of_a_day_and_the_spellings_of_a_name(settings: us.Settings) -> None:
    days = {"last": pl.col("ts").max()}
    names = {"spellings": pl.col("name").n_unique()}
    for key, aggregates in ((pl.col("ts").dt.date(), days), (pl.col("name").str.to_lowercase(), names)):
        made = stream().group_by(key).agg(**aggregates)
        assert_equal(made.collect(settings=settings), FRAME.group_by(key).agg(**aggregates))


CHAINS: dict[str, Callable[[Any], Any]] = {
    "grouped again": lambda rows: (
        rows.group_by(A // 10).agg(top=A.max()).group_by(A % 2).agg(sum=A.sum(), top=pl.col("top").max())
    ),
    "grouped by the key": lambda rows: rows.group_by(A // 5).agg(top=A.max()).group_by("a").agg(pl.len()),
    "filtered by the key": lambda rows: rows.group_by(A // 10).agg(top=A.max()).filter(A > 0),
    "only the result": lambda rows: rows.group_by(A // 10).agg(top=A.max()).select("top"),
    "selectors leave keys out": lambda rows: rows.group_by(A // 10).agg(pl.all().max(), x=A.max()),
}


@EITHER
@pytest.mark.parametrize("query", CHAINS.values(), ids=CHAINS)
def test_steps_behind_see_the_key(query: Callable[[Any], Any], settings: us.Settings) -> None:
    assert_equal(query(stream()).collect(settings=settings), query(FRAME))


UPDATES: dict[str, Callable[[Any], Any]] = {
    "reads the count": lambda counts: counts.group_by(k=A // 10).agg(t=pl.col("n").sum()),
    "replaces the key": lambda counts: counts.group_by(A // 10).agg(t=pl.col("n").sum()),
    "replaces and reads the key": lambda counts: counts.group_by(A // 10).agg(t=A.sum(), n=pl.len()),
    "replaces and reads the count": lambda counts: counts.group_by(n=A // 10).agg(t=pl.col("n").sum()),
}


@EITHER
@pytest.mark.parametrize("query", UPDATES.values(), ids=UPDATES)
def test_streams_that_update(query: Callable[[Any], Any], settings: us.Settings) -> None:
    counts = query(stream().group_by("a").agg(n=pl.len()))
    assert_equal(counts.collect(settings=settings), query(FRAME.group_by("a").agg(n=pl.len())))


def tumbled(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.with_columns(window_start=T // 10 * 10, window_end=T // 10 * 10 + 10)


def slid(rows: pl.DataFrame) -> pl.DataFrame:
    starts = pl.concat_list(T // 10 * 10 - 10, T // 10 * 10)
    return (
        rows.with_columns(window_start=starts)
        .explode("window_start")
        .with_columns(window_end=pl.col("window_start") + 20)
    )


def in_sessions(rows: pl.DataFrame) -> pl.DataFrame:
    """Sessions of a gap of 20 of the rows by column `__by`."""
    number = (T.diff() >= 20).fill_null(False).cum_sum().over("__by")
    both = "__by", "__session"
    return (
        rows.sort("t")
        .with_columns(__session=number)
        .with_columns(window_start=T.min().over(both), window_end=T.max().over(both) + 20)
    )


WINDOWS = {
    "tumbling": (us.tumbling("10s"), tumbled),
    "sliding": (us.sliding("20s", every="10s"), slid),
    "session": (us.session("20s"), in_sessions),
}
TIME_KEYS = {"the time": T // 30, "another column": A // 10, "beside": pl.col("name").str.to_lowercase()}


@EITHER
@pytest.mark.parametrize("key", TIME_KEYS.values(), ids=TIME_KEYS)
@pytest.mark.parametrize("window", WINDOWS.values(), ids=WINDOWS)
def test_windows(window: Any, key: pl.Expr, settings: us.Settings) -> None:
    kind, placed = window
    aggregates = {"last": T.max(), "top": A.max(), "kinds": pl.col("name").n_unique(), "middle": A.median()}
    made = timed().group_by(key).window(kind).agg(**aggregates)
    rows = placed(FRAME.with_columns(__by=key))
    groups = rows.group_by(pl.col("__by").alias(key.meta.output_name()), "window_start", "window_end")
    assert_equal(made.collect(settings=settings), groups.agg(**aggregates))


@EITHER
def test_windows_that_update(settings: us.Settings) -> None:
    windows = timed().group_by(T // 30).window(us.tumbling("10s"), emit="change")
    expected = tumbled(FRAME).group_by(T // 30, "window_start", "window_end").agg(last=T.max())
    assert_equal(windows.agg(last=T.max()).collect(settings=settings), expected)


def test_windows_without_time_do_not_ask_for_it() -> None:
    made = timed().group_by(T // 30).window(us.global_window()).agg(n=pl.len())
    assert sorted(made.collect().rows()) == [(0, 0, 6, 6), (1, 0, 3, 3)]
    assert "__" not in made.explain()


@EITHER
def test_windows_of_the_windows(settings: us.Settings) -> None:
    minutes = timed().group_by(T // 30).window(us.tumbling("10s")).agg(last=T.max())
    most = minutes.window().agg(last=pl.col("last").max())
    assert most.collect(settings=settings).rows() == [
        (0, 10, 5), (10, 20, 13), (20, 30, 27), (30, 40, 31), (40, 50, 44), (50, 60, 58)
    ]  # fmt: skip


@EITHER
def test_the_best_rows_by_the_column(settings: us.Settings) -> None:
    """As Polars' `head`: the rows have the key in place of the column."""
    rows = FRAME.sort("a", descending=True, nulls_last=True)
    made = stream().group_by(A // 10).top_k(1, by="a").collect(settings=settings)
    assert made.columns == FRAME.columns
    assert_equal(made, rows.group_by(A // 10).head(1).select(FRAME.columns))
    windows = timed().group_by(A // 10).window(us.tumbling("30s")).top_k(1, by="a")
    assert windows.columns == ["a", "window_start", "window_end", "t", "name", "v", "ts"]
    best = rows.with_columns(window_start=T // 30 * 30).group_by(A // 10, "window_start").head(1)
    some = ["a", "window_start", "v"]
    assert_equal(windows.select(some).collect(settings=settings), best.select(some))


@EITHER
@pytest.mark.parametrize("reach", [{"rows": 2}, {"range": "15s"}], ids=str)
def test_rows_with_those_before_them(reach: dict[str, Any], settings: us.Settings) -> None:
    keys = {"t": T // 30} if "range" in reach else {"a": A // 10}
    (name,) = keys
    made = timed().group_by(**keys).over(**reach).agg(total=pl.col(name).sum())
    otherwise = timed().group_by(key=keys[name]).over(**reach).agg(total=pl.col(name).sum())
    expected = otherwise.collect(settings=settings).with_columns(pl.col("key").alias(name)).drop("key")
    assert_equal(made.collect(settings=settings), expected)


def test_batch_is_stream() -> None:
    verify(timed().group_by(T // 30).agg(last=T.max()), seeds=2, crashes=1)
    verify(timed().group_by(T // 30).window(us.tumbling("10s")).agg(last=T.max()), seeds=2, crashes=1)


def test_late_rows_have_the_column() -> None:
    rows = us.from_frame({"t": [1, 50, 2]}).with_event_time("t", unit="s")
    made = rows.group_by(T // 30).window(us.tumbling("10s")).agg(n=pl.len())
    assert made.late().collect(settings=us.Settings(whole_query=False, tick_rows=1))["t"].to_list() == [2]


class Rows(us.ProcessFunction):
    """Gives rows as they are."""

    output = FRAME.schema

    def process(self, key: Any, row: Any, ctx: Any) -> Any:
        yield row


def by_process() -> None:
    stream().group_by(A // 10).process(Rows())


def by_process_batches() -> None:
    stream().group_by(A // 10).process_batches(lambda frame: (frame, frame), state_schema={"s": pl.Int64})


def by_apply() -> None:
    timed().group_by(A // 10).window(us.tumbling("10s")).apply(lambda frame: frame)


@pytest.mark.parametrize("mistake", [by_process, by_process_batches, by_apply], ids=lambda one: one.__name__)
def test_functions_over_whole_rows_refuse_a_key_in_place_of_a_column(mistake: Callable[[], None]) -> None:
    with pytest.raises(us.InvalidQuery) as error:
        mistake()
    assert "key 'a' would stand in place of the column 'a'" in str(error.value)
    assert "group_by(a_key=...)" in str(error.value)
    assert "test_computed_keys.py" in str(error.value)


def test_bounds_of_windows_are_no_names_for_keys() -> None:
    windows = timed().window(us.tumbling("10s")).agg(n=pl.len())
    for name in ("window_start", "window_end"):
        keyed = windows.group_by(pl.col(name) // 60).window(us.tumbling("60s"))
        with pytest.raises(us.InvalidQuery, match=f"Key '{name}' has the name of a column that the window"):
            keyed.agg(last=pl.col(name).max())


def test_functions_over_whole_rows_take_keys_of_new_names() -> None:
    made = stream().group_by(decade=A // 10).process(Rows(), schema={**FRAME.schema, "decade": pl.Int64})
    assert made.collect().equals(FRAME.with_columns(decade=A // 10))


def test_a_column_nobody_reads_is_replaced_at_once() -> None:
    for made in (
        stream().group_by(a="v").agg(n=pl.len(), last=T.max()),
        timed().group_by(a="v").window(us.tumbling("10s")).agg(n=pl.len()),
        stream().group_by(A // 10).top_k(1, by="v"),
        stream().group_by(A // 10).over(rows=2).agg(total=V.sum()),
    ):
        assert "__" not in made.explain()


def test_names_that_are_taken_already() -> None:
    frame = FRAME.select("a", __key_a=pl.lit("mine"))
    made = us.from_frame(frame).group_by(A // 10).agg(A.max().alias("top"), pl.col("__key_a").first())
    assert_equal(made.collect(), frame.group_by(A // 10).agg(A.max().alias("top"), pl.col("__key_a").first()))
