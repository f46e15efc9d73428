"""What the host of a virtual machine took away: time in which a processor had work and was not given."""

from __future__ import annotations

import os
import time
from pathlib import Path

DISTURBED = 0.03
"""What loses more than this part of the processors to others on the host says little about the program."""

_STAT = Path("/proc/stat")
_STOLEN = 8
"""The field of processor time that a host kept for others."""


class Taken:
    """The part of all processors' time that the host took since this was made."""

    def __init__(self) -> None:
        self.began, self.before = time.perf_counter(), _stolen_seconds()

    def part(self) -> float:
        """Between 0, a machine of our own, and 1."""
        had = (time.perf_counter() - self.began) * (os.cpu_count() or 1)
        return min((_stolen_seconds() - self.before) / had, 1.0)


def _stolen_seconds() -> float:
    """Of all processors, since the machine was started; 0 where nobody counts it."""
    if not _STAT.exists():
        return 0.0
    return int(_STAT.read_text().split(maxsplit=_STOLEN + 1)[_STOLEN]) / os.sysconf("SC_CLK_TCK")
