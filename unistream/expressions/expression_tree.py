"""The one file that knows how Polars writes an expression down as JSON (bound to the pinned Polars minor).

NaN and the infinities, which JSON does not have, come and go by MessagePack; the shape is the same.

A node is what `json.loads` makes of it: a bare string ("Len", "Element") or a dictionary with one entry,
kind to body. Everything else in the package walks nodes through the functions here.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import msgspec
import polars as pl

Node = Any
"""A bare string, or a dictionary of one entry. JSON has no closer type that helps."""

Path = tuple[str | int, ...]

_PLACES: dict[str, tuple[Path, ...]] = {
    "Column": (),
    "Literal": (),
    "Len": (),
    "Element": (),
    "Field": (),
    "Selector": (),
    "Alias": ((0,),),
    "KeepName": ((),),
    "RenameAlias": (("expr",),),
    "BinaryExpr": (("left",), ("right",)),
    "Ternary": (("predicate",), ("truthy",), ("falsy",)),
    "Filter": (("input",), ("by",)),
    "Sort": (("expr",),),
    "Slice": (("input",), ("offset",), ("length",)),
    "Gather": (("expr",), ("idx",)),
    "Explode": (("input",),),
    "Rolling": (("function",), ("index_column",)),
    "Eval": (("expr",),),
}
"""Where the inputs of a node of fixed shape are, below its body. The inner expression of `Eval` is not an
input: it sees elements, not columns."""


_LOST_FLOAT = re.compile(r'"Float(16|32|64)?":null')
"""What JSON makes of NaN and the infinities."""


class UnknownExpression(ValueError):
    """An expression this file cannot read: its kind is new, or it holds something that does not pickle."""


def to_node(expr: pl.Expr) -> Node:
    """The expression as a node."""
    try:
        text = expr.meta.serialize(format="json")
        if _LOST_FLOAT.search(text):
            return msgspec.msgpack.decode(
                expr.meta.serialize(format="binary")
            )  # same shape, keeps all floats
        return json.loads(text)
    except Exception as error:  # a Python function that does not pickle raises whatever it likes
        raise UnknownExpression(f"{expr} cannot be written down: {error}") from error


def to_expr(node: Node) -> pl.Expr:
    """The node as an expression again."""
    try:
        text = json.dumps(node, allow_nan=False)
    except (ValueError, TypeError):  # a float, or the bytes beside one, that JSON does not hold
        return pl.Expr.deserialize(io.BytesIO(msgspec.msgpack.encode(node)), format="binary")
    return pl.Expr.deserialize(io.StringIO(text), format="json")


def kind(node: Node) -> str:
    """What sort of node it is: "Column", "Agg", "Function", ..."""
    return node if isinstance(node, str) else str(next(iter(node)))


def body(node: Node) -> Any:
    """What a node holds besides its kind; None for a bare one."""
    return None if isinstance(node, str) else next(iter(node.values()))


def column(name: str) -> Node:
    """The node that reads a column."""
    return {"Column": name}


def children(node: Node) -> list[Node]:
    """The inputs of a node, in order; raises `UnknownExpression` when its shape is not known."""
    return [_get(node, place) for place in _places(node)]


def with_children(node: Node, inputs: Sequence[Node]) -> Node:
    """The node with other inputs, as many as before."""
    for place, value in zip(_places(node), inputs, strict=True):
        node = _set(node, place, value)
    return node


def with_inputs(node: Node, inputs: Iterable[Node]) -> Node:
    """A function node with another list of inputs, however many."""
    return {kind(node): {**body(node), "input": list(inputs)}}


def transform(node: Node, change: Callable[[Node], Node | None]) -> Node:
    """The tree with every node that `change` answers replaced by the answer; answers are not entered."""
    answer = change(node)
    if answer is not None:
        return answer
    return with_children(node, [transform(child, change) for child in children(node)])


def nodes(node: Node) -> Iterator[Node]:
    """The node and everything below it that sees columns."""
    yield node
    for child in children(node):
        yield from nodes(child)


def inner_expressions(node: Node) -> list[Node]:
    """Expressions inside a node that see list elements (`list.eval`) instead of columns."""
    return [body(node)["evaluation"]] if kind(node) == "Eval" else []


def eval_variant(node: Node) -> str:
    """Which sort of evaluation an `Eval` node is: "List", "ListAgg", "Array", "ArrayAgg", "Cumulative"."""
    return kind(body(node)["variant"])


def function_name(node: Node) -> tuple[str, ...]:
    """A function node's name with its namespace: ("StringExpr", "Contains"), ("FillNull",)."""
    name: list[str] = []
    part = body(node)["function"]
    while isinstance(part, dict) and len(part) == 1 and next(iter(part))[:1].isupper():
        word, part = next(iter(part.items()))
        name.append(word)
    if isinstance(part, str) and part[:1].isupper():
        name.append(part)
    return tuple(name)


def function_options(node: Node) -> Any:
    """What a function node's name is followed by: its options, or None."""
    part = body(node)["function"]
    while isinstance(part, dict) and len(part) == 1 and next(iter(part))[:1].isupper():
        part = next(iter(part.values()))
    return None if isinstance(part, str) else part


def has_callback(node: Node) -> bool:
    """Whether a function node is given a Python function, as `fold` is."""
    options = function_options(node)
    return isinstance(options, dict) and "callback" in options


def anonymous_flags(node: Node) -> frozenset[str]:
    """What was promised of a Python function: "ROW_SEPARABLE", "LENGTH_PRESERVING", "RETURNS_SCALAR"."""
    flags = body(node).get("options", {}).get("flags", "")
    return frozenset(word.strip() for word in flags.split("|")) if isinstance(flags, str) else frozenset()


def aggregation(node: Node) -> tuple[str, Node, dict[str, Any]]:
    """An `Agg` node as its name, its input and its options."""
    name, content = next(iter(body(node).items()))
    place = _aggregation_place(content)
    if isinstance(content, list):
        return name, content[0], {"ddof": content[1]}
    options = {key: value for key, value in content.items() if key != "input"} if place else {}
    return name, content["input"] if place else content, options


def sort_options(node: Node) -> tuple[list[bool], list[bool]] | None:
    """Directions and places of nulls of a `SortBy` node; None when it keeps only some rows."""
    options = body(node)["sort_options"]
    return None if options["limit"] is not None else (options["descending"], options["nulls_last"])


def list_eval(lists: Node, evaluation: Node, *, aggregates: bool) -> Node:
    """The node that evaluates an expression over "Element" in each list; `aggregates`: to one value."""
    return {"Eval": {"expr": lists, "evaluation": evaluation, "variant": "ListAgg" if aggregates else "List"}}


def in_order(node: Node) -> Node:
    """The same, but what Polars may give in any order comes in order of first appearance."""

    def change(part: Node) -> Node | None:
        if kind(part) != "Function" or function_name(part)[0] not in ("Unique", "Mode"):
            return None
        name = function_name(part)[0]
        ordered = {
            name: True if name == "Unique" else {**body(part)["function"][name], "maintain_order": True}
        }
        return with_inputs({"Function": {**body(part), "function": ordered}}, map(in_order, children(part)))

    return transform(node, change)


def is_scalar_literal(node: Node) -> bool:
    """Whether the node is one constant value (not a Series)."""
    return kind(node) == "Literal" and kind(body(node)) in ("Dyn", "Scalar")


def is_dynamic_literal(node: Node) -> bool:
    """Whether the node is a number whose type its surroundings decide."""
    return kind(node) == "Literal" and kind(body(node)) == "Dyn"


def columns_named(part: Any) -> frozenset[str]:
    """Every column named anywhere in a node, also in parts whose kind is not known."""
    return frozenset(entry["Column"] for entry in _entries(part) if isinstance(entry.get("Column"), str))


def calls_python(node: Node) -> bool:
    """Whether evaluating the node runs a Python function."""
    return any(entry.keys() & {"AnonymousFunction", "callback"} for entry in _entries(node, elements=True))


def resolves_late(node: Node) -> bool:
    """Whether a part of the node is made by a callback only when the types are known."""
    return any("PipeWithDtype" in entry for entry in _entries(node, elements=True))


def without_alias(node: Node) -> Node:
    """The node below the outermost names given by `alias`."""
    while kind(node) == "Alias":
        node = body(node)[0]
    return node


def cast_column(expr: pl.Expr) -> str | None:
    """The column that `expr` is, cast to one type and renamed at most; None when it is more than that.

    >>> cast_column(pl.col("a").cast(pl.Int8).alias("b")), cast_column(pl.col("a") + 1)
    ('a', None)
    """
    node, types = without_alias(to_node(expr)), set()
    while kind(node) == "Cast":
        types.add(json.dumps(body(node)["dtype"]))
        node = without_alias(children(node)[0])
    return str(body(node)) if kind(node) == "Column" and len(types) < 2 else None


def depends_on_type_of_column(node: Node) -> bool:
    """Whether a Python function returns "the type of its column", which is then named in its bytes."""
    return kind(node) == "AnonymousFunction" and b"OfExpr" in bytes(body(node)["function"])


def _entries(part: Any, elements: bool = False) -> Iterator[dict[str, Any]]:
    """Every dictionary in a node. List elements are seen by expressions in which "" is a column: those are
    entered on demand only. Literals and pickled functions hold long lists of bytes."""
    if isinstance(part, list) and part and not isinstance(part[0], int):
        for item in part:
            yield from _entries(item, elements)
    elif isinstance(part, dict):
        yield part
        for name, item in part.items():
            inside = item["expr"] if name == "Eval" and not elements else item
            if name != "Literal":
                yield from _entries(inside, elements)


def _places(node: Node) -> list[Path]:
    name = kind(node)
    if name in _PLACES:
        return [(name, *place) for place in _PLACES[name]]
    content = body(node)
    match name:
        case "Function" | "AnonymousFunction":
            return [(name, "input", number) for number in range(len(content["input"]))]
        case "Cast" if kind(content["dtype"]) == "Literal":
            return [(name, "expr")]
        case "Cast" if kind(content["dtype"]) == "OfExpr":  # `pl.dtype_of(...)`
            return [(name, "expr"), (name, "dtype", "OfExpr")]
        case "Agg":
            agg, inside = next(iter(content.items()))
            return [(name, agg, *_aggregation_place(inside))]
        case "SortBy":
            return [(name, "expr"), *((name, "by", number) for number in range(len(content["by"])))]
        case "StructEval":
            inner = range(len(content["evaluation"]))
            return [(name, "expr"), *((name, "evaluation", number) for number in inner)]
        case "Over":
            keys = range(len(content["partition_by"]))
            order: list[Path] = [(name, "order_by", 0)] if content["order_by"] else []
            return [(name, "function"), *((name, "partition_by", number) for number in keys), *order]
    raise UnknownExpression(f"unknown kind of expression {name!r}")


def _aggregation_place(content: Any) -> Path:
    if isinstance(content, list):
        return (0,)
    return ("input",) if isinstance(content, dict) and "input" in content else ()


def _get(node: Node, place: Path) -> Node:
    for step in place:
        node = node[step]
    return node


def _set(node: Node, place: Path, value: Node) -> Node:
    if not place:
        return value
    copied = list(node) if isinstance(node, list) else dict(node)
    copied[place[0]] = _set(node[place[0]], place[1:], value)  # type: ignore[index]
    return copied
