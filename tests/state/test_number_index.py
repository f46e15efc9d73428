"""Rows by number against a dict: close together, far apart, wandering, and at the ends of 64 bits."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unistream.state.hot_table import HotTable
from unistream.state.number_index import LEAST_SPAN, SPAN_PER_ROW, NumberIndex
from unistream.state.reference import DictTable

LEAST, GREATEST = -(2**63), 2**63 - 1
BEGINNINGS = [LEAST, LEAST + 5, -1000, 0, 2**40, GREATEST - LEAST_SPAN, GREATEST - 100]


def drawn(random: np.random.Generator, count: int) -> np.ndarray:
    """Distinct numbers, close together or far apart, somewhere."""
    least = BEGINNINGS[random.integers(len(BEGINNINGS))]
    spread = int(random.choice([count, 10 * count, 50 * LEAST_SPAN, 2**62]))
    greatest = min(GREATEST, least + spread)
    return np.unique(random.integers(least, greatest, count, endpoint=True))


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_finds_what_a_dict_finds(seed: int) -> None:
    random = np.random.default_rng(seed)
    index, expected = NumberIndex(), dict[int, int]()
    row_tags, free = np.zeros(4000, dtype=np.uint64), list(range(4000))
    asked = [LEAST, LEAST + 1, -1, 0, 1, GREATEST - 1, GREATEST]
    for _ in range(8):
        fresh = [number for number in drawn(random, 300).tolist() if number not in expected]
        rows = np.array([free.pop() for _ in fresh], dtype=np.int64)
        tags = np.array(fresh, dtype=np.int64).view(np.uint64)
        row_tags[rows] = tags
        index.insert(tags, rows, row_tags)
        expected |= dict(zip(fresh, rows.tolist(), strict=True))
        share = random.choice([0.1, 0.9, 1.0])
        gone = [number for number in expected if random.random() < share]
        rows = np.array([expected.pop(number) for number in gone], dtype=np.int64)
        index.remove(row_tags[rows], rows)
        free += rows.tolist()
        asked += [*fresh, *(min(GREATEST, number + 1) for number in fresh[:20])]
        found = index.find(np.array(asked, dtype=np.int64).view(np.uint64), row_tags)
        assert found.tolist() == [expected.get(number, -1) for number in asked]
        assert len(index) == len(expected)


def filled(numbers: np.ndarray) -> NumberIndex:
    index = NumberIndex()
    row_tags = numbers.astype(np.int64).view(np.uint64)
    for rows in np.array_split(np.arange(len(numbers)), 20):
        index.insert(row_tags[rows], rows, row_tags)
    assert index.find(row_tags, row_tags).tolist() == list(range(len(numbers)))
    return index


def test_running_ids_take_a_slot_each() -> None:
    assert filled(np.arange(1_000_000)).nbytes <= 2 * 4_000_000


def test_ids_drawn_from_a_range_take_slots_once_enough_are_there() -> None:
    numbers = np.random.default_rng(1).permutation(np.arange(0, 4_000_000, 4))
    assert filled(numbers).nbytes == pytest.approx(1.5 * 4 * 4_000_000, rel=0.01)


def test_ids_far_apart_are_hashed() -> None:
    sparse = np.arange(0, 100_000) * (SPAN_PER_ROW + 1) * 100
    assert filled(sparse).nbytes <= 100_000 * 4 * 4


def test_ids_that_wander_do_not_leave_slots_behind() -> None:
    index, row_tags = NumberIndex(), np.zeros(1000, dtype=np.uint64)
    for turn in range(2000):
        rows = np.arange(500) + 500 * (turn % 2)
        if turn > 1:
            index.remove(row_tags[rows], rows)
        row_tags[rows] = (np.arange(500) + 500 * turn).view(np.uint64)
        index.insert(row_tags[rows], rows, row_tags)
        assert index.find(row_tags[rows], row_tags).tolist() == rows.tolist()
    assert index.nbytes <= 4 * 1.5 * LEAST_SPAN + 1000


KEYS = {
    pl.Int64: [None, 0, 1, -1, 7, GREATEST, LEAST],
    pl.UInt64: [None, 0, 1, 2**64 - 1, 2**63],
    pl.Boolean: [None, True, False],
    pl.Float64: [None, 0.0, -0.0, float("nan"), 1.5, -1.5, float("inf")],
    pl.String: [None, "", "a", "b"],
}


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from(list(KEYS)))
def test_place_makes_rows_of_keys_that_repeat(data: st.DataObject, kind: type[pl.DataType]) -> None:
    table = HotTable(pl.Schema({"k": kind}), pl.Schema({"v": pl.Int64}))
    reference = DictTable(pl.Schema({"k": kind}), pl.Schema({"v": pl.Int64}))
    theirs: dict[int, int] = {}
    for _ in range(3):
        keys = pl.DataFrame(
            {"k": data.draw(st.lists(st.sampled_from(KEYS[kind]), max_size=12))}, schema={"k": kind}
        )
        rows, made = table.place(keys)
        expected, expected_made = reference.place(keys)
        assert made.tolist() == expected_made.tolist()
        for mine, other in zip(rows.tolist(), expected.tolist(), strict=True):
            assert theirs.setdefault(mine, other) == other
        assert len(table) == len(reference) == len(theirs)
        assert table.find(keys).tolist() == rows.tolist()
