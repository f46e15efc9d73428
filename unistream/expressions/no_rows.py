"""Frames without rows, for Polars to say what an expression makes of some columns."""

from __future__ import annotations

from functools import lru_cache

import polars as pl

_KEPT = 256
"""As many as the plan of a large query asks for; each is asked for again and again."""


def no_rows(schema: pl.Schema) -> pl.LazyFrame:
    """No rows with these columns.

    >>> no_rows(pl.Schema({"a": pl.Int64()})).select(pl.col("a") / 2).collect_schema()
    Schema([('a', Float64)])
    """
    columns = tuple(schema.items())
    if any(isinstance(dtype, type) for _, dtype in columns):  # equal to types that it is not
        return pl.LazyFrame(schema=schema)
    return _made(columns)


@lru_cache(_KEPT)
def _made(columns: tuple[tuple[str, pl.DataType], ...]) -> pl.LazyFrame:
    return pl.LazyFrame(schema=dict(columns))
