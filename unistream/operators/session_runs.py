"""Rows folded into the newest session of their key where that is all there is to it, which it mostly is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from unistream.expressions.aggregates import StateColumn
from unistream.expressions.schema import StreamSchema
from unistream.of_columns import columns_of
from unistream.operators.folded_array import folds_in_place
from unistream.operators.row_order import Positions, in_order_of
from unistream.operators.run_reducer import RunReducer
from unistream.operators.session_lateness import Marks
from unistream.operators.session_table import Given, SessionTable
from unistream.operators.time_grid import Ticks
from unistream.operators.window_contents import Contents, FoldedContents
from unistream.state.backend import RowIds

_MOST_OLDER = 4
"""A key whose sessions were set aside so often is looked at as a whole, and what has closed forgotten."""
_ORDERLESS = ("sum", "min", "max")


class SessionRuns:
    """Puts runs of rows (less than a gap apart) straight into the arrays of the session table.

    That is right for a run that begins a session behind all others of its key, and for one that reaches
    into the newest and into no older one. Other rows are given back.
    """

    def __init__(
        self, columns: Sequence[StateColumn], reducer: RunReducer, by: Sequence[str], gap: int
    ) -> None:
        self.columns = columns
        self._reducer = reducer
        self._by = list(by)
        self._gap = gap

    @classmethod
    def of(cls, contents: Contents, by: Sequence[str], rows: StreamSchema, gap: int) -> SessionRuns | None:
        """None when the contents are not a few numbers, or the order of rows matters to them."""
        if not isinstance(contents, FoldedContents):
            return None
        columns = contents.parts.columns
        if not all(folds_in_place(column) and column.how in _ORDERLESS for column in columns):
            return None
        reducer = RunReducer.of(contents.parts, rows.columns)
        return None if reducer is None else cls(columns, reducer, by, gap)

    def fold(self, table: SessionTable, rows: pl.DataFrame, starts: Ticks, born: int) -> Positions:
        """Fold rows that came at these ticks; the positions of those that must be looked at closely."""
        values = self._reducer.values_of(rows)
        if values is None:
            return np.arange(rows.height)
        ids = table.place(columns_of(rows, self._by) if self._by else pl.DataFrame(height=rows.height))
        order = in_order_of(ids, starts)
        times, of = starts[order], ids[order]
        apart = (of[1:] != of[:-1]) | (times[1:] - times[:-1] >= self._gap)
        first = np.flatnonzero(np.append(True, apart))
        parts = self._reducer.reduce(values, order, first)
        lengths = np.diff(first, append=len(order))
        begins, ends = times[first], times[first + lengths - 1] + self._gap
        places = of[first]
        fresh, close = self._judged(table, places, begins, ends)
        good = ~close
        came = (order if len(first) == len(order) else np.minimum.reduceat(order, first)) + born
        if good.all():
            table.grow(places, fresh, Given(begins, ends, came, parts))
            return np.empty(0, dtype=np.intp)
        given = Given(begins[good], ends[good], came[good], parts.filter(pl.Series(good)))
        table.grow(places[good], fresh[good], given)
        left: Positions = np.sort(order[np.repeat(close, lengths)])
        return left

    def _judged(self, table: SessionTable, places: RowIds, begins: Ticks, ends: Ticks) -> tuple[Marks, Marks]:
        """Which runs begin a session, and which are to be looked at closely."""
        now = table.standings(places)
        behind = begins >= now.ends
        fresh = (now.counts == 0) | behind
        same = places[1:] == places[:-1]
        close = np.zeros(len(places), dtype=np.bool_)
        close[1:] = same
        close[:-1] |= same
        close |= behind & (now.counts > _MOST_OLDER)
        touches_older = (now.counts > 1) & (begins < now.floors)
        close |= ~fresh & (begins < now.starts) & (touches_older | (ends <= now.starts))
        return fresh, close
