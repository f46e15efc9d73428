"""The backend that writes all of a changed table in every checkpoint: for small state and for tests."""

from __future__ import annotations

from unistream.state.segment_backend import SegmentBackend


class MemoryBackend(SegmentBackend):
    """Keeps state in memory; each snapshot holds every table whole, so there is nothing to fold."""

    writes_whole = True
