"""Orders that are the same in every run, for what Polars gives in any order."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

from unistream.state.backend import RowIds

Positions = npt.NDArray[np.intp]
Numbers = npt.NDArray[np.int64]

_BITS = 62


def in_row_order(rows: RowIds) -> Positions:
    """The positions of distinct row ids, least first.

    >>> in_row_order(np.array([7, 2, 5])).tolist()
    [1, 2, 0]
    """
    # Row ids and positions fit half a word each, and sorting numbers is twice as fast as sorting positions.
    packed = (rows << 32) | np.arange(len(rows))
    packed.sort()
    order: Positions = packed & 0xFFFFFFFF
    return order


def in_order_of(*columns: Numbers) -> Positions:
    """Positions by the first number, then by the next ones, equal ones as they came.

    >>> in_order_of(np.array([7, 2, 7]), np.array([1, 5, 0])).tolist()
    [1, 2, 0]
    """
    if not len(columns[0]):
        return np.empty(0, dtype=np.intp)
    bits = len(columns[0]).bit_length()
    order: Positions | None = None
    numbers, used = np.zeros(len(columns[0]), dtype=np.int64), 0
    for column in reversed(columns):
        low = int(column.min())
        width = (int(column.max()) - low).bit_length()
        if width + bits > _BITS:
            return np.lexsort(columns[::-1])
        if used + width + bits > _BITS:
            order = _sorted_on(numbers, order, bits)
            numbers, used = np.zeros_like(numbers), 0
        numbers |= (column - low) << used
        used += width
    return _sorted_on(numbers, order, bits)


def _sorted_on(numbers: Numbers, order: Positions | None, bits: int) -> Positions:
    """An order sorted by these numbers; they are not negative and leave room for `bits` more."""
    packed = (numbers if order is None else numbers.take(order)) << bits
    packed |= np.arange(len(packed))
    packed.sort()  # sorting numbers is much faster than sorting their places
    packed &= (1 << bits) - 1
    return packed if order is None else order.take(packed)


def in_key_order(keys: pl.DataFrame) -> Positions:
    """The positions of keys, least first.

    >>> in_key_order(pl.DataFrame({"k": ["b", None, "a"]})).tolist()
    [1, 2, 0]
    """
    order = keys.select(pl.arg_sort_by(keys.columns)).to_series()
    return order.to_numpy().astype(np.intp)


def equal(left: pl.Series, right: pl.Series) -> npt.NDArray[np.bool_]:
    """Whether values are the same, null and null, NaN and NaN among them.

    >>> equal(pl.Series([1, None, 2]), pl.Series([1, None, 3])).tolist()
    [True, True, False]
    """
    plain = not (left.dtype.is_nested() or left.null_count() or right.null_count())
    same = left == right if plain else left.eq_missing(right)  # which is a query
    return same.to_numpy()
