"""The positions of a batch in the order of their rows in a table: grouping by the table's index."""

from __future__ import annotations

import numpy as np

from unistream.operators.row_order import Positions
from unistream.state.backend import RowIds
from unistream.state.distinct import starts_of_runs


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
    return order, np.flatnonzero(starts_of_runs(packed))
