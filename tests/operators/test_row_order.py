"""Orders by several numbers against NumPy's sort by several keys."""

from __future__ import annotations

import numpy as np
import pytest

from unistream.operators.row_order import in_order_of

WIDTHS = [(0,), (3,), (61,), (3, 3), (20, 40), (40, 40), (3, 50, 50), (62, 2), (63, 3), (1, 63)]


@pytest.mark.parametrize("widths", WIDTHS, ids=str)
def test_orders(widths: tuple[int, ...]) -> None:
    for count in (0, 1, 2, 500):
        rng = np.random.default_rng(count)
        columns = [
            rng.integers(-(2 ** (bits - 1)) if bits else 0, 2 ** max(bits - 1, 0), count) for bits in widths
        ]
        assert in_order_of(*columns).tolist() == np.lexsort(columns[::-1]).tolist()
