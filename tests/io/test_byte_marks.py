"""Marks as bits against the same found byte by byte."""

from __future__ import annotations

import numpy as np
import pytest

from unistream.io.byte_counts import CACHED
from unistream.io.byte_marks import Bytes, chosen, count, last, marks, within

QUOTE, NEWLINE = ord('"'), ord("\n")
ENDS = range(-1, 3)
SIZES = [*range(130), *(CACHED + more for more in ENDS), 2 * CACHED + 77]


def random_bytes(size: int) -> Bytes:
    letters = np.frombuffer(b'ab,"\n', np.uint8)
    return np.random.default_rng(size).choice(letters, size)


@pytest.mark.parametrize("begun", [False, True])
def test_what_lies_within_quotes(begun: bool) -> None:
    for size in SIZES:
        signs = random_bytes(size)
        inside = (np.cumsum(signs == QUOTE, dtype=np.int64) + begun) % 2 == 1
        expected = (signs == NEWLINE) & ~inside
        found = marks(signs, NEWLINE) & ~within(marks(signs, QUOTE), begun)
        assert count(found) == expected.sum(), size
        assert last(found) == max(np.flatnonzero(expected), default=-1), size
        assert chosen(signs, found).tolist() == signs[expected].tolist(), size
        assert chosen(np.arange(size).astype(np.uint8), found).tolist() == [
            place % 256 for place in np.flatnonzero(expected).tolist()
        ]


def test_a_quote_carries_over_many_words() -> None:
    signs = np.frombuffer(b'"' + b"\n" * 1000 + b'"' + b"\n" * 1000, np.uint8)
    outside = ~within(marks(signs, QUOTE))
    assert count(marks(signs, NEWLINE) & outside) == 1000
    assert last(marks(signs, NEWLINE) & ~outside) == 1000
