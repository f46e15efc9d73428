"""Everyday mistakes in queries, each with the message it gets."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl
import pytest

import unistream as us

ORDERS = us.from_frame(
    {"order": [1, 2], "ts": [10, 20], "item": ["a", "b"], "amount": [3.5, 4.0], "tags": [["x"], []]}
)
TIMED = ORDERS.with_event_time("ts", unit="s", delay="5s")
LIVE = us.scan_rate(10)

# Columns


def column_in_select() -> None:
    ORDERS.select("item", "amuont")


def column_in_filter() -> None:
    ORDERS.filter(pl.col("Amount") > 3)


def column_in_filter_by_name() -> None:
    ORDERS.filter(itm="a")


def column_in_with_columns() -> None:
    ORDERS.with_columns(twice=pl.col("value") * 2)


def column_in_drop() -> None:
    ORDERS.drop("tag")


def column_in_rename() -> None:
    ORDERS.rename({"items": "product"})


def column_in_cast() -> None:
    ORDERS.cast({"ammount": pl.Int64})


def column_in_group_by() -> None:
    ORDERS.group_by("itme").agg(pl.len())


def column_in_agg() -> None:
    ORDERS.group_by("item").agg(pl.col("amout").sum())


def column_in_window_agg() -> None:
    TIMED.window(us.tumbling("1m")).agg(pl.col("amout").sum())


def column_in_top_k() -> None:
    TIMED.window(us.tumbling("1m")).top_k(3, by="amounts")


def column_in_with_event_time() -> None:
    ORDERS.with_event_time("time")


def column_in_unique() -> None:
    ORDERS.unique("ordr")


def column_in_partition_by() -> None:
    ORDERS.drop("tags").sink_csv("out", partition_by="itm")


def two_outputs_with_one_name() -> None:
    ORDERS.select("item", pl.col("amount").alias("item"))


# Types


def text_in_arithmetic() -> None:
    ORDERS.with_columns(more=pl.col("item") * 2)


def text_compared_with_a_number() -> None:
    ORDERS.filter(pl.col("item") > 3)


def filter_that_is_no_condition() -> None:
    ORDERS.filter(pl.col("amount") + 1)


def filter_that_is_python() -> None:
    ORDERS.filter(lambda row: row["amount"] > 3)


def cast_to_an_unknown_type() -> None:
    ORDERS.cast({"amount": "integer"})


def cast_of_a_value_that_does_not_fit() -> None:
    us.from_frame({"item": ["a"]}).cast({"item": pl.Int64}).collect()


def cast_of_a_value_in_a_live_stream() -> None:
    ORDERS.cast({"item": pl.Int64}).collect(settings=us.Settings(whole_query=False))


def explode_of_no_list() -> None:
    ORDERS.explode("item")


def unnest_of_no_struct() -> None:
    ORDERS.unnest("item")


def time_in_a_format_to_be_guessed() -> None:
    ORDERS.with_columns(pl.col("item").str.to_datetime())


def event_time_that_is_computed() -> None:
    ORDERS.with_event_time(pl.col("ts") * 1000, unit="ms")


def aggregates_in_a_dictionary() -> None:
    ORDERS.group_by("item").agg({"amount": "mean"})


def unique_by_a_computed_column() -> None:
    ORDERS.unique(pl.col("order") % 2)


def split_into_a_list() -> None:
    ORDERS.split([pl.col("amount") > 3])  # type: ignore[arg-type]


def event_time_that_is_text() -> None:
    ORDERS.with_event_time("item")


def event_time_without_unit() -> None:
    ORDERS.with_event_time("ts")


# Expressions over several rows


def aggregate_in_select() -> None:
    ORDERS.select(pl.col("amount").sum())


def shift_in_with_columns() -> None:
    ORDERS.with_columns(before=pl.col("amount").shift(1))


def running_sum_in_with_columns() -> None:
    ORDERS.with_columns(total=pl.col("amount").cum_sum())


def over_in_with_columns() -> None:
    ORDERS.with_columns(share=pl.col("amount") / pl.col("amount").sum().over("item"))


def key_that_is_aggregated() -> None:
    ORDERS.group_by("item").agg(pl.col("item").first())


def key_that_is_an_aggregate() -> None:
    ORDERS.group_by(pl.col("amount").max()).agg(pl.len())


def group_by_nothing() -> None:
    ORDERS.group_by().agg(pl.len())


# Functions of one's own


def function_that_returns_no_frame() -> None:
    ORDERS.map_batches(lambda frame: frame.height)


def function_that_fails_on_no_rows() -> None:
    ORDERS.map_batches(lambda frame: frame.head(int(frame["amount"].max())))


def function_that_fails_on_rows() -> None:
    def risky(frame: pl.DataFrame) -> pl.DataFrame:
        return frame if frame.is_empty() else frame.select(pl.lit(1 // 0))

    ORDERS.map_batches(risky).collect()


def function_that_returns_other_columns() -> None:
    ORDERS.map_batches(lambda frame: frame.drop("tags"), schema=ORDERS.schema).collect()


# Time and windows


def window_without_event_time() -> None:
    ORDERS.window(us.tumbling("1m")).agg(pl.len())


def window_that_is_text() -> None:
    TIMED.window("1m")


def negative_delay() -> None:
    ORDERS.with_event_time("ts", unit="s", delay="-5s")


def bad_duration() -> None:
    us.tumbling("5 minutes")


def sliding_without_overlap() -> None:
    us.sliding("1m", every="0s")


def unknown_emit() -> None:
    TIMED.window(us.tumbling("1m"), emit="closed")


def unknown_unit() -> None:
    ORDERS.with_event_time("ts", unit="seconds")


def late_rows_of_no_window() -> None:
    TIMED.late()


# Putting streams together


def union_of_other_columns() -> None:
    ORDERS.union(ORDERS.rename({"item": "product"}))


def union_in_another_order() -> None:
    ORDERS.select("item", "order").union(ORDERS.select("order", "item"))


def union_of_other_types() -> None:
    ORDERS.union(ORDERS.cast({"order": pl.Int32}))


def union_with_a_frame() -> None:
    ORDERS.union(pl.DataFrame({"a": [1]}))


def updates_into_a_window() -> None:
    totals = TIMED.group_by("item").agg(ts=pl.col("ts").max())
    totals.window(us.tumbling("1m")).agg(pl.len())


def join_without_bounds() -> None:
    us.scan_rate(1).join(us.scan_rate(1), on="value")


def join_with_a_frame() -> None:
    TIMED.join(pl.DataFrame({"item": ["a"], "price": [3]}), on="item", within="5m")


def join_without_event_time() -> None:
    TIMED.join(ORDERS, on="order", within="5m")


def join_without_keys() -> None:
    TIMED.join(TIMED, within="5m")


def column_in_join() -> None:
    TIMED.join(TIMED, on="odrer", within="5m")


def keys_of_different_types() -> None:
    TIMED.join(TIMED.cast({"order": pl.String}), on="order", within="5m")


def updates_into_a_join() -> None:
    latest = TIMED.unique("item", keep="last")
    TIMED.join(latest, on="item", within="5m")


# Results


def collect_without_end() -> None:
    LIVE.collect()


def until_unknown() -> None:
    LIVE.collect(until="now")


def keep_unknown() -> None:
    ORDERS.unique("item", keep="any")


def explain_in_an_unknown_format() -> None:
    ORDERS.explain("html5")


def updates_into_files() -> None:
    ORDERS.group_by("item").agg(total=pl.col("amount").sum()).sink_parquet("out")


def job_of_nothing() -> None:
    us.job()


def job_of_a_stream() -> None:
    us.job(ORDERS)


MISTAKES: list[Callable[[], object]] = [
    made
    for name, made in list(globals().items())
    if callable(made) and getattr(made, "__module__", "") == __name__ and not name.startswith("test")
]


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda made: made.__name__)
def test_a_mistake_is_explained(
    mistake: Callable[[], object], check_message: Callable[[Callable[[], object]], None]
) -> None:
    check_message(mistake)
