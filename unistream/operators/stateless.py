"""Steps that treat each row for itself, or each frame by a function of the user."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import ClassVar

import polars as pl

from unistream.errors import DataError, some_of
from unistream.expressions.analysis import columns_read, is_constant
from unistream.expressions.schema import CHANGE, Change, Changes, StreamSchema
from unistream.expressions.shared_parts import share_work
from unistream.of_columns import columns_of, rows_where

SMALL_FRAME = 20_000
"""Below this many rows one thread is faster than handing expressions to several."""

WORTH_PLANNING = 1_000
"""From this many rows on, computing common parts of expressions once saves more than finding them costs."""

_SHARING = pl.QueryOptFlags.none()
_SHARING.comm_subexpr_elim = True


@dataclass(frozen=True, eq=False, kw_only=True)
class RowStep(ABC):
    """One step of a chain. `made` are the columns it computes, with the types found while planning."""

    verb: ClassVar[str] = "step"
    made: pl.Schema = field(default_factory=pl.Schema)
    where: str | None = None

    @abstractmethod
    def derive(self, input: StreamSchema) -> StreamSchema:
        """What is known about the rows it gives."""

    def reads(self, input: pl.Schema, needed: frozenset[str]) -> frozenset[str]:
        """The input columns it needs to give the columns `needed`."""
        return frozenset(input)

    def pruned(self, needed: frozenset[str]) -> RowStep:
        """The same step without computing columns nobody needs."""
        return self

    @abstractmethod
    def apply(self, frame: pl.DataFrame, changes: Changes) -> pl.DataFrame:
        """Run on the rows of an edge with this changelog mode."""

    def lazy(self, query: pl.LazyFrame) -> pl.LazyFrame | None:
        """The same step in a Polars query over append-only rows, or None when there is no equal one."""
        return None

    @abstractmethod
    def describe(self) -> str:
        """One line for `explain`."""


@dataclass(frozen=True, eq=False, kw_only=True)
class SelectStep(RowStep):
    """Exactly these columns."""

    verb: ClassVar[str] = "select"
    exprs: tuple[pl.Expr, ...]

    def derive(self, input: StreamSchema) -> StreamSchema:
        return renamed(input, plain_columns(self.exprs), self.made)

    def reads(self, input: pl.Schema, needed: frozenset[str]) -> frozenset[str]:
        return columns_read_by(self.exprs)

    def pruned(self, needed: frozenset[str]) -> RowStep:
        # Constants alone would give one row, however many there are: a column of the input goes with them.
        counting = self._counting
        return _keeping(self, needed if needed & set(counting) else needed | {counting[0]})

    @cached_property
    def _counting(self) -> list[str]:
        """Columns that have as many values as there are rows."""
        return [expr.meta.output_name() for expr in self.exprs if not is_constant(expr)]

    def apply(self, frame: pl.DataFrame, changes: Changes) -> pl.DataFrame:
        if changes is not Changes.APPEND:
            return frame.select(*self.exprs, pl.col(CHANGE))
        if self._share_work and frame.height >= WORTH_PLANNING:
            return _planned(frame, frame.lazy().select(self.exprs))
        return frame.select_seq(self.exprs) if frame.height < SMALL_FRAME else frame.select(self.exprs)

    @cached_property
    def _share_work(self) -> bool:
        return share_work(self.exprs)

    def lazy(self, query: pl.LazyFrame) -> pl.LazyFrame:
        return query.select(self.exprs)

    def describe(self) -> str:
        return f"select {_spelled(self.exprs)}"


@dataclass(frozen=True, eq=False, kw_only=True)
class WithColumnsStep(RowStep):
    """All columns, some added or replaced."""

    verb: ClassVar[str] = "with_columns"
    exprs: tuple[pl.Expr, ...]

    def derive(self, input: StreamSchema) -> StreamSchema:
        made = {expr.meta.output_name() for expr in self.exprs}
        kept = {name: name for name in input.columns if name not in made}
        columns = pl.Schema({**input.columns, **self.made})
        return renamed(input, kept | plain_columns(self.exprs), columns)

    def reads(self, input: pl.Schema, needed: frozenset[str]) -> frozenset[str]:
        # A column that is replaced is read too, because it holds the place of the new one.
        return (needed & frozenset(input)) | columns_read_by(self.exprs)

    def pruned(self, needed: frozenset[str]) -> RowStep:
        return _keeping(self, needed)

    def apply(self, frame: pl.DataFrame, changes: Changes) -> pl.DataFrame:
        made = self._computed(frame)
        if changes is Changes.APPEND:
            return made
        columns = [name for name in made.columns if name != CHANGE]
        return columns_of(made, [*columns, CHANGE])  # which stays behind those that were added

    def _computed(self, frame: pl.DataFrame) -> pl.DataFrame:
        if self._share_work and frame.height >= WORTH_PLANNING:
            return _planned(frame, frame.lazy().with_columns(self.exprs))
        if frame.height < SMALL_FRAME:
            return frame.with_columns_seq(self.exprs)
        return frame.with_columns(self.exprs)

    @cached_property
    def _share_work(self) -> bool:
        return share_work(self.exprs)

    def lazy(self, query: pl.LazyFrame) -> pl.LazyFrame:
        return query.with_columns(self.exprs)

    def describe(self) -> str:
        return f"with_columns {_spelled(self.exprs)}"


@dataclass(frozen=True, eq=False, kw_only=True)
class FilterStep(RowStep):
    """The rows for which the predicate is true."""

    verb: ClassVar[str] = "filter"
    predicate: pl.Expr

    def derive(self, input: StreamSchema) -> StreamSchema:
        return replace(input, side_outputs={})

    def reads(self, input: pl.Schema, needed: frozenset[str]) -> frozenset[str]:
        return needed | columns_read(self.predicate)

    def apply(self, frame: pl.DataFrame, changes: Changes) -> pl.DataFrame:
        if changes is Changes.UPSERT:
            # A row that no longer passes may have passed before: downstream has to forget it.
            passes = (
                pl.when(self.predicate).then(pl.col(CHANGE)).otherwise(pl.lit(Change.DELETE.value, pl.Int8))
            )
            return frame.with_columns(passes.alias(CHANGE))
        if self.constant:  # Polars may fail on one value for a frame that it treats in parts
            return frame if pl.select(self.predicate).item() else frame.clear()
        if frame.height < SMALL_FRAME:
            return rows_where(frame, frame.select_seq(self.predicate).to_series())
        return frame.filter(self.predicate)

    @cached_property
    def constant(self) -> bool:
        """Whether it keeps all rows or none, whatever they are."""
        return is_constant(self.predicate)

    def lazy(self, query: pl.LazyFrame) -> pl.LazyFrame:
        return query.filter(self.predicate)

    def describe(self) -> str:
        return f"filter {_one_line(self.predicate)}"


@dataclass(frozen=True, eq=False, kw_only=True)
class ExplodeStep(RowStep):
    """One row for each item of the list columns."""

    verb: ClassVar[str] = "explode"
    columns: tuple[str, ...]

    def derive(self, input: StreamSchema) -> StreamSchema:
        return input.with_columns(pl.Schema({**input.columns, **self.made}))

    def reads(self, input: pl.Schema, needed: frozenset[str]) -> frozenset[str]:
        return needed | frozenset(self.columns)

    def apply(self, frame: pl.DataFrame, changes: Changes) -> pl.DataFrame:
        return frame.explode(self.columns)

    def lazy(self, query: pl.LazyFrame) -> pl.LazyFrame:
        return query.explode(self.columns)

    def describe(self) -> str:
        return f"explode {', '.join(self.columns)}"


@dataclass(frozen=True, eq=False, kw_only=True)
class UnnestStep(RowStep):
    """The fields of struct columns as columns of their own."""

    verb: ClassVar[str] = "unnest"
    columns: tuple[str, ...]

    def derive(self, input: StreamSchema) -> StreamSchema:
        # A field may have the name of its struct, and is only a part of the key that the struct was.
        key = () if set(input.key) & set(self.columns) else input.key
        return replace(input, key=key).with_columns(self.made)

    def apply(self, frame: pl.DataFrame, changes: Changes) -> pl.DataFrame:
        return frame.unnest(self.columns)

    def lazy(self, query: pl.LazyFrame) -> pl.LazyFrame:
        return query.unnest(self.columns)

    def describe(self) -> str:
        return f"unnest {', '.join(self.columns)}"


@dataclass(frozen=True, eq=False, kw_only=True)
class MapBatchesStep(RowStep):
    """A function of the user over whole frames; what it returns is checked against `made`."""

    verb: ClassVar[str] = "map_batches"
    function: Callable[[pl.DataFrame], pl.DataFrame]

    def derive(self, input: StreamSchema) -> StreamSchema:
        # The function may have changed any column, so nothing is known of time and key.
        return StreamSchema(self.made, bounded=input.bounded)

    def apply(self, frame: pl.DataFrame, changes: Changes) -> pl.DataFrame:
        result = self.function(frame.clone())  # a function that changes its frame changes nobody else's
        if not isinstance(result, pl.DataFrame):
            raise DataError(
                f"map_batches: {self.label} returned {type(result).__name__}, not a Polars DataFrame",
                self.where,
                "return the frame; for nothing return frame.clear()",
            )
        if result.schema != self.made:
            raise DataError(
                f"map_batches: {self.label} does not return what was promised: "
                f"{_difference(result.schema, self.made)}",
                self.where,
                "pass schema= with the columns and types the function returns",
            )
        return result

    @property
    def label(self) -> str:
        """The function's name as the user knows it."""
        return getattr(self.function, "__name__", type(self.function).__name__)

    def describe(self) -> str:
        return f"map_batches {self.label}"


def _planned(frame: pl.DataFrame, query: pl.LazyFrame) -> pl.DataFrame:
    return query.collect(
        optimizations=_SHARING, engine="in-memory" if frame.height < SMALL_FRAME else "streaming"
    )


def columns_read_by(exprs: Sequence[pl.Expr]) -> frozenset[str]:
    """All columns that some of these look at."""
    return frozenset().union(*(columns_read(expr) for expr in exprs))


def _keeping(step: SelectStep | WithColumnsStep, needed: frozenset[str]) -> RowStep:
    """The step with only the expressions whose output is needed."""
    exprs = tuple(expr for expr in step.exprs if expr.meta.output_name() in needed)
    if len(exprs) == len(step.exprs):
        return step
    made = pl.Schema({name: dtype for name, dtype in step.made.items() if name in needed})
    return replace(step, exprs=exprs, made=made)


def plain_columns(exprs: Sequence[pl.Expr]) -> dict[str, str]:
    """Output name to input name of the expressions that hand a column on unchanged."""
    plain: dict[str, str] = {}
    for expr in exprs:
        inner = expr.meta.undo_aliases()
        if inner.meta.is_column():
            plain[expr.meta.output_name()] = inner.meta.output_name()
    return plain


def renamed(input: StreamSchema, origin: Mapping[str, str], output: pl.Schema) -> StreamSchema:
    """Event time and key follow their columns to new names and are lost when a column was computed."""
    new_name = {old: new for new, old in reversed(list(origin.items()))}
    time = input.event_time
    if time is not None:
        time = replace(time, column=new_name[time.column]) if time.column in new_name else None
    key = tuple(new_name[name] for name in input.key) if all(name in new_name for name in input.key) else ()
    return StreamSchema(output, time, input.changes, key, input.bounded)


def _spelled(exprs: Sequence[pl.Expr]) -> str:
    return ", ".join(_one_line(expr) for expr in exprs)


def _one_line(expr: pl.Expr) -> str:
    text = " ".join(str(expr).split())
    return text if len(text) <= 100 else text[:97] + "..."


def _difference(given: pl.Schema, promised: pl.Schema) -> str:
    """The first few ways in which two schemas differ."""
    parts = [f"column {name!r} is missing" for name in promised if name not in given]
    parts += [f"column {name!r} is new" for name in given if name not in promised]
    both = [name for name in promised if name in given and given[name] != promised[name]]
    parts += [f"column {name!r} is {given[name]} instead of {promised[name]}" for name in both]
    return "; ".join(parts[:5]) or f"the columns come in another order: {some_of(given)}"
