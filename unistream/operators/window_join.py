"""Rows of two streams whose keys are equal and that fell into the same window, joined when it closes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from unistream.elements import MAX_TIME, MIN_TIME, Batch
from unistream.errors import InvalidQuery
from unistream.expressions.schema import Changes, EventTime, StreamSchema
from unistream.of_columns import columns_of
from unistream.operators.base import Context, Operator, Output
from unistream.operators.join_arrivals import Arrivals
from unistream.operators.join_buffer import VIEWED, Flags, SliceBuffer, View
from unistream.operators.join_codes import SPREAD, Pairs
from unistream.operators.join_layout import LEFT, RIGHT, SIDES, JoinSpec, Pairing, check_timed, late_columns
from unistream.operators.join_matching import (
    CODE,
    MOST_PAIRS,
    TICK,
    equal_pairs,
    really_equal,
    with_code,
)
from unistream.operators.join_query import window_query
from unistream.operators.time_axis import TimeAxis
from unistream.operators.window_layout import END, PANE, START, Layout, make_layout
from unistream.operators.window_spec import WINDOW_END, WINDOW_START
from unistream.operators.windows import AlignedWindow, Tumbling

CLOSED = "all its windows have closed"

_LEAST_WIDTH = 100_000
_ROW, _PART, _WINDOW = "__row", "__part", "__window"


@dataclass(frozen=True, eq=False, kw_only=True)
class WindowJoin(JoinSpec):
    """Pairs of rows in one window, once it has closed; rows without a partner in it come then too."""

    window: AlignedWindow

    @property
    def by_time(self) -> bool:
        return True

    def schema(self, inputs: Sequence[StreamSchema]) -> StreamSchema:
        check_timed(inputs, "A join in windows", self.where)
        for side, schema in zip(SIDES, inputs, strict=True):
            if schema.changes is not Changes.APPEND:
                hint = "join before the step that updates, or take final results there (emit='close')"
                message = f"A join in windows takes rows that stay; the {side} side updates"
                raise InvalidQuery(message, self.where, hint)
        axis = self._axis(inputs)
        make_layout(self.window, axis)  # refuses what cannot be laid
        both = self.both(inputs)
        columns = inputs[LEFT].columns if self.left_only else both
        taken = [name for name in (WINDOW_START, WINDOW_END) if name in columns]
        if taken:
            hint = f"rename it, or make it part of the key of a plain join: on=[..., {taken[0]!r}]"
            raise InvalidQuery(
                f"The join adds a column {taken[0]!r}, which is there already", self.where, hint
            )
        return StreamSchema(
            pl.Schema({**columns, WINDOW_START: axis.dtype, WINDOW_END: axis.dtype}),
            event_time=EventTime(WINDOW_END, axis.unit, offset=-1),
            bounded=all(schema.bounded for schema in inputs),
            side_outputs=late_columns(both),
        )

    def _axis(self, inputs: Sequence[StreamSchema]) -> TimeAxis:
        left, right = (TimeAxis.of(schema) for schema in inputs)
        if (left.dtype, left.unit) != (right.dtype, right.unit):
            hint = f"cast one before with_event_time, as in `.cast({{{right.column!r}: pl.{left.dtype}}})`"
            message = (
                f"Windows need one axis; event time is {left.dtype} on the left, {right.dtype} on the right"
            )
            raise InvalidQuery(message, self.where, hint)
        return left

    def build(self, inputs: Sequence[StreamSchema]) -> Operator:
        return _WindowJoin(self, inputs)

    def lazy(self, inputs: Sequence[pl.LazyFrame], schemas: Sequence[StreamSchema]) -> pl.LazyFrame | None:
        return window_query(self, inputs, schemas)

    def describe(self) -> Mapping[str, str]:
        return {
            **super().describe(),
            "window": self.window.text,
            "keeps left": "rows until the last of their windows closes",
            "keeps right": "rows until the last of their windows closes",
        }


class SameAxis:
    """The times of two sides that count alike."""

    def __init__(self, inputs: Sequence[StreamSchema]) -> None:
        self._axes = [TimeAxis.of(schema) for schema in inputs]
        self.left = self._axes[LEFT]

    def ticks(self, frame: pl.DataFrame, side: int) -> pl.Series:
        """The event time of each row of one side."""
        return self._axes[side].ticks(frame)

    def tick(self, micros: int) -> int:
        """A moment in microseconds."""
        return self.left.tick(micros)

    def after(self, tick: int) -> int:
        """The least moment in microseconds that lies behind a tick."""
        return self.left.after(tick)


@dataclass(frozen=True, slots=True)
class Placed:
    """Rows with the windows they are in: `rows` are numbers of rows of `frame`, once for each window."""

    frame: pl.DataFrame
    rows: np.ndarray
    windows: pl.Series
    """Numbers that tell windows apart."""
    starts: pl.Series
    ends: pl.Series
    whole: bool = False
    """Whether these are all rows, each once."""

    def codes(self) -> pl.Series:
        """The code of each row."""
        codes = self.frame.get_column(CODE)
        return codes if self.whole else codes[self.rows]


class _WindowJoin(Operator):
    """Keeps the rows of open windows; joins a window's rows once, when the watermark passes its end."""

    def __init__(self, spec: WindowJoin, inputs: Sequence[StreamSchema]) -> None:
        self._spec = spec
        self._inputs = inputs
        self._axis = SameAxis(inputs)
        self._layout: Layout = make_layout(spec.window, self._axis.left)
        self._pairing = Pairing(spec, inputs, None)
        self._columns = spec.schema(inputs).columns.names()
        self._fired = MIN_TIME

    def open(self, context: Context) -> None:
        self._context = context
        self._at_once = max(context.settings.memory_budget_bytes // VIEWED, 1)
        self._arrivals = Arrivals(self._axis, self._pairing, context, self._layout.horizon, CLOSED)
        self._fired = self._layout.last_end(self._arrivals.tick)
        window = self._spec.window
        length = window.size.at_most if isinstance(window, Tumbling) else window.size.at_most // 4
        width = max(self._axis.tick(max(length, _LEAST_WIDTH)), 1)
        self._buffers = [
            SliceBuffer(context.state, name, with_code(schema.columns), width)
            for name, schema in zip(SIDES, self._inputs, strict=True)
        ]

    def process(self, batch: Batch, out: Output) -> None:
        rows = self._arrivals.in_time(batch.frame, batch.port, self._spec.by, out)
        self._buffers[batch.port].add(rows)

    def on_watermark(self, watermark: int, out: Output) -> None:
        self._arrivals.advance(watermark, (self._last_tick(buffer.latest()) for buffer in self._buffers))
        end = self._layout.last_end(self._arrivals.tick)
        if end > self._fired:
            self._fire(end, out)
            self._fired = end
            for buffer in self._buffers:
                buffer.drop(self._layout.horizon(end))
        self._context.metrics.set("rows_kept", sum(map(len, self._buffers)))

    def _last_tick(self, latest: int | None) -> int | None:
        """Of the last window that holds this tick."""
        if latest is None:
            return None
        panes = self._layout.panes.floor(pl.Series([latest])).to_numpy()
        return int(self._layout.windows(panes, MIN_TIME, MAX_TIME).get_column(END).to_numpy().max()) - 1

    def output_watermark(self, watermark: int) -> int:
        # A window still to come ends after this tick, so its last moment is this tick or later.
        return self._axis.left.micros(self._axis.tick(watermark))

    def _fire(self, end: int, out: Output) -> None:
        low = self._layout.horizon(self._fired)
        views = [buffer.view(low, end - 1) for buffer in self._buffers]
        nbytes = sum(buffer.nbytes(view.height) for buffer, view in zip(self._buffers, views, strict=True))
        count = min(-(-nbytes // self._at_once), max(view.height for view in views))
        for part in range(count):
            frames = [
                (view.frame if count == 1 else view.where(_part_of_keys(view, part, count))).rechunk()
                if view.height
                else pl.DataFrame(schema={**with_code(schema.columns), TICK: pl.Int64})
                for view, schema in zip(views, self._inputs, strict=True)
            ]
            for placed in self._placed(frames, end):
                self._join(placed[LEFT], placed[RIGHT], out)

    def _placed(self, frames: Sequence[pl.DataFrame], end: int) -> Iterator[list[Placed]]:
        """Both sides' rows with their windows; when a row is in many, some windows at a time."""
        panes = [self._layout.panes.floor(frame.get_column(TICK)).alias(PANE) for frame in frames]
        if self._layout.single:
            yield [
                Placed(frame, np.arange(frame.height), starts, starts, self._layout.panes.next(starts), True)
                for frame, starts in zip(frames, panes, strict=True)
            ]
            return
        numbered = [column.to_frame().with_row_index(_ROW) for column in panes]
        for windows in self._parts(panes, end):
            found = [one.join(windows, on=PANE, maintain_order="left") for one in numbered]
            yield [
                Placed(
                    frame,
                    one.get_column(_ROW).to_numpy(),
                    one.get_column(_WINDOW),
                    one.get_column(START),
                    one.get_column(END),
                )
                for frame, one in zip(frames, found, strict=True)
            ]

    def _parts(self, panes: Sequence[pl.Series], end: int) -> list[pl.DataFrame]:
        """Which windows the panes are part of, a bounded number of rows together."""
        counts = pl.concat(panes).value_counts(name="__count").sort(PANE)
        windows = self._layout.windows(counts.get_column(PANE).to_numpy(), self._fired, end)
        rows = windows.join(counts, on=PANE).group_by(END, START).agg(pl.col("__count").sum())
        number = pl.int_range(pl.len()).alias(_WINDOW)
        part = (pl.col("__count").cum_sum() // MOST_PAIRS).alias(_PART)
        parts = rows.sort(END, START).select(END, START, number, part)
        whole = windows.join(parts, on=[END, START], maintain_order="left")
        return whole.partition_by(_PART, maintain_order=True, include_key=False)

    def _join(self, left: Placed, right: Placed, out: Output) -> None:
        windows = (left.windows, right.windows)
        met = [np.zeros(len(side.rows), dtype=np.bool_) for side in (left, right)]
        for at, of in equal_pairs(left.codes(), right.codes(), None if _one_value(windows) else windows):
            self._hand_on(left, right, (at, of), met, out)
        if self._spec.how in ("semi", "anti"):
            self._alone(left, LEFT, met[LEFT] == (self._spec.how == "semi"), out)
            return
        for side, placed in ((LEFT, left), (RIGHT, right)):
            if self._spec.outer(side):
                self._alone(placed, side, ~met[side], out)

    def _hand_on(self, left: Placed, right: Placed, pairs: Pairs, met: Sequence[Flags], out: Output) -> None:
        at, of = pairs
        places = left.rows[at], right.rows[of]
        same = really_equal(places, left.frame, right.frame, self._spec.by)
        if same is not None:
            at, of = at[same], of[same]
            places = places[0][same], places[1][same]
        if not self._spec.left_only or self._spec.predicate is not None:
            joined = self._pairing.pairs(left.frame, right.frame, *places)
            fits = self._pairing.fitting(joined)
            if fits is not None:
                at, of, joined = at[fits.to_numpy()], of[fits.to_numpy()], joined.filter(fits)
            if not self._spec.left_only:
                out.emit(self._result(joined, left, at))
        met[LEFT][at] = True
        met[RIGHT][of] = True

    def _alone(self, placed: Placed, side: int, chosen: Flags, out: Output) -> None:
        at = np.flatnonzero(chosen)
        if len(at):
            out.emit(self._result(self._pairing.alone(placed.frame[placed.rows[at]], side), placed, at))

    def _result(self, rows: pl.DataFrame, placed: Placed, at: np.ndarray) -> pl.DataFrame:
        bounds = pl.DataFrame([placed.starts[at].alias(START), placed.ends[at].alias(END)])
        values = self._axis.left.values
        window = bounds.select(
            values(pl.col(START)).alias(WINDOW_START), values(pl.col(END)).alias(WINDOW_END)
        )
        return columns_of(rows.hstack(window), self._columns)

    def before_checkpoint(self) -> None:
        self._arrivals.store()

    def explain_time(self) -> Mapping[str, Any]:
        found: dict[str, Any] = {"watermark": self._arrivals.watermark}
        for name, buffer in zip(SIDES, self._buffers, strict=True):
            found[f"{name}_rows_kept"] = len(buffer)
        return found


def _part_of_keys(view: View, part: int, count: int) -> Flags:
    """Which rows have keys of one part of `count`; equal keys are in one part, rows without a key in some."""
    kept = view.keyed
    assert kept is not None
    mixed = kept.codes.view(np.uint64) * SPREAD
    found: Flags = (mixed >> np.uint64(32)) % np.uint64(count) == part
    return found


def _one_value(columns: Sequence[pl.Series]) -> bool:
    return len({edge for column in columns if len(column) for edge in (column.min(), column.max())}) <= 1
