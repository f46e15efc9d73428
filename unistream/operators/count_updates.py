"""Windows of so many rows that give results before they are full: a row per key and window."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from unistream.elements import Batch
from unistream.expressions.schema import CHANGE, Change, StreamSchema
from unistream.of_columns import beside, stacked
from unistream.operators.base import Context, Output
from unistream.operators.count_window import CountingWindowOperator
from unistream.operators.folded_array import Mask
from unistream.operators.window_layout import END, PANE, START, consecutive
from unistream.operators.window_spec import WINDOW_END, WINDOW_START
from unistream.state.backend import RowIds
from unistream.state.key_codes import Codes

if TYPE_CHECKING:
    from unistream.operators.count_window import CountingWindowSpec

_CODE = "__code"
_GIVEN, _CHANGED = "__given", "__changed"
"""Whether a result was handed on, and whether it has changed since."""

_GROUP = [_CODE, START]


class UpdatingCountingOperator(CountingWindowOperator):
    """Folds each batch into the windows its rows are in, and hands on those that changed when it is time.

    `emit="change"` hands them on with every batch, `every` by the clock. A window that is full is handed on
    at once, for the last time, and forgotten.
    """

    def __init__(self, spec: CountingWindowSpec, rows: StreamSchema) -> None:
        super().__init__(spec, rows)
        self._when, self._interval = spec.emit.when, spec.emit.every
        self._fires = f"it is given {spec.emit.text}, and for the last time with row {self._n:,}"
        self._next_given: int | None = None

    def open(self, context: Context) -> None:
        self._open_counts(context)
        self._clock = context.clock
        flags = {_GIVEN: pl.Boolean(), _CHANGED: pl.Boolean()}
        keys = pl.Schema({**self._keys, START: pl.Int64()})
        self._windows = context.state.keyed("windows", keys, pl.Schema({**self._contents.stored, **flags}))
        self._seen = self._contents.last_sequence(self._windows.read(self._windows.rows())) + 1
        self._schedule()

    def process(self, batch: Batch, out: Output) -> None:
        rows, keys, codes = self._keyed(batch)
        before, after = self._count(keys, codes)
        numbered = self._numbered(rows, codes, before).with_columns(pl.Series(_CODE, codes))
        parts, ids = self._with_kept(keys, self._in_windows(self._contents.fold(numbered, [_CODE, PANE])))
        starts, owners = (parts.get_column(name).to_numpy() for name in (START, _CODE))
        full: Mask = starts + self._n <= after[owners]
        given: Mask = np.zeros(len(ids), dtype=np.bool_)
        given[ids >= 0] = self._windows.column(_GIVEN).take(ids[ids >= 0])
        parts = beside(keys[owners], parts.drop(_CODE))
        self._emit_windows(parts, given, full | (self._when == "change"), out)
        self._windows.delete(ids[full & (ids >= 0)])
        self._keep_open(parts.filter(pl.Series(~full)), given[~full])
        self._schedule()

    def _in_windows(self, parts: pl.DataFrame) -> pl.DataFrame:
        """Parts of panes as parts of the windows they are in, one for each."""
        begins = parts.get_column(PANE).to_numpy() * self._width
        first: Codes = np.maximum(0, (begins - self._n) // self._every + 1)
        counts: Codes = begins // self._every - first + 1
        copies = parts.drop(PANE)[np.repeat(np.arange(len(begins)), counts)]
        copies = copies.with_columns(pl.Series(START, consecutive(first, counts) * self._every))
        return copies if self._width == self._n else self._contents.merge(copies, _GROUP)

    def _with_kept(self, keys: pl.DataFrame, fresh: pl.DataFrame) -> tuple[pl.DataFrame, RowIds]:
        """The parts merged with what is kept of their windows, and the rows that keep it (-1: none yet)."""
        ids = self._windows.find(self._named(keys, fresh))
        there = ids >= 0
        if not there.any():
            return fresh, ids
        kept = self._windows.read(ids[there]).drop(_GIVEN, _CHANGED)
        older = beside(fresh.select(_GROUP).filter(pl.Series(there)), kept)
        both = self._contents.merge(stacked([older.select(fresh.columns), fresh]), _GROUP)
        return both, self._windows.find(self._named(keys, both))

    def _named(self, keys: pl.DataFrame, parts: pl.DataFrame) -> pl.DataFrame:
        """The windows of these parts as the table knows them."""
        return keys[parts.get_column(_CODE).to_numpy()].with_columns(parts.get_column(START))

    def _keep_open(self, parts: pl.DataFrame, given: Mask) -> None:
        """Keep windows that are not full; those of them that are not handed on now have changed."""
        at_once = self._when == "change"
        if parts.height:
            ids, _ = self._windows.upsert(parts.select([*self._keys, START]))
            marks = (pl.Series(_GIVEN, given | at_once), pl.lit(not at_once).alias(_CHANGED))
            stored = self._contents.stored.names()
            self._windows.write(ids, parts.with_columns(*marks).select([*stored, _GIVEN, _CHANGED]))
        self._metrics.set("open_windows", len(self._windows))

    def _emit_windows(self, parts: pl.DataFrame, given: Mask, which: Mask, out: Output) -> None:
        """Results of these windows: new ones, and such as take the place of what was handed on."""
        group = [START, END, *self._keys]
        ends = parts.with_columns((pl.col(START) + self._n).alias(END))
        for change, some in ((Change.INSERT, which & ~given), (Change.UPDATE_AFTER, which & given)):
            if some.any():
                made = self._contents.finish(ends.filter(pl.Series(some)), group)
                made = made.rename({START: WINDOW_START, END: WINDOW_END}).select(self._columns)
                out.emit(made.with_columns(pl.lit(change.value, pl.Int8).alias(CHANGE)))

    def _give_changed(self, out: Output) -> None:
        """Hand on the open windows that changed since they were."""
        ids = self._windows.rows()
        ids = ids[self._windows.column(_CHANGED).take(ids)]
        if not len(ids):
            return
        given = self._windows.column(_GIVEN).take(ids)
        parts = beside(self._windows.keys(ids), self._windows.read(ids))
        self._emit_windows(parts, given, np.ones(len(ids), dtype=np.bool_), out)
        self._windows.column(_GIVEN)[ids] = True
        self._windows.column(_CHANGED)[ids] = False
        self._windows.touch(ids)

    def _schedule(self) -> None:
        if self._when == "every" and self._next_given is None and len(self._windows):
            self._next_given = self._clock.now() + self._interval

    def next_wakeup(self) -> int | None:
        return self._next_given

    def on_processing_time(self, now: int, out: Output) -> None:
        self._give_changed(out)
        self._next_given = None

    def finish(self, out: Output) -> None:
        """Windows that will never be full have been handed on, or are now."""
        self._give_changed(out)
