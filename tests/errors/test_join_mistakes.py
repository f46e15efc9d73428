"""Joins and look-ups asked for in a way that cannot be: the answers are compared with reviewed texts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import unistream as us

ORDERS = us.from_frame({"order": [1], "item": ["a"], "ts": [1]}).with_event_time("ts", unit="s")
PRICES = us.from_frame({"item": ["a"], "at": [1], "price": [3]}).with_event_time("at", unit="s")
LIVE = us.scan_rate(1).with_event_time("timestamp")
OUTER: Any = "outer"
ITEMS = pl.DataFrame({"item": ["a"], "price": [3]})


def names(keys: pl.DataFrame) -> pl.DataFrame:
    raise ConnectionError("no route to host")


def anti_join_without_bounds() -> None:
    LIVE.join(LIVE, on="value", how="anti")


def join_with_two_bounds() -> None:
    ORDERS.join(PRICES, on="item", within="5m", ttl="1d")


def join_for_no_time() -> None:
    LIVE.join(LIVE, on="value", ttl="0s")


def join_in_sessions() -> None:
    ORDERS.join(PRICES, on="item", window=us.session("5m"))


def join_of_an_unknown_kind() -> None:
    ORDERS.join(PRICES, on="item", within="5m", how=OUTER)


def interval_that_ends_before_it_begins() -> None:
    ORDERS.join(PRICES, on="item", within=("5m", "-5m"))


def predicate_over_many_rows() -> None:
    ORDERS.join(PRICES, on="item", within="5m", predicate=pl.col("price") > pl.col("price").mean())


def suffix_that_is_taken() -> None:
    ORDERS.join(ORDERS, on="item", within="5m", suffix="")


def version_that_is_waited_for_ever() -> None:
    LIVE.join_asof(LIVE, by="value", strategy="forward")


def version_of_an_updating_stream() -> None:
    ORDERS.join_asof(PRICES.unique("item", keep="last"), by="item")


def lookup_in_a_stream_without_end() -> None:
    ORDERS.lookup(LIVE, left_on="order", right_on="value")


def lookup_by_keys_of_other_types() -> None:
    ORDERS.lookup(ITEMS, left_on="order", right_on="item")


def key_that_is_computed() -> None:
    ORDERS.join(PRICES, on=pl.col("item").str.to_lowercase(), within="5m")


def lookup_in_a_file_of_another_kind() -> None:
    Path("shop.db").write_text("SQLite format 3")
    ORDERS.lookup("shop.db", on="item")


def lookup_in_a_file_that_is_not_there() -> None:
    ORDERS.lookup("items.parquet", on="item")


def lookup_of_types_in_a_frame() -> None:
    ORDERS.lookup(ITEMS, on="item", schema={"item": pl.String})


def lookup_without_a_table() -> None:
    ORDERS.lookup("sqlite:///shop.db", on="item")


def lookup_in_a_database_that_is_not_there() -> None:
    ORDERS.lookup("sqlite:///shop.db", on="item", table="items")


def lookup_by_a_function_that_fails_on_no_keys() -> None:
    ORDERS.lookup(names, on="item")


def lookup_by_a_function_that_fails() -> None:
    ORDERS.lookup(names, on="item", schema=ITEMS.schema, retries=0).collect()


def lookup_of_an_updating_stream_in_what_changes() -> None:
    latest = ORDERS.unique("item", keep="last")
    latest.lookup(names, on="item", schema=ITEMS.schema)


MISTAKES: tuple[Callable[[], None], ...] = (
    anti_join_without_bounds,
    join_with_two_bounds,
    join_for_no_time,
    join_in_sessions,
    join_of_an_unknown_kind,
    interval_that_ends_before_it_begins,
    predicate_over_many_rows,
    suffix_that_is_taken,
    version_that_is_waited_for_ever,
    version_of_an_updating_stream,
    lookup_in_a_stream_without_end,
    lookup_by_keys_of_other_types,
    key_that_is_computed,
    lookup_in_a_file_of_another_kind,
    lookup_in_a_file_that_is_not_there,
    lookup_of_types_in_a_frame,
    lookup_without_a_table,
    lookup_in_a_database_that_is_not_there,
    lookup_by_a_function_that_fails_on_no_keys,
    lookup_by_a_function_that_fails,
    lookup_of_an_updating_stream_in_what_changes,
)


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.__name__)
def test_the_mistake_is_explained(
    mistake: Callable[[], None], check_message: Callable[[Callable[[], None]], None]
) -> None:
    check_message(mistake)
