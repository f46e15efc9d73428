"""What the C library does with memory that is freed."""

from __future__ import annotations

from functools import cache

_LARGEST = 30 << 20
"""More is given back to the system by the C library whatever has been freed before."""


@cache  # a second block would be one that was kept, and all of it cleared
def keep_freed_memory() -> None:
    """Let the C library keep blocks of the size of a tick's columns when they are freed.

    It gives the largest back to the system at once, and clearing the pages of new ones costs as much as
    filling them. Where a block even larger has been freed it keeps these (glibc; others do not mind).
    """
    bytes(_LARGEST)
