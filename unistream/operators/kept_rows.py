"""Rows kept for each key, for what has to look at all of them again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from unistream.expressions.changelog import COMING
from unistream.expressions.schema import CHANGE
from unistream.of_columns import stacked
from unistream.state.backend import KeyedTable, StateStore
from unistream.state.key_codes import join_on_keys

_ROWS = "__rows"
_NOTHING = "__nothing"
_SIGN, _NET, _LATER = "__sign", "__net", "__later"


class KeptRows:
    """The rows of each key in order, as one list per key: a batch costs what its keys hold."""

    def __init__(self, store: StateStore, name: str, keys: pl.Schema, columns: pl.Schema) -> None:
        """`columns` are those kept beside the keys; there may be none."""
        self._keys = keys.names()
        self.columns = columns.names() or [_NOTHING]
        fields = [pl.Field(column, columns.get(column, pl.UInt8())) for column in self.columns]
        self.table: KeyedTable = store.keyed(name, keys, pl.Schema({_ROWS: pl.List(pl.Struct(fields))}))

    @property
    def names(self) -> list[str]:
        """Key columns and kept columns."""
        return [*self._keys, *self.columns]

    def narrowed(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The columns to keep of some rows, and their change where they have one."""
        if self.columns == [_NOTHING]:
            frame = frame.with_columns(pl.lit(0, pl.UInt8).alias(_NOTHING))
        return frame.select(*self.names, *([CHANGE] if CHANGE in frame.columns else []))

    def stored(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The rows kept for the keys that these rows have."""
        keys = frame.select(self._keys).unique(maintain_order=True)
        found = self.table.find(keys)
        known = keys.filter(pl.Series(found >= 0))
        lists = self.table.read(found[found >= 0])[_ROWS]
        return known.with_columns(lists).explode(_ROWS).unnest(_ROWS).select(self.names)

    def keep(self, rows: pl.DataFrame) -> npt.NDArray[np.bool_]:
        """All rows of their keys from now on; which keys, in order of their first row, are new."""
        lists = rows.group_by(self._keys, maintain_order=True).agg(pl.struct(self.columns).alias(_ROWS))
        ids, new = self.table.upsert(lists.select(self._keys))
        self.table.write(ids, lists.select(_ROWS))
        return new

    def forget(self, keys: pl.DataFrame) -> None:
        """No rows of these keys."""
        self.table.delete(self.table.find(keys))

    def keys_gone(self, before: pl.DataFrame, after: pl.DataFrame) -> pl.DataFrame:
        """The distinct keys that had rows before and have none after."""
        had = before.select(self._keys).unique(maintain_order=True)
        has = after.select(self._keys).unique()
        return join_on_keys(had, has, self._keys, "anti")


def standing(rows: pl.DataFrame, changes: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
    """The rows that are left of `rows` and `changes`, in order of arrival.

    A row that is taken back is the earliest of those equal to it, so the latest are left however the
    changes were cut.

    >>> rows = pl.DataFrame({"a": [1, 2]})
    >>> changes = pl.DataFrame({"a": [1, 1], CHANGE: [0, 3]}, schema_overrides={CHANGE: pl.Int8})
    >>> standing(rows, changes, ["a"])["a"].to_list()
    [2, 1]
    """
    sign = pl.when(pl.col(CHANGE).is_in(COMING)).then(1).otherwise(-1).alias(_SIGN)
    both = stacked([rows.select(*names, pl.lit(1).alias(_SIGN)), changes.select(*names, sign)])
    later = (pl.col(_SIGN) > 0).cast(pl.Int64).cum_sum(reverse=True)
    counted = both.with_columns(pl.col(_SIGN).sum().over(names).alias(_NET), later.over(names).alias(_LATER))
    return counted.filter((pl.col(_SIGN) > 0) & (pl.col(_LATER) <= pl.col(_NET))).select(names)
