"""What `explain` says of joins: what each side keeps, and how long. `UPDATE_PLANS=1` writes the files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

import unistream as us

PLANS = Path(__file__).parent.parent / "plans"
TICKS = us.Settings(whole_query=False)
VIEWS = us.from_frame({"user": ["a"], "t": [1], "page": [1]}).with_event_time("t", unit="s", delay="5s")
CLICKS = us.from_frame({"user": ["a"], "u": [2], "page": [1]}).with_event_time("u", unit="s", delay="5s")
NAMES = pl.DataFrame({"user": ["a"], "name": ["Ann"]})


def interval() -> us.Stream:
    same_page = pl.col("page") == pl.col("page_right")
    return VIEWS.join(CLICKS, on="user", how="left", within=("-5m", "1m"), predicate=same_page)


def interval_ahead() -> us.Stream:
    return VIEWS.join(CLICKS, on="user", within=("10s", "1m"))


def window() -> us.Stream:
    return VIEWS.join(CLICKS, on="user", how="full", window=us.sliding("10m", every="5m"))


def regular_with_ttl() -> us.Stream:
    return VIEWS.join(CLICKS, on=["user", "page"], how="anti", ttl="1d")


def regular_for_ever() -> us.Stream:
    return VIEWS.join(CLICKS, on="user", unbounded=True)


def regular_to_the_end() -> us.Stream:
    return VIEWS.join(CLICKS, on="user")


def versions() -> us.Stream:
    return VIEWS.join_asof(CLICKS, by="user")


def versions_not_too_old() -> us.Stream:
    return VIEWS.join_asof(CLICKS, by="user", tolerance="1h")


def nearest_version() -> us.Stream:
    return VIEWS.join_asof(CLICKS, by="user", strategy="nearest", tolerance="1h")


def lookup_in_memory() -> us.Stream:
    return VIEWS.lookup(NAMES, on="user")


def lookup_by_function() -> us.Stream:
    return VIEWS.lookup(names, on="user", how="inner", schema=NAMES.schema, cache="10m", cache_keys=5000)


def lookup_without_cache() -> us.Stream:
    return VIEWS.lookup(names, on="user", schema=NAMES.schema)


def names(keys: pl.DataFrame) -> pl.DataFrame:
    return NAMES.join(keys, on="user", how="semi")


JOINS: tuple[Callable[[], us.Stream], ...] = (
    interval,
    interval_ahead,
    window,
    regular_with_ttl,
    regular_for_ever,
    regular_to_the_end,
    versions,
    versions_not_too_old,
    nearest_version,
    lookup_in_memory,
    lookup_by_function,
    lookup_without_cache,
)


@pytest.mark.parametrize("join", JOINS, ids=lambda join: join.__name__)
def test_the_plan_is_the_reviewed_one(join: Callable[[], us.Stream], update_plans: bool) -> None:
    text = join().explain("text", TICKS) + "\n"
    file = PLANS / f"join_{join.__name__}.txt"
    if update_plans:
        file.write_text(text)
    assert file.read_text() == text


@pytest.mark.parametrize("join", JOINS, ids=lambda join: join.__name__)
def test_every_join_says_what_it_keeps(join: Callable[[], us.Stream]) -> None:
    assert "keeps" in join().explain("text", TICKS)
