"""Rows handed on as soon as the answer for their own key is there, whichever that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import polars as pl

from unistream.elements import MIN_TIME, Batch
from unistream.expressions.schema import StreamSchema
from unistream.of_columns import columns_of, stacked
from unistream.operators.base import Context, Operator, Output
from unistream.operators.lookup import Lookup, LookupOperator
from unistream.operators.lookup_index import RowsByKey
from unistream.operators.lookup_tables import Answer, Answers, AskedTable, numbered
from unistream.state.hot_table import HotTable

Numbers = npt.NDArray[np.int64]

_LOOKED_AT = 1024
"""So many rows are looked at together at least, however few of them may still wait."""


@dataclass(frozen=True, eq=False, kw_only=True)
class UnorderedLookup(Lookup):
    """A look-up that lets rows overtake each other, but never time overtake a row.

    At most `most_waiting` rows wait for answers; when there are more, nothing is taken in.
    """

    stateful: ClassVar[bool] = True
    most_waiting: int = 100_000

    @property
    def keeps_splits(self) -> bool:
        # Whoever keeps time per split goes by the order of rows, and by the end of a split.
        return False

    def build(self, inputs: Sequence[StreamSchema]) -> Operator:
        return UnorderedLookupOperator(self, inputs[0])

    def describe(self) -> Mapping[str, str]:
        waiting = f"in any order, at most {self.most_waiting:,} rows waiting"
        return {**super().describe(), "gives": waiting}


class WaitingRows:
    """Rows in the order they came, each with the number of its key and the watermark it came behind."""

    def __init__(self) -> None:
        self._parts: list[tuple[pl.DataFrame, Numbers, Numbers]] = []
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def oldest(self) -> int:
        """The watermark that the first of them came behind: it is the least."""
        return int(self._parts[0][2][0])

    @property
    def frames(self) -> list[pl.DataFrame]:
        """All rows."""
        return [frame for frame, _, _ in self._parts]

    def add(self, frame: pl.DataFrame, ids: Numbers, watermark: int) -> None:
        """These came last."""
        if frame.height:
            self._parts.append((frame, ids, np.full(frame.height, watermark, dtype=np.int64)))
            self._count += frame.height

    def take(self, answered: Numbers) -> pl.DataFrame:
        """Take out the rows of these keys; some are there."""
        frame = stacked(self.frames)
        ids, since = (np.concatenate([part[at] for part in self._parts]) for at in (1, 2))
        wanted = np.zeros(max(int(ids.max()), int(answered.max())) + 1, dtype=np.bool_)
        wanted[answered] = True
        leaves = wanted[ids]
        stays = np.flatnonzero(~leaves)
        self._parts = [(frame[stays], ids[stays], since[stays])] if len(stays) else []
        self._count = len(stays)
        return frame.filter(pl.Series(leaves))


class UnorderedLookupOperator(LookupOperator):
    """Keeps rows until their keys are answered; what it asks for is exactly what they wait for.

    Rows that wait are written into a checkpoint and their keys asked for again after a restore, so a
    checkpoint waits for nobody. Until then their watermark is held where it was when they came.
    """

    _spec: UnorderedLookup

    def __init__(self, spec: UnorderedLookup, rows: StreamSchema) -> None:
        super().__init__(spec, rows)
        assert isinstance(spec.table, AskedTable)
        self._table = spec.table
        self._rows = rows.columns
        self._waiting = WaitingRows()
        self._asked = HotTable(self._keys, pl.Schema())
        self._answers: Answers | None = None
        self._watermark = MIN_TIME

    def open(self, context: Context) -> None:
        self._context = context
        self._index = RowsByKey(self._keys, self._values)
        self._kept = context.state.log("waiting", self._rows)
        assert self._table.begin is not None
        self._answers = self._table.begin(context.wake)
        for frame in self._kept.frames(0):
            self._wait_for(frame, columns_of(frame, self._by))

    def process(self, batch: Batch, out: Output) -> None:
        rows = batch.frame
        while rows.height:
            self._take_answers(out, wait=False)
            room = self._spec.most_waiting - len(self._waiting)
            taken = self._take_in(rows.head(max(room, _LOOKED_AT)), room, out)
            if not taken:
                self._take_answers(out, wait=True)
            rows = rows.slice(taken)

    def _take_in(self, rows: pl.DataFrame, room: int, out: Output) -> int:
        """Hand on the first of these rows or let them wait, as many as there is room for; how many."""
        keys, whole = self._keys_of(rows)
        waits = whole & self._unknown(keys, self._table, self._context.clock.now())
        count = int(np.searchsorted(np.cumsum(waits), room, side="right"))
        rows, keys, whole, waits = rows.head(count), keys.head(count), whole[:count], waits[:count]
        if waits.any():
            mask = pl.Series(waits)
            self._wait_for(rows.filter(mask), keys.filter(mask))
            rows, keys, whole = rows.filter(~mask), keys.filter(~mask), whole[~waits]
        if rows.height:
            known = keys.filter(pl.Series(whole))
            self._context.metrics.add("keys_known", known.n_unique() if known.height else 0)
            self._hand_on(rows, keys, whole, out)
        return count

    def _wait_for(self, rows: pl.DataFrame, keys: pl.DataFrame) -> None:
        """Keep these rows, and ask for those of their keys that nobody waits for yet."""
        distinct = keys.unique(maintain_order=True)
        _, new = self._asked.upsert(distinct)
        self._waiting.add(rows, self._asked.find(keys), self._watermark)
        wanted = distinct.filter(pl.Series(new))
        self._context.metrics.add("keys_asked", wanted.height)
        self._context.metrics.set("rows_waiting", len(self._waiting))
        if wanted.height:
            self._calls.ask(self._as_asked(wanted))

    @property
    def _calls(self) -> Answers:
        assert self._answers is not None
        return self._answers

    def _take_answers(self, out: Output, wait: bool) -> None:
        """Hand on the rows of all keys that were answered; with `wait` at least those of one call."""
        found = self._calls.arrived(wait)
        if not found:
            return
        answered = self._asked.find(self._learn(found))
        rows = self._waiting.take(answered)
        self._asked.delete(answered)
        self._hand_on(rows, columns_of(rows, self._by), np.ones(rows.height, dtype=np.bool_), out)
        self._context.metrics.set("rows_waiting", len(self._waiting))
        self._forget(self._table)

    def _learn(self, answers: Sequence[Answer]) -> pl.DataFrame:
        """Note what is known now; the keys that it is about, each once."""
        rows: list[pl.DataFrame] = []
        for answer in answers:
            if answer.rows is None:
                assert answer.error is not None
                raise answer.error
            rows.append(self._as_values(answer.rows))
        names = dict(zip(self._spec.table_by, self._spec.by, strict=True))
        keys = [answer.keys.rename(names) for answer in answers]
        calls = numbered(keys), numbered(rows)
        every = stacked(keys)
        self._index.learn(every, stacked(rows), self._context.clock.now(), calls)
        return every

    # Time

    def on_watermark(self, watermark: int, out: Output) -> None:
        self._watermark = watermark

    def output_watermark(self, watermark: int) -> int:
        return min(watermark, self._waiting.oldest) if len(self._waiting) else watermark

    def next_wakeup(self) -> int | None:
        # Answers are due at once; the one that comes next says so itself.
        return MIN_TIME if self._calls.ready else None

    def on_processing_time(self, now: int, out: Output) -> None:
        self._take_answers(out, wait=False)

    def busy(self) -> bool:
        return len(self._waiting) > 0

    def before_checkpoint(self) -> None:
        self._kept.replace(0, self._waiting.frames)

    def finish(self, out: Output) -> None:
        while len(self._waiting):
            self._take_answers(out, wait=True)

    def close(self) -> None:
        if self._answers is not None:
            self._answers.close()

    def explain_time(self) -> Mapping[str, Any]:
        count = len(self._waiting)
        held = {"held_by": f"{count:,} rows that wait for answers"} if count else {}
        return {"keys_known": len(self._index), "rows_waiting": count, **held}
