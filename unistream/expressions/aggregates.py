"""An aggregation taken apart into what each batch adds, how that merges, and what is said in the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from unistream.expressions import aggregate_state as state
from unistream.expressions import expression_tree as tree
from unistream.expressions.aggregate_state import Distinct, Slots, Values
from unistream.expressions.aggregate_state import How as How
from unistream.expressions.chained_aggregates import may_be_chained, wants_floats
from unistream.expressions.expression_tree import Node, UnknownExpression
from unistream.expressions.no_rows import no_rows
from unistream.expressions.refusal import POLARS_ERRORS
from unistream.expressions.row_wise import is_constant, is_row_wise, keeps_rows


@dataclass(frozen=True, slots=True)
class StateColumn:
    """One column of the state of an aggregation.

    `how` says how a running aggregate may fold a new value `b` into `a` in place: "sum" adds (never null,
    integers wrap), "min" and "max" keep the lesser or greater (a null gives way, and so does NaN; False
    is less than True), "first" keeps `a`, "last" takes `b`, null or not. "frame" folds through `merge` only.
    `invertible` columns can also take a contribution back, by subtraction; sums of floats cannot, because of
    rounding and because nothing comes back from infinity or NaN.
    """

    name: str
    dtype: pl.DataType
    how: How
    nullable: bool
    invertible: bool
    keeps_values: bool


@dataclass(frozen=True, slots=True)
class Decomposition:
    """Three steps that together give what one `group_by(keys).agg(exprs)` over all rows gives.

    `rows.group_by(keys).agg(partial)` makes partial rows; `partials.group_by(keys).agg(merge)` turns several
    of a key into one, as often and in any grouping, as long as they stand in order of arrival;
    `partials.select(keys + finish)` gives the user's columns. Without keys all rows are one group, which each
    of the batches must have rows of.

    >>> found = decompose([pl.col("a").mean()], pl.Schema({"k": pl.String, "a": pl.Int64}), ["k"])
    >>> rows = pl.DataFrame({"k": ["x", "x", "x"], "a": [1, 2, 6]})
    >>> parts = [part.group_by("k").agg(found.partial) for part in (rows[:1], rows[1:])]
    >>> pl.concat(parts).group_by("k").agg(found.merge).select("k", *found.finish).to_dicts()
    [{'k': 'x', 'a': 3.0}]
    """

    columns: tuple[StateColumn, ...]
    partial: tuple[pl.Expr, ...]
    merge: tuple[pl.Expr, ...]
    finish: tuple[pl.Expr, ...]
    distinct: tuple[Distinct, ...] = ()
    """What has to be marked in the rows beforehand, if that was asked for."""

    @property
    def marks(self) -> pl.Schema:
        """The marks that rows must have."""
        return pl.Schema({distinct.mark: pl.Int64() for distinct in self.distinct})

    @property
    def state_schema(self) -> pl.Schema:
        """The state columns, which partial rows have beside the keys."""
        return pl.Schema({column.name: column.dtype for column in self.columns})

    @property
    def invertible(self) -> bool:
        """Whether rows can be taken back without looking at the others."""
        return all(column.invertible for column in self.columns)

    @property
    def kept_values(self) -> tuple[str, ...]:
        """State columns that grow with the values of a group."""
        return tuple(column.name for column in self.columns if column.keeps_values)


@dataclass(frozen=True, slots=True)
class Holistic:
    """Why an aggregation needs all rows of a group at once, and for the sake of which expression."""

    expression: str
    reason: str

    def __str__(self) -> str:
        return f"`{self.expression}` {self.reason}"


class _NeedsAllRows(Exception):
    def __init__(self, node: Node, reason: str) -> None:
        super().__init__(reason)
        self.node, self.reason = node, reason


def decompose(
    exprs: Sequence[pl.Expr],
    schema: pl.Schema,
    keys: Sequence[str] = (),
    *,
    marked: bool = False,
    retracting: bool = False,
) -> Decomposition | Holistic:
    """Take `exprs` (from `expand`, over `schema`, grouped by `keys`) apart, if all of them can be.

    If rows tell how many new values they bring (`marked`), distinct values are counted; else they are kept.
    If contributions will be taken back (`retracting`), means of whole numbers are kept so that they can be.

    >>> print(decompose([pl.col("a").cum_sum().rank().max()], pl.Schema({"a": pl.Int64})))
    `col("a").cum_sum().rank().max()` needs all rows of a group at once
    """
    work = _Work(schema, keys, marked=marked, retracting=retracting)
    finish = []
    for expr in exprs:
        try:
            finish.append(work.output(expr))
        except UnknownExpression as error:
            return Holistic(str(expr), f"cannot be read: {error}")
        except _NeedsAllRows as error:
            return Holistic(_words(error.node), error.reason)
    return work.finished(finish)


class _Work:
    """One decomposition in the making."""

    def __init__(self, schema: pl.Schema, keys: Sequence[str], *, marked: bool, retracting: bool) -> None:
        self.schema = schema
        self.keys = list(keys)
        self.marked = marked
        prefix = "__s"
        while any(name.startswith(prefix) for name in schema):
            prefix += "_"
        self.slots = Slots(prefix, retracting)

    def output(self, expr: pl.Expr) -> pl.Expr:
        """The expression over state columns that gives what `expr` gives over rows."""
        name, dtype = next(iter(self._types([expr]).items()))
        node = tree.without_alias(tree.to_node(expr))
        values = self._values(node)
        if values is None:
            return tree.to_expr(self._final(node)).cast(dtype).alias(name)
        return state.kept(self.slots, values).cast(dtype).alias(name)  # a bare column gathers its values

    def finished(self, finish: list[pl.Expr]) -> Decomposition:
        slots = list(self.slots.found.values())
        partial = [slot.partial.alias(slot.name) for slot in slots]
        types = self._types(partial)
        columns = [
            StateColumn(
                slot.name,
                types[slot.name],
                slot.how,
                slot.nullable,
                slot.how == "sum" and slot.exact,
                slot.keeps_values,
            )
            for slot in slots
        ]
        merge = [slot.merge.cast(types[slot.name]).alias(slot.name) for slot in slots]
        distinct = tuple(self.slots.marked.values())
        return Decomposition(tuple(columns), tuple(partial), tuple(merge), tuple(finish), distinct)

    def _types(self, exprs: Sequence[pl.Expr]) -> pl.Schema:
        marks = dict.fromkeys(self.slots.marked, pl.Int64())
        frame = no_rows(pl.Schema({**self.schema, **marks}))
        key = [pl.col(name) for name in self.keys] or [pl.lit(0).alias(f"{self.slots.prefix}key")]
        types = frame.group_by(key).agg(exprs).collect_schema()
        return pl.Schema(list(types.items())[len(key) :])

    def _final(self, node: Node) -> Node:
        """The node over state columns; everything in it must come down to aggregates and constants."""
        kind = tree.kind(node)
        if kind == "Literal" and tree.is_scalar_literal(node):
            return node
        found = self._aggregate(node)
        if found is not None:
            return self._typed(node, found)
        if kind in ("Column", "Selector") or not keeps_rows(node, self.schema):
            raise _NeedsAllRows(node, "needs all rows of a group at once")
        return tree.with_children(node, [self._final(child) for child in tree.children(node)])

    def _typed(self, node: Node, found: pl.Expr) -> Node:
        """The aggregate's place taken by `found`, with the very name and type it had."""
        expr = tree.to_expr(node)
        ((_, dtype),) = self._types([expr.alias(f"{self.slots.prefix}node")]).items()
        return tree.to_node(found.cast(dtype).alias(expr.meta.output_name()))

    def _aggregate(self, node: Node) -> pl.Expr | None:
        """The aggregate that `node` is, from state columns; None when it is none that is known."""
        found: pl.Expr | None = None
        match tree.kind(node):
            case "Len":
                return state.rows(self.slots)
            case "Agg":
                found = self._plain_aggregate(node)
            case "Function":
                found = self._function_aggregate(node)
        return self._chained(node) if found is None else found

    def _plain_aggregate(self, node: Node) -> pl.Expr | None:
        name, inside, options = tree.aggregation(node)
        if name in ("First", "Last") and tree.kind(inside) == "SortBy":
            return self._first_in_order(inside, last=name == "Last")
        values = self._values(inside)
        if values is None:
            return None
        slots, last = self.slots, name.startswith("Last")
        match name:
            case "Sum":
                return state.total(slots, values)
            case "Mean":
                return state.mean(slots, values)
            case "Var":
                return state.variance(slots, values, options["ddof"])
            case "Std":
                return state.deviation(slots, values, options["ddof"])
            case "Min" | "Max":
                nans = options["propagate_nans"]
                return state.extreme(slots, values, largest=name == "Max", propagate_nans=nans)
            case "Count":
                counted = state.length if options["include_nulls"] else state.count
                return counted(slots, values)
            case "First" | "Last":
                return state.edge(slots, values, last=last)
            case "FirstNonNull" | "LastNonNull":
                return state.edge_not_null(slots, values, last=last)
            case "NUnique":
                if self.marked:
                    return state.distinct_count(slots, values)
                return state.distinct(slots, values).list.len()
            case "Implode":
                return state.kept(slots, values)
        return None

    def _function_aggregate(self, node: Node) -> pl.Expr | None:
        name, options = tree.function_name(node), tree.function_options(node)
        inputs = [self._values(child) for child in tree.children(node)]
        if not inputs or any(values is None for values in inputs):
            return None
        values = inputs[0]
        assert values is not None
        slots = self.slots
        match name:
            case ("MinBy",) | ("MaxBy",):
                key = inputs[1]
                assert key is not None
                if not _same(values.where, key.where):
                    return None
                return state.by_key(slots, values, key, largest=name == ("MaxBy",))
            case ("ArgMin",) | ("ArgMax",):
                return state.position(slots, values, largest=name == ("ArgMax",))
            case ("Boolean", "Any"):
                return state.any_true(slots, values, ignore_nulls=options["ignore_nulls"])
            case ("Boolean", "All"):
                return state.all_true(slots, values, ignore_nulls=options["ignore_nulls"])
            case ("Boolean", "HasNulls"):
                return state.has_nulls(slots, values)
            case ("NullCount",):
                return state.null_count(slots, values)
            case ("Product",):
                return state.product(slots, values)
            case ("Bitwise", operation):
                return state.bitwise(slots, values, operation)
        return None

    def _first_in_order(self, node: Node, *, last: bool) -> pl.Expr | None:
        values, *keys = [self._values(child) for child in tree.children(node)]
        options = tree.sort_options(node)
        if values is None or options is None:
            return None
        known = [key for key in keys if key is not None and _same(key.where, values.where)]
        if len(known) != len(keys):
            return None
        descending, nulls_last = (_broadcast(flags, len(keys)) for flags in options)
        return state.by_order(self.slots, values, known, descending, nulls_last, last=last)

    def _values(self, node: Node) -> Values | None:
        """The node as row-wise values of some rows, or None when it is something else."""
        try:
            found = self._filtered(node)
        except UnknownExpression:
            return None
        if found is None:
            return None
        expr, where = found
        if is_constant(expr):
            return None
        dtype = no_rows(self.schema).select(expr).collect_schema().dtypes()[0]
        return Values(expr, where, dtype)

    def _filtered(self, node: Node) -> tuple[pl.Expr, pl.Expr | None] | None:
        expr = tree.to_expr(node)
        if is_row_wise(expr, self.schema):
            return expr, None
        if tree.kind(node) == "Filter":
            inside, by = tree.children(node)
            below, condition = self._filtered(inside), tree.to_expr(by)
            if below is None or below[1] is not None or not is_row_wise(condition, self.schema):
                return None
            return None if is_constant(condition) else (below[0], condition)
        if tree.kind(node) == "Function" and tree.function_name(node) in (("DropNulls",), ("DropNans",)):
            return self._dropped(node)
        if keeps_rows(node, self.schema):
            return self._row_wise_over_filtered(node)
        return None

    def _dropped(self, node: Node) -> tuple[pl.Expr, pl.Expr | None] | None:
        below = self._filtered(tree.children(node)[0])
        if below is None:
            return None
        expr, where = below
        nulls = tree.function_name(node) == ("DropNulls",)
        present = expr.is_not_null() if nulls else expr.is_not_nan().fill_null(True)
        return expr, present if where is None else where & present

    def _row_wise_over_filtered(self, node: Node) -> tuple[pl.Expr, pl.Expr | None] | None:
        """`(a.filter(p) * b.filter(p) + 1)` is `(a * b + 1).filter(p)`."""
        children = tree.children(node)
        parts = [
            None if is_constant(tree.to_expr(child)) else self._filtered(child) or _unknown(child)
            for child in children
        ]
        known = [part for part in parts if part is not None]
        if not known or any(not _same(part[1], known[0][1]) for part in known):
            return None
        inputs = [
            child if part is None else tree.to_node(part[0])
            for child, part in zip(children, parts, strict=True)
        ]
        return tree.to_expr(tree.with_children(node, inputs)), known[0][1]

    def _chained(self, node: Node) -> pl.Expr | None:
        """Steps over one column's values, which are kept in a list: medians, quantiles, the three largest."""
        found: list[Values] = []

        def over_elements(part: Node) -> Node | None:
            values = self._values(part)
            if values is not None:
                found.append(values)
                return "Element"
            if not may_be_chained(part) and not keeps_rows(part, self.schema):
                raise UnknownExpression("not a chain")
            if keeps_rows(part, self.schema) and tree.kind(part) in ("Column", "Selector"):
                raise UnknownExpression("not a chain")
            return None

        if not may_be_chained(node) or self._is_refused(node):
            return None
        try:
            evaluation = tree.in_order(tree.transform(node, over_elements))
        except UnknownExpression:
            return None
        if len(found) != 1:
            return None
        values = found[0]
        if any(tree.kind(part) == "Function" and wants_floats(part) for part in tree.nodes(node)):
            values = values.turned(values.expr.cast(pl.Float64))
        lists = state.kept(self.slots, values)
        scalar = tree.to_expr(node).meta.is_scalar()
        return tree.to_expr(tree.list_eval(tree.to_node(lists), evaluation, aggregates=scalar))

    def _is_refused(self, node: Node) -> bool:
        """Whether it is a plain aggregate that the state kernels would not have, such as a sum of dates."""
        if tree.kind(node) == "Agg":
            name, inside, _ = tree.aggregation(node)
            return name != "Median" and self._values(inside) is not None
        return tree.function_name(node) == ("Product",) if tree.kind(node) == "Function" else False


def _unknown(node: Node) -> tuple[pl.Expr, pl.Expr | None]:
    raise UnknownExpression(f"{tree.kind(node)} is no value of a row")


def _same(one: pl.Expr | None, other: pl.Expr | None) -> bool:
    if one is None or other is None:
        return one is other
    return one.meta.serialize() == other.meta.serialize()


def _broadcast(flags: Sequence[bool], width: int) -> list[bool]:
    return list(flags) if len(flags) == width else list(flags) * width


def _words(node: Node) -> str:
    try:
        return str(tree.to_expr(node))
    except POLARS_ERRORS:
        return tree.kind(node)
