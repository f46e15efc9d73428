"""Delta debugging: the smallest part of a list that still shows something."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

MOST_RUNS = 600
"""Tries after which the smallest part so far has to do."""


def shrink(items: list[T], shows: Callable[[list[T]], R | None], most_runs: int = MOST_RUNS) -> R | None:
    """What `shows` gave for the smallest list found, by leaving out ever smaller parts; None if nothing.

    >>> shrink(list(range(100)), lambda kept: kept if {3, 77} <= set(kept) else None)
    [3, 77]
    """
    found = shows(items)
    runs, size = 1, max(len(items) // 2, 1)
    while found is not None and items and runs < most_runs:
        removed = False
        start = 0
        while start < len(items) and runs < most_runs:
            smaller = items[:start] + items[start + size :]
            better = shows(smaller)
            runs += 1
            if better is None:
                start += size
            else:
                items, found, removed = smaller, better, True
        if size == 1 and not removed:
            break
        size = max(size // 2, 1)
    return found
