"""Only the columns that somebody uses are read and computed, and the rest stays as it was."""

from __future__ import annotations

import polars as pl
import pytest

import unistream as us
from unistream.io.memory import MemorySink
from unistream.plan.nodes import Scan, Write
from unistream.plan.optimizer import optimize
from unistream.plan.tree import Roots, walk

FRAME = pl.DataFrame({"a": [1, 2, 3], "b": [4, 5, 6], "c": ["x", "y", "z"], "d": [0.5, 1.5, 2.5]})
TICKS = us.Settings(whole_query=False)


def read(*streams: us.Stream) -> list[tuple[str, ...] | None]:
    """The columns that each scan of the optimized plan asks for; None is all."""
    roots: Roots = tuple(Write(input=stream._node, sink=MemorySink()) for stream in streams)
    return [node.request.columns for node in walk(optimize(roots)) if isinstance(node, Scan)]


@pytest.fixture
def rows() -> us.Stream:
    return us.from_frame(FRAME)


def test_everything_is_read_when_everything_is_asked_for(rows: us.Stream) -> None:
    assert read(rows) == [None]
    assert read(rows.map_batches(lambda frame: frame.select("a")).select("a")) == [None]


def test_only_what_is_used_is_read(rows: us.Stream) -> None:
    assert read(rows.select("c", "a")) == [("a", "c")]
    assert read(rows.with_columns(e=pl.col("d") * 2).select("a")) == [("a",)]
    assert read(rows.with_columns(e=pl.col("d") * 2).select("e")) == [("d",)]
    assert read(rows.rename({"a": "z"}).select("z")) == [("a",)]
    assert read(rows.drop("a", "b")) == [("c", "d")]


def test_what_a_filter_reads_is_known_to_the_source(rows: us.Stream) -> None:
    assert read(rows.filter(pl.col("d") > 1).select("a")) == [("a",)]  # the filter is in the source too
    kept = rows.map_batches(lambda frame: frame, schema=FRAME.schema)
    assert read(kept.filter(pl.col("d") > 1).select("a")) == [None]


def test_a_shared_scan_reads_what_all_need(rows: us.Stream) -> None:
    assert read(rows.select("a"), rows.select("b")) == [("a", "b")]
    assert read(rows.select("a"), rows) == [None]


def test_parts_of_a_union_keep_agreeing(rows: us.Stream) -> None:
    other = us.from_frame(FRAME.clone()).with_columns(c=pl.col("c") + "!")
    both = rows.union(other).select("c")
    assert read(both) == [("c",), ("c",)]
    assert sorted(both.collect(settings=TICKS)["c"]) == ["x", "x!", "y", "y!", "z", "z!"]


@pytest.mark.parametrize("settings", [us.Settings(), TICKS], ids=["whole", "ticks"])
class TestRowsStayTheSame:
    def test_constants_alone_still_come_once_for_each_row(
        self, rows: us.Stream, settings: us.Settings
    ) -> None:
        one = rows.select("a", x=pl.lit(1)).select("x")
        assert one.collect(settings=settings).rows() == [(1,), (1,), (1,)]
        first = rows.select(x=pl.lit(1), a="a").with_columns(y=pl.lit(2)).select(pl.col("y") + pl.col("x"))
        assert first.collect(settings=settings).rows() == [(3,), (3,), (3,)]

    def test_a_replaced_column_keeps_its_place(self, rows: us.Stream, settings: us.Settings) -> None:
        result = rows.with_columns(a=pl.lit(7)).collect(settings=settings)
        assert result.columns == ["a", "b", "c", "d"]
        assert result["a"].to_list() == [7, 7, 7]

    def test_rows_are_counted_when_no_column_is_needed(self, rows: us.Stream, settings: us.Settings) -> None:
        ones = rows.select("c").with_columns(one=pl.lit(1)).select("one")
        assert ones.collect(settings=settings).height == 3
