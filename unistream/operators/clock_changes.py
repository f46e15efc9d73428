"""When the clocks of a time zone were set, as Polars knows it."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
import polars as pl

Moments = npt.NDArray[np.int64]

_SECOND = 1_000_000
_FEW_DAYS = 5 * 86_400 * _SECOND
"""No clock was ever set twice within so long."""

_FIRST, _LAST = -5_364_662_400 * _SECOND, 4_133_980_800 * _SECOND
"""From 1800 to 2101: before, clocks showed local mean time; beyond, Polars knows of no changes."""


@lru_cache(maxsize=64)
def clock_changes(zone: str) -> tuple[Moments, Moments]:
    """Moments at which the clock was set, and how far it was ahead of UTC before, between and after them.

    All in microseconds.

    >>> moments, ahead = clock_changes("Asia/Tokyo")
    >>> pl.Series(moments[-1:]).cast(pl.Datetime("us")).dt.year().item(), ahead[-1].item() // 3_600_000_000
    (1951, 9)
    """
    probes = np.arange(_FIRST, _LAST, _FEW_DAYS)
    ahead = _ahead(probes, zone)
    changed = np.flatnonzero(ahead[1:] != ahead[:-1])
    before = ahead[changed]
    low, width = probes[changed], _FEW_DAYS
    for step in (3_600 * _SECOND, 60 * _SECOND, _SECOND):
        tried = low[:, np.newaxis] + np.arange(step, width, step)
        still = _ahead(tried.ravel(), zone).reshape(tried.shape) == before[:, np.newaxis]
        low, width = low + still.sum(axis=1) * step, step
    return low + _SECOND, np.append(before, ahead[-1])


def _ahead(micros: Moments, zone: str) -> Moments:
    moments = pl.Series(micros).cast(pl.Datetime("us", zone))
    shown: Moments = moments.dt.replace_time_zone(None).cast(pl.Int64).to_numpy()
    return shown - micros
