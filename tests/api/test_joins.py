"""Joins as users write them: names, refusals, plans, and the same rows however the input arrives."""

from __future__ import annotations

import polars as pl
import pytest

import unistream as us
from unistream.testing import verify

VIEWS = us.from_frame({"user": ["a", "b", None, "a"], "t": [10, 20, 21, 40], "page": [1, 2, 3, 4]})
CLICKS = us.from_frame({"user": ["a", "b", "a", None], "t": [12, 90, 38, 22], "page": [1, 5, 4, 3]})
TIMED_VIEWS = VIEWS.with_event_time("t", delay="10s", unit="s")
TIMED_CLICKS = CLICKS.with_event_time("t", delay="10s", unit="s")


@pytest.mark.parametrize("how", ["inner", "left", "right", "full", "semi", "anti"])
def test_interval_join_gives_the_same_rows_however_they_arrive(how: str) -> None:
    verify(TIMED_VIEWS.join(TIMED_CLICKS, on="user", how=how, within=("-5s", "30s")), seeds=6)


@pytest.mark.parametrize(
    "window", [us.tumbling("20s"), us.sliding("20s", every="10s")], ids=["tumbling", "sliding"]
)
@pytest.mark.parametrize("how", ["inner", "full", "anti"])
def test_window_join_gives_the_same_rows_however_they_arrive(how: str, window: object) -> None:
    verify(TIMED_VIEWS.join(TIMED_CLICKS, on="user", how=how, window=window), seeds=4)  # type: ignore[arg-type]


def test_joined_windows_can_be_aggregated() -> None:
    joined = TIMED_VIEWS.join(TIMED_CLICKS, on="user", window=us.tumbling("1m"))
    assert joined.columns == ["user", "t", "page", "t_right", "page_right", "window_start", "window_end"]
    hourly = joined.drop("window_start").rename({"window_end": "end"}).window(us.tumbling("1h"))
    assert hourly.agg(n=pl.len()).collect()["n"].to_list() == [4]


def test_columns_of_both_sides() -> None:
    joined = TIMED_VIEWS.join(TIMED_CLICKS, on="user", within="5s", suffix="_click")
    assert joined.columns == ["user", "t", "page", "t_click", "page_click", "join_time"]
    assert sorted(joined.collect().rows()) == [("a", 10, 1, 12, 1, 12), ("a", 40, 4, 38, 4, 40)]


def test_keys_of_different_names() -> None:
    people = CLICKS.rename({"user": "person", "page": "user"}).with_event_time("t", unit="s")
    joined = TIMED_VIEWS.join(people, left_on="user", right_on="person", within="5s")
    assert joined.columns == ["user", "t", "page", "t_right", "user_right", "join_time"]
    assert joined.collect().height == 2


def test_predicate_over_both_sides() -> None:
    joined = TIMED_VIEWS.join(
        TIMED_CLICKS, on="user", within="1h", how="left", predicate=pl.col("page") == pl.col("page_right")
    )
    assert sorted(joined.select("page", "page_right").collect().rows(), key=str) == [
        (1, 1),
        (2, None),
        (3, None),
        (4, 4),
    ]


def test_columns_nobody_wants_are_not_read() -> None:
    text = TIMED_VIEWS.join(TIMED_CLICKS, on="user", within="5s").select("user", "page").explain()
    assert "columns: user, t, page" not in text.split("scan frame")[2]
    assert TIMED_VIEWS.join(TIMED_CLICKS, on="user", within="5s").select("user", "page").collect().height == 2


def test_a_join_of_a_join() -> None:
    first = TIMED_VIEWS.join(TIMED_CLICKS, on="user", within="5s")
    again = first.join(TIMED_CLICKS.rename({"t": "u", "page": "p"}), on="user", within="5s")
    assert again.columns.count("join_time") == 1
    assert sorted(again.select("t", "u", "join_time").collect().rows()) == [(10, 12, 12), (40, 38, 40)]


def test_windows_over_joined_rows_lose_none() -> None:
    joined = TIMED_VIEWS.join(TIMED_CLICKS, on="user", within=("-5s", "30s"), how="full")
    counted = joined.window(us.tumbling("10s")).agg(n=pl.len())
    assert counted.collect()["n"].sum() == joined.collect().height
    assert counted.late().collect().is_empty()


def test_late_rows_say_which_side_and_why() -> None:
    views = us.from_frame({"user": ["a", "a"], "t": [100, 3]}).with_event_time("t", unit="s")
    source = us.scan_iterable(
        [{"user": "a", "t": 100}, {"user": "a", "t": 3}], schema={"user": pl.String, "t": pl.Int64}
    )
    late = views.join(source.with_event_time("t", unit="s"), on="user", within="5s").late()
    assert late.columns == ["user", "t", "t_right", "late_side", "late_reason", "late_watermark"]


def test_explain_says_what_is_kept() -> None:
    text = TIMED_VIEWS.join(TIMED_CLICKS, on="user", how="left", within=("-5m", "1m")).explain()
    assert "keeps left: rows until the watermark is 1m past them" in text
    assert "keeps right: rows until the watermark is 5m past them" in text


RATES = us.from_frame({"cur": ["EUR", "EUR", "USD"], "at": [0, 20, 7], "rate": [1.1, 1.2, 1.0]})
ORDERS = us.from_frame({"cur": ["EUR", "EUR", "USD", None, "EUR"], "t": [5, 25, 6, 7, 21], "n": range(5)})


@pytest.mark.parametrize("strategy", ["backward", "forward", "nearest"])
def test_join_asof_gives_the_same_rows_however_they_arrive(strategy: str) -> None:
    orders = ORDERS.with_event_time("t", unit="s", delay="10s")
    rates = RATES.with_event_time("at", unit="s", delay="10s")
    joined = orders.join_asof(rates, by="cur", strategy=strategy, tolerance="15s")
    verify(joined, seeds=6)
    expected = (
        pl.DataFrame({"cur": ["EUR", "EUR", "USD", None, "EUR"], "t": [5, 25, 6, 7, 21], "n": range(5)})
        .sort("t")
        .join_asof(
            pl.DataFrame({"cur": ["EUR", "USD", "EUR"], "at": [0, 7, 20], "rate": [1.1, 1.0, 1.2]}),
            left_on="t",
            right_on="at",
            by="cur",
            strategy=strategy,
            tolerance=15,
            coalesce=False,
            check_sortedness=False,
        )
    )
    assert joined.collect().sort("n").equals(expected.sort("n"))


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (lambda: TIMED_VIEWS.join_asof(TIMED_CLICKS), 'by="user" when both sides call it so'),
        (lambda: TIMED_VIEWS.join_asof(CLICKS, by="user"), "which the right side has not"),
        (lambda: TIMED_VIEWS.join_asof(TIMED_CLICKS, by="user", strategy="last"), "one of backward"),
        (lambda: TIMED_VIEWS.join_asof(TIMED_CLICKS, by="user", tolerance="-1s"), "less than nothing"),
        (lambda: TIMED_VIEWS.join(TIMED_CLICKS, on="usr", within="5s"), "did you mean 'user'"),
        (lambda: TIMED_VIEWS.join(TIMED_CLICKS, within="5s"), 'on="user" when both sides call it so'),
        (
            lambda: TIMED_VIEWS.join(TIMED_CLICKS, on="user", within=("5s", "1s")),
            "put the earlier bound first",
        ),
        (lambda: VIEWS.join(TIMED_CLICKS, on="user", within="5s"), "which the left side has not"),
        (lambda: TIMED_VIEWS.join(pl.DataFrame(), on="user", within="5s"), "there is .lookup"),
        (
            lambda: TIMED_VIEWS.join(TIMED_CLICKS.cast({"user": pl.Binary}), on="user", within="5s"),
            "Key 'user' is String on the left and Binary on the right",
        ),
        (
            lambda: TIMED_VIEWS.join(
                TIMED_CLICKS, on="user", within="5s", predicate=pl.col("page").sum() > 1
            ),
            "looks at one pair at a time",
        ),
        (lambda: TIMED_VIEWS.join(TIMED_CLICKS, on="user", within="5s", how="outer"), "one of inner, left"),
        (
            lambda: TIMED_VIEWS.join(TIMED_CLICKS, on="user", within="5s", window=us.tumbling("1m")),
            "one of within= and window=, not both",
        ),
        (
            lambda: TIMED_VIEWS.join(TIMED_CLICKS, on="user", window=us.session("1m")),
            "the same for all keys, not session",
        ),
        (
            lambda: TIMED_VIEWS.join(TIMED_CLICKS, on="user", within="5s", suffix=""),
            "choose another suffix",
        ),
    ],
)
def test_mistakes(mistake: object, message: str) -> None:
    with pytest.raises(us.InvalidQuery) as caught:
        mistake()  # type: ignore[operator]
    assert message in str(caught.value)
    assert "test_joins.py" in str(caught.value)
