"""Rows too late for any session, against a loop that looks at one row after another."""

from __future__ import annotations

import numpy as np
import pytest

from unistream.elements import MAX_TIME
from unistream.operators.session_lateness import late_marks


def one_after_another(
    codes: list[int], starts: list[int], gap: int, watermark: int, opened: list[int]
) -> list[bool]:
    reach, late = list(opened), []
    for code, start in zip(codes, starts, strict=True):
        late.append(start + gap <= watermark and start + gap <= reach[code])
        if start <= watermark and not late[-1]:
            reach[code] = min(reach[code], start)
    return late


@pytest.mark.parametrize("seed", range(300))
def test_marks_equal_a_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count, keys, gap = int(rng.integers(0, 60)), int(rng.integers(1, 5)), int(rng.integers(1, 9))
    codes = rng.integers(0, keys, count)
    starts = rng.integers(-40, 20, count)
    opened = rng.choice([MAX_TIME, -3, -20, 0, 5], keys)
    marks = late_marks(codes, starts, gap, 0, opened)
    expected = one_after_another(codes.tolist(), starts.tolist(), gap, 0, opened.tolist())
    assert marks.tolist() == expected


@pytest.mark.parametrize("step", [-1, 1])
def test_long_chains(step: int) -> None:
    """Rows that each let the next one in, and rows of which none does."""
    starts = np.arange(50_000) * step - (0 if step < 0 else 60_000)
    marks = late_marks(np.zeros(50_000, dtype=np.int64), starts, 5, 0, np.array([2]))
    assert marks.all() if step > 0 else not marks.any()
