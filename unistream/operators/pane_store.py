"""Rows of open windows: as they came, until there are enough of them to fold them into their panes."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from unistream.of_columns import stacked
from unistream.operators.time_axis import TimeAxis, greatest, least
from unistream.operators.time_grid import FixedGrid
from unistream.operators.window_contents import Contents
from unistream.operators.window_layout import PANE, Layout
from unistream.operators.window_sequence import SEQUENCE
from unistream.state.backend import StateStore

FOLD_ROWS = 262_144
"""Folding fewer rows at once costs more per row; keeping more costs memory."""

MOST_BUCKETS = 256

_BUCKET = "__bucket"


class PaneStore:
    """Two logs: rows untouched, and parts by pane in buckets of time.

    A bucket covers one pane at first and more of them, always a power of four, when very many are open:
    closing windows then touches few buckets, and Python runs per bucket, never per window.
    """

    def __init__(
        self,
        state: StateStore,
        layout: Layout,
        contents: Contents,
        axis: TimeAxis,
        columns: pl.Schema,
        keys: Sequence[str],
    ) -> None:
        self._layout, self._contents, self._axis = layout, contents, axis
        self._by = [PANE, *keys]
        self._columns = columns.names()
        folded = pl.Schema({PANE: pl.Int64(), **{name: columns[name] for name in keys}, **contents.stored})
        self._folded_columns = folded.names()
        self._rows = state.log("rows", columns)
        self._parts = state.log("panes", folded)
        self._span = _first_span(layout)
        self._find_span()
        held = [frame for bucket in self._parts.buckets() for frame in self._parts.frames(bucket)]
        self._seen = max((contents.last_sequence(frame) for frame in held), default=-1) + 1
        self._changed: int | None = None
        lows = [least(axis.ticks(frame)) for frame in self._rows.frames(0)]
        self._low = min((low for low in lows if low is not None), default=None)

    def add(self, frame: pl.DataFrame, ticks: pl.Series) -> None:
        """Keep rows that happened at these ticks."""
        self._rows.append(0, frame if frame.width == len(self._columns) else frame.select(self._columns))
        self._low = min((low for low in (least(ticks), self._low) if low is not None), default=None)
        if len(self._rows) >= FOLD_ROWS:
            self.fold()

    def __len__(self) -> int:
        return len(self._rows) + len(self._parts)

    def lowest(self) -> int | None:
        """No row and no pane lies before this tick; None when there are none."""
        buckets = self._parts.buckets()
        known = [buckets[0] * self._span] if buckets else []
        return min([*known, self._low] if self._low is not None else known, default=None)

    def highest(self) -> int | None:
        """The last pane; None when there is none."""
        self.fold()
        last = self._parts.buckets()[-1:]
        panes = [greatest(frame.get_column(PANE)) for bucket in last for frame in self._parts.frames(bucket)]
        return max((pane for pane in panes if pane is not None), default=None)

    def changes(self) -> int | None:
        """The least pane that got new parts since the last call."""
        changed, self._changed = self._changed, None
        return changed

    def fold(self) -> None:
        """Fold the rows kept so far into parts of their panes."""
        frames = self._rows.frames(0)
        if not frames:
            return
        rows = stacked(frames)
        panes = self._layout.panes.floor(self._axis.ticks(rows)).alias(PANE)
        known = [pane for pane in (least(panes), self._changed) if pane is not None]
        self._changed = min(known, default=None)
        marks = [panes]
        if SEQUENCE in self._folded_columns:
            end = self._seen + rows.height
            marks.append(pl.int_range(self._seen, end, dtype=pl.Int64, eager=True).alias(SEQUENCE))
            self._seen = end
        parts = self._contents.fold(rows.with_columns(marks), self._by)
        self._keep(parts.select(self._folded_columns))
        self._rows.drop([0])
        self._low = None

    def _keep(self, parts: pl.DataFrame) -> None:
        """Put parts into the buckets of their panes, widening these when there would be too many."""
        buckets = parts.get_column(PANE) // self._span
        while buckets.n_unique() + len(self._parts.buckets()) > MOST_BUCKETS:
            self._widen()
            buckets = parts.get_column(PANE) // self._span
        if buckets.n_unique() == 1:
            self._parts.append(int(buckets[0]), parts)
            return
        marked = parts.with_columns(buckets.alias(_BUCKET))
        for (bucket,), part in marked.partition_by(
            _BUCKET, maintain_order=True, include_key=False, as_dict=True
        ).items():
            self._parts.append(int(bucket), part)

    def _widen(self) -> None:
        old = {bucket: self._parts.frames(bucket) for bucket in self._parts.buckets()}
        self._parts.drop(old)
        self._span *= 4
        for bucket, frames in old.items():
            for frame in frames:
                self._parts.append(bucket // 4, frame)

    def _find_span(self) -> None:
        """After a restore: how wide the buckets are. Those of several subtasks may differ; then cut anew."""
        first = self._span
        held = [(bucket, frame) for bucket in self._parts.buckets() for frame in self._parts.frames(bucket)]
        bounds = [(bucket, least(frame[PANE]), greatest(frame[PANE])) for bucket, frame in held]
        for _ in range(32):
            if all(low // self._span == bucket == high // self._span for bucket, low, high in bounds):  # type: ignore[operator]
                return
            self._span *= 4
        self._span = first
        self._parts.drop([bucket for bucket, _ in held])
        for _, frame in held:
            self._keep(frame)

    def take(self, before: int) -> pl.DataFrame | None:
        """Remove the parts of all panes before this tick, merged to one part per group."""
        taken: list[pl.DataFrame] = []
        done: list[int] = []
        crowded = False
        for bucket in self._parts.buckets():
            if bucket * self._span >= before:
                break
            frames = self._parts.frames(bucket)
            crowded = crowded or len(frames) > 1
            if (bucket + 1) * self._span <= before:
                taken += frames
                done.append(bucket)
                continue
            is_before = pl.col(PANE) < before
            taken += [frame.filter(is_before) for frame in frames]
            self._parts.replace(bucket, [frame.filter(~is_before) for frame in frames])
        self._parts.drop(done)
        return self._merged(taken, crowded)

    def look(self, low: int, before: int) -> pl.DataFrame | None:
        """The parts of panes from `low` on and before `before`, one per group; they stay."""
        found: list[pl.DataFrame] = []
        crowded = False
        for bucket in self._parts.buckets():
            if bucket * self._span >= before:
                break
            if (bucket + 1) * self._span <= low:
                continue
            frames = self._parts.frames(bucket)
            if len(frames) > 1 and self._contents.condenses:
                frames = [self._contents.merge(stacked(frames), self._by).select(self._folded_columns)]
                self._parts.replace(bucket, frames)
            crowded = crowded or len(frames) > 1
            if bucket * self._span < low or (bucket + 1) * self._span > before:
                frames = [
                    frame.filter(pl.col(PANE).is_between(low, before, closed="left")) for frame in frames
                ]
            found += frames
        return self._merged(found, crowded)

    def of(self, chosen: pl.Expr) -> pl.DataFrame:
        """The parts of all panes of some keys, one per group; everything stays as it is."""
        parts = [
            frame.filter(chosen) for bucket in self._parts.buckets() for frame in self._parts.frames(bucket)
        ]
        before = 0
        for frame in self._rows.frames(0):
            born = pl.int_range(
                self._seen + before, self._seen + before + frame.height, dtype=pl.Int64, eager=True
            )
            before += frame.height
            panes = self._layout.panes.floor(self._axis.ticks(frame)).alias(PANE)
            rows = frame.with_columns(panes, born.alias(SEQUENCE)).filter(chosen)
            parts.append(self._contents.fold(rows, self._by).select(self._folded_columns))
        return (
            self._contents.merge(stacked(parts), self._by).select(self._folded_columns)
            if parts
            else pl.DataFrame()
        )

    def _merged(self, parts: list[pl.DataFrame], crowded: bool) -> pl.DataFrame | None:
        parts = [part for part in parts if part.height]
        if not parts:
            return None
        whole = stacked(parts)
        return self._contents.merge(whole, self._by) if crowded and len(parts) > 1 else whole

    def drop(self, before: int) -> None:
        """Forget panes before this tick, as far as their buckets hold nothing else."""
        self._parts.drop([bucket for bucket in self._parts.buckets() if (bucket + 1) * self._span <= before])


def _first_span(layout: Layout) -> int:
    grid = layout.panes
    return grid.width if isinstance(grid, FixedGrid) else grid.next_one(0) - grid.floor_one(0)
