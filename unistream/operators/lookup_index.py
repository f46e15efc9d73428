"""Rows of a table found by key: one vectorised look-up and one gather per batch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import polars as pl

from unistream.of_columns import columns_of
from unistream.operators.window_layout import consecutive
from unistream.state.hot_table import HotTable

Numbers = npt.NDArray[np.int64]

_FIRST, _COUNT, _SINCE, _USED = "__first", "__count", "__since", "__used"


class RowsByKey:
    """What is known of some keys: all their rows (perhaps none), since when, and when that was last used.

    Rows lie in one frame, those of a key behind each other; the first row of the frame holds nulls.
    """

    def __init__(self, keys: pl.Schema, values: pl.Schema) -> None:
        self._by, self._keys = keys.names(), keys
        self._values = values
        self._clear()

    def _clear(self) -> None:
        about = pl.Schema(dict.fromkeys((_FIRST, _COUNT, _SINCE, _USED), pl.Int64()))
        self._table = HotTable(self._keys, about)
        self._frame = pl.DataFrame(
            {name: pl.Series([None], dtype=dtype) for name, dtype in self._values.items()}
        )
        self._parts: list[pl.DataFrame] = []
        self._height = 1
        self._uses = 0

    def __len__(self) -> int:
        return len(self._table)

    @property
    def rows(self) -> int:
        """How many rows are held, also those of keys that were learnt anew."""
        return self._height - 1

    def learn(
        self,
        keys: pl.DataFrame,
        rows: pl.DataFrame,
        now: int = 0,
        calls: tuple[Numbers, Numbers] | None = None,
    ) -> None:
        """These are all rows of these distinct keys; rows of other keys are passed over.

        `calls` are, of several calls learnt from together, those of the keys and those of the rows: a row
        of a key that another call asked for is passed over too.
        """
        ids, _ = self._table.upsert(keys)
        owned, counts = self._of_keys(rows, ids, calls)
        starts = np.cumsum(counts) - counts + self._height
        for name, column in ((_FIRST, starts), (_COUNT, counts), (_SINCE, now), (_USED, self._uses)):
            self._table.column(name)[ids] = column
        if self._values:
            self._parts.append(columns_of(owned, self._values.names()))
        self._height += owned.height

    def _of_keys(
        self, rows: pl.DataFrame, ids: Numbers, calls: tuple[Numbers, Numbers] | None
    ) -> tuple[pl.DataFrame, Numbers]:
        """The rows of these keys, those of a key behind each other; and how many each key has."""
        # Not by a join: in memory Polars finds no partners for NaN in columns of nothing else.
        order = np.argsort(ids)
        ranks = np.searchsorted(ids[order], owners := self._table.find(columns_of(rows, self._by)))
        places = order[np.minimum(ranks, len(ids) - 1)]
        asked = ids[places] == owners
        if calls is not None:
            asked &= calls[0][places] == calls[1]
        wanted = np.flatnonzero(asked)
        places = places[wanted]
        counts: Numbers = np.bincount(places, minlength=len(ids))
        return rows[wanted[np.argsort(places, kind="stable")]], counts

    def find(self, keys: pl.DataFrame) -> Numbers:
        """The number of each key, -1 for one that is not known."""
        ids = self._table.find(keys)
        self._uses += 1
        self._table.column(_USED)[ids[ids >= 0]] = self._uses
        return ids

    def since(self, ids: Numbers) -> Numbers:
        """When these keys were learnt."""
        found: Numbers = self._table.column(_SINCE)[ids]
        return found

    def places(self, ids: Numbers, known: npt.NDArray[np.bool_], keep_all: bool) -> tuple[Numbers, Numbers]:
        """For each key asked for (by number) and each of its rows: the place of the key and of the row.

        `keep_all` gives the row of nulls to keys without rows, and to those that are not `known`.
        """
        return _all_places(*self._runs(ids, known, keep_all))

    def some_places(
        self, ids: Numbers, known: npt.NDArray[np.bool_], keep_all: bool, most: int
    ) -> Iterator[tuple[Numbers, Numbers]]:
        """The same some at a time: at most so many rows together, unless one key alone has more."""
        counts, starts = self._runs(ids, known, keep_all)
        if int(counts.sum()) <= most:
            yield _all_places(counts, starts)
            return
        ends, first = np.cumsum(counts), 0
        while first < len(ends):
            before = ends[first] - counts[first]
            stop = max(first + 1, int(np.searchsorted(ends, before + most, side="right")))
            at, of = _all_places(counts[first:stop], starts[first:stop])
            yield at + first, of
            first = stop

    def _runs(self, ids: Numbers, known: npt.NDArray[np.bool_], keep_all: bool) -> tuple[Numbers, Numbers]:
        """How many rows each key has, and where they begin."""
        counts: Numbers = np.where(known, self._table.column(_COUNT)[ids], 0)
        starts: Numbers = np.where(counts > 0, self._table.column(_FIRST)[ids], 0)
        return (np.maximum(counts, 1) if keep_all else counts), starts

    def values(self, places: Numbers) -> pl.DataFrame:
        """The value columns of rows."""
        if self._parts:
            self._frame = pl.concat([self._frame, *self._parts], rechunk=True)
            self._parts = []
        found: pl.DataFrame = self._frame[places]
        return found

    def forget(self, most: int) -> None:
        """Keep at most so many keys, those used last; and no rows that nothing leads to."""
        ids = self._table.rows()
        if len(ids) > most:
            order = np.argsort(self._table.column(_USED)[ids], kind="stable")
            ids = ids[order[len(ids) - most :]]
        keys = self._table.keys(ids)
        about = [self._table.column(name)[ids].copy() for name in (_COUNT, _SINCE, _USED)]
        _, places = self.places(ids, np.ones(len(ids), dtype=np.bool_), keep_all=False)
        rows = self.values(places)
        uses = self._uses
        self._clear()
        self._uses = uses
        fresh, _ = self._table.upsert(keys)
        counts = about[0]
        columns = {_FIRST: np.cumsum(counts) - counts + 1, _COUNT: counts, _SINCE: about[1], _USED: about[2]}
        for name, column in columns.items():
            self._table.column(name)[fresh] = column
        self._parts = [rows]
        self._height = 1 + rows.height

    @property
    def wasteful(self) -> bool:
        """Whether more than half of the rows belong to nothing any more."""
        held = self._table.column(_COUNT)[self._table.rows()].sum()
        return self.rows > 2 * int(held) + 1024


def _all_places(counts: Numbers, starts: Numbers) -> tuple[Numbers, Numbers]:
    if (counts == 1).all():
        return np.arange(len(counts)), starts
    return np.repeat(np.arange(len(counts)), counts), consecutive(starts, counts)
