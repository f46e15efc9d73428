"""Everyday mistakes with files, sockets and data in memory, each with the message it gets."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

import unistream as us

TICKS = us.Settings(whole_query=False)


def parquet(name: str, **columns: list[object]) -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    pl.DataFrame(columns).write_parquet(name)


def text(name: str, content: str) -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(content)


# Files that are not there


def missing_file() -> None:
    parquet("orders.parquet", a=[1])
    us.scan_parquet("order.parquet")


def missing_folder() -> None:
    parquet("data/orders/1.parquet", a=[1])
    us.scan_parquet("dta/orders")


def glob_that_matches_nothing() -> None:
    text("logs/1.csv", "a\n1\n")
    us.scan_csv("logs/*.tsv")


def glob_below_a_wrong_folder() -> None:
    text("logs/1.csv", "a\n1\n")
    us.scan_csv("log/*.csv")


def folder_without_files() -> None:
    Path("empty").mkdir()
    us.scan_parquet("empty")


def folder_with_other_files() -> None:
    text("logs/1.csv", "a\n1\n")
    us.scan_parquet("logs")


def address_in_place_of_a_path() -> None:
    us.scan_parquet("s3://bucket/orders.parquet")


def watch_on_a_file() -> None:
    text("orders.csv", "a\n1\n")
    us.scan_csv("orders.csv", watch=True)


def watch_on_a_parquet_file() -> None:
    parquet("orders.parquet", a=[1])
    us.scan_parquet("orders.parquet", watch=True)


def tail_on_parquet() -> None:
    parquet("orders.parquet", a=[1])
    us.scan_ndjson("orders.parquet", tail=True)


def lines_of_a_parquet_file() -> None:
    parquet("orders.parquet", a=list(range(100)))
    us.scan_csv("orders.parquet").collect()


def types_of_no_rows() -> None:
    Path("new").mkdir()
    us.scan_csv("new", watch=True)


def types_that_are_words() -> None:
    text("orders.csv", "a\n1\n")
    us.scan_csv("orders.csv", schema={"a": "integer"})


def policy_unknown() -> None:
    parquet("orders.parquet", a=[1])
    us.scan_parquet("orders.parquet", on_error="ignore")


def policy_unknown_for_lines() -> None:
    text("orders.csv", "a\n1\n")
    us.scan_csv("orders.csv", on_error="colect")


# Files that hold something else


def line_that_is_no_json() -> None:
    text("orders.ndjson", '{"a": 1}\n{"a": 2\n{"a": 3}\n')
    us.scan_ndjson("orders.ndjson", schema={"a": pl.Int64}).collect()


def value_that_does_not_fit() -> None:
    text("orders.ndjson", '{"a": 1}\n{"a": "two"}\n')
    us.scan_ndjson("orders.ndjson", schema={"a": pl.Int64}).collect()


def line_with_too_few_fields() -> None:
    text("orders.csv", "a,b\n1,2\n3\n")
    us.scan_csv("orders.csv").collect()


def line_with_too_many_fields() -> None:
    text("orders.csv", "a,b\n1,2\n3,4,5\n")
    us.scan_csv("orders.csv").collect()


def header_that_lacks_a_column() -> None:
    text("orders.csv", "a,c\n1,2\n")
    us.scan_csv("orders.csv", schema={"a": pl.Int64, "b": pl.Int64}).collect()


def parquet_that_is_none() -> None:
    text("orders.parquet", "a,b\n1,2\n")
    us.scan_parquet("orders.parquet").collect()


def parquet_that_is_cut_off() -> None:
    parquet("data/1.parquet", a=[1])
    Path("data/2.parquet").write_bytes(Path("data/1.parquet").read_bytes()[:-30])
    us.scan_parquet("data").collect()


def parquet_files_of_different_columns() -> None:
    parquet("data/1.parquet", a=[1], b=["x"])
    parquet("data/2.parquet", a=[1.5], c=["x"])
    us.scan_parquet("data").collect()


# Sockets


def address_without_port() -> None:
    us.scan_socket("localhost", schema={"a": pl.Int64})


def port_that_is_no_number() -> None:
    us.scan_socket("localhost:http", schema={"a": pl.Int64})


def port_that_is_too_great() -> None:
    us.scan_socket("localhost:123456", schema={"a": pl.Int64})


def socket_without_schema() -> None:
    us.scan_socket("localhost:9000")


def format_unknown() -> None:
    us.scan_socket("localhost:9000", schema={"a": pl.Int64}, format="json")


def port_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        us.scan_socket(address, schema={"a": pl.Int64}, listen=True).head(1)


def sink_port_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        us.scan_rate(1).sink_socket(address, listen=True).run(progress=False)


# Data in memory


def frame_of_nonsense() -> None:
    us.from_frame(42)


def frame_of_a_lazy_frame() -> None:
    us.from_frame(pl.LazyFrame({"a": [1]}))


def one_row_as_a_frame() -> None:
    us.from_frame({"a": 1, "b": "x"})


def columns_of_different_lengths() -> None:
    us.from_frame({"a": [1, 2], "b": [1]})


def rows_of_different_types() -> None:
    us.from_frame([{"a": 1}, {"a": "two"}])


def iterator_that_can_be_read_once() -> None:
    us.scan_iterable(({"n": n} for n in range(3)), schema={"n": pl.Int64})


def iterator_as_a_frame() -> None:
    us.from_frame(iter([{"n": 1}]))


def row_that_does_not_fit() -> None:
    us.scan_iterable([{"n": 1}, {"n": "two"}], schema={"n": pl.Int64}).collect()


def type_without_its_parameters() -> None:
    us.scan_csv("orders.csv", schema={"price": pl.Decimal})


def row_with_an_unknown_column() -> None:
    us.scan_iterable([{"n": 1}, {"m": 2}], schema={"n": pl.Int64}).collect()


def iterator_that_fails() -> None:
    def numbers():  # type: ignore[no-untyped-def]
        yield {"n": 1}
        raise TimeoutError("no answer")

    us.scan_iterable(numbers, schema={"n": pl.Int64}).collect()


def source_that_is_none() -> None:
    us.scan("orders.parquet")


MISTAKES: list[Callable[[], object]] = [
    made
    for name, made in list(globals().items())
    if callable(made) and getattr(made, "__module__", "") == __name__ and name not in ("parquet", "text")
]


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda made: made.__name__)
def test_a_mistake_is_explained(
    mistake: Callable[[], object], check_message: Callable[[Callable[[], object]], None]
) -> None:
    check_message(mistake)
