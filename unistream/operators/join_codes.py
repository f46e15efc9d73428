"""Equal numbers of two columns, found by one sort of both; how many pairs is known before any is made."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from unistream.operators.window_layout import consecutive

Places = npt.NDArray[np.int64]
Pairs = tuple[Places, Places]
Hashes = npt.NDArray[np.uint64]

SPREAD = np.uint64(0x9E3779B97F4A7C15)

_FEW = 8
"""When one column is so many times as long as the other, most of it is sorted out before the sort."""

_ROOM = 5
"""Bits more than the shorter column needs: about one in thirty of the others passes by chance."""


class CodeMatch:
    """Where the codes of two columns are equal; `known` are the places to look at (all when it is None).

    Each code is hashed to the upper bits of a number that has its side and its place in the lower ones.
    Sorted, equal codes lie together, those of the left before those of the right, in order of place.
    """

    def __init__(
        self, left: Places, right: Places, known: tuple[Places | None, Places | None] = (None, None)
    ) -> None:
        self._codes = left, right
        hashes = [_hashed(left, known[0]), _hashed(right, known[1])]
        hashes, self._places = _worth_sorting(hashes, list(known))
        self._sort(*hashes)

    def _sort(self, left: Hashes, right: Hashes) -> None:
        side = max(len(left), len(right)).bit_length()
        mask = np.uint64((1 << (side + 1)) - 1)
        both = np.concatenate([left, right])
        both &= ~mask
        both[: len(left)] |= np.arange(len(left), dtype=np.uint64)
        both[len(left) :] |= np.arange(len(right), dtype=np.uint64) | np.uint64(1 << side)
        both.sort()
        sided = both >> np.uint64(side)  # code and side
        edges = np.flatnonzero((sided[1:] ^ sided[:-1]) > 1)
        edges += 1
        bounds = np.empty(len(edges) + 2, dtype=np.int64)
        bounds[0], bounds[1:-1], bounds[-1] = 0, edges, len(both)
        starts, ends = bounds[:-1], bounds[1:]
        before = np.zeros(len(both) + 1, dtype=np.int32)
        np.cumsum(sided.astype(np.uint8) & 1, dtype=np.int32, out=before[1:])
        rights = np.diff(before[bounds])
        lefts = ends - starts - rights
        meet = np.flatnonzero((rights > 0) & (lefts > 0))
        self._starts, self._lefts = starts[meet], lefts[meet]
        self._rights = rights[meet].astype(np.int64)
        self._numbers = (both & np.uint64((1 << side) - 1)).view(np.int64)

    @property
    def total(self) -> int:
        """How many pairs there are (a few more when two codes hash alike)."""
        return int(self._lefts @ self._rights)

    def pairs(self, most: int) -> Iterator[Pairs]:
        """The places of equal codes; so many pairs at most together, unless one place alone has more."""
        at = consecutive(self._starts, self._lefts)
        first = np.repeat(self._starts + self._lefts, self._lefts)
        counts = np.repeat(self._rights, self._lefts)
        cuts = np.flatnonzero(np.diff(np.cumsum(counts) // most)) + 1
        for start, stop in pairwise([0, *cuts.tolist(), len(at)]):
            times = counts[start:stop]
            lefts = np.repeat(self._numbers[at[start:stop]], times)
            rights = self._numbers[consecutive(first[start:stop], times)]
            yield self._real(_back(lefts, self._places[0]), _back(rights, self._places[1]))

    def _real(self, at: Places, of: Places) -> Pairs:
        """Without pairs whose hashes alone are equal."""
        same = self._codes[0][at] == self._codes[1][of]
        return (at, of) if same.all() else (at[same], of[same])


def _hashed(codes: Places, known: Places | None) -> Hashes:
    numbers = codes if known is None else codes[known]
    return numbers.view(np.uint64) * SPREAD


def _worth_sorting(
    hashes: list[Hashes], places: list[Places | None]
) -> tuple[list[Hashes], list[Places | None]]:
    """Of the much longer column only what may be in the shorter one, by a table of bits."""
    short = 0 if len(hashes[0]) <= len(hashes[1]) else 1
    long = 1 - short
    if len(hashes[long]) < _FEW * len(hashes[short]):
        return hashes, places
    shift = np.uint64(64 - len(hashes[short]).bit_length() - _ROOM)
    seen = np.zeros(1 << (64 - int(shift)), dtype=np.bool_)
    seen[hashes[short] >> shift] = True
    near = np.flatnonzero(seen.take((hashes[long] >> shift).view(np.int64)))
    hashes[long] = hashes[long][near]
    places[long] = _back(near, places[long])
    return hashes, places


def _back(numbers: Places, places: Places | None) -> Places:
    return numbers if places is None else places[numbers]
