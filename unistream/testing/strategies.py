"""Hypothesis strategies: frames of a schema, with nulls, ties and extremes, and ways to cut them."""

from __future__ import annotations

from typing import Any

import polars as pl

from unistream.errors import MissingDependency
from unistream.io.frames import SchemaLike, as_schema

try:
    from hypothesis import strategies as st
    from hypothesis.strategies import SearchStrategy
    from polars.testing.parametric import column, dataframes
except ImportError as error:
    raise MissingDependency.from_extra("unistream.testing.strategies", "test") from error

_SMALL = st.integers(-3, 12)
"""Few different values, so that keys meet again and times are equal."""


def frames(schema: SchemaLike, *, max_rows: int = 12, nulls: bool = True) -> SearchStrategy[pl.DataFrame]:
    """Frames of exactly these columns, with few different values so that keys and times meet again.

    >>> from hypothesis import find
    >>> find(frames({"k": pl.String, "n": pl.Int64}), lambda frame: frame.height > 1).columns
    ['k', 'n']
    """
    columns = [
        column(name, dtype, strategy=_values(dtype), allow_null=nulls)
        for name, dtype in as_schema(schema).items()
    ]
    return dataframes(columns, max_size=max_rows, allow_masked_out=False)


def cuts(frame: pl.DataFrame) -> SearchStrategy[list[pl.DataFrame]]:
    """The rows of the frame in order, in slices, none of them empty.

    >>> from hypothesis import find
    >>> parts = find(cuts(pl.DataFrame({"n": [1, 2, 3]})), lambda parts: len(parts) == 3)
    >>> [part.height for part in parts]
    [1, 1, 1]
    """
    inner = st.sets(st.integers(1, frame.height - 1)) if frame.height > 1 else st.just(set[int]())
    return inner.map(lambda places: _sliced(frame, places))


def _sliced(frame: pl.DataFrame, places: set[int]) -> list[pl.DataFrame]:
    ends = [*sorted(places), frame.height]
    starts = [0, *ends[:-1]]
    pairs = zip(starts, ends, strict=True)
    return [frame.slice(start, end - start) for start, end in pairs if end > start]


def _values(dtype: pl.DataType) -> SearchStrategy[Any] | None:
    """Values with many ties for common types; None leaves them to Polars' own strategy."""
    if dtype.is_unsigned_integer():
        return st.integers(0, 12)
    if dtype.is_signed_integer():
        return _SMALL
    if dtype.is_float():
        return st.one_of(_SMALL.map(float), st.just(0.5), st.just(float("nan")))
    if dtype == pl.String:
        return st.sampled_from(["", "a", "b", "ab", "ä"])
    return None
