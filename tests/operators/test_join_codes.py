"""Equal numbers of two columns against a dictionary of lists."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from unistream.operators import join_codes
from unistream.operators.join_codes import CodeMatch
from unistream.operators.join_matching import CODE, TICK, Keyed, near_pairs


def reference(left: np.ndarray, right: np.ndarray) -> set[tuple[int, int]]:
    places: dict[int, list[int]] = {}
    for of, code in enumerate(right.tolist()):
        places.setdefault(code, []).append(of)
    return {(at, of) for at, code in enumerate(left.tolist()) for of in places.get(code, ())}


def found(match: CodeMatch, most: int) -> list[tuple[int, int]]:
    pairs = list(match.pairs(most))
    return [pair for at, of in pairs for pair in zip(at.tolist(), of.tolist(), strict=True)]


@pytest.mark.parametrize("sizes", [(1, 1), (0, 5), (5, 0), (50, 60), (3, 500), (500, 3), (300, 300)])
@pytest.mark.parametrize("keys", [2, 40, 2**62])
def test_pairs_are_those_of_a_dictionary(sizes: tuple[int, int], keys: int) -> None:
    rng = np.random.default_rng(keys % 1000 + sizes[0])
    pool = rng.integers(-keys, keys, 100)
    left, right = (rng.choice(pool, size) for size in sizes)
    match = CodeMatch(left, right)
    expected = reference(left, right)
    assert match.total == len(expected)
    for most in (1, 7, 10**6):
        pairs = found(match, most)
        assert len(pairs) == len(expected)
        assert set(pairs) == expected


def test_so_many_pairs_at_a_time_unless_one_place_has_more() -> None:
    left, right = np.zeros(50, dtype=np.int64), np.zeros(20, dtype=np.int64)
    heights = [len(at) for at, _ in CodeMatch(left, right).pairs(100)]
    assert sum(heights) == 1000
    assert max(heights) <= 120


def test_codes_that_hash_alike_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(join_codes, "SPREAD", np.uint64(1))  # small numbers then agree in all upper bits
    left, right = np.arange(30), np.arange(10, 40)
    assert set(found(CodeMatch(left, right), 10)) == reference(left, right)
    few, many = np.arange(3), np.arange(500)
    assert set(found(CodeMatch(few, many), 10)) == reference(few, many)


@pytest.mark.parametrize("most", [5, 10**6])
def test_near_pairs_of_rows_over_a_long_time(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unistream.operators.join_matching.MOST_PAIRS", most)
    rng = np.random.default_rng(3)
    sides = [
        pl.DataFrame(
            {CODE: rng.choice([1, 2, 3, None], size).tolist(), TICK: np.sort(rng.integers(-500, 500, size))},
            schema={CODE: pl.Int64, TICK: pl.Int64},
        )
        for size in (120, 200)
    ]
    for low, high in ((-5, 3), (0, 0), (4, 9), (-900, 900)):
        expected = {
            (at, of)
            for at, (code, tick) in enumerate(sides[0].rows())
            for of, (other, later) in enumerate(sides[1].rows())
            if code is not None and code == other and low <= later - tick <= high
        }
        got = [
            pair
            for at, of in near_pairs(Keyed.of(sides[0]), Keyed.of(sides[1]), low, high)
            for pair in zip(at.tolist(), of.tolist(), strict=True)
        ]
        assert len(got) == len(expected)
        assert set(got) == expected
