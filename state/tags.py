"""Keys of at most 64 bits as their bits: what needs no hash and no comparing."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from unistream.state.columns import ARRAY_TYPES, logical
from unistream.state.hash_index import Tags


def is_exact(keys: pl.Schema) -> bool:
    """Whether looking a key up takes no comparing: it is one number or time of at most 64 bits.

    >>> is_exact(pl.Schema({"k": pl.Date})), is_exact(pl.Schema({"k": pl.Int128}))
    (True, False)
    """
    return len(keys) == 1 and keys.dtypes()[0].base_type() in ARRAY_TYPES


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
    if dtype != pl.Boolean:
        column = column.to_physical()
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
