"""The moment a row came in as event time, the same when the row is read again after a crash."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import polars as pl

from unistream.elements import MAX_TIME, MIN_TIME, Batch
from unistream.expressions.schema import EventTime, StreamSchema
from unistream.operators.base import Context, Operator, OperatorSpec, Output

INGESTION_TIME = pl.Datetime("us", "UTC")

PATIENCE = 10_000_000
"""Microseconds that time waits for rows which were read before a crash and do not come again."""


@dataclass(frozen=True, eq=False, kw_only=True)
class IngestionTimeSpec(OperatorSpec):
    """Adds the moment a row came in as column `column` and makes it event time."""

    name: ClassVar[str] = "ingestion_time"
    column: str

    def schema(self, inputs: Sequence[StreamSchema]) -> StreamSchema:
        columns = pl.Schema({**inputs[0].columns, self.column: INGESTION_TIME})
        return replace(inputs[0], columns=columns, event_time=EventTime(self.column), side_outputs={})

    def build(self, inputs: Sequence[StreamSchema]) -> Operator:
        return IngestionTimeOperator(self.column)

    def reads(self, inputs: Sequence[StreamSchema], needed: frozenset[str]) -> Sequence[frozenset[str]]:
        return [needed - {self.column}]

    def describe(self) -> Mapping[str, str]:
        return {"column": self.column}


class IngestionTimeOperator(Operator):
    """Stamps rows with the clock, which never goes back: not when the machine's does, nor after a restore.

    Each batch is noted in the job's journal as so many rows of a split with this stamp. A split gives the
    same rows in the same order again after a crash, so counting them is enough to find their stamps. Until
    all have come again time stands at the first stamp that is still due.
    """

    def __init__(self, column: str) -> None:
        self._column = column
        self._now = MIN_TIME
        self._again = StampsAgain()
        self._ended: set[str] = set()

    def open(self, context: Context) -> None:
        self._id = context.operator_id
        self._clock, self._journal = context.clock, context.journal
        self._cell, self._due = context.state.cell("now"), context.state.cell("due")
        self._now = self._cell.get(MIN_TIME)
        if self._journal is not None:
            self._again = StampsAgain([*self._due.get([]), *self._journal.notes(self._id)])
            self._now = max(self._now, self._again.newest)
        self._last_again = self._clock.now()

    def _tick(self) -> int:
        self._now = max(self._now, self._clock.now())
        return self._now

    def process(self, batch: Batch, out: Output) -> None:
        height = batch.frame.height
        stamps = self._again.take(batch.split, height)
        fresh = height - len(stamps)
        if len(stamps):
            self._last_again = self._clock.now()
        if fresh:
            now = self._tick()
            if self._journal is not None and batch.split:  # mixed rows may come in another order
                self._journal.note(self._id, batch.split, fresh, now)
            stamps = np.append(stamps, np.full(fresh, now))
        out.emit(batch.frame.with_columns(pl.Series(self._column, stamps).cast(INGESTION_TIME)))

    def on_splits(self, source: str, pending: Mapping[str, int | None], ended: Sequence[str]) -> None:
        self._ended.update(ended)

    def output_watermark(self, watermark: int) -> int:
        if watermark == MAX_TIME:
            return MAX_TIME
        now = self._tick()
        if not self._again:
            self._ended.clear()
            return now
        self._again.forget(self._ended)  # of what has ended all rows have come
        if now - self._last_again > PATIENCE:
            self._again = StampsAgain()
        return min(self._again.oldest, now)

    def before_checkpoint(self) -> None:
        self._cell.set(self._now)
        self._due.set(self._again.due)

    def explain_time(self) -> dict[str, Any]:
        return {"event_time": self._column, "watermark": min(self._now, self._again.oldest)}


class StampsAgain:
    """The stamps of rows that were read before a crash: for each split how many rows have which, in order.

    >>> again = StampsAgain([["a", 2, 10], ["b", 1, 11], ["a", 2, 12]])
    >>> again.take("a", 3), again.oldest, again.due
    (array([10, 10, 12]), 11, [['a', 1, 12], ['b', 1, 11]])
    """

    def __init__(self, notes: Sequence[Sequence[Any]] = ()) -> None:
        self._splits: dict[str, deque[tuple[int, int]]] = {}
        for split, rows, stamp in notes:
            self._splits.setdefault(split, deque()).append((rows, stamp))
        self.newest = max((stamp for _, _, stamp in notes), default=MIN_TIME)

    def __bool__(self) -> bool:
        return bool(self._splits)

    @property
    def oldest(self) -> int:
        """No row that is due has an earlier stamp."""
        return min((runs[0][1] for runs in self._splits.values()), default=MAX_TIME)

    @property
    def due(self) -> list[list[Any]]:
        """What has not come again, as notes."""
        return [[split, rows, stamp] for split, runs in self._splits.items() for rows, stamp in runs]

    def take(self, split: str, height: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        """The stamps of the next rows of a split, of no more than are due."""
        runs = self._splits.get(split)
        taken: list[tuple[int, int]] = []
        while runs and height:
            rows, stamp = runs.popleft()
            taken.append((min(rows, height), stamp))
            if rows > height:
                runs.appendleft((rows - height, stamp))
            height -= taken[-1][0]
        if runs is not None and not runs:
            del self._splits[split]
        stamps = np.array([stamp for _, stamp in taken], dtype=np.int64)
        return np.repeat(stamps, [rows for rows, _ in taken])

    def forget(self, ended: set[str]) -> None:
        """These splits, named "source/split", or all of a source by its name, give nothing more."""
        for split in [name for name in self._splits if name in ended or name.split("/")[0] in ended]:
            del self._splits[split]
