"""Windows of so many rows of a key, in the order they come."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import polars as pl

from unistream.elements import Batch
from unistream.errors import InvalidQuery
from unistream.expressions.schema import Changes, EventTime, StreamSchema
from unistream.of_columns import beside, stacked
from unistream.operators.base import Context, OpenWindows, Operator, Output
from unistream.operators.window_contents import Aggregation
from unistream.operators.window_layout import END, PANE, START, consecutive
from unistream.operators.window_sequence import SEQUENCE, Listed
from unistream.operators.window_spec import WINDOW_END, WINDOW_START, WindowSpec
from unistream.operators.windows import Counting
from unistream.state.key_codes import Codes, join_on_keys, key_codes

_ALL, _COUNT = "__all", "__count"


@dataclass(frozen=True, eq=False, kw_only=True)
class CountingWindowSpec(WindowSpec):
    """Windows of `n` rows of each key; `window_start` and `window_end` are numbers of rows, from 0."""

    name: ClassVar[str] = "counting"
    window: Counting

    def schema(self, inputs: Sequence[StreamSchema]) -> StreamSchema:
        if self.lateness:
            raise InvalidQuery(
                "No row is late for a counting window: rows are counted in the order they come",
                self.where,
                "leave out allowed_lateness=",
            )
        found = super().schema(inputs)
        if found.changes is not Changes.APPEND and not isinstance(self.calculation, Aggregation):
            raise InvalidQuery(
                "Windows give updates of aggregates, one row per key and window, and of nothing else",
                self.where,
                "leave out emit=, or use .agg(...)",
            )
        return found

    def time_columns(self, rows: StreamSchema) -> dict[str, pl.DataType]:
        return {WINDOW_START: pl.Int64(), WINDOW_END: pl.Int64()}

    def result_time(self, rows: StreamSchema) -> EventTime | None:
        return None

    def late_schema(self, rows: StreamSchema) -> Mapping[str, pl.Schema]:
        return {}

    def build(self, inputs: Sequence[StreamSchema]) -> Operator:
        from unistream.operators.count_updates import UpdatingCountingOperator

        final = self.emit.when == "close"
        return CountingWindowOperator(self, inputs[0]) if final else UpdatingCountingOperator(self, inputs[0])


class CountingWindowOperator(Operator):
    """Folds rows into panes of a common divisor of `n` and `every`, and panes into windows that are full.

    Pane `p` of a key has its rows `p * width` and on. Full windows and the panes they alone needed leave
    the table at once.
    """

    def __init__(self, spec: CountingWindowSpec, rows: StreamSchema) -> None:
        self._by = list(spec.by)
        self._n, self._every = spec.window.n, spec.window.every
        self._width = math.gcd(self._n, self._every)
        self._contents = Listed.unless_short(spec.calculation.contents(rows.columns, spec.by, spec.where))
        self._columns = spec.schema([rows]).columns.names()
        self._keys = pl.Schema({name: rows.columns[name] for name in self._by} or {_ALL: pl.Int8()})
        self._seen = 0
        self._fires = f"it fires with row {self._n:,}"

    def open(self, context: Context) -> None:
        self._open_counts(context)
        panes = pl.Schema({**self._keys, PANE: pl.Int64()})
        self._panes = context.state.keyed("panes", panes, self._contents.stored)
        self._seen = self._contents.last_sequence(self._panes.read(self._panes.rows())) + 1

    def _open_counts(self, context: Context) -> None:
        self._metrics = context.metrics
        self._counts = context.state.keyed("counts", self._keys, pl.Schema({_COUNT: pl.Int64()}))

    def _full_windows(self, counts: Codes) -> Codes:
        """How many windows are full after so many rows."""
        full: Codes = np.where(counts < self._n, 0, (counts - self._n) // self._every + 1)
        return full

    def process(self, batch: Batch, out: Output) -> None:
        rows, keys, codes = self._keyed(batch)
        before, after = self._count(keys, codes)
        parts = self._contents.fold(self._numbered(rows, codes, before), [*self._keys, PANE])
        parts = self._with_open(parts, keys, before, after)
        parts = self._emit_full(parts, keys, before, after, out)
        self._keep(parts, keys, before, after)

    def _keyed(self, batch: Batch) -> tuple[pl.DataFrame, pl.DataFrame, Codes]:
        """The rows with a key in any case, the distinct keys, and for each row which of them it has."""
        rows = batch.frame if self._by else batch.frame.with_columns(pl.lit(0, pl.Int8).alias(_ALL))
        return rows, *key_codes(rows, self._keys.names())

    def _count(self, keys: pl.DataFrame, codes: Codes) -> tuple[Codes, Codes]:
        """How many rows each key has had before these, and with them."""
        ids, _ = self._counts.upsert(keys)
        counts = self._counts.column(_COUNT)
        before: Codes = counts.take(ids)
        after: Codes = before + np.bincount(codes, minlength=keys.height)
        counts[ids] = after
        self._counts.touch(ids)
        return before, after

    def _numbered(self, rows: pl.DataFrame, codes: Codes, before: Codes) -> pl.DataFrame:
        """The rows with the pane that each is in, and with how many came before it."""
        order = np.argsort(codes * len(codes) + np.arange(len(codes)))
        ordered = codes[order]
        first = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
        rank = np.empty(len(codes), dtype=np.int64)
        rank[order] = np.arange(len(codes)) - np.repeat(first, np.diff(np.append(first, len(codes))))
        panes = (before[codes] + rank) // self._width
        born = np.arange(self._seen, self._seen + len(codes))
        self._seen += len(codes)
        return rows.with_columns(pl.Series(PANE, panes), pl.Series(SEQUENCE, born))

    def _with_open(
        self, parts: pl.DataFrame, keys: pl.DataFrame, before: Codes, after: Codes
    ) -> pl.DataFrame:
        """The parts merged with what is kept of the panes that go on, and of those that full windows need."""
        first = self._full_windows(before) * self._every // self._width
        last = -(-before // self._width)
        becomes_full = self._full_windows(after) > self._full_windows(before)
        begun = np.where(before % self._width != 0, last - 1, last)
        wanted = np.where(becomes_full, first, begun)
        kept = self._pairs(keys, wanted, last - wanted)
        rows = self._panes.find(kept)
        kept, rows = kept.filter(pl.Series(rows >= 0)), rows[rows >= 0]
        if not len(rows):
            return parts
        older = beside(kept, self._panes.read(rows)).select(parts.columns)
        return self._contents.merge(stacked([older, parts]), [*self._keys, PANE])

    def _pairs(self, keys: pl.DataFrame, first: Codes, counts: Codes) -> pl.DataFrame:
        """Keys with the numbers of `counts` panes each, from `first` on."""
        counts = np.maximum(counts, 0)
        owners = np.repeat(np.arange(keys.height), counts)
        return keys[owners].with_columns(pl.Series(PANE, consecutive(first, counts), dtype=pl.Int64))

    def _emit_full(
        self, parts: pl.DataFrame, keys: pl.DataFrame, before: Codes, after: Codes, out: Output
    ) -> pl.DataFrame:
        """Results of windows that became full; the parts that windows still open need are left."""
        first, last = self._full_windows(before), self._full_windows(after)
        if (last > first).any():
            self._emit(parts, keys, first, last - first, out)
        open_from = keys.with_columns(pl.Series(START, last * self._every // self._width))
        joined = join_on_keys(parts, open_from, self._keys.names(), "left")
        return joined.filter(pl.col(PANE) >= pl.col(START)).drop(START)

    def _emit(
        self, parts: pl.DataFrame, keys: pl.DataFrame, first: Codes, counts: Codes, out: Output
    ) -> None:
        owners = np.repeat(np.arange(keys.height), counts)
        starts = consecutive(first, counts) * self._every
        per_window = self._n // self._width
        copies = np.repeat(np.arange(len(owners)), per_window)
        panes = consecutive(starts // self._width, np.full(len(starts), per_window, dtype=np.int64))
        windows = keys[owners[copies]].with_columns(
            pl.Series(PANE, panes), pl.Series(START, starts[copies]), pl.Series(END, starts[copies] + self._n)
        )
        on = [*self._keys, PANE]
        whole = windows.join(parts, on=on, how="inner", nulls_equal=True, maintain_order="left").drop(PANE)
        group = [START, END, *self._keys]
        made = self._contents.finish(self._contents.merge(whole, group), group)
        out.emit(made.rename({START: WINDOW_START, END: WINDOW_END}).select(self._columns))

    def _keep(self, parts: pl.DataFrame, keys: pl.DataFrame, before: Codes, after: Codes) -> None:
        first, last = (self._full_windows(counts) * self._every // self._width for counts in (before, after))
        gone = self._panes.find(self._pairs(keys, first, last - first))
        self._panes.delete(gone[gone >= 0])
        if parts.height:
            rows, _ = self._panes.upsert(parts.select([*self._keys, PANE]))
            self._panes.write(rows, parts.select(self._contents.stored.names()))
        self._metrics.set("panes_kept", len(self._panes))

    def finish(self, out: Output) -> None:
        """Windows that will never be full give what they have."""
        rows = self._counts.rows()
        if not len(rows):
            return
        keys, counts = self._counts.keys(rows), self._counts.column(_COUNT).take(rows)
        first = self._full_windows(counts)
        begun = -(-counts // self._every) - first
        self._emit(self._panes.scan(), keys, first, np.maximum(begun, 0), out)

    def open_windows(self, key: pl.DataFrame) -> OpenWindows:
        if not self._by:
            key = pl.DataFrame({_ALL: [0]}, schema=self._keys)
        found = self._counts.find(key)
        count = int(self._counts.column(_COUNT)[found[0]]) if found[0] >= 0 else 0
        first = int(self._full_windows(np.array([count]))[0]) * self._every
        starts = np.arange(first, count, self._every)
        there = count - starts
        bounds = pl.DataFrame({WINDOW_START: starts, WINDOW_END: starts + self._n, "rows": there})
        fires = [f"{rows:,} of {self._n:,} rows are there: {self._fires}" for rows in there]
        frame = bounds.join(key, how="cross") if self._by else bounds
        return OpenWindows(frame.select(*self._by, WINDOW_START, WINDOW_END, "rows"), None, fires)
