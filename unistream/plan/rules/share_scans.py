"""Read a source once, however many parts of the plan ask for it."""

from __future__ import annotations

from collections.abc import Hashable

from unistream.plan.nodes import Node, Scan
from unistream.plan.tree import Roots, rewrite


def share_scans(roots: Roots) -> Roots:
    """Scans of equal sources with equal requests become one node."""
    first: dict[Hashable, Node] = {}

    def merge(node: Node) -> Node:
        if not isinstance(node, Scan) or node.request.predicate is not None:
            return node
        identity = (type(node.source), node.source.identity(), node.request.columns)
        return first.setdefault(identity, node)

    return rewrite(roots, merge)
