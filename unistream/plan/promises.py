"""What becomes of a row when the job dies: the weakest link between a sink and its sources."""

from __future__ import annotations

from unistream.io.base import Replay
from unistream.plan.nodes import Scan, Write
from unistream.plan.tree import walk


def promise(write: Write) -> str:
    """How often each row reaches the sink of a job that keeps checkpoints, whatever dies in between."""
    scans = [node for node in walk([write]) if isinstance(node, Scan)]
    once = sorted({scan.source.name for scan in scans if scan.source.replay is Replay.NONE})
    if once:
        return f"at most once: {', '.join(once)} cannot be read again"
    return f"{write.sink.promise}, with checkpoints"
