"""The strategies give what they promise."""

from __future__ import annotations

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from unistream.testing.strategies import cuts, frames

SCHEMA = {"k": pl.String, "n": pl.Int64, "u": pl.UInt8, "x": pl.Float64, "d": pl.Date, "l": pl.List(pl.Int64)}


@given(frames(SCHEMA))
def test_frames_have_exactly_the_schema(frame: pl.DataFrame) -> None:
    assert frame.schema == pl.Schema(SCHEMA)
    assert frame.height <= 12


@given(frames({"n": pl.Int64}, nulls=False, max_rows=3))
def test_frames_without_nulls(frame: pl.DataFrame) -> None:
    assert frame["n"].null_count() == 0
    assert frame.height <= 3


@given(frames({"n": pl.Int64}).flatmap(lambda frame: st.tuples(st.just(frame), cuts(frame))))
def test_cuts_hold_all_rows_in_order(drawn: tuple[pl.DataFrame, list[pl.DataFrame]]) -> None:
    frame, parts = drawn
    assert pl.concat([frame.clear(), *parts]).equals(frame)
    assert all(part.height for part in parts)
