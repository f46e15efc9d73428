"""Rows of a frame by their positions."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

from unistream.of_columns import frame_of


def taken(frame: pl.DataFrame, order: npt.NDArray[np.integer]) -> pl.DataFrame:
    """The rows at these positions; column by column, which is much faster than by the frame.

    >>> taken(pl.DataFrame({"a": [1, 2, 3]}), np.array([2, 0])).rows()
    [(3,), (1,)]
    """
    positions = pl.Series(order.astype(np.uint32))
    return frame_of([series[positions] for series in frame.get_columns()])
