"""Which rows and open sessions of a key belong together, found for all keys at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from unistream.operators.time_grid import Ticks

Codes = npt.NDArray[np.int64]

_MOST = 2**62


@dataclass(frozen=True, slots=True)
class Sessions:
    """Sessions in order of key and time. `of` is the session of each interval that was given."""

    of: Codes
    codes: Codes
    starts: Ticks
    ends: Ticks
    born: Codes


def sessions_of(codes: Codes, starts: Ticks, ends: Ticks, born: Codes) -> Sessions:
    """Put intervals of a key (`codes`) together where one begins before all earlier ones have ended."""
    low = int(starts.min())
    span = int(ends.max()) - low + 1
    begins, stops = starts - low, ends - low
    if span * (int(codes.max()) + 1) >= _MOST:
        # Too far apart to put key and time into one number: the order of the times is all that matters.
        known, ranks = np.unique(np.concatenate([starts, ends]), return_inverse=True)
        begins, stops, span = ranks[: len(starts)], ranks[len(starts) :], len(known) + 1
    # One number per interval, ascending by key, then by beginning; what one key reaches is less than where
    # the next one begins, so a running maximum over all of them never looks past a key.
    packed_begins, packed_stops = codes * span + begins, codes * span + stops
    order = np.argsort(packed_begins)
    reached = np.maximum.accumulate(packed_stops[order])
    fresh = np.ones(len(order), dtype=np.bool_)
    fresh[1:] = packed_begins[order][1:] >= reached[:-1]
    first = np.flatnonzero(fresh)
    of = np.empty(len(order), dtype=np.int64)
    of[order] = np.cumsum(fresh) - 1
    return Sessions(
        of=of,
        codes=codes[order[first]],
        starts=starts[order[first]],
        ends=np.maximum.reduceat(ends[order], first),
        born=np.minimum.reduceat(born[order], first),
    )
