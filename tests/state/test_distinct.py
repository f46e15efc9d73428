"""Distinct numbers are those NumPy finds."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from unistream.state.distinct import distinct, numbered, starts_of_runs


@given(st.lists(st.integers(-5, 5) | st.integers(-(2**63), 2**63 - 1)))
def test_distinct_is_what_unique_gives(numbers: list[int]) -> None:
    array = np.array(numbers, dtype=np.int64)
    assert np.array_equal(distinct(array), np.unique(array))
    assert starts_of_runs(np.sort(array)).sum() == len(np.unique(array))


@given(st.lists(st.integers(-5, 5) | st.integers(-(2**63), 2**63 - 1)), st.integers(-(2**63), 2**63 - 1000))
def test_numbered_is_what_unique_gives(spread: list[int], least: int) -> None:
    close = [least + abs(number) % 1000 for number in spread]
    for numbers in (spread, close, close * 9):
        array = np.array(numbers, dtype=np.int64)
        expected, ranks = np.unique(array, return_inverse=True)
        found, codes = numbered(array)
        assert np.array_equal(found, expected) and np.array_equal(codes, ranks)
