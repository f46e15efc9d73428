"""`window_start` and `window_end` are those of the window that was asked for, or its result is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import polars as pl
import pytest

import unistream as us

ROWS = us.from_frame({"t": [5, 15, 16, 95], "k": ["a", "b", "a", "a"]}).with_event_time("t", unit="s")
TICKS = us.Settings(whole_query=False, tick_rows=2)
EITHER = pytest.mark.parametrize("settings", [us.Settings(), TICKS], ids=["whole", "ticks"])

WINDOWS = [
    us.tumbling("60s"),
    us.sliding("60s", every="30s"),
    us.cumulating("60s", step="30s"),
    us.session("60s"),
    us.counting(2),
    us.global_window(),
]
EVERY = pytest.mark.parametrize("window", WINDOWS, ids=lambda window: window.kind)


def per_ten() -> us.Stream:
    return ROWS.window(us.tumbling("10s")).agg(n=pl.len())


def refused(make: Callable[[], Any]) -> str:
    with pytest.raises(us.InvalidQuery) as error:
        make()
    assert "test_window_bounds.py" in str(error.value)
    return str(error.value)


@EVERY
def test_rows_that_bring_bounds_of_their_own(window: Any) -> None:
    for make in (
        lambda: per_ten().window(window).top_k(1, by="n"),
        lambda: per_ten().window(window).apply(lambda frame: frame),
    ):
        message = refused(make)
        assert "brings a column 'window_start', which the window makes" in message
        assert '.rename({"window_start": "inner_start"' in message


@EVERY
@pytest.mark.parametrize("name", ["window_start", "window_end"])
def test_aggregates_that_are_called_like_a_bound(window: Any, name: str) -> None:
    message = refused(lambda: ROWS.window(window).agg(pl.len().alias(name)))
    assert f"An aggregate is called {name!r}, as a column that the window makes" in message
    assert ".alias(" in message
    refused(lambda: per_ten().window(window).agg(pl.all().max()))


def test_aggregates_of_windows_by_the_windows_they_are_from() -> None:
    assert "'window_end'" in refused(lambda: per_ten().window().agg(window_end=pl.len()))
    refused(lambda: per_ten().window().agg(pl.col("window_start").max()))


@EITHER
def test_bounds_under_other_names_stand_beside_those_of_the_window(settings: us.Settings) -> None:
    inner = per_ten().rename({"window_start": "inner_start", "window_end": "inner_end"})
    best = inner.window(us.tumbling("60s")).top_k(1, by="n").collect(settings=settings)
    assert best.select("window_start", "window_end", "inner_start", "n").rows() == [
        (0, 60, 10, 2),
        (60, 120, 90, 1),
    ]
    last = per_ten().window(us.tumbling("60s")).agg(last=pl.col("window_end").max())
    assert last.collect(settings=settings).rows() == [(0, 60, 20), (60, 120, 100)]


@EITHER
def test_rows_of_the_same_window_keep_their_bounds(settings: us.Settings) -> None:
    counts = ROWS.group_by("k").window(us.tumbling("10s")).agg(n=pl.len())
    bounds = [(0, 10), (10, 20), (90, 100)]
    for made in (counts.window().top_k(1, by="n"), counts.window().apply(lambda frame: frame.head(1))):
        found = made.select("window_start", "window_end").collect(settings=settings)
        assert sorted(found.rows()) == bounds
