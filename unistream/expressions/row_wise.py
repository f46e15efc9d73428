"""Whether an expression gives the same rows whichever way its input is cut."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Literal

import polars as pl

from unistream.expressions import expression_tree as tree
from unistream.expressions.expression_tree import Node, UnknownExpression
from unistream.expressions.no_rows import no_rows

Kind = Literal[
    "aggregates",
    "looks at other rows",
    "guesses the format from the first values",
    "changes the number of rows",
    "is random",
    "not known to be row-wise",
]

_HINTS: dict[Kind, str] = {
    "aggregates": "use `group_by(...).agg(...)` or `.window(...).agg(...)`; "
    "over all rows `group_by(all=pl.lit(1)).agg(...)`",
    "looks at other rows": "take rows together first: `.window(...).agg(...)` or `.window(...).apply(fn)`",
    "guesses the format from the first values": 'give it, as in `.str.to_datetime("%Y-%m-%d %H:%M:%S")` '
    'or `.str.to_date("%Y-%m-%d")`',
    "changes the number of rows": "use the verb of the stream: `filter`, `unique`, `explode`, `head`",
    "is random": "give each row its own value before the stream, or hash a key column",
    "not known to be row-wise": "use `map_batches(fn, schema=...)` of the stream, or promise it with "
    "`Expr.map_batches(..., is_elementwise=True)`",
}

_SETS: dict[tuple[str, ...], tuple[int, ...]] = {
    ("Boolean", "IsIn"): (1,),
    ("Sql", "IsIn"): (1,),
    ("Replace",): (1, 2),
    ("ReplaceStrict",): (1, 2),
    ("Business", "IsBusinessDay"): (1,),
    ("Business", "AddBusinessDay"): (2,),
    ("Business", "BusinessDayCount"): (2,),
}
"""Arguments in which a Series is a set of constants instead of one value per row."""

_NEEDS_SCHEMA = {
    *[("Reinterpret",), ("ArrayExpr", "ToStruct"), ("StructExpr", "SelectFields")],
    *[("Sql", "Binary"), ("Sql", "ToFloat"), ("Sql", "Round"), ("Sql", "IsIn")],
}
"""Row-wise functions that Polars cannot judge, or panics over, without knowing the types."""


@dataclass(frozen=True, slots=True)
class NotRowWise:
    """The part of an expression that needs more than its own row, what it does, and the way out."""

    expression: str
    kind: Kind
    hint: str

    def __str__(self) -> str:
        return f"`{self.expression}` {_phrase(self.kind)}"


def is_row_wise(expr: pl.Expr, schema: pl.Schema | None = None) -> bool:
    """Whether `expr` gives the same rows whichever way its input is cut into batches.

    The last bit of a float may differ: Polars divides by a number through its reciprocal, except in a batch
    of one row.

    With `schema` (of the input) a few more are known to be, such as `is_in` of a list column.
    A constant counts as row-wise; in a `select` of constants alone see `is_constant`.

    >>> is_row_wise(pl.col("a") * 2), is_row_wise(pl.col("a") - pl.col("a").mean())
    (True, False)
    """
    return why_not_row_wise(expr, schema) is None


def why_not_row_wise(expr: pl.Expr, schema: pl.Schema | None = None) -> NotRowWise | None:
    """What keeps `expr` from being row-wise, or None.

    >>> print(why_not_row_wise(pl.col("a") - pl.col("a").shift(1)))
    `col("a").shift([dyn int: 1])` looks at other rows
    """
    try:
        node = tree.to_node(expr)
    except UnknownExpression:
        return _because("not known to be row-wise", str(expr))
    return _why_not(node, schema)


def keeps_rows(node: Node, schema: pl.Schema | None = None) -> bool:
    """Whether the outermost node gives one value per row of inputs that are taken to be row-wise."""
    try:
        return _judge(node, tree.children(node), schema) is None
    except UnknownExpression:
        return False


def is_constant(expr: pl.Expr) -> bool:
    """Whether `expr` reads no column and counts no rows: one value, which Polars repeats as needed.

    A `select` of such expressions alone gives a single row, not one per row of its input.
    """
    try:
        found = {tree.kind(node) for node in tree.nodes(tree.to_node(expr))}
    except UnknownExpression:
        return False
    return not found & {"Column", "Selector", "Len", "Field", "Element"} and bool(_scalar(expr))


def _why_not(node: Node, schema: pl.Schema | None) -> NotRowWise | None:
    """The outermost offender is the one to name: in `a.drop_nulls().sum()` it is the sum."""
    try:
        inputs = tree.children(node)
    except UnknownExpression:
        return _not(node, "not known to be row-wise")
    kind = _judge(node, inputs, schema)
    if kind:
        return _not(node, kind)
    for at, child in enumerate(inputs):
        reason = None if _is_set_argument(node, at, child) else _why_not(child, schema)
        if reason:
            return reason
    return None


def _judge(node: Node, inputs: list[Node], schema: pl.Schema | None) -> Kind | None:
    """What the outermost node does wrong, given that its inputs are row-wise."""
    match tree.kind(node):
        case "Column" | "Selector" | "Field" | "Element" | "Alias" | "KeepName" | "RenameAlias" | "Cast":
            return None
        case "BinaryExpr" | "Ternary" | "StructEval":
            return None
        case "Literal":
            return None if tree.is_scalar_literal(node) else "not known to be row-wise"
        case "Eval":
            return _judge_eval(node)
        case "Agg" | "Len":
            return "aggregates"
        case "Over" | "Rolling" | "Sort" | "SortBy":
            return "looks at other rows"
        case "Filter" | "Slice" | "Explode":
            return "changes the number of rows"
        case "Gather":
            return "aggregates" if tree.body(node).get("returns_scalar") else "changes the number of rows"
        case "AnonymousFunction":
            promised = {"ROW_SEPARABLE", "LENGTH_PRESERVING"} <= tree.anonymous_flags(node)
            return None if promised else "not known to be row-wise"
        case "Function":
            return _judge_function(node, inputs, schema)
    return "not known to be row-wise"


def _judge_eval(node: Node) -> Kind | None:
    """Elements of one row stay within it, so any inner expression will do that is not random or opaque."""
    if tree.eval_variant(node) == "Cumulative":
        return "looks at other rows"
    try:
        inner = [found for part in tree.inner_expressions(node) for found in tree.nodes(part)]
    except UnknownExpression:
        return "not known to be row-wise"
    for part in inner:
        if tree.kind(part) == "Function" and _is_random(part):
            return "is random"
        if tree.kind(part) == "AnonymousFunction" and _judge(part, [], None):
            return "not known to be row-wise"
        if tree.kind(part) == "Eval" and _judge_eval(part):
            return _judge_eval(part)
    return None


def _judge_function(node: Node, inputs: list[Node], schema: pl.Schema | None) -> Kind | None:
    name = tree.function_name(node)
    if _is_random(node):
        return "is random"
    if name == ("StringExpr", "Strptime") and _infers_format(node):
        return "guesses the format from the first values"
    if not all(_is_set(node, at, inputs[at], schema) for at in _SETS.get(name, ())):
        return "looks at other rows"
    if name in _NEEDS_SCHEMA or name[:2] in _NEEDS_SCHEMA:
        return None
    if tree.has_callback(node):
        return "not known to be row-wise"
    plain = [child if tree.is_scalar_literal(child) else tree.column("x") for child in inputs]
    return _polars_verdict(tree.to_expr(tree.with_children(node, plain)))


def _polars_verdict(expr: pl.Expr) -> Kind | None:
    """Polars judges the outermost node only, so its inputs must be plain columns here."""
    try:
        separable, preserving = expr.meta.is_row_separable(), expr.meta.is_length_preserving()
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
        return "not known to be row-wise"
    if separable and (preserving or _scalar(expr)):
        return None
    if _scalar(expr):
        return "aggregates"
    return "looks at other rows" if preserving else "changes the number of rows"


def _scalar(expr: pl.Expr) -> bool:
    try:
        return expr.meta.is_scalar()
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
        return False


def _is_random(node: Node) -> bool:
    name = tree.function_name(node)
    return "Random" in name or "Sample" in name


def _infers_format(node: Node) -> bool:
    """Without a format Polars guesses it from the first values it sees, which depend on the cut."""
    return tree.function_options(node)[1]["format"] is None


def _is_set(node: Node, at: int, values: Node, schema: pl.Schema | None) -> bool:
    """Whether the argument is one set for all rows, or for `is_in` a list per row.

    A plain column there means the whole column, and Polars calls that row-separable all the same.
    """
    if tree.is_scalar_literal(values) or _is_set_argument(node, at, values):
        return True
    if tree.kind(values) == "Agg":
        return True  # refused for itself
    if schema is None or tree.function_name(node)[-1] != "IsIn":
        return False
    try:
        (dtype,) = no_rows(schema).select(tree.to_expr(values)).collect_schema().dtypes()
    except (pl.exceptions.PolarsError, ValueError):
        return False
    return isinstance(dtype, (pl.List, pl.Array))


def _is_set_argument(node: Node, at: int, child: Node) -> bool:
    """Whether `child` is a set of constants that belongs to the function, not rows."""
    if tree.kind(node) != "Function" or at not in _SETS.get(tree.function_name(node), ()):
        return False
    if tree.kind(child) == "Agg":
        name, inside, _ = tree.aggregation(child)
        return name == "Implode" and _is_series_of_constants(inside)
    return _is_series_of_constants(child)


def _is_series_of_constants(node: Node) -> bool:
    """A flat Series, or a single list; several lists would be one per row."""
    if tree.kind(node) != "Literal" or tree.is_scalar_literal(node):
        return False
    series = pl.select(tree.to_expr(node)).to_series()
    return not series.dtype.is_nested() or len(series) == 1


def _not(node: Node, kind: Kind) -> NotRowWise:
    with contextlib.suppress(Exception):
        return _because(kind, str(tree.to_expr(node)))
    return _because(kind, tree.kind(node))


def _because(kind: Kind, expression: str) -> NotRowWise:
    return NotRowWise(expression, kind, _HINTS[kind])


def _phrase(kind: Kind) -> str:
    return "is not known to be row-wise" if kind == "not known to be row-wise" else kind
