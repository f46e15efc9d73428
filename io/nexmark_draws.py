"""Chance as a function of an event's number: whichever events are made, each comes out the same."""

from __future__ import annotations

from enum import IntEnum
from functools import lru_cache

import numpy as np
import polars as pl
import pyarrow as pa

_GOLDEN = 0x9E3779B97F4A7C15
_FIRST = 0xBF58476D1CE4E5B9
_SECOND = 0x94D049BB133111EB
_MASK = (1 << 64) - 1

POOL_BYTES = 1 << 20
_LONGEST = 512
_SHORTEST_VIEW = 13
"""Shorter texts lie within their Arrow view."""

_PRICE_STEPS = 4096


class Draw(IntEnum):
    """What is drawn. The values decide which events a seed gives, so they never change."""

    NAME = 1
    EMAIL = 2
    CARD = 3
    PLACE = 4
    EXTRA = 5
    DESCRIPTION = 6
    INITIAL_BID = 7
    RESERVE = 8
    LENGTH = 9
    SELLER = 10
    CATEGORY = 11
    AUCTION = 12
    BIDDER = 13
    PRICE = 14
    CHANNEL = 15
    LETTERS = 16
    SPACES = 17
    URL = 18


class Draws:
    """64 random bits for each kind of draw and number, the same on every machine."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def bits(self, what: Draw, numbers: np.ndarray) -> np.ndarray:
        """One 64-bit value for each number."""
        mixed = numbers.astype(np.uint64)
        mixed *= np.uint64(_GOLDEN)
        mixed += np.uint64(_mixed(_mixed(self._seed & _MASK) + what))
        mixed ^= mixed >> np.uint64(30)
        mixed *= np.uint64(_FIRST)
        mixed ^= mixed >> np.uint64(27)
        mixed *= np.uint64(_SECOND)
        mixed ^= mixed >> np.uint64(31)
        return mixed

    def below(self, what: Draw, numbers: np.ndarray, limit: int) -> np.ndarray:
        """A whole number from 0 to `limit` - 1 for each number."""
        return scaled(self.bits(what, numbers), limit)

    def price(self, what: Draw, numbers: np.ndarray) -> np.ndarray:
        """Cents from 100 to 100,000,000, as likely between 10 and 100 as between 100 and 1000."""
        bits = self.bits(what, numbers)
        step = (bits >> np.uint64(52)).view(np.int64)
        share = (bits & np.uint64(0xFFFF)).view(np.int64)
        prices = _prices()
        lower = prices[step]  # a copy
        # Between two steps a straight line in whole numbers: a power could differ between machines.
        lower += ((prices[1:] - prices[:-1])[step] * share) >> 16
        return lower


def scaled(bits: np.ndarray, limit: int | np.ndarray) -> np.ndarray:
    """The upper 32 of 64 random bits as a whole number from 0 to `limit` - 1."""
    wide = bits >> np.uint64(32)
    wide *= np.asarray(limit, dtype=np.uint64)
    wide >>= np.uint64(32)
    return wide.view(np.int64)


def _mixed(value: int) -> int:
    """The same mixing as in `Draws.bits`, of one number."""
    value = (value * _GOLDEN + _GOLDEN) & _MASK
    value = ((value ^ (value >> 30)) * _FIRST) & _MASK
    value = ((value ^ (value >> 27)) * _SECOND) & _MASK
    return value ^ (value >> 31)


@lru_cache(maxsize=1)
def _prices() -> np.ndarray:
    steps = [round(100 * 10 ** (6 * step / _PRICE_STEPS)) for step in range(_PRICE_STEPS + 1)]
    return np.array(steps, dtype=np.int64)


class Text:
    """A megabyte of random letters of which texts are cut without copying them."""

    def __init__(self, draws: Draws, spaces: bool = False) -> None:
        words = np.arange(POOL_BYTES // 8)
        chosen = draws.bits(Draw.LETTERS, words).view(np.uint8).astype(np.uint16)
        pool = ((chosen * 26) >> 8).astype(np.uint8) + np.uint8(ord("a"))
        if spaces:  # one in thirteen
            pool[draws.bits(Draw.SPACES, words).view(np.uint8) < 20] = ord(" ")
        self._pool = pool
        self._starts = np.lib.stride_tricks.sliding_window_view(pool, 4)

    def cut(self, bits: np.ndarray, lengths: np.ndarray) -> pl.Series:
        """One text of each length, from 13 to 512 bytes, from a place that the bits decide."""
        places = scaled(bits, POOL_BYTES - _LONGEST).astype(np.uint32)
        views = np.empty((len(bits), 4), dtype=np.uint32)  # length, first four bytes, buffer, offset
        views[:, 0] = lengths
        views[:, 1] = self._starts[places].view(np.uint32).ravel()
        views[:, 2] = 0
        views[:, 3] = places
        buffers = [None, pa.py_buffer(views), pa.py_buffer(self._pool)]
        made = pl.from_arrow(pa.Array.from_buffers(pa.string_view(), len(bits), buffers))
        assert isinstance(made, pl.Series)
        return made

    def words(self, bits: np.ndarray, least: int, most: int) -> pl.Series:
        """Texts of `least` to `most` letters; the lower bits decide how many."""
        lengths = least + scaled(bits << np.uint64(32), most - least + 1)
        whole = self.cut(bits, np.full(len(bits), max(most, _SHORTEST_VIEW), dtype=np.uint32))
        return pl.select(pl.lit(whole).str.head(pl.lit(pl.Series(lengths)))).to_series()
