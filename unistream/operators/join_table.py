"""The rows of one side of a join that keeps them all: each distinct row once, with how often it is there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from unistream.of_columns import columns_of
from unistream.operators.join_codes import Places
from unistream.operators.join_matching import CODE
from unistream.state.backend import StateStore

DELTA = "__delta"
"""How much more often a row came than went."""

_COUNT, _MATCHES, _SINCE = "__count", "__matches", "__since"


@dataclass(frozen=True, slots=True)
class Changed:
    """What a change did to some rows: their ids, by how much their counts changed, which are new."""

    ids: Places
    delta: Places
    new: np.ndarray
    unknown: int
    """So many rows were to be taken back that are not there."""


class SideTable:
    """Rows under row ids. The code of its key, by which others find it, lies beside each."""

    def __init__(self, state: StateStore, name: str, columns: pl.Schema) -> None:
        about = pl.Schema(dict.fromkeys((CODE, _COUNT, _MATCHES, _SINCE), pl.Int64()))
        self._columns = columns.names()
        self._table = state.keyed(name, columns, about)
        since = self._table.column(_SINCE)[self._table.rows()]
        self._oldest = int(since.min()) if len(since) else None

    def __len__(self) -> int:
        return len(self._table)

    def rows(self) -> Places:
        """Ids of all rows."""
        return self._table.rows()

    def frame(self, ids: Places) -> pl.DataFrame:
        """These rows."""
        return self._table.keys(ids)

    def codes(self, ids: Places) -> Places:
        """The codes of these rows."""
        return self._array(CODE, ids)

    def counts(self, ids: Places) -> Places:
        """How often each of these rows is there."""
        return self._array(_COUNT, ids)

    def _array(self, name: str, ids: Places) -> Places:
        found: Places = self._table.column(name)[ids]
        return found

    def change(self, rows: pl.DataFrame, codes: pl.Series, times: pl.Series) -> Changed:
        """Add `DELTA` to the count of each of these distinct rows, but take none below zero."""
        ids, new = self._table.upsert(columns_of(rows, self._columns))
        counts = self._table.column(_COUNT)
        wanted = rows.get_column(DELTA).to_numpy()
        delta = np.maximum(wanted, -counts[ids])
        counts[ids] += delta
        self._table.column(CODE)[ids] = codes.to_numpy()
        since = self._table.column(_SINCE)
        since[ids] = np.where(new, times.to_numpy(), np.maximum(since[ids], times.to_numpy()))
        self._table.touch(ids)
        oldest = int(since[ids].min())
        self._oldest = oldest if self._oldest is None else min(self._oldest, oldest)
        return Changed(ids, delta, new, int((delta - wanted).sum()))

    def settle(self, change: Changed, matches: Places) -> Places:
        """How many rows each changed row matches: new ones as found now, others as they know."""
        known = self._table.column(_MATCHES)
        known[change.ids[change.new]] = matches[change.new]
        found: Places = known[change.ids]
        return found

    def add_matches(self, ids: Places, news: Places) -> tuple[Places, Places]:
        """These distinct rows match so many more: how many before and after."""
        matches = self._table.column(_MATCHES)
        was: Places = matches[ids].copy()
        matches[ids] = np.maximum(was + news, 0)
        self._table.touch(ids)
        return was, matches[ids]

    def remove_empty(self, change: Changed) -> None:
        """Forget the changed rows that are there no more."""
        self._table.delete(change.ids[self.counts(change.ids) == 0])

    def forget(self, before: int) -> None:
        """Forget rows that came before this time."""
        if self._oldest is None or self._oldest >= before:
            return
        ids = self._table.rows()
        since = self._table.column(_SINCE)[ids]
        old = since < before
        self._table.delete(ids[old])
        self._oldest = int(since[~old].min()) if not old.all() else None
