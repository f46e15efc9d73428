"""Where the rows of a batch belong in a table, and the batch in that order: grouping by the table's index."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from unistream.operators.row_order import Positions
from unistream.state.backend import KeyedTable, RowIds

Codes = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


def key_codes(rows: pl.DataFrame, by: Sequence[str]) -> tuple[pl.DataFrame, Codes]:
    """The distinct keys, and for each row which of them it has."""
    keys = rows.select(by)
    if not by:
        return pl.DataFrame(height=1), np.zeros(rows.height, dtype=np.int64)
    if keys.width == 1 and keys.dtypes[0].is_integer() and keys.to_series().null_count() == 0:
        values, codes = np.unique(keys.to_series().to_numpy(), return_inverse=True)
        return pl.DataFrame({keys.columns[0]: values}, schema=keys.schema), codes.astype(np.int64, copy=False)
    distinct = keys.unique(maintain_order=True)
    numbered = distinct.with_row_index("__code")
    joined = keys.join(numbered, on=keys.columns, how="left", nulls_equal=True, maintain_order="left")
    return distinct, joined.get_column("__code").to_numpy().astype(np.int64)


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
