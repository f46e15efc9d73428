"""The default backend: changes only in every checkpoint, cold state in RocksDB."""

from __future__ import annotations

from unistream.state.segment_backend import SegmentBackend


class RocksBackend(SegmentBackend):
    """Changes only."""
