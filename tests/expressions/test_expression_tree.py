"""The one file that knows Polars' JSON: a new Polars must fail here first."""

import polars as pl
import polars.selectors as cs
import pytest

from unistream.expressions import expression_tree as tree
from unistream.expressions.expression_tree import UnknownExpression, to_expr, to_node

c = pl.col

EVERY_KIND = {
    "Column": c.a,
    "Literal": pl.lit(1),
    "Len": pl.len(),
    "Selector": cs.numeric().as_expr(),
    "Alias": c.a.alias("b"),
    "KeepName": c.a.name.keep(),
    "RenameAlias": c.a.name.suffix("_x"),
    "BinaryExpr": c.a + c.b,
    "Cast": c.a.cast(pl.Int8),
    "Ternary": pl.when(c.a).then(c.b).otherwise(c.d),
    "Function": c.a.fill_null(c.b),
    "AnonymousFunction": c.a.map_batches(lambda s: s),
    "Agg": c.a.sum(),
    "Filter": c.a.filter(c.b),
    "Sort": c.a.sort(),
    "SortBy": c.a.sort_by(c.b, c.d),
    "Slice": c.a.head(2),
    "Gather": c.a.gather([0]),
    "Explode": c.a.explode(),
    "Over": c.a.over(c.b, order_by=c.d),
    "Rolling": c.a.sum().rolling(c.b, period="1h"),
    "Eval": c.a.list.eval(pl.element() + 1),
    "StructEval": c.a.struct.with_fields(pl.field("x") + c.b),
}


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_kinds_round_trip_and_give_their_inputs_back(kind):
    expr = EVERY_KIND[kind]
    node = to_node(expr)
    assert tree.kind(node) == kind
    assert to_node(to_expr(node)) == node
    assert tree.with_children(node, tree.children(node)) == node
    assert tree.transform(node, lambda _: None) == node


@pytest.mark.parametrize("kind", [kind for kind in EVERY_KIND if kind not in ("Selector", "Gather")])
def test_every_column_is_reached_through_the_inputs(kind):
    node = to_node(EVERY_KIND[kind])
    reached = {tree.body(part) for part in tree.nodes(node) if tree.kind(part) == "Column"}
    assert reached == tree.columns_named(node) == set(EVERY_KIND[kind].meta.root_names())


@pytest.mark.parametrize(
    "kind", ["BinaryExpr", "Ternary", "Function", "Agg", "SortBy", "Over", "Filter", "StructEval"]
)
def test_columns_can_be_replaced(kind):
    def change(part):
        return tree.column(tree.body(part) * 2) if tree.kind(part) == "Column" else None

    replaced = to_expr(tree.transform(to_node(EVERY_KIND[kind]), change))
    assert replaced.meta.root_names() == [name * 2 for name in EVERY_KIND[kind].meta.root_names()]


@pytest.mark.parametrize(
    ("expr", "name"),
    [
        (c.a.fill_null(0), ("FillNull",)),
        (c.a.str.contains("x"), ("StringExpr", "Contains")),
        (c.a.str.to_uppercase(), ("StringExpr", "Uppercase")),
        (c.a.dt.year(), ("TemporalExpr", "Year")),
        (c.a.any(), ("Boolean", "Any")),
        (c.a.cum_sum(), ("CumSum",)),
        (c.a.bitwise_and(), ("Bitwise", "And")),
        (c.a.list.sum(), ("ListExpr", "Sum")),
    ],
    ids=str,
)
def test_function_names(expr, name):
    assert tree.function_name(to_node(expr)) == name


def test_options_beside_the_inputs():
    assert tree.function_options(to_node(c.a.any(ignore_nulls=False))) == {"ignore_nulls": False}
    assert tree.aggregation(to_node(c.a.var(ddof=3))) == ("Var", tree.column("a"), {"ddof": 3})
    assert tree.aggregation(to_node(c.a.nan_max())) == ("Max", tree.column("a"), {"propagate_nans": True})
    assert tree.sort_options(to_node(c.a.sort_by("b", descending=True))) == ([True], [False])
    promised = tree.anonymous_flags(to_node(c.a.map_batches(lambda s: s, is_elementwise=True)))
    assert {"ROW_SEPARABLE", "LENGTH_PRESERVING"} <= promised
    assert "ROW_SEPARABLE" not in tree.anonymous_flags(to_node(c.a.map_batches(lambda s: s)))


def test_unknown_kinds_are_refused():
    for node in (
        {"Invented": {"expr": "Len"}},
        "Invented",
        {"Cast": {"expr": "Len", "dtype": {"Invented": 1}}},
    ):
        with pytest.raises(UnknownExpression):
            tree.children(node)


def test_python_is_found_wherever_it_hides():
    hidden = c.a.list.eval(pl.element().map_batches(lambda s: s)) + pl.fold(0, lambda a, b: a + b, [c.a])
    assert tree.calls_python(to_node(hidden))
    assert tree.calls_python(to_node(pl.fold(pl.lit(0), lambda a, b: a + b, [c.a])))
    assert not tree.calls_python(to_node(c.a.sum().over("b")))


def test_any_order_becomes_order_of_appearance():
    node = tree.in_order(to_node(c.a.unique().sort_by(c.a.mode().max())))
    assert to_node(c.a.unique(maintain_order=True).sort_by(c.a.mode(maintain_order=True).max())) == node
