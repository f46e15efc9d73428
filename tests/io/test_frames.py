"""Frames in memory: every accepted kind, clear refusals, slices with exact positions."""

from __future__ import annotations

import pickle

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from unistream.errors import ConnectorError, DataError, InvalidQuery, InvalidSettings
from unistream.io.base import Chunk, Exhausted, Request
from unistream.io.frames import FrameSource, as_frame, as_schema
from unistream.one_query import Terms

EXPECTED = pl.DataFrame({"item": ["a", "b"], "n": [1, 2]})


@pytest.mark.parametrize(
    "data",
    [
        EXPECTED,
        EXPECTED.to_arrow(),
        EXPECTED.to_arrow().to_batches()[0],
        [{"item": "a", "n": 1}, {"item": "b", "n": 2}],
        {"item": ["a", "b"], "n": [1, 2]},
        {"item": ("a", "b"), "n": pl.Series([1, 2])},
        {"item": ["a", "b"], "n": EXPECTED["n"].to_numpy()},
    ],
)
def test_every_kind_gives_the_same_frame(data: object) -> None:
    assert_frame_equal(as_frame(data).with_columns(pl.col("item").cast(pl.String)), EXPECTED)


def test_tuples_take_their_names_from_the_schema() -> None:
    assert_frame_equal(as_frame([("a", 1), ("b", 2)], {"item": str, "n": int}), EXPECTED)


def test_a_frame_of_the_right_schema_is_not_copied() -> None:
    assert as_frame(EXPECTED) is EXPECTED
    assert as_frame(EXPECTED, EXPECTED.schema) is EXPECTED


def test_schema_orders_and_widens_but_loses_nothing() -> None:
    narrow = pa.table({"n": pa.array([1, 2], pa.int8()), "item": ["a", "b"]})
    assert_frame_equal(as_frame(narrow, {"item": str, "n": pl.Int64}), EXPECTED)
    with pytest.raises(DataError, match="'n' of the data is Int64, not Int8"):
        as_frame(EXPECTED, {"item": str, "n": pl.Int8})
    with pytest.raises(DataError, match=r"missing \['z'\], not expected \['n'\]"):
        as_frame(EXPECTED, {"item": str, "z": pl.Int8})


def test_types_come_from_all_rows() -> None:
    rows: list[dict[str, object]] = [{"a": 1, "s": {"x": 1}, "l": [1]}] * 300
    rows += [{"a": 1.5, "s": {"y": "t"}, "l": [2.5]}, {"late": True}]
    frame = as_frame(rows)
    assert frame.schema == {
        "a": pl.Float64,
        "s": pl.Struct({"x": pl.Int64, "y": pl.String}),
        "l": pl.List(pl.Float64),
        "late": pl.Boolean,
    }
    assert frame["l"].to_list()[-2:] == [[2.5], None]
    assert frame["s"].to_list()[-2] == {"x": None, "y": "t"}


@pytest.mark.parametrize(
    ("data", "schema", "error", "message"),
    [
        ([{"a": 1}] * 999 + [{"a": "x"}], {"a": int}, DataError, "Row 999 of the data: column 'a' is Int64"),
        ([{"a": 1}] * 999 + [{"a": 1.5}], {"a": int}, DataError, "Row 999 .* value is a float: 1.5"),
        ([{"a": 1}, {"a": "x"}], None, DataError, "Row 1 .* column 'a' is int but the value is a str"),
        ([{"a": 1}, {"b": 2}], {"a": int}, DataError, r"Row 1 of the data has columns \['b'\]"),
        ([{"a": 1}, (1,)], {"a": int}, DataError, "Row 1 of the data is tuple"),
        ([("x",), {"a": 1}], {"a": str}, DataError, "Row 1 of the data is dict"),
        ([("x",), "y"], {"a": str}, DataError, "Row 1 of the data is str"),
        ([(1,), (1, 2)], {"a": int}, DataError, "Row 1 of the data has 2 values for 1 columns"),
        ([(1, 2)], {"a": int}, DataError, "Row 0 of the data has 2 values"),
        ([(1, 2)], None, DataError, "pass schema= to name the columns"),
        ([1, 2], None, DataError, "Row 0 of the data is int"),
        ([{1: 2}], None, DataError, "Column name 1"),
        ({"a": [1, 2], "b": [1]}, None, InvalidQuery, "different lengths"),
        ({"a": 1}, None, InvalidQuery, "one row is written as a list"),
        (pl.LazyFrame(), None, InvalidQuery, "collect"),
        ((x for x in []), None, InvalidQuery, "scan_iterable"),
        ("text", None, InvalidQuery, "'str' cannot be read"),
        ({"__change": [1]}, None, InvalidQuery, "reserved"),
        ([{"a": object()}], None, InvalidQuery, "'a' holds Python objects"),
        ([], {"a": "i64"}, InvalidQuery, "Python types as values"),
    ],
)
def test_refusals_say_where_and_the_way_out(
    data: object, schema: dict[str, object] | None, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        as_frame(data, schema)


def test_empty_data_has_the_schema() -> None:
    assert as_frame([], {"a": int}).schema == as_schema({"a": int})


@given(
    height=st.integers(0, 40),
    cuts=st.lists(st.integers(1, 17), min_size=1, max_size=5),
    chunk_rows=st.none() | st.integers(1, 9),
    stop=st.integers(0, 10),
    push=st.booleans(),
)
def test_reading_in_slices_with_a_restart_gives_every_row_once(
    height: int, cuts: list[int], chunk_rows: int | None, stop: int, push: bool
) -> None:
    numbers = list(range(height))
    frame = pl.DataFrame({"n": numbers, "even": [n % 2 == 0 for n in numbers]}, {"n": int, "even": bool})
    request = Request(("n",), pl.col("even")) if push else Request()
    source: FrameSource = pickle.loads(pickle.dumps(FrameSource(frame, chunk_rows)))
    reader, positions, seen, scanned, polls = source.open({}, request), {}, [], 0, 0
    while isinstance(chunk := reader.poll(cuts[polls % len(cuts)]), Chunk):
        polls += 1
        assert (chunk.scanned_rows or 0) <= min(cuts[(polls - 1) % len(cuts)], chunk_rows or 99)
        seen.append(chunk.frame)
        scanned += chunk.scanned_rows or 0
        positions[chunk.split] = chunk.position
        assert chunk.ended == (scanned == height)
        assert reader.backlog().rows == height - scanned
        if polls == stop:
            reader = source.open(positions, request)
    assert isinstance(chunk, Exhausted)
    assert scanned == height
    expected = frame.filter("even").select("n") if push else frame
    assert_frame_equal(pl.concat([expected.clear(), *seen]), expected)


def test_a_source_is_bounded_lazy_and_known_by_its_frame() -> None:
    source = FrameSource(EXPECTED)
    assert source.bounded
    assert source.schema() == EXPECTED.schema
    assert_frame_equal(source.lazy(Terms()).collect(), EXPECTED)
    assert source.identity() == FrameSource(EXPECTED).identity()
    assert source.identity() != FrameSource(EXPECTED.clone()).identity()
    assert source.describe() == {"rows": "2", "columns": "2"}


def test_a_shorter_frame_than_the_checkpoint_is_refused() -> None:
    with pytest.raises(ConnectorError, match="row 5 of a frame that has 2 rows"):
        FrameSource(EXPECTED).open({"rows": 5}, Request())
    with pytest.raises(InvalidSettings, match="chunk_rows"):
        FrameSource(EXPECTED, chunk_rows=0)
