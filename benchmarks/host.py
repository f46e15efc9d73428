"""What the host of a virtual machine took away: time in which a processor had work and was not given."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import numpy as np

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


class Interruptions(threading.Thread):
    """Notes, until it is stopped, when the host took processors away."""

    INTERVAL = 0.2
    BEFORE = 0.1
    AFTER = 1.0
    """Seconds around an interruption in which what was under way, or had to wait, bears its traces."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._over = threading.Event()
        self.found: list[tuple[float, float]] = []
        """When they began and ended, as seconds since 1970."""

    def run(self) -> None:
        while not self._over.is_set():
            taken, began = Taken(), time.time()
            self._over.wait(self.INTERVAL)
            if taken.part() > DISTURBED:
                self.found.append((began - self.BEFORE, time.time() + self.AFTER))

    def stop(self) -> None:
        """No more is noted."""
        self._over.set()
        self.join()

    def spare(self, moments: np.ndarray) -> np.ndarray:
        """Which of these moments, seconds since 1970, no interruption touches."""
        spared = np.ones(len(moments), bool)
        for began, ended in self.found:
            spared &= (moments < began) | (moments > ended)
        return spared


def _stolen_seconds() -> float:
    """Of all processors, since the machine was started; 0 where nobody counts it."""
    if not _STAT.exists():
        return 0.0
    return int(_STAT.read_text().split(maxsplit=_STOLEN + 1)[_STOLEN]) / os.sysconf("SC_CLK_TCK")
