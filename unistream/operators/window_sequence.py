"""Rows that are kept of windows and may be put together out of order, brought back into that of arrival."""

from __future__ import annotations

import polars as pl

from unistream.operators.window_contents import By, Contents

SEQUENCE = "__born"
"""How many rows had come before a row: kept with rows that may be put together out of order."""

_ROWS = "__rows"


class Sequenced(Contents):
    """Contents that keep rows, with these in order of arrival wherever their parts come from.

    Rows to fold have a column `SEQUENCE`.
    """

    def __init__(self, inner: Contents) -> None:
        self._inner = inner
        self.result = inner.result
        self.stored = pl.Schema({**inner.stored, SEQUENCE: pl.Int64()})
        self.condenses = inner.condenses

    def fold(self, rows: pl.DataFrame, by: By) -> pl.DataFrame:
        return self._inner.fold(rows, by)

    def merge(self, parts: pl.DataFrame, by: By) -> pl.DataFrame:
        return self._inner.merge(parts.sort(SEQUENCE) if self.condenses else parts, by)

    def finish(self, parts: pl.DataFrame, by: By) -> pl.DataFrame:
        return self._inner.finish(parts.sort(SEQUENCE).drop(SEQUENCE), by)

    def last_sequence(self, parts: pl.DataFrame) -> int:
        return _greatest(parts.get_column(SEQUENCE))


class Listed(Contents):
    """Contents that keep rows, with these in one list per group: for windows found by key, not by time."""

    one_row = True

    def __init__(self, inner: Contents) -> None:
        self._inner = inner
        self._kept = pl.Schema({**inner.stored, SEQUENCE: pl.Int64()})
        self.result = inner.result
        self.stored = pl.Schema({_ROWS: pl.List(pl.Struct(dict(self._kept)))})

    @classmethod
    def unless_short(cls, contents: Contents) -> Contents:
        """The contents themselves when they keep one row per group."""
        return contents if contents.one_row else cls(contents)

    def fold(self, rows: pl.DataFrame, by: By) -> pl.DataFrame:
        return self._listed(self._inner.fold(rows, by), by)

    def merge(self, parts: pl.DataFrame, by: By) -> pl.DataFrame:
        if not self._inner.condenses:
            return parts.group_by(by, maintain_order=True).agg(pl.col(_ROWS).explode())
        return self._listed(self._inner.merge(self._rows(parts, by), by), by)

    def finish(self, parts: pl.DataFrame, by: By) -> pl.DataFrame:
        return self._inner.finish(self._rows(parts, by).drop(SEQUENCE), by)

    def last_sequence(self, parts: pl.DataFrame) -> int:
        return _greatest(parts.get_column(_ROWS).explode().struct.field(SEQUENCE))

    def _listed(self, rows: pl.DataFrame, by: By) -> pl.DataFrame:
        return rows.group_by(by, maintain_order=True).agg(pl.struct(*self._kept).alias(_ROWS))

    def _rows(self, parts: pl.DataFrame, by: By) -> pl.DataFrame:
        """The rows in the lists, as they came."""
        rows = parts.select(*by, _ROWS).explode(_ROWS).unnest(_ROWS)
        return rows.sort(SEQUENCE, maintain_order=True)


def _greatest(sequence: pl.Series) -> int:
    found = sequence.max()
    return found if isinstance(found, int) else -1
