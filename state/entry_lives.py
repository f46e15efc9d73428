"""How long entries of keyed state live: they are not seen after their time, and removed soon after."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import numpy.typing as npt
import polars as pl

from unistream.elements import MIN_TIME
from unistream.state.backend import KeyedTable, RowIds, StateStore
from unistream.state.timers import TIME, Timers

_EXPIRIES_PER_LIFE = 8
"""Entries go in bunches: they cannot be seen any more after their time, and are removed an eighth later."""
_ROWS_AT_ONCE = 1 << 17

Times = npt.NDArray[np.int64]


def written_column(name: str) -> str:
    """The column with the time an entry was last written, beside the value column of this name."""
    return name + "@"


class EntryLives:
    """The lives (microseconds of processing time since the last write) of some value columns of a table."""

    def __init__(
        self, store: StateStore, table: KeyedTable, keys: pl.Schema, lives: Mapping[str, int]
    ) -> None:
        self._table = table
        self._lives = lives
        self._timers = Timers(store, "expiry", keys)  # also without lives: an earlier run may have had some
        self._kept = store.cell("lives")
        self._begun = self._kept.get({}) == lives

    def begin(self, now: int) -> None:
        """Before anything else: hold what an earlier run with other lives has left to those of this one."""
        if self._begun:
            return
        earlier = self._kept.get({})
        names = [name for name, life in self._lives.items() if earlier.get(name) != life]
        rows = self._table.rows()
        for start in range(0, len(rows) if names else 0, _ROWS_AT_ONCE):
            self._adopt(rows[start : start + _ROWS_AT_ONCE], names, now)
        self._kept.set(self._lives)
        self._begun = True

    def __contains__(self, name: str) -> bool:
        return name in self._lives

    def over(self, name: str, rows: RowIds, now: int) -> npt.NDArray[np.bool_]:
        """Whose time is over, for rows that have an entry."""
        result: npt.NDArray[np.bool_] = self._written(name).take(rows) + self._lives[name] <= now
        return result

    def renew(self, name: str, rows: RowIds, keys: pl.DataFrame, now: int) -> None:
        """The entries of these rows, which have these keys, were written."""
        self._written(name)[rows] = now
        self._table.touch(rows)
        self._wake(name, np.full(len(rows), now), keys)

    def next_time(self) -> int | None:
        """When there is something to do."""
        return self._timers.next_time() if self._begun else MIN_TIME

    def due(self, now: int) -> pl.DataFrame:
        """Take out the keys that may have entries whose time is over; all of them have rows."""
        keys = self._timers.due(now).drop(TIME).unique(maintain_order=True)
        return keys.filter(pl.Series(self._table.find(keys) >= 0))

    def _adopt(self, rows: RowIds, names: Collection[str], now: int) -> None:
        """Entries of which nobody kept when they were written count as written now."""
        keys, values = self._table.keys(rows), self._table.read(rows)
        for name in names:
            places = np.flatnonzero(values[name].is_not_null().to_numpy())
            there, written = rows[places], self._written(name)
            undated = there[written[there] == 0]
            written[undated] = now
            self._table.touch(undated)
            self._wake(name, written[there], keys[places])

    def _written(self, name: str) -> Times:
        return self._table.column(written_column(name))

    def _wake(self, name: str, written: Times, keys: pl.DataFrame) -> None:
        step = max(self._lives[name] // _EXPIRIES_PER_LIFE, 1)
        self._timers.register(-(-(written + self._lives[name]) // step) * step, keys)
