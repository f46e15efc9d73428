"""Where bytes of one value stand, as bits: what happens to them happens to sixty-four bytes at once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from unistream.io.byte_counts import CACHED

Bytes = npt.NDArray[np.uint8]
Marks = npt.NDArray[np.uint64]
"""A bit for each byte, the first byte's lowest; bits behind the last byte mean nothing."""

_WORD = 64


def marks(signs: Bytes, value: int) -> Marks:
    """Where this value stands.

    >>> bin(int(marks(np.frombuffer(b"a,b,,", np.uint8), ord(","))[0]))
    '0b11010'
    """
    found = np.zeros(-(-len(signs) // _WORD) * 8, np.uint8)
    for start in range(0, len(signs), CACHED):
        bits = np.packbits(signs[start : start + CACHED] == value, bitorder="little")
        found[start // 8 : start // 8 + len(bits)] = bits
    return found.view("<u8")


def within(quotes: Marks, begun: bool = False) -> Marks:
    """Which bytes lie from a quote on to before the next one; with `begun` those before the first do too.

    >>> bin(int(within(marks(np.frombuffer(b'a"bc"d', np.uint8), ord('"')))[0]))
    '0b1110'
    """
    inside = quotes.copy()
    for shift in (1, 2, 4, 8, 16, 32):  # each bit becomes whether those up to it are odd
        inside ^= inside << np.uint64(shift)
    odd = np.bitwise_xor.accumulate(inside >> np.uint64(_WORD - 1))
    before = np.concatenate([[np.uint64(begun)], odd[:-1] ^ np.uint64(begun)]) if len(odd) else odd
    inside ^= np.uint64(0) - before  # all bits of a word turn round behind an odd number of quotes
    return inside


def count(found: Marks) -> int:
    """How many there are."""
    return int(np.bitwise_count(found).sum())


def last(found: Marks) -> int:
    """Where the last one stands, -1 when there is none.

    >>> last(marks(np.frombuffer(b"a,b,c", np.uint8), ord(",")))
    3
    """
    words = np.flatnonzero(found)
    return _WORD * int(words[-1]) + int(found[words[-1]]).bit_length() - 1 if len(words) else -1


def chosen(signs: Bytes, found: Marks) -> Bytes:
    """The bytes at the marks."""
    bits = np.unpackbits(found.view(np.uint8), count=len(signs), bitorder="little")
    return signs[bits.view(np.bool_)]
