"""The index against a dict, with tags from spread to all alike."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from unistream.state.hash_index import HashIndex


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), spread=st.sampled_from([1, 3, 50, 2**62]))
def test_finds_every_key_whatever_the_tags(seed: int, spread: int) -> None:
    random = np.random.default_rng(seed)
    keys = random.permutation(3000).astype(np.int64)
    tags_by_key = random.integers(0, spread, 3000).astype(np.uint64)
    index = HashIndex()
    row_tags = np.zeros(3000, dtype=np.uint64)
    row_keys = np.full(3000, -1, dtype=np.int64)
    rows_by_key: dict[int, int] = {}
    free = list(range(3000))

    def find(wanted: np.ndarray) -> list[int]:
        tags = tags_by_key[wanted]
        return index.find_same(tags, row_tags, lambda rows, at: row_keys[rows] == wanted[at]).tolist()

    for step in range(6):
        batch = keys[step * 100 : step * 100 + (300 if spread > 3 else 60)]
        batch = np.array([key for key in batch.tolist() if key not in rows_by_key], dtype=np.int64)
        rows = np.array([free.pop() for _ in batch], dtype=np.int64)
        row_tags[rows], row_keys[rows] = tags_by_key[batch], batch
        index.insert(tags_by_key[batch], rows, row_tags)
        rows_by_key |= dict(zip(batch.tolist(), rows.tolist(), strict=True))
        gone = random.permutation(list(rows_by_key))[: len(rows_by_key) // 3].astype(np.int64)
        gone_rows = np.array([rows_by_key.pop(key) for key in gone.tolist()], dtype=np.int64)
        index.remove(row_tags[gone_rows], gone_rows)
        free += gone_rows.tolist()
        asked = random.integers(0, 3000, 500)
        assert find(asked) == [rows_by_key.get(int(key), -1) for key in asked]
        assert len(index) == len(rows_by_key)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), stride=st.sampled_from([1, 8, 2**16, 2**32, 2**48, 2**60]))
def test_exact_tags_of_regular_keys(seed: int, stride: int) -> None:
    random = np.random.default_rng(seed)
    tags = np.arange(5000, dtype=np.uint64) * np.uint64(stride)
    tags = np.unique(tags)
    rows = random.permutation(len(tags)).astype(np.int64)
    row_tags = np.zeros(len(tags), dtype=np.uint64)
    row_tags[rows] = tags
    index = HashIndex()
    for part in np.array_split(np.arange(len(tags)), 7):
        index.insert(tags[part], rows[part], row_tags)
    assert index.find(tags, row_tags).tolist() == rows.tolist()
    assert (index.find(tags + np.uint64(1), row_tags)[tags + np.uint64(1) > tags.max()] == -1).all()


def test_deleting_and_adding_for_ever_does_not_grow() -> None:
    index, row_tags = HashIndex(), np.zeros(100, dtype=np.uint64)
    rows = np.arange(100)
    for turn in range(200):
        row_tags[:] = np.arange(100, dtype=np.uint64) + np.uint64(1000 * turn)
        index.insert(row_tags[rows[:50]], rows[:50], row_tags)
        index.insert(row_tags[rows[50:]], rows[50:], row_tags)
        index.remove(row_tags[rows[:99]], rows[:99])
        index.remove(row_tags[rows[99:]], rows[99:])
    assert index.nbytes <= 4 * 1024


def test_churn_beside_live_rows_keeps_the_slots() -> None:
    index, row_tags = HashIndex(), np.zeros(2000, dtype=np.uint64)
    row_tags[:1000] = np.arange(1000, dtype=np.uint64) << np.uint64(20)
    index.insert(row_tags[:1000], np.arange(1000), row_tags)
    for turn in range(300):
        rows = np.arange(1000, 1100)
        row_tags[rows] = np.arange(100, dtype=np.uint64) + np.uint64(turn * 1_000_003)
        index.insert(row_tags[rows], rows, row_tags)
        index.remove(row_tags[rows], rows)
    assert index.nbytes <= 4 * 4096
    assert index.find(row_tags[:1000], row_tags).tolist() == list(range(1000))
