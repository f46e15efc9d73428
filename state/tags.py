"""Keys of at most 64 bits as their bits: what needs no hash and no comparing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from unistream.state.columns import ARRAY_TYPES, logical
from unistream.state.hash_index import Tags

_ODD = np.uint64(0xBF58476D1CE4E5B9)
_HALF = np.uint64(32)


def is_exact(keys: pl.Schema) -> bool:
    """Whether looking a key up takes no comparing: it is one number or time of at most 64 bits.

    >>> is_exact(pl.Schema({"k": pl.Date})), is_exact(pl.Schema({"k": pl.Int128}))
    (True, False)
    """
    return len(keys) == 1 and all_numbers(keys)


def all_numbers(keys: pl.Schema) -> bool:
    """Whether every key is a number or time of at most 64 bits.

    >>> all_numbers(pl.Schema({"k": pl.Date, "n": pl.Int8})), all_numbers(pl.Schema({"k": pl.String}))
    (True, False)
    """
    return all(dtype.base_type() in ARRAY_TYPES for dtype in keys.dtypes())


def mixed(columns: Sequence[Tags]) -> Tags:
    """One number for each row of several; equal rows have equal ones.

    >>> one, two = np.array([1, 2, 1], np.uint64), np.array([3, 3, 3], np.uint64)
    >>> np.unique(mixed([one, two]), return_inverse=True)[1].tolist() in ([0, 1, 0], [1, 0, 1])
    True
    """
    found = columns[0] * _ODD
    for column in columns[1:]:
        found ^= found >> _HALF
        found += column
        found *= _ODD
    return found


def tags_of(column: pl.Series) -> Tags:
    """The bits of a fixed-width key, nulls as zero; equal keys have equal bits."""
    dtype = column.dtype
    if dtype == pl.Int64 and not column.null_count():
        return column.to_numpy().view(np.uint64)
    if dtype.is_float():
        column = column.cast(pl.Float64).fill_null(0.0)
        array = column.to_numpy() + 0.0  # turns -0.0 into 0.0
        array[np.isnan(array)] = np.nan
        return array.view(np.uint64)
    if dtype == pl.UInt64:
        return column.fill_null(0).to_numpy()
    wide = column.cast(pl.Int64)
    array = (wide.fill_null(0) if wide.null_count() else wide).to_numpy()
    return array.view(np.uint64)


def untagged(name: str, tags: Tags, dtype: pl.DataType) -> pl.Series:
    """The inverse of `tags_of`."""
    if dtype.is_float():
        return pl.Series(name, tags.view(np.float64)).cast(dtype)
    if dtype == pl.UInt64:
        return pl.Series(name, tags)
    array: npt.NDArray[Any] = tags.view(np.int64)
    if dtype == pl.Boolean:
        return pl.Series(name, array.astype(np.bool_))
    return logical(name, array.astype(ARRAY_TYPES[dtype.base_type()], copy=False), dtype)
