"""Everyday mistakes with sinks, settings, checkpoints and the command line, each with the message it gets."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import polars as pl
import pytest

import unistream as us

ORDERS = us.from_frame({"item": ["a", "b", "a"], "amount": [3, 4, 5]})
LIVE = us.scan_rate(10_000)

# Sinks


def folder_that_is_not_empty() -> None:
    Path("out").mkdir()
    Path("out/part-0.parquet").touch()
    ORDERS.sink_parquet("out").run(progress=False)


def folder_that_is_a_file() -> None:
    Path("out").touch()
    ORDERS.sink_csv("out").run(progress=False)


def folder_below_a_file() -> None:
    Path("out").touch()
    ORDERS.sink_ndjson("out/orders").run(progress=False)


def folder_without_permission() -> None:
    with patch("os.mkdir", side_effect=PermissionError(errno.EACCES, "Permission denied")):
        ORDERS.sink_parquet("out").run(progress=False)


def mode_unknown() -> None:
    ORDERS.sink_parquet("out", mode="apend")


def compression_unknown() -> None:
    ORDERS.sink_parquet("out", compression="zip")


def rows_per_file_that_are_none() -> None:
    ORDERS.sink_parquet("out", max_file_rows=0)


def list_into_csv() -> None:
    us.from_frame({"tags": [["x"]]}).sink_csv("out")


def all_columns_are_folders() -> None:
    ORDERS.sink_parquet("out", partition_by=["item", "amount"])


def sink_function_that_fails() -> None:
    def insert(frame: pl.DataFrame) -> None:
        raise ConnectionError("database is away")

    ORDERS.sink_batches(insert).run(progress=False)


def sink_that_is_no_function() -> None:
    ORDERS.sink_batches("orders.parquet")


# Settings


def setting_misspelled() -> None:
    us.Settings(tick_row=50_000)


def setting_unknown() -> None:
    us.Settings.load({"tick_row": 50_000})


def setting_unknown_in_the_environment() -> None:
    us.Settings.load(environment={"UNISTREAM_KEY_GROUP": "64"})


def setting_unknown_in_the_file() -> None:
    Path("unistream.toml").write_text("checkpoints_keep = 5\n")
    ORDERS.collect()


def settings_file_that_is_no_toml() -> None:
    Path("unistream.toml").write_text("tick_rows: 5\n")
    ORDERS.collect()


def setting_of_the_wrong_type() -> None:
    us.Settings(tick_rows="many")


def setting_that_is_no_duration() -> None:
    us.Settings(checkpoint_interval="often")


def interval_that_is_no_duration() -> None:
    ORDERS.sink_csv("out").start(checkpoint="ckpt", every="10 sec")


def until_unknown_for_a_job() -> None:
    ORDERS.sink_csv("out").run(until="done", progress=False)


# Checkpoints


def second_job_on_one_checkpoint() -> None:
    with LIVE.sink_csv("out").start(checkpoint="ckpt"):
        LIVE.sink_csv("other").start(checkpoint="ckpt")


def checkpoint_of_another_program() -> None:
    us.scan_rate(1e6, total_rows=10).unique("value").sink_csv("out").run(checkpoint="ckpt", progress=False)
    us.scan_rate(1e6, total_rows=10).sink_csv("out").run(checkpoint="ckpt", progress=False)


def restore_without_a_checkpoint_folder() -> None:
    ORDERS.sink_csv("out").run(restore="keep", progress=False)


def restore_from_nothing() -> None:
    ORDERS.sink_csv("out").run(checkpoint="ckpt", restore="keep", progress=False)


def checkpoints_without_a_place() -> None:
    ORDERS.sink_csv("out").start(every="10s")


def file_bytes_in_words() -> None:
    ORDERS.sink_csv("out", max_file_bytes="10MB")  # type: ignore[arg-type]


def table_in_a_path() -> None:
    ORDERS.sink_table(Path("shop.db"), "orders")  # type: ignore[arg-type]


def restore_of_an_unknown_checkpoint() -> None:
    ORDERS.sink_csv("out").run(checkpoint="ckpt", progress=False)
    ORDERS.sink_csv("out").run(checkpoint="ckpt", restore=7, progress=False)


def state_of_no_checkpoint() -> None:
    us.read_state("ckpt")


def state_of_an_unknown_step() -> None:
    totals = LIVE.group_by(parity=pl.col("value") % 2).agg(n=pl.len()).changes()
    totals.sink_csv("out").run(until="available", checkpoint="ckpt", progress=False)
    us.read_state("ckpt", "agregate-1")


def checkpoint_that_is_damaged() -> None:
    job = ORDERS.unique("item").sink_csv("out")
    job.run(checkpoint="ckpt", progress=False)
    newest = max(Path("ckpt/checkpoints").iterdir())
    newest.write_bytes(newest.read_bytes().replace(b"frame", b"brane"))
    job.run(checkpoint="ckpt", progress=False)


def checkpoint_that_is_a_file() -> None:
    Path("ckpt").touch()
    ORDERS.sink_csv("out").run(checkpoint="ckpt", progress=False)


MISTAKES: list[Callable[[], object]] = [
    made
    for name, made in list(globals().items())
    if callable(made) and getattr(made, "__module__", "") == __name__
]


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda made: made.__name__)
def test_a_mistake_is_explained(
    mistake: Callable[[], object], check_message: Callable[[Callable[[], object]], None]
) -> None:
    check_message(mistake)
