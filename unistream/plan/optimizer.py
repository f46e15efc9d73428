"""The rules in the order they run."""

from __future__ import annotations

from unistream.plan.rules.prune_columns import prune_columns
from unistream.plan.rules.push_filters import push_filters
from unistream.plan.rules.share_scans import share_scans
from unistream.plan.tree import Roots

RULES = (share_scans, push_filters, prune_columns)
"""Scans are shared first: a filter that only one reader wants must not go into a source that two read."""


def optimize(roots: Roots) -> Roots:
    """A plan with the same rows that reads and computes less."""
    for rule in RULES:
        roots = rule(roots)
    return roots
