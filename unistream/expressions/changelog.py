"""Changelogs as frames: folding them into the table they describe, spelling them for people."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from unistream.expressions.schema import CHANGE, Change, Changes, StreamSchema

COMING = [Change.INSERT.value, Change.UPDATE_AFTER.value]
"""Changes that put a row into the table; the others take one out."""


def came(frame: pl.DataFrame) -> npt.NDArray[np.bool_]:
    """Which rows of a changelog come into the table.

    >>> came(pl.DataFrame({CHANGE: [0, 1, 2, 3]})).tolist()
    [True, False, True, False]
    """
    return np.isin(frame.get_column(CHANGE).to_numpy(), COMING)


def fold_changes(frame: pl.DataFrame, schema: StreamSchema) -> pl.DataFrame:
    """The table that is left when all changes have been applied in order.

    >>> rows = pl.DataFrame({"k": [1, 2, 1], CHANGE: [0, 0, 3]}, schema_overrides={CHANGE: pl.Int8})
    >>> by_key = StreamSchema(pl.Schema({"k": pl.Int64}), changes=Changes.UPSERT, key=("k",))
    >>> fold_changes(rows, by_key).rows()
    [(2,)]
    """
    match schema.changes:
        case Changes.APPEND:
            return frame
        case _ if _only_distinct(frame, schema.key):
            return frame.drop(CHANGE)
        case Changes.UPSERT:
            last = frame.unique(subset=list(schema.key), keep="last", maintain_order=True)
            return last.filter(pl.col(CHANGE).is_in(COMING)).drop(CHANGE)
        case Changes.RETRACT:
            return _net(frame)


def _only_distinct(frame: pl.DataFrame, key: Sequence[str]) -> bool:
    """Whether rows only come, none in place of another: then they are the table, as a query gives it."""
    if (frame[CHANGE] != Change.INSERT.value).any():
        return False
    distinct = frame.lazy().select(key).unique().select(pl.len())
    return not key or distinct.collect(engine="streaming").item() == frame.height


def _net(frame: pl.DataFrame) -> pl.DataFrame:
    """Every row as often as it came more than it went."""
    names = [name for name in frame.columns if name != CHANGE]
    sign = pl.when(pl.col(CHANGE).is_in(COMING)).then(1).otherwise(-1)
    counts = frame.group_by(names, maintain_order=True).agg(sign.sum().alias("__times"))
    times = counts.filter(pl.col("__times") > 0)
    repeated = times.select(pl.int_range(pl.len()).repeat_by("__times").alias("__at")).explode("__at")
    return times[repeated["__at"].cast(pl.UInt32)].drop("__times")
