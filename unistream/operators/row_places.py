"""Where the rows of a batch belong in a table, and the batch in that order: grouping by the table's index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from unistream.operators.row_order import Positions
from unistream.state.backend import KeyedTable, RowIds
from unistream.state.key_index import is_exact

Codes = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
How = Literal["left", "semi", "anti"]

_SAME = "__same"


def key_codes(rows: pl.DataFrame, by: Sequence[str]) -> tuple[pl.DataFrame, Codes]:
    """The distinct keys, and for each row which of them it has."""
    keys = rows.select(by)
    if not by:
        return pl.DataFrame(height=1), np.zeros(rows.height, dtype=np.int64)
    if keys.dtypes[0].is_integer() and is_exact(keys.schema) and not keys.to_series().null_count():
        values, codes = np.unique(keys.to_series().to_numpy(), return_inverse=True)
        return pl.DataFrame({keys.columns[0]: values}, schema=keys.schema), codes.astype(np.int64, copy=False)
    distinct = keys.unique(maintain_order=True)
    numbered = distinct.with_row_index("__code")
    joined = join_on_keys(keys, numbered, keys.columns, "left")
    return distinct, joined.get_column("__code").to_numpy().astype(np.int64)


def join_on_keys(left: pl.DataFrame, right: pl.DataFrame, on: Sequence[str], how: How) -> pl.DataFrame:
    """A join for which null equals null and NaN equals NaN, in the order of the left.

    >>> one = pl.DataFrame({"k": [float("nan")]})
    >>> join_on_keys(one, one.with_row_index("n"), ["k"], "left").rows()
    [(nan, 0)]
    """
    if len(on) == 1 and left.schema[on[0]].is_float():
        # Where both sides are known to be sorted Polars 2.1 finds no NaN, unless the key has two columns.
        left, right = (side.with_columns(pl.lit(0).alias(_SAME)) for side in (left, right))
        return join_on_keys(left, right, [*on, _SAME], how).drop(_SAME)
    return left.join(right, on=on, how=how, nulls_equal=True, maintain_order="left")


def place_rows(table: KeyedTable, keys: pl.DataFrame) -> tuple[RowIds, Mask]:
    """The row of each key in the table, made where there is none, and which were made; keys may repeat."""
    rows = table.find(keys)
    new = rows < 0
    missing = np.flatnonzero(new)
    if len(missing):
        distinct, codes = key_codes(keys[missing], keys.columns)
        rows[missing] = table.insert(distinct)[codes]
    return rows, new


def runs_of(rows: RowIds) -> tuple[Positions, Positions]:
    """The positions of row ids, least first and equal ones as they came; and where each id begins there.

    >>> order, first = runs_of(np.array([7, 2, 7, 5]))
    >>> order.tolist(), first.tolist()
    ([1, 3, 0, 2], [0, 1, 2])
    """
    bits = len(rows).bit_length()
    packed = (rows << bits) | np.arange(len(rows))  # sorting numbers is twice as fast as sorting positions
    packed.sort()
    order: Positions = packed & ((1 << bits) - 1)
    packed >>= bits
    return order, np.flatnonzero(np.append(True, packed[1:] != packed[:-1]))
