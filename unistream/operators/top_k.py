"""The rows of each key that are greatest so far; what enters and leaves the top is handed on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import polars as pl

from unistream.elements import Batch
from unistream.expressions.analysis import columns_read
from unistream.expressions.schema import CHANGE, Change, Changes, StreamSchema
from unistream.of_columns import stacked
from unistream.operators.base import Context, Operator, OperatorSpec, Output
from unistream.operators.kept_rows import KeptRows, standing
from unistream.operators.key_packing import PackedKeys, fits_a_number
from unistream.operators.row_order import in_order_of
from unistream.state.gather import taken

_AT = "__at"
_ROW = "__row"


@dataclass(frozen=True, eq=False, kw_only=True)
class TopK(OperatorSpec):
    """The `n` rows of each key that come first by `order`, greatest first unless `reverse`.

    Among equals those that came first are taken. That says which only where rows come in the order of a
    source: how they come out of a join, a union or a table that updates depends on how its input was cut, so
    there one of the equals is as right as another. This is why it is no step `by_order`: a query that keeps
    the order of its source takes those that came first, another takes any.
    """

    name: ClassVar[str] = "top_k"
    by: tuple[str, ...]
    n: int
    order: tuple[pl.Expr, ...]
    reverse: tuple[bool, ...]
    kept: str = ""

    def schema(self, inputs: Sequence[StreamSchema]) -> StreamSchema:
        # A row leaves the top at another time than it happened, so its time says nothing of the change.
        return replace(inputs[0], changes=Changes.RETRACT, key=(), event_time=None, side_outputs={})

    @property
    def keys(self) -> tuple[str, ...]:
        return self.by

    def holds_rows(self, schemas: Sequence[StreamSchema]) -> bool:
        return True

    @property
    def accepts_updates(self) -> bool:
        return True

    @property
    def needs_retractions(self) -> bool:
        return True

    def reads(self, inputs: Sequence[StreamSchema], needed: frozenset[str]) -> Sequence[frozenset[str]]:
        ordering = frozenset[str]().union(*(columns_read(expr) for expr in self.order))
        if inputs[0].changes is not Changes.APPEND:
            return [frozenset(inputs[0].columns)]  # a row that is taken back is found by all it holds
        return [needed | frozenset(self.by) | ordering]

    def build(self, inputs: Sequence[StreamSchema]) -> Operator:
        return _TopK(self, inputs[0])

    def lazy(self, inputs: Sequence[pl.LazyFrame], schemas: Sequence[StreamSchema]) -> pl.LazyFrame | None:
        columns = schemas[0].columns.names()
        order = _ordering(self.order)
        places = [expr.meta.output_name() for expr in order]
        # Rows as structs are put in order once, instead of each column by itself.
        row = pl.struct([name for name in columns if name not in self.by] or places)
        best = row.sort_by(places, descending=self.descending, nulls_last=True, maintain_order=True)
        tops = inputs[0].with_columns(order).group_by(self.by).agg(best.head(self.n).alias(_ROW))
        return tops.explode(_ROW).unnest(_ROW).select(columns)

    @property
    def descending(self) -> list[bool]:
        return [not flag for flag in self.reverse]

    def describe(self) -> Mapping[str, str]:
        order = ", ".join(" ".join(str(expr).split()) for expr in self.order)
        found = {"by": ", ".join(self.by), "top": f"{self.n} by {order}"}
        return found | ({"keeps": self.kept} if self.kept else {}) | {"state": "every key, for ever"}


class _TopK(Operator):
    """Keeps the top of each key, or all of its rows where rows may go again and others move up."""

    def __init__(self, spec: TopK, schema: StreamSchema) -> None:
        self._spec = spec
        self._by = list(spec.by)
        self._schema = schema
        self._updating = schema.changes is not Changes.APPEND
        self._order = _ordering(spec.order)

    def open(self, context: Context) -> None:
        columns = self._schema.columns
        keys = pl.Schema({name: columns[name] for name in self._by})
        others = pl.Schema({name: dtype for name, dtype in columns.items() if name not in self._by})
        self._kept = KeptRows(context.state, "rows", keys, others)

    def process(self, batch: Batch, out: Output) -> None:
        frame = self._kept.narrowed(batch.frame)
        old = self._kept.stored(frame)
        names = self._kept.names
        if self._updating:
            before = old[self._top(old)]
            rows = standing(old, frame, names)
            after = rows[self._top(rows)]
            gone = self._kept.keys_gone(old, rows)
            self._kept.keep(rows)
            self._kept.forget(gone)
            self._emit(self._difference(before, after), self._difference(after, before), out)
            return
        both = stacked([old, frame])
        places = self._top(both)
        fell = np.ones(old.height, dtype=np.bool_)
        fell[places[places < old.height]] = False
        self._kept.keep(taken(both, places))
        self._emit(old.filter(fell), taken(both, places[places >= old.height]), out)

    def _top(self, rows: pl.DataFrame) -> npt.NDArray[np.int64]:
        """Where the first of each key are; among equals those that came first are taken."""
        found = self._top_of_numbers(rows)
        if found is not None:
            return found
        narrow = rows.select(*self._by, *self._order, pl.int_range(pl.len(), dtype=pl.Int64).alias(_AT))
        ordered = narrow.sort(
            [expr.meta.output_name() for expr in self._order],
            descending=self._spec.descending,
            nulls_last=True,
            maintain_order=True,
        ).select(*self._by, _AT)
        return ordered.group_by(self._by, maintain_order=True).head(self._spec.n)[_AT].to_numpy()

    def _top_of_numbers(self, rows: pl.DataFrame) -> npt.NDArray[np.int64] | None:
        """The same by sorting numbers; None where key or order are something else, or have nulls."""
        order = rows.select_seq(self._order).get_columns()
        packed = PackedKeys.of(rows, self._by) if all(map(fits_a_number, order)) else None
        if packed is None:
            return None
        numbers = [column.cast(pl.Int64).to_numpy() for column in order]
        if any(len(column) and column.min() == np.iinfo(np.int64).min for column in numbers):
            return None  # it has no opposite
        signed = [
            np.negative(column) if descending else column
            for column, descending in zip(numbers, self._spec.descending, strict=True)
        ]
        places = in_order_of(packed.codes, *signed)
        codes = packed.codes.take(places)
        first = np.flatnonzero(np.append(True, codes[1:] != codes[:-1]))
        rank = np.arange(len(codes)) - np.repeat(first, np.diff(first, append=len(codes)))
        return places[rank < self._spec.n]

    def _difference(self, rows: pl.DataFrame, others: pl.DataFrame) -> pl.DataFrame:
        """The rows, each as often as it is more often in `rows` than in `others`."""
        taken = others.with_columns(pl.lit(Change.DELETE.value, pl.Int8).alias(CHANGE))
        return standing(rows, taken, self._kept.names)

    def _emit(self, left: pl.DataFrame, entered: pl.DataFrame, out: Output) -> None:
        columns = self._schema.columns.names()
        for rows, change in ((left, Change.DELETE), (entered, Change.INSERT)):
            if rows.height:
                out.emit(rows.select(*columns, pl.lit(change.value, pl.Int8).alias(CHANGE)))


def _ordering(order: Sequence[pl.Expr]) -> list[pl.Expr]:
    return [expr.alias(f"__by{number}") for number, expr in enumerate(order)]
