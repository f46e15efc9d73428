"""What all joins share: the columns of their rows, their time, and what they refuse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

import polars as pl

from unistream.elements import MAX_TIME, MIN_TIME
from unistream.errors import InvalidQuery
from unistream.expressions.analysis import columns_read
from unistream.expressions.schema import EventTime, StreamSchema
from unistream.graph import LATE
from unistream.of_columns import columns_of, frame_of
from unistream.operators.base import OperatorSpec
from unistream.operators.join_codes import Places
from unistream.operators.join_matching import index_of
from unistream.operators.time_axis import TimeAxis

How = Literal["inner", "left", "right", "full", "semi", "anti"]

HOWS = ("inner", "left", "right", "full", "semi", "anti")

LEFT, RIGHT = 0, 1
"""The ports of the two inputs."""

SIDES = ("left", "right")

JOIN_TIME = "join_time"
"""The column that says when a joined row was complete: the later of the times of its two rows."""

LATE_SIDE, LATE_REASON, LATE_WATERMARK = "late_side", "late_reason", "late_watermark"
"""What late rows say beside their own columns."""

MANY = 1 << 16
"""So many rows are taken out of a frame by several threads."""

_FARTHEST = 2**61
"""Times are kept within this so that an interval can be added to them."""


@dataclass(frozen=True, eq=False, kw_only=True)
class JoinSpec(OperatorSpec):
    """Rows of two streams put together where the columns `by` are equal; null equals nothing.

    Beside the key the two sides have no column name in common. `predicate`, over the columns of both, has
    to be true as well.
    """

    name: ClassVar[str] = "join"
    inputs: ClassVar[int] = 2
    by: tuple[str, ...]
    how: How = "inner"
    predicate: pl.Expr | None = None

    def __post_init__(self) -> None:
        if self.how not in HOWS:
            hint = f"one of {', '.join(HOWS)}"
            raise InvalidQuery(f"join has no how={self.how!r}", self.where, hint)

    @property
    def keys(self) -> tuple[str, ...]:
        return self.by

    @property
    def left_only(self) -> bool:
        """Whether the result has the columns of the left side alone."""
        return self.how in ("semi", "anti")

    def outer(self, side: int) -> bool:
        """Whether rows of this side are in the result without a partner."""
        return self.how == "full" or self.how == SIDES[side] or (side == LEFT and self.how == "anti")

    def marks(self, side: int) -> bool:
        """Whether it has to be known of rows of this side if they found a partner."""
        return self.outer(side) or (side == LEFT and self.how == "semi")

    def both(self, inputs: Sequence[StreamSchema]) -> pl.Schema:
        """The columns of a pair; refuses sides that do not fit."""
        left, right = inputs[LEFT].columns, inputs[RIGHT].columns
        for name in self.by:
            if left[name] != right[name]:
                hint = f"cast one of them, as in `.cast({{{name!r}: pl.{left[name]}}})`"
                raise InvalidQuery(
                    f"Key {name!r} is {left[name]} on the left and {right[name]} on the right of join",
                    self.where,
                    hint,
                )
        twice = [name for name in right if name in left and name not in self.by]
        if twice:
            hint = "rename one of them, or let Stream.join do it with suffix="
            raise InvalidQuery(f"Both sides of join have a column {twice[0]!r}", self.where, hint)
        others = {name: dtype for name, dtype in right.items() if name not in self.by}
        return pl.Schema({**left, **others})

    def reads(self, inputs: Sequence[StreamSchema], needed: frozenset[str]) -> Sequence[frozenset[str]]:
        extra = frozenset(self.by)
        if self.predicate is not None:
            extra |= columns_read(self.predicate)
        found = []
        for schema in inputs:
            time = frozenset([schema.event_time.column] if schema.event_time else [])
            found.append((needed | extra | time) & frozenset(schema.columns))
        return found

    def describe(self) -> Mapping[str, str]:
        found = {"on": ", ".join(self.by), "how": self.how}
        if self.predicate is not None:
            found["where"] = " ".join(str(self.predicate).split())
        return found


def check_timed(inputs: Sequence[StreamSchema], what: str, where: str | None) -> None:
    """Both sides must have event time."""
    for side, schema in zip(SIDES, inputs, strict=True):
        if schema.event_time is None:
            hint = "call .with_event_time(column, delay=...) on both streams before joining them"
            raise InvalidQuery(f"{what} needs event time, which the {side} side has not", where, hint)


def late_columns(both: pl.Schema) -> Mapping[str, pl.Schema]:
    """The side output of late rows: columns of both sides (those of the other are null), and why."""
    extra = {LATE_SIDE: pl.String(), LATE_REASON: pl.String(), LATE_WATERMARK: pl.Datetime("us", "UTC")}
    return {LATE: pl.Schema({**both, **extra})}


class PairAxis:
    """The event times of two streams on one axis of whole ticks, nanoseconds if either counts in them."""

    def __init__(self, inputs: Sequence[StreamSchema]) -> None:
        self._axes = [TimeAxis.of(schema) for schema in inputs]
        self.per_micro = 1_000 if any(axis.unit == "ns" for axis in self._axes) else 1

    def ticks(self, frame: pl.DataFrame, side: int) -> pl.Series:
        """The event time of each row of one side."""
        axis = self._axes[side]
        column = frame.get_column(axis.column)
        if isinstance(axis.dtype, pl.Datetime) and not axis.offset:
            ticks = column.cast(pl.Int64)  # what `to_physical` does, without the query it makes
        else:
            ticks = axis.ticks(frame)
        if self.per_micro > 1 and axis.unit == "ns":
            return ticks
        factor = axis.micros(1) * self.per_micro
        if factor == 1:
            return ticks
        return ticks.clip(-_FARTHEST // factor, _FARTHEST // factor) * factor

    def tick_of_rows(self, side: int) -> pl.Expr:
        """The same as part of a query."""
        axis = self._axes[side]
        ticks = pl.col(axis.column).cast(pl.Int64, strict=False)
        if axis.offset:
            ticks = ticks + axis.offset
        factor = 1 if self.per_micro > 1 and axis.unit == "ns" else axis.micros(1) * self.per_micro
        return ticks if factor == 1 else ticks.clip(-_FARTHEST // factor, _FARTHEST // factor) * factor

    def tick(self, micros: int) -> int:
        """A moment or a length in microseconds; the ends of time stay what they are."""
        if micros in (MIN_TIME, MAX_TIME):
            return micros
        return max(MIN_TIME, min(MAX_TIME, micros * self.per_micro))

    def micros(self, tick: int) -> int:
        """A tick in microseconds, rounded down; the ends of time stay what they are."""
        return tick if tick in (MIN_TIME, MAX_TIME) else tick // self.per_micro

    def after(self, tick: int) -> int:
        """The least moment in microseconds that lies behind a tick."""
        return self.micros(tick) + 1


class PairTime:
    """The column `JOIN_TIME` of joined rows."""

    def __init__(self, inputs: Sequence[StreamSchema]) -> None:
        self._axes = [TimeAxis.of(schema) for schema in inputs]
        left, right = self._axes
        self._alike = (left.dtype, left.unit, left.offset) == (right.dtype, right.unit, right.offset)
        self.dtype = left.dtype if self._alike else pl.Datetime("us", left.zone or right.zone)

    @property
    def event_time(self) -> EventTime:
        """How the result says its time."""
        left = self._axes[LEFT]
        return EventTime(JOIN_TIME, left.unit, left.offset) if self._alike else EventTime(JOIN_TIME)

    def columns(self, both: pl.Schema, where: str | None) -> pl.Schema:
        """The columns of a pair with its time; an earlier join's time gives way to it."""
        if JOIN_TIME in both and JOIN_TIME not in [axis.column for axis in self._axes]:
            hint = f"rename it, as in `.rename({{{JOIN_TIME!r}: 'time'}})`"
            raise InvalidQuery(f"join adds a column {JOIN_TIME!r}, which is there already", where, hint)
        return pl.Schema({**both, JOIN_TIME: self.dtype})

    def later(self, pairs: pl.DataFrame) -> pl.Series:
        """The later of the two times of each pair."""
        left, right = (self.of(pairs, side) for side in (LEFT, RIGHT))
        return left.zip_with(left >= right, right)

    def of(self, rows: pl.DataFrame, side: int) -> pl.Series:
        """The time of one side's row."""
        axis = self._axes[side]
        if self._alike:
            return rows.get_column(axis.column).alias(JOIN_TIME)
        return axis.all_micros(axis.ticks(rows)).cast(self.dtype).alias(JOIN_TIME)

    def later_of_pairs(self) -> pl.Expr:
        """`later` as part of a query."""
        left, right = (self.of_rows(side) for side in (LEFT, RIGHT))
        return pl.when(left >= right).then(left).otherwise(right).alias(JOIN_TIME)

    def of_rows(self, side: int) -> pl.Expr:
        """`of` as part of a query."""
        axis = self._axes[side]
        time = pl.col(axis.column)
        if not self._alike:
            ticks: Any = time.cast(pl.Int64, strict=False) + axis.offset
            time = cast(pl.Expr, axis.all_micros(ticks)).cast(self.dtype)
        return time.alias(JOIN_TIME)


def _rows_at(frame: pl.DataFrame, places: pl.Series) -> pl.DataFrame:
    """Few rows column by column: waking the threads that share out the columns takes longer than that."""
    if len(places) >= MANY:
        found: pl.DataFrame = frame[places]
        return found
    return frame_of([column[places] for column in frame.get_columns()])


class Pairing:
    """Makes joined rows of rows of the two sides."""

    def __init__(self, spec: JoinSpec, inputs: Sequence[StreamSchema], time: PairTime | None) -> None:
        self.both = spec.both(inputs)
        self._left = inputs[LEFT].columns.names()
        self._others = [name for name in inputs[RIGHT].columns if name not in spec.by]
        self._columns = [inputs[side].columns for side in (LEFT, RIGHT)]
        self._left_only = spec.left_only
        self._predicate = spec.predicate
        self._time = time

    def pairs(self, left: pl.DataFrame, right: pl.DataFrame, lefts: Places, rights: Places) -> pl.DataFrame:
        """Rows side by side, from their places on each side."""
        mine = _rows_at(columns_of(left, self._left), index_of(lefts))
        if not self._others:
            return mine
        return mine.hstack(_rows_at(columns_of(right, self._others), index_of(rights)))

    def alone(self, rows: pl.DataFrame, side: int) -> pl.DataFrame:
        """Rows of one side as they leave the join without a partner."""
        if self._left_only:
            return columns_of(rows, self._left)
        beside = self.beside_nulls(rows, side)
        return beside if self._time is None else self._with_time(beside, self._time.of(rows, side))

    def beside_nulls(self, rows: pl.DataFrame, side: int) -> pl.DataFrame:
        """Rows of one side, with nulls in the columns of the other."""
        own = self._columns[side]
        columns = [
            rows.get_column(name)
            if name in own
            else pl.Series(name, [None], dtype).new_from_index(0, rows.height)
            for name, dtype in self.both.items()
        ]
        return pl.DataFrame(columns)

    def fitting(self, pairs: pl.DataFrame) -> pl.Series | None:
        """Which pairs the predicate is true of; None when there is none to ask."""
        if self._predicate is None:
            return None
        return pairs.select(self._predicate.alias("fits")).to_series().fill_null(False)

    def result(self, pairs: pl.DataFrame) -> pl.DataFrame:
        """Pairs as they leave the join."""
        return pairs if self._time is None else self._with_time(pairs, self._time.later(pairs))

    def _with_time(self, rows: pl.DataFrame, time: pl.Series) -> pl.DataFrame:
        return rows.with_columns(time) if JOIN_TIME in rows.columns else rows.hstack([time])

    def late(self, rows: pl.DataFrame, side: int, reason: str, watermark: int) -> pl.DataFrame:
        """Late rows with the reason; `watermark` in microseconds."""
        moment = None if watermark in (MIN_TIME, MAX_TIME) else watermark
        return self.beside_nulls(rows, side).with_columns(
            pl.lit(SIDES[side]).alias(LATE_SIDE),
            pl.lit(reason).alias(LATE_REASON),
            pl.lit(moment, pl.Int64).cast(pl.Datetime("us", "UTC")).alias(LATE_WATERMARK),
        )
