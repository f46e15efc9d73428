"""Frames compared as what they mean: tables as multisets of rows, changelogs as the table they build."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import polars as pl

from unistream.expressions.schema import CHANGE, Change

Row = tuple[Any, ...]

_TAKES_BACK = {Change.UPDATE_BEFORE, Change.DELETE}
_SHOWN = 10
"""Most differing rows printed for each side."""


def fold(frame: pl.DataFrame, key: Sequence[str] = ()) -> pl.DataFrame:
    """The table that a changelog builds; a frame without the engine's change column is returned as it is.

    With `key` the last row of each key stands unless it is a deletion; without, rows are added and taken
    back. Row by row, in Python: the reference that faster folds are checked against.

    >>> log = pl.DataFrame({"n": [1, 1, 2], CHANGE: [0, 1, 2]}, schema_overrides={CHANGE: pl.Int8})
    >>> fold(log).rows()
    [(2,)]
    """
    if CHANGE not in frame.columns:
        return frame
    changes = [Change(value) for value in frame[CHANGE]]
    table = frame.drop(CHANGE)
    keys = [_normal(row) for row in (table.select(key) if key else table).rows()]
    standing = _last_rows(keys, changes) if key else _net_rows(keys, changes)
    return table[sorted(standing)]


def _last_rows(keys: Sequence[Row], changes: Sequence[Change]) -> list[int]:
    last: dict[Row, int] = {}
    for index, (key, change) in enumerate(zip(keys, changes, strict=True)):
        if change is Change.DELETE:
            last.pop(key, None)
        elif change is not Change.UPDATE_BEFORE:
            last[key] = index
    return list(last.values())


def _net_rows(keys: Sequence[Row], changes: Sequence[Change]) -> list[int]:
    standing: dict[Row, list[int]] = {}
    for index, (key, change) in enumerate(zip(keys, changes, strict=True)):
        rows = standing.setdefault(key, [])
        if change not in _TAKES_BACK:
            rows.append(index)
        elif rows:
            rows.pop()
        else:
            raise AssertionError(f"row {index} of the changelog takes back {key}, which is not there")
    return [index for rows in standing.values() for index in rows]


def assert_same_rows(
    left: pl.DataFrame,
    right: pl.DataFrame,
    *,
    ordered: bool = False,
    key: Sequence[str] = (),
    tolerance: float = 1e-9,
) -> None:
    """Raise an `AssertionError` that shows the difference unless both hold the same rows equally often.

    Order does not matter unless `ordered`; floats may differ by `tolerance`, relative and absolute; NaN
    equals NaN. Changelogs (of tables with this `key`, if they have one) are folded first.

    >>> assert_same_rows(pl.DataFrame({"a": [1, 2]}), pl.DataFrame({"a": [2, 1]}))
    >>> assert_same_rows(pl.DataFrame({"a": [1, 2]}), pl.DataFrame({"a": [2, 2]}))
    Traceback (most recent call last):
    ...
    AssertionError: rows differ
      only left (1): [(1,)]
      only right (1): [(2,)]
    """
    left, right = fold(left, key), fold(right, key)
    if left.schema != right.schema:
        raise AssertionError(f"schemas differ\n  left:  {dict(left.schema)}\n  right: {dict(right.schema)}")
    if ordered:
        _assert_same_order(left.rows(), right.rows(), tolerance)
        return
    only_left, only_right = _unmatched(left.rows(), right.rows(), tolerance)
    if only_left or only_right:
        raise AssertionError(
            f"rows differ\n  only left ({len(only_left)}): {only_left[:_SHOWN]}"
            f"\n  only right ({len(only_right)}): {only_right[:_SHOWN]}"
        )


def _assert_same_order(left: Sequence[Row], right: Sequence[Row], tolerance: float) -> None:
    for index, (one, other) in enumerate(zip(left, right, strict=False)):
        if not _close(one, other, tolerance):
            raise AssertionError(f"row {index} differs\n  left:  {one}\n  right: {other}")
    if len(left) != len(right):
        raise AssertionError(f"left has {len(left)} rows, right {len(right)}")


def _unmatched(left: Sequence[Row], right: Sequence[Row], tolerance: float) -> tuple[list[Row], list[Row]]:
    """Rows without a partner on the other side: equal ones are paired first, then close ones."""
    lefts, rights = Counter(map(_normal, left)), Counter(map(_normal, right))
    more, less = list((lefts - rights).elements()), list((rights - lefts).elements())
    by_rest: dict[Any, list[Row]] = {}
    for row in less:
        by_rest.setdefault(_without_floats(row), []).append(row)
    alone = [row for row in more if not _take_close(by_rest.get(_without_floats(row), []), row, tolerance)]
    return alone, [row for rows in by_rest.values() for row in rows]


def _take_close(candidates: list[Row], row: Row, tolerance: float) -> bool:
    for index, candidate in enumerate(candidates):
        if _close(row, candidate, tolerance):
            del candidates[index]
            return True
    return False


def _normal(value: Any) -> Any:
    """A hashable value equal for equal rows; NaN becomes one that equals itself."""
    match value:
        case float():
            return "NaN" if math.isnan(value) else value + 0.0
        case bool():
            return ("bool", value)
        case tuple() | list():
            return tuple(_normal(item) for item in value)
        case dict():
            return tuple((name, _normal(item)) for name, item in value.items())
        case pl.Series():
            return tuple(_normal(item) for item in value.to_list())
    return value


def _without_floats(value: Any) -> Any:
    if isinstance(value, float):
        return "a float"
    return tuple(_without_floats(item) for item in value) if isinstance(value, tuple) else value


def _close(one: Any, other: Any, tolerance: float) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        both_nan = math.isnan(one) and math.isnan(other)
        return both_nan or math.isclose(one, other, rel_tol=tolerance, abs_tol=tolerance)
    if isinstance(one, (tuple, list)) and isinstance(other, (tuple, list)):
        pairs = zip(one, other, strict=False)
        return len(one) == len(other) and all(_close(a, b, tolerance) for a, b in pairs)
    if isinstance(one, dict) and isinstance(other, dict):
        return _close(list(one.items()), list(other.items()), tolerance)
    return bool(one == other)
