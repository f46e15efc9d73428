"""Windows put together from the panes they share, at a cost that does not grow with their overlap."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl

from unistream.of_columns import stacked
from unistream.operators.window_contents import Contents
from unistream.operators.window_layout import END, PANE, START

_STEP_ROWS = 30_000
"""Handling one window on its own costs about as much as copying and grouping so many rows."""

_MOST_COPIES = 4_000_000
"""Rows that cannot be condensed are copied into all their windows at once up to so many copies."""


class PaneMerger:
    """Makes the parts of windows (columns `START`, `END`) from the parts of panes (column `PANE`).

    Few or small panes are copied into every window they belong to and grouped once. Large ones go through
    two stacks: the merged ends of older panes, computed once for many windows, and the merged beginning of
    newer ones. Both are derived from the panes and made anew after a restore or when an old pane changes.
    """

    def __init__(self, contents: Contents, keys: Sequence[str]) -> None:
        self._contents = contents
        self._keys = list(keys)
        self._reset()

    def _reset(self) -> None:
        self._older: list[tuple[int, pl.DataFrame]] = []
        self._middle: int | None = None
        self._newer: pl.DataFrame | None = None
        self._begin = self._reached = 0

    def touched(self, pane: int | None) -> None:
        """Rows came into this pane and later ones."""
        if pane is not None and self._middle is not None and pane < self._reached:
            self._reset()

    def merged(self, parts: pl.DataFrame, windows: pl.DataFrame) -> Iterator[pl.DataFrame]:
        """Parts of the windows, one per group, in one frame or one for each window."""
        if not windows.height:
            return
        sizes = parts.group_by(PANE).len()
        copies = int(windows.join(sizes, on=PANE).get_column("len").sum())
        bounds = windows.select(START, END).unique().sort(END, START)
        if copies <= self._worth_copying(parts, sizes.height, bounds.height):
            whole = parts.join(windows, on=PANE, maintain_order="left").drop(PANE)
            yield self._contents.merge(whole, [START, END, *self._keys])
            return
        for start, end in bounds.rows():
            made = self._window(parts, start, end)
            yield made.with_columns(pl.lit(start).alias(START), pl.lit(end).alias(END))

    def _worth_copying(self, parts: pl.DataFrame, panes: int, windows: int) -> int:
        if not self._contents.condenses:
            return _MOST_COPIES
        return windows * (_STEP_ROWS + 6 * parts.height // panes)

    def _window(self, parts: pl.DataFrame, start: int, end: int) -> pl.DataFrame:
        if not self._contents.condenses:
            return parts.filter(pl.col(PANE).is_between(start, end, closed="left")).drop(PANE)
        if self._middle is None or start >= self._middle or start < self._begin:
            self._turn_over(parts, start, end)
        elif end > self._reached:
            fresh = parts.filter(pl.col(PANE).is_between(self._reached, end, closed="left")).drop(PANE)
            self._newer = self._together(self._newer, fresh)
            self._reached = end
        self._begin = start
        self._older = self._older[: self._count_from(start)]
        older = self._older[-1][1] if self._older else None
        return self._together(older, self._newer)

    def _count_from(self, start: int) -> int:
        """Older panes are stacked with the earliest on top; those before `start` are no longer needed."""
        count = len(self._older)
        while count and self._older[count - 1][0] < start:
            count -= 1
        return count

    def _turn_over(self, parts: pl.DataFrame, start: int, end: int) -> None:
        """Merge the panes of the window from its end backwards, and begin a new front."""
        self._reset()
        inside = parts.filter(pl.col(PANE).is_between(start, end, closed="left"))
        panes = inside.partition_by(PANE, as_dict=True, include_key=False)
        behind: pl.DataFrame | None = None
        for pane in sorted((int(pane) for (pane,) in panes), reverse=True):
            behind = self._together(panes[(pane,)], behind)
            self._older.append((pane, behind))
        self._begin, self._middle, self._reached = start, end, end

    def _together(self, first: pl.DataFrame | None, second: pl.DataFrame | None) -> pl.DataFrame:
        if first is None or not first.height:
            assert second is not None
            return second
        if second is None or not second.height:
            return first
        if not self._keys:
            return self._contents.merge(_keyed(stacked([first, second])), ["__all"]).drop("__all")
        return self._contents.merge(stacked([first, second]), self._keys).select(first.columns)


def _keyed(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(pl.lit(np.int8(0)).alias("__all"))
