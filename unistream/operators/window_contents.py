"""What is kept of a window's rows until it closes, and what is made of them then."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import polars as pl

from unistream.errors import DataError
from unistream.expressions import expression_tree as tree
from unistream.expressions.aggregates import Decomposition, Holistic, decompose
from unistream.expressions.analysis import columns_read, output_schema
from unistream.of_columns import beside
from unistream.operators.key_packing import PackedKeys, aggregated
from unistream.operators.run_reducer import RunReducer

By = Sequence[str]
"""The columns that tell groups apart: keys, and the pane or the window."""

Function = Callable[[pl.DataFrame], pl.DataFrame]


class Contents(ABC):
    """Three steps over frames whose groups are told apart by columns `by`.

    `fold` condenses rows, `merge` puts condensed parts (in order of arrival) together so that each group
    has one part, `finish` makes the columns of `result` from merged parts. Where `condenses` is false rows
    are kept as they are, and only `finish` is told apart from handing them on.
    """

    result: pl.Schema
    stored: pl.Schema
    """What is kept beside the columns that tell groups apart."""
    condenses = True
    one_row = False
    """Whether a part is always one row."""

    @abstractmethod
    def fold(self, rows: pl.DataFrame, by: By) -> pl.DataFrame:
        """Parts of the groups in these rows."""

    @abstractmethod
    def merge(self, parts: pl.DataFrame, by: By) -> pl.DataFrame:
        """One part per group."""

    @abstractmethod
    def finish(self, parts: pl.DataFrame, by: By) -> pl.DataFrame:
        """Columns `by` and `result`."""

    def last_sequence(self, parts: pl.DataFrame) -> int:
        """The last in order of arrival of the rows that parts keep; -1 when they keep none, or no order."""
        return -1


@dataclass(frozen=True, slots=True)
class Calculation(ABC):
    """What a user asks of each window: frozen, so that it can travel in a spec. `reads` are its columns."""

    reads: frozenset[str]

    @abstractmethod
    def result(self, columns: pl.Schema, keys: Sequence[str], where: str | None) -> pl.Schema:
        """Columns that it makes."""

    @abstractmethod
    def contents(
        self, columns: pl.Schema, keys: Sequence[str], where: str | None, *, overlapping: bool = False
    ) -> Contents:
        """What keeps and computes it over rows of these columns.

        Where windows overlap, parts of a window do not stand in order of arrival.
        """

    @property
    @abstractmethod
    def text(self) -> str:
        """For `explain`."""

    def kept(self, columns: pl.Schema, keys: Sequence[str], *, overlapping: bool = False) -> str:
        """For `explain`: what is kept of the rows."""
        return "all rows until the window closes"


@dataclass(frozen=True, slots=True)
class Aggregation(Calculation):
    """Expressions that give one row per group."""

    exprs: tuple[pl.Expr, ...]

    @classmethod
    def of(cls, exprs: Sequence[pl.Expr]) -> Aggregation:
        """From expanded expressions."""
        reads = frozenset[str]().union(*(columns_read(expr) for expr in exprs))
        return cls(reads, tuple(exprs))

    def result(self, columns: pl.Schema, keys: Sequence[str], where: str | None) -> pl.Schema:
        made = output_schema("agg", self.exprs, columns, "agg", where, [*keys] or [pl.lit(0).alias("__all")])
        return pl.Schema(list(made.items())[max(1, len(keys)) :])

    def _decomposed(self, columns: pl.Schema, keys: Sequence[str]) -> Decomposition | Holistic:
        found = decompose(self.exprs, columns, keys)
        if isinstance(found, Decomposition) and found.kept_values:
            expr = next(expr for expr in self.exprs if _keeps_values(expr, columns, keys))
            return Holistic(" ".join(str(expr).split()), "needs every value")
        return found

    def contents(
        self, columns: pl.Schema, keys: Sequence[str], where: str | None, *, overlapping: bool = False
    ) -> Contents:
        result = self.result(columns, keys, where)
        found = self._decomposed(columns, keys)
        if isinstance(found, Decomposition) and not (overlapping and _asks_for_order(found)):
            return FoldedContents(found, result, columns)
        return BufferedContents(self.exprs, result, _narrow(columns, self.reads, keys))

    @property
    def text(self) -> str:
        return ", ".join(" ".join(str(expr).split()) for expr in self.exprs)

    def kept(self, columns: pl.Schema, keys: Sequence[str], *, overlapping: bool = False) -> str:
        found = self._decomposed(columns, keys)
        why = f"of {found}"
        if isinstance(found, Decomposition):
            if not (overlapping and _asks_for_order(found)):
                return f"{len(found.columns)} running values per key and window"
            why = "the order of arrival matters and windows overlap"
        return f"columns {', '.join(sorted(self.reads)) or 'none'} of all rows, because {why}"


@dataclass(frozen=True, slots=True)
class Top(Calculation):
    """The `n` rows of each group that come first by some expressions, greatest first unless `reverse`."""

    n: int
    by: tuple[pl.Expr, ...]
    reverse: tuple[bool, ...]

    def result(self, columns: pl.Schema, keys: Sequence[str], where: str | None) -> pl.Schema:
        return pl.Schema({name: dtype for name, dtype in columns.items() if name not in keys})

    def contents(
        self, columns: pl.Schema, keys: Sequence[str], where: str | None, *, overlapping: bool = False
    ) -> Contents:
        reads_keys = not columns_read(pl.struct(self.by)).isdisjoint(keys)
        ranks = output_schema("select", self.by, columns, "top_k", where).dtypes() if reads_keys else []
        return TopContents(self, self.result(columns, keys, where), ranks)

    @property
    def text(self) -> str:
        return f"top {self.n} by {', '.join(str(expr) for expr in self.by)}"

    def kept(self, columns: pl.Schema, keys: Sequence[str], *, overlapping: bool = False) -> str:
        return f"{self.n} rows per key and window"


@dataclass(frozen=True, slots=True)
class Application(Calculation):
    """A function of the user over the rows of each group."""

    function: Function
    made: pl.Schema
    where: str | None

    def result(self, columns: pl.Schema, keys: Sequence[str], where: str | None) -> pl.Schema:
        return self.made

    def contents(
        self, columns: pl.Schema, keys: Sequence[str], where: str | None, *, overlapping: bool = False
    ) -> Contents:
        return AppliedContents(self, columns, _narrow(columns, frozenset(columns), keys))

    @property
    def text(self) -> str:
        return f"apply {getattr(self.function, '__name__', type(self.function).__name__)}"


def _keeps_values(expr: pl.Expr, columns: pl.Schema, keys: Sequence[str]) -> bool:
    found = decompose([expr], columns, keys)
    return isinstance(found, Holistic) or bool(found.kept_values)


def _asks_for_order(parts: Decomposition) -> bool:
    """Whether merging the parts of a group in another order may give something else."""
    if any(column.how in ("first", "last") for column in parts.columns):
        return True
    nodes = [node for expr in parts.merge for node in tree.nodes(tree.to_node(expr))]
    return any(_takes_first(node) for node in nodes)


def _takes_first(node: tree.Node) -> bool:
    match tree.kind(node):
        case "Agg":
            return tree.aggregation(node)[0] in ("First", "Last", "FirstNonNull", "LastNonNull", "Implode")
        case "Function":
            return tree.function_name(node)[0] in ("MinBy", "MaxBy", "CumSum", "ArgMin", "ArgMax")
    return tree.kind(node) == "SortBy"


def _narrow(columns: pl.Schema, needed: frozenset[str], keys: Sequence[str]) -> pl.Schema:
    return pl.Schema({name: dtype for name, dtype in columns.items() if name in needed and name not in keys})


class FoldedContents(Contents):
    """Aggregates that are kept as a few values per group."""

    one_row = True

    def __init__(self, parts: Decomposition, result: pl.Schema, columns: pl.Schema) -> None:
        self.parts = parts
        self.result = result
        self.stored = parts.state_schema
        self._folds = RunReducer.of(parts, columns)
        self._merges = RunReducer.merging(parts)

    def fold(self, rows: pl.DataFrame, by: By) -> pl.DataFrame:
        # Order is kept so that the same input gives the same bytes.
        found = _reduced(rows, by, self._folds)
        return rows.group_by(by, maintain_order=True).agg(self.parts.partial) if found is None else found

    def merge(self, parts: pl.DataFrame, by: By) -> pl.DataFrame:
        found = _reduced(parts, by, self._merges)
        return parts.group_by(by, maintain_order=True).agg(self.parts.merge) if found is None else found

    def finish(self, parts: pl.DataFrame, by: By) -> pl.DataFrame:
        return parts.select(*by, *self.parts.finish)


def _reduced(rows: pl.DataFrame, by: By, reducer: RunReducer | None) -> pl.DataFrame | None:
    """One row per group, in order of the groups; None where that is better asked of `group_by`."""
    if reducer is None:
        return None
    keys = PackedKeys.of(rows, by)
    values = reducer.values_of(rows) if keys is not None else None
    if keys is None or values is None:
        return None
    order, first, groups = keys.runs()
    made = reducer.reduce(values, order, first)
    return beside(groups, made)


class BufferedContents(Contents):
    """Aggregates that want all rows at once: those are kept and handed to Polars in the end."""

    condenses = False

    def __init__(self, exprs: Sequence[pl.Expr], result: pl.Schema, stored: pl.Schema) -> None:
        self.exprs = exprs
        self.result = result
        self.stored = stored

    def fold(self, rows: pl.DataFrame, by: By) -> pl.DataFrame:
        return rows

    def merge(self, parts: pl.DataFrame, by: By) -> pl.DataFrame:
        return parts

    def finish(self, parts: pl.DataFrame, by: By) -> pl.DataFrame:
        return aggregated(parts, by, self.exprs)


class TopContents(Contents):
    """The best rows so far of each group; among equals those that came first."""

    def __init__(self, asked: Top, result: pl.Schema, ranks: Sequence[pl.DataType]) -> None:
        """`ranks`: the types of what rows go by, where that is kept as parts may come without their keys."""
        self._asked = asked
        self.result = result
        self._ranks = pl.Schema({f"__rank{at}": dtype for at, dtype in enumerate(ranks)})
        self.stored = pl.Schema({**result, **self._ranks})

    def fold(self, rows: pl.DataFrame, by: By) -> pl.DataFrame:
        if self._ranks:
            given = zip(self._ranks, self._asked.by, strict=True)
            rows = rows.with_columns(expr.alias(name) for name, expr in given)
        return self._best(rows, by)

    def _best(self, rows: pl.DataFrame, by: By) -> pl.DataFrame:
        asked = self._asked
        ranks = list(self._ranks) or asked.by
        descending = [not reverse for reverse in asked.reverse]
        ordered = rows.sort(ranks, descending=descending, nulls_last=True, maintain_order=True)
        return ordered.group_by(by, maintain_order=True).head(asked.n)

    def merge(self, parts: pl.DataFrame, by: By) -> pl.DataFrame:
        return self._best(parts, by)

    def finish(self, parts: pl.DataFrame, by: By) -> pl.DataFrame:
        return parts.select(*by, *(name for name in self.result if name not in by))


class AppliedContents(Contents):
    """Rows are kept and handed to the user's function, one group after the other."""

    condenses = False

    def __init__(self, asked: Application, columns: pl.Schema, stored: pl.Schema) -> None:
        self._asked = asked
        self._columns = columns.names()
        self.result = asked.made
        self.stored = stored

    def fold(self, rows: pl.DataFrame, by: By) -> pl.DataFrame:
        return rows

    def merge(self, parts: pl.DataFrame, by: By) -> pl.DataFrame:
        return parts

    def finish(self, parts: pl.DataFrame, by: By) -> pl.DataFrame:
        if not parts.height:
            return self._nothing(parts, by)
        return pl.concat([self._called(group, by) for group in parts.partition_by(by, maintain_order=True)])

    def _nothing(self, parts: pl.DataFrame, by: By) -> pl.DataFrame:
        own = {name: dtype for name, dtype in self.result.items() if name not in by}
        return pl.DataFrame(schema={**{name: parts.schema[name] for name in by}, **own})

    def _called(self, group: pl.DataFrame, by: By) -> pl.DataFrame:
        asked = self._asked
        made = asked.function(group.select(self._columns))
        label = asked.text
        if not isinstance(made, pl.DataFrame):
            raise DataError(
                f"{label}: returned {type(made).__name__}, not a Polars DataFrame",
                asked.where,
                "return a frame; for nothing return frame.clear()",
            )
        if made.schema != asked.made:
            raise DataError(
                f"{label}: returned columns {dict(made.schema)}, promised {dict(asked.made)}",
                asked.where,
                "pass schema= with the columns and types the function returns",
            )
        own = made.select(name for name in made.columns if name not in by)
        same = group.select(by).head(1)
        return pl.concat([same[[0] * made.height], own], how="horizontal")
