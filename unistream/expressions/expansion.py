"""What users pass to a verb, turned into expressions that each give one column of a known name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import polars as pl

from unistream.causes import first_words
from unistream.errors import InvalidQuery
from unistream.expressions import expression_tree as tree
from unistream.expressions.expression_tree import Node, UnknownExpression
from unistream.expressions.no_rows import no_rows
from unistream.expressions.refusal import POLARS_ERRORS, refusal


def expand(
    exprs: Iterable[Any],
    named: Mapping[str, Any],
    schema: pl.Schema,
    step: str,
    where: str | None = None,
    keys: Sequence[str] = (),
) -> list[pl.Expr]:
    """The expressions that `exprs` and `named` stand for, one output each, named by an alias.

    Takes what Polars takes: names, expressions, lists of them, selectors, `pl.all()`, literals. `step` is the
    verb, for messages. `keys` are the columns a group is made by, which selectors leave out.

    >>> schema = pl.Schema({"a": pl.Int64, "b": pl.Float64})
    >>> for expr in expand(["a", pl.all().name.suffix("_x")], {"one": 1}, schema, "select"):
    ...     print(expr)
    col("a").alias("a")
    col("a").alias("a_x")
    col("b").alias("b_x")
    dyn int: 1.alias("one")
    """
    scope = _Scope(schema, step, where, tuple(keys))
    expanded = [one for expr in _parse(exprs, named, scope) for one in scope.expand(expr)]
    seen: set[str] = set()
    for expr in expanded:
        name = expr.meta.output_name()
        if name in seen:
            hint = f"name one of them otherwise, as in `.alias({name + '_2'!r})` or `{name}_2=...`"
            raise InvalidQuery(f"Two outputs of {step} are called {name!r}", where, hint)
        seen.add(name)
    return expanded


def predicate(
    predicates: Iterable[Any],
    constraints: Mapping[str, Any],
    schema: pl.Schema,
    step: str = "filter",
    where: str | None = None,
) -> pl.Expr:
    """The one Boolean expression that `filter(*predicates, **constraints)` means: all of them.

    >>> schema = pl.Schema({"a": pl.Int64, "b": pl.String})
    >>> str(predicate([pl.col("a") > 1], {"b": "x"}, schema))
    '[([(col("a")) > (dyn int: 1)]) & ([(col("b")) == ("x")])]'
    """
    scope = _Scope(schema, step, where, ())
    predicates = list(predicates)
    _refuse_mask(predicates, scope)
    given = _parse(predicates, {}, scope)
    given += [_literal(name, value, scope) for name, value in constraints.items()]
    if not given:
        raise InvalidQuery(f"{step} needs at least one predicate", where, "as in `filter(pl.col('a') > 0)`")
    parts = []
    for expr in given:
        expanded = scope.expand(expr)
        if len(expanded) != 1:
            hint = "say which is meant with `pl.all_horizontal(...)` or `pl.any_horizontal(...)`"
            raise InvalidQuery(f"`{expr}` in {step} stands for {len(expanded)} columns", where, hint)
        parts.append(_without_alias(expanded[0]))
    whole = parts[0]
    for part in parts[1:]:
        whole = whole & part
    return whole


class _Scope:
    """Where an expression stands: the columns it may read, and how to complain."""

    def __init__(self, schema: pl.Schema, step: str, where: str | None, keys: tuple[str, ...]) -> None:
        self.schema, self.step, self.where, self.keys = schema, step, where, keys
        self._frame = no_rows(schema)
        self._selectable = self._frame.drop(keys, strict=False)

    def outputs(self, exprs: Sequence[pl.Expr]) -> pl.Schema:
        try:
            return self._frame.select(exprs).collect_schema()
        except POLARS_ERRORS as error:
            raise refusal(error, self.schema, self.step, self.where) from error

    def expand(self, expr: pl.Expr) -> list[pl.Expr]:
        try:
            node = tree.to_node(expr)
            if tree.resolves_late(node):
                hint = "write the expression out; the types are in the `schema` of the stream"
                raise InvalidQuery(f"{self.step} cannot see through `pipe_with_dtype`", self.where, hint)
            parts = [tree.to_expr(tree.without_alias(part)) for part in self._expand(node)]
        except UnknownExpression:
            return self._as_it_is(expr)
        names = self._output_names(expr)
        if len(names) != len(parts):
            return self._as_it_is(expr)
        named = [part.alias(name) for part, name in zip(parts, names, strict=True)]
        if named:
            self.outputs(named)
        return named

    def _output_names(self, expr: pl.Expr) -> list[str]:
        if not self.keys:
            return self.outputs([expr]).names()
        try:
            grouped = self._frame.group_by(self.keys).agg(expr).collect_schema()
        except pl.exceptions.DuplicateError as error:
            hint = "leave it out: keys are in the result anyway; or name it otherwise with `.alias(...)`"
            message = f"`{expr}` in {self.step} has the name of a key"
            raise InvalidQuery(message, self.where, hint) from error
        except POLARS_ERRORS as error:
            raise refusal(error, self.schema, self.step, self.where) from error
        return grouped.names()[len(self.keys) :]

    def _as_it_is(self, expr: pl.Expr) -> list[pl.Expr]:
        names = self.outputs([expr]).names()
        if len(names) == 1:
            return [expr if _ends_in_alias(expr, names[0]) else expr.alias(names[0])]
        hint = f"write one expression for each of {names}"
        raise InvalidQuery(f"`{expr}` in {self.step} cannot be taken apart", self.where, hint)

    def _expand(self, node: Node) -> list[Node]:
        """One node per output; naming is dropped on the way, names are known from Polars."""
        match tree.kind(node):
            case "Selector":
                return [tree.column(name) for name in self._select(tree.to_expr(node))]
            case "Alias" | "KeepName" | "RenameAlias":
                return self._expand_naming(node)
            case "Function" if tree.function_name(node)[:2] == ("StructExpr", "SelectFields"):
                return self._expand_fields(node)
        inputs = tree.children(node)
        if not inputs:
            return [node]
        choices = [self._expand(child) for child in inputs]
        if all(len(choice) == 1 for choice in choices):
            return [tree.with_children(node, [choice[0] for choice in choices])]
        if tree.kind(node) == "Function" and len(self._inner_outputs(node)) == 1:
            return [tree.with_inputs(node, [one for choice in choices for one in choice])]
        width = max(len(choice) for choice in choices)
        if any(len(choice) not in (1, width) for choice in choices):
            raise UnknownExpression("selectors of different width")
        rows = [[choice[at if len(choice) > 1 else 0] for choice in choices] for at in range(width)]
        return [tree.with_children(node, row) for row in rows]

    def _expand_naming(self, node: Node) -> list[Node]:
        """A name below other nodes may matter (a field of a struct), so it stays as a plain alias."""
        (child,) = tree.children(node)
        parts = self._expand(child)
        names = [tree.body(node)[1]] if tree.kind(node) == "Alias" else self._inner_outputs(node)
        names = names * len(parts) if len(names) == 1 else names
        if len(names) != len(parts):
            raise UnknownExpression("a name for several columns")
        return [{"Alias": [part, name]} for part, name in zip(parts, names, strict=True)]

    def _expand_fields(self, node: Node) -> list[Node]:
        (child,) = tree.children(node)
        names = self._inner_outputs(node)
        (whole,) = self._expand(child)
        return [tree.to_node(tree.to_expr(whole).struct.field(name)) for name in names]

    def _select(self, selector: pl.Expr) -> list[str]:
        """The columns a selector means: never keys, unless it names them."""
        return self._inner_outputs(tree.to_node(selector))

    def _inner_outputs(self, node: Node) -> list[str]:
        try:
            return self._selectable.select(tree.to_expr(node)).collect_schema().names()
        except POLARS_ERRORS:
            return self.outputs([tree.to_expr(node)]).names()


def _parse(exprs: Iterable[Any], named: Mapping[str, Any], scope: _Scope) -> list[pl.Expr]:
    given = list(exprs) if _is_list(exprs) else [exprs]
    if len(given) == 1 and isinstance(given[0], Mapping):
        hint = _unpacked(given[0], scope.step)
        raise InvalidQuery(f"{scope.step} was given a dictionary", scope.where, hint)
    if len(given) == 1 and _is_list(given[0]):
        given = list(given[0])
    positional = [_into_expr(value, scope) for value in given]
    return positional + [_into_expr(value, scope).alias(name) for name, value in named.items()]


def _unpacked(mapping: Mapping[Any, Any], step: str) -> str:
    """How to write a dictionary of results by name, or one of aggregates by column as in pandas."""
    column, value = next(iter(mapping.items()), (None, None))
    if step == "agg" and isinstance(value, (str, list, tuple)):
        name = column if isinstance(column, str) and column.isidentifier() else "result"
        word = value if isinstance(value, str) else next(iter(value), None)
        aggregate = word if isinstance(word, str) and hasattr(pl.Expr, word) else "sum"
        return f"name each result, as in `agg({name}=pl.col({column!r}).{aggregate}())`"
    return f"unpack it: `{step}(**mapping)`, or `{step}(*mapping)` for the keys"


def _is_list(value: Any) -> bool:
    return isinstance(value, Iterable) and not isinstance(
        value, (str, bytes, pl.Series, pl.DataFrame, pl.Expr)
    )


def _into_expr(value: Any, scope: _Scope) -> pl.Expr:
    if isinstance(value, pl.Expr):
        # a selector is an expression that would go on selecting (`|` is union): here it is done
        return value.as_expr() if isinstance(value, pl.selectors.Selector) else value
    if isinstance(value, str):
        return pl.col(value)
    if isinstance(value, (pl.DataFrame, pl.LazyFrame)) or callable(value):
        hint = "pass column names or Polars expressions such as `pl.col('a') * 2`"
        raise InvalidQuery(f"{scope.step} cannot use a {type(value).__name__}", scope.where, hint)
    try:
        return pl.lit(value)
    except (TypeError, ValueError, *POLARS_ERRORS) as error:
        hint = "pass column names or Polars expressions such as `pl.col('a') * 2`"
        message = f"{scope.step} cannot use a {type(value).__name__}: {first_words(error)}"
        raise InvalidQuery(message, scope.where, hint) from error


def _literal(name: str, value: Any, scope: _Scope) -> pl.Expr:
    if name not in scope.schema:
        raise InvalidQuery.from_missing_column(name, scope.schema, scope.step, scope.where)
    return pl.col(name) == (value if isinstance(value, pl.Expr) else pl.lit(value))


def _ends_in_alias(expr: pl.Expr, name: str) -> bool:
    try:
        return tree.kind(tree.to_node(expr)) == "Alias" and expr.meta.output_name() == name
    except UnknownExpression:
        return False


def _without_alias(expr: pl.Expr) -> pl.Expr:
    try:
        return tree.to_expr(tree.without_alias(tree.to_node(expr)))
    except UnknownExpression:
        return expr


def _refuse_mask(given: Iterable[Any], scope: _Scope) -> None:
    for value in given:
        listed = list(value) if isinstance(value, (list, tuple, pl.Series)) else []
        if isinstance(value, pl.Series) or (listed and all(isinstance(item, bool) for item in listed)):
            hint = "compute it from the columns of each row, as in `filter(pl.col('a') > 0)`"
            raise InvalidQuery(f"{scope.step} of a stream cannot use a mask", scope.where, hint)
