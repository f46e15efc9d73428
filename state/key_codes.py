"""Which of the distinct keys each row has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from unistream.state.distinct import numbered
from unistream.state.gather import taken
from unistream.state.tags import all_numbers, is_exact, mixed, tags_of, untagged

Codes = npt.NDArray[np.int64]
How = Literal["left", "semi", "anti"]

_SAME = "__same"


def key_codes(rows: pl.DataFrame, by: Sequence[str]) -> tuple[pl.DataFrame, Codes]:
    """The distinct keys (single numbers ascend, others are as they came), and for each row which it has."""
    keys = rows.select(by)
    if not by:
        return pl.DataFrame(height=1), np.zeros(rows.height, dtype=np.int64)
    if is_exact(keys.schema) and not keys.dtypes[0].is_float() and not keys.to_series().null_count():
        ((name, dtype),) = keys.schema.items()
        values, codes = numbered(tags_of(keys.to_series()).view(np.int64))
        return untagged(name, values.view(np.uint64), dtype).to_frame(), codes
    found = _codes_of_numbers(keys)
    if found is not None:
        return found
    distinct = keys.unique(maintain_order=True)
    ranked = distinct.with_row_index("__code")
    joined = join_on_keys(keys, ranked, keys.columns, "left")
    return distinct, joined.get_column("__code").to_numpy().astype(np.int64)


def _codes_of_numbers(keys: pl.DataFrame) -> tuple[pl.DataFrame, Codes] | None:
    """By one number mixed of all columns: no query, whose threads may be busy. None where that cannot be."""
    columns = keys.get_columns()
    if not all_numbers(keys.schema) or any(c.dtype.is_float() or c.null_count() for c in columns):
        return None
    numbers = [tags_of(column) for column in columns]
    _, first, codes = np.unique(mixed(numbers), return_index=True, return_inverse=True)
    if any((column.take(first).take(codes) != column).any() for column in numbers):
        return None  # two keys of one number
    arrived = np.argsort(first)
    ranks = np.empty_like(arrived)
    ranks[arrived] = np.arange(len(arrived))
    return taken(keys, first[arrived]), ranks.take(codes)


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
