"""Walking and rewriting a plan that is a graph: shared nodes stay shared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from unistream.plan.nodes import Node

Roots = tuple[Node, ...]


def walk(roots: Sequence[Node]) -> Iterator[Node]:
    """Every node once, inputs before their readers; without recursion, so a plan may be deep."""
    done: set[int] = set()
    stack: list[tuple[Node, bool]] = [(root, False) for root in reversed(roots)]
    while stack:
        node, ready = stack.pop()
        if id(node) in done:
            continue
        if ready:
            done.add(id(node))
            yield node
            continue
        stack.append((node, True))
        stack.extend((child, False) for child in reversed(node.inputs))


def readers(roots: Sequence[Node]) -> Counter[int]:
    """How many edges leave each node, by `id(node)`."""
    return Counter(id(child) for node in walk(roots) for child in node.inputs)


def rewrite(roots: Sequence[Node], change: Callable[[Node], Node]) -> Roots:
    """The plan with `change` applied to every node, inputs first; untouched parts stay the same objects."""
    new: dict[int, Node] = {}
    for node in walk(roots):
        inputs = tuple(new[id(child)] for child in node.inputs)
        same = all(a is b for a, b in zip(inputs, node.inputs, strict=True))
        new[id(node)] = change(node if same else node.with_inputs(inputs))
    return tuple(new[id(root)] for root in roots)
