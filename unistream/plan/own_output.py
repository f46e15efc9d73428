"""A sink must not write what a source in front of it goes on to read."""

from __future__ import annotations

from unistream.errors import InvalidQuery
from unistream.plan.nodes import Scan, Write
from unistream.plan.tree import Roots, walk


def check_no_circle(roots: Roots) -> None:
    """Refuse a sink whose files an unbounded source in front of it would take up, again and again."""
    for root in roots:
        path = root.sink.example if isinstance(root, Write) else None
        if path is None:
            continue
        for node in walk([root]):
            if isinstance(node, Scan) and not node.source.bounded and node.source.takes(path):
                raise InvalidQuery(
                    f"The job would read its own output: source {node.source.name!r} takes up {path}",
                    root.where,
                    "write to a folder that the source does not list, or have it list a narrower glob",
                )
