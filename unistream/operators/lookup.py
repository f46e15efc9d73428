"""Rows with what a table, a database or a function knows about their keys."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from unistream.causes import first_words
from unistream.elements import Batch
from unistream.errors import DataError, InvalidQuery
from unistream.expressions.schema import Changes, StreamSchema
from unistream.of_columns import columns_of
from unistream.operators.base import Context, Operator, OperatorSpec, Output
from unistream.operators.lookup_index import RowsByKey
from unistream.operators.lookup_steady import check_steady
from unistream.operators.lookup_tables import AskedTable, Asker, LookupTable, WholeTable
from unistream.state.distinct import starts_of_runs

logger = logging.getLogger(__name__)

Flags = npt.NDArray[np.bool_]

MOST_ROWS = 1 << 18
"""So many rows are handed on together at most, unless one row alone finds more."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Lookup(OperatorSpec):
    """Each row beside the rows of a table with the same key; null keys find nothing.

    `by` are the key columns of the stream, `table_by` those of the table, `adds` the columns taken from the
    table under their new names.
    """

    name: ClassVar[str] = "lookup"
    by: tuple[str, ...]
    table_by: tuple[str, ...]
    adds: Mapping[str, str]
    table: LookupTable
    how: Literal["left", "inner"] = "left"

    @property
    def keeps_order(self) -> bool:
        return True

    def schema(self, inputs: Sequence[StreamSchema]) -> StreamSchema:
        rows = inputs[0]
        for mine, theirs in zip(self.by, self.table_by, strict=True):
            here, there = rows.columns[mine], self.table.columns[theirs]
            if here != there:
                hint = f"cast the key first, as in `.cast({{{mine!r}: pl.{there}}})`"
                raise InvalidQuery(
                    f"Key {mine!r} is {here} here and {there} in the table of lookup", self.where, hint
                )
        added = {new: self.table.columns[old] for new, old in self.adds.items()}
        # A row may be in the result several times, or not at all: it is no longer known by its key.
        changes = Changes.APPEND if rows.changes is Changes.APPEND else Changes.RETRACT
        return replace(
            rows, columns=pl.Schema({**rows.columns, **added}), changes=changes, key=(), side_outputs={}
        )

    @property
    def stateful(self) -> bool:  # type: ignore[override]
        # Over a stream that updates it is kept which table the rows were given with.
        return self.accepts_updates

    @property
    def accepts_updates(self) -> bool:
        # What is taken back must be what was given: only a table that never changes answers twice the same.
        return isinstance(self.table, WholeTable) and self.table.refresh is None

    @property
    def needs_retractions(self) -> bool:
        return True

    @property
    def keeps_splits(self) -> bool:
        return True

    def reads(self, inputs: Sequence[StreamSchema], needed: frozenset[str]) -> Sequence[frozenset[str]]:
        return [(needed | frozenset(self.by)) & frozenset(inputs[0].columns)]

    def build(self, inputs: Sequence[StreamSchema]) -> Operator:
        return LookupOperator(self, inputs[0])

    def lazy(self, inputs: Sequence[pl.LazyFrame], schemas: Sequence[StreamSchema]) -> pl.LazyFrame | None:
        if not isinstance(self.table, WholeTable) or self.table.query is None:
            return None
        keys = [pl.col(theirs).alias(f"__key_{at}") for at, theirs in enumerate(self.table_by)]
        values = [pl.col(old).alias(new) for new, old in self.adds.items()]
        table = self.table.query.select(*keys, *values)
        names = [f"__key_{at}" for at in range(len(keys))]
        return inputs[0].join(
            table,
            left_on=list(self.by),
            right_on=names,
            how=self.how,
            maintain_order="left_right",
            coalesce=True,
        )

    def describe(self) -> Mapping[str, str]:
        return {"in": self.table.text, "on": ", ".join(self.by), "how": self.how, "keeps": self.table.kept}


class LookupOperator(Operator):
    """Finds all keys of a batch at once; of a table that is asked, asks for those it does not know."""

    def __init__(self, spec: Lookup, rows: StreamSchema) -> None:
        self._spec = spec
        self._by = list(spec.by)
        self._keys = pl.Schema({name: rows.columns[name] for name in spec.by})
        self._values = pl.Schema({new: spec.table.columns[old] for new, old in spec.adds.items()})
        self._columns = spec.schema([rows]).physical.names()
        self._updates = rows.changes is not Changes.APPEND
        self._asker: Asker | None = None
        self._failure: str | None = None

    def open(self, context: Context) -> None:
        self._context = context
        self._index = RowsByKey(self._keys, self._values)
        match self._spec.table:
            case WholeTable():
                self._load(self._spec.table)
            case AskedTable():
                self._asker = self._spec.table.open(context.clock)

    def process(self, batch: Batch, out: Output) -> None:
        keys, known = self._keys_of(batch.frame)
        match self._spec.table:
            case WholeTable():
                self._refresh(self._spec.table)
            case AskedTable():
                self._ask(keys if known.all() else keys.filter(pl.Series(known)), self._spec.table)
        self._hand_on(batch.frame, keys, known, out, batch.split)
        if isinstance(self._spec.table, AskedTable):
            self._forget(self._spec.table)

    def _keys_of(self, frame: pl.DataFrame) -> tuple[pl.DataFrame, Flags]:
        """The keys of rows, and which of them have no null."""
        keys = columns_of(frame, self._by)
        whole = np.ones(frame.height, dtype=np.bool_)
        for column in keys.get_columns():
            if column.null_count():
                whole &= column.is_not_null().to_numpy()
        return keys, whole

    def _hand_on(
        self, frame: pl.DataFrame, keys: pl.DataFrame, known: Flags, out: Output, split: str = ""
    ) -> None:
        """Rows beside what was learnt of their keys, where these are `known` at all."""
        ids = self._index.find(keys)
        known = known & (ids >= 0)
        keep_all, found = self._spec.how == "left", 0
        for at, of in self._index.some_places(ids, known, keep_all, MOST_ROWS):
            each_once = keep_all and len(at) == frame.height and at[0] == 0 and at[-1] == frame.height - 1
            rows = frame if each_once else frame[at]
            if self._values:
                rows = columns_of(rows.hstack(self._index.values(of)), self._columns)
            out.emit(rows, split)
            found += 0 if keep_all else int(starts_of_runs(at).sum())
        if not keep_all:
            self._context.metrics.add("filtered", frame.height - found)

    def _load(self, table: WholeTable) -> None:
        loaded = table.load()
        rows = self._as_values(loaded).drop_nulls(self._by)
        if self._updates:
            used = dict.fromkeys((*self._spec.table_by, *self._spec.adds.values()))
            known = loaded.drop_nulls(self._spec.table_by)
            check_steady(self._context.state.cell("table"), known, list(used), table.text)
        index = RowsByKey(self._keys, self._values)
        index.learn(columns_of(rows, self._by).unique(maintain_order=True), rows)
        self._index = index
        self._read = self._loaded = self._context.clock.now()
        self._failure = None
        self._context.metrics.set("table_rows", rows.height)

    def _refresh(self, table: WholeTable) -> None:
        if table.refresh is None or self._context.clock.now() < self._loaded + table.refresh:
            return
        try:
            self._load(table)
        except Exception as error:
            # An older table is better than none; the next one is tried in time.
            logger.warning("%s: %s was not read again: %s", self._context.operator_id, table.text, error)
            self._failure = f"{type(error).__name__}: {first_words(error)}"
            self._context.metrics.add("refreshes_failed", 1)
            self._loaded = self._context.clock.now()

    def _ask(self, keys: pl.DataFrame, table: AskedTable) -> None:
        """Learn what is not known, or known for too long."""
        assert self._asker is not None
        distinct = keys.unique(maintain_order=True)
        now = self._context.clock.now()
        wanted = distinct.filter(pl.Series(self._unknown(distinct, table, now)))
        self._context.metrics.add("keys_known", distinct.height - wanted.height)
        self._context.metrics.add("keys_asked", wanted.height)
        if wanted.height:
            rows = self._as_values(self._asker.ask(self._as_asked(wanted)))
            self._index.learn(wanted, rows, now)

    def _unknown(self, keys: pl.DataFrame, table: AskedTable, now: int) -> Flags:
        """Which keys are not known, or for too long."""
        ids = self._index.find(keys)
        stale: Flags = ids < 0
        stale[~stale] = self._index.since(ids[~stale]) + table.keep <= now
        return stale

    def _as_asked(self, keys: pl.DataFrame) -> pl.DataFrame:
        """Keys under the names that the table uses."""
        return keys.rename(dict(zip(self._spec.by, self._spec.table_by, strict=True)))

    def _forget(self, table: AskedTable) -> None:
        if len(self._index) > table.most_keys:
            # Half of them, so that it is not done at every batch.
            self._index.forget(table.most_keys // 2)
        elif self._index.wasteful:
            self._index.forget(table.most_keys)

    def _as_values(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The table's rows under the names that the result uses."""
        names = zip(self._spec.by, self._spec.table_by, strict=True)
        columns = {new: (old, self._keys[new]) for new, old in names}
        columns |= {new: (old, self._values[new]) for new, old in self._spec.adds.items()}
        absent = [old for old, _ in columns.values() if old not in rows.columns]
        if absent:
            hint = "every answer must have the same columns, without rows too"
            raise DataError(
                f"{self._spec.table.text} gave no column {absent[0]!r}, only {rows.columns}", None, hint
            )
        return rows.select(pl.col(old).cast(dtype).alias(new) for new, (old, dtype) in columns.items())

    def close(self) -> None:
        if self._asker is not None:
            self._asker.close()

    def explain_time(self) -> Mapping[str, Any]:
        found: dict[str, Any] = {"keys_known": len(self._index)}
        if isinstance(self._spec.table, WholeTable):
            found |= {"table_read": self._read, "table_not_read_again": self._failure}
        return found
