"""Pairs of rows with equal keys and times near each other, found a bounded number at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from unistream.operators.join_codes import SPREAD, CodeMatch, Pairs, Places
from unistream.operators.row_order import columns_of
from unistream.state.key_groups import stable_hash

CODE, TICK = "__code", "__tick"
"""The columns pairs are found by: a number for each key (null for keys with a null), and the time."""

MOST_PAIRS = 1 << 22
"""So many pairs with equal keys are looked at together at most, unless one row alone has more."""

MOST_ROWS = 1 << 18
"""So many pairs are handed on together at most."""


def has_plain_code(columns: pl.Schema, by: Sequence[str]) -> bool:
    """Whether the key is one whole number, which is its own code; other keys are hashed."""
    return len(by) == 1 and columns[by[0]].is_integer() and columns[by[0]] not in (pl.Int128, pl.UInt128)


def key_code(frame: pl.DataFrame, by: Sequence[str]) -> pl.Series:
    """A number for the key of each row: equal for equal keys, rarely for others, null where a part is."""
    keys = columns_of(frame, by)
    if has_plain_code(keys.schema, by):
        codes = keys.to_series().alias(CODE)
        return codes if codes.dtype == pl.Int64 else codes.cast(pl.Int64, wrap_numerical=True)
    codes = pl.Series(CODE, stable_hash(keys.get_columns()).view(np.int64))
    if any(column.null_count() for column in keys.get_columns()):
        known = keys.select(pl.all_horizontal(pl.all().is_not_null())).to_series()
        codes = codes.set(~known, None)
    return codes


def with_code(columns: pl.Schema) -> pl.Schema:
    """The columns of rows that have their code beside them."""
    return pl.Schema({**columns, CODE: pl.Int64()})


def really_equal(
    pairs: Pairs, one: pl.DataFrame, other: pl.DataFrame, by: Sequence[str]
) -> npt.NDArray[np.bool_] | None:
    """Whether the keys behind equal codes are equal; None when all of them are."""
    if has_plain_code(one.schema, by):
        return None
    same = np.ones(len(pairs[0]), dtype=np.bool_)
    for name in by:
        # Keys with a null have no code, so there are none here.
        same &= (one.get_column(name)[pairs[0]] == other.get_column(name)[pairs[1]]).to_numpy()
    return None if same.all() else same


def index_of(places: Places) -> pl.Series:
    """Places as Polars takes them without looking at each."""
    return pl.Series(places.astype(np.uint32))


def near_pairs(probe: pl.DataFrame, kept: pl.DataFrame, low: int, high: int) -> Iterator[Pairs]:
    """Places in `probe` and in `kept` of rows with one code and `kept` later by `low` to `high` ticks.

    Both frames have `CODE` and `TICK`. Pairs come ordered by place, some at a time.
    """
    if not probe.height or not kept.height:
        return
    codes = probe.get_column(CODE), kept.get_column(CODE)
    match = _match(*codes)
    ticks = [frame.get_column(TICK).to_numpy() for frame in (probe, kept)]
    pieces = _pieces(ticks[0], ticks[1], low, high) if match.total > MOST_PAIRS else None
    found = match.pairs(MOST_PAIRS) if pieces is None else _by_time_too(codes, pieces)
    for at, of in found:
        later = ticks[1][of] - ticks[0][at]
        near = (later >= low) & (later <= high)
        yield from _in_order(at[near], of[near])


def equal_pairs(
    left: pl.Series, right: pl.Series, pieces: tuple[pl.Series, pl.Series] | None = None
) -> Iterator[Pairs]:
    """Places of equal codes, and of equal `pieces` if these are given; ordered by place, some at a time."""
    if pieces is None:
        found = _match(left, right).pairs(MOST_PAIRS)
    else:
        found = _in_pieces((left, right), (pieces[0].to_numpy(), pieces[1].to_numpy()))
    for at, of in found:
        yield from _in_order(at, of)


def _match(left: pl.Series, right: pl.Series) -> CodeMatch:
    return CodeMatch(_numbers(left), _numbers(right), (_known(left), _known(right)))


def _numbers(codes: pl.Series) -> Places:
    found: Places = (codes.fill_null(0) if codes.null_count() else codes).to_numpy()
    return found


def _known(codes: pl.Series) -> Places | None:
    return np.flatnonzero(codes.is_not_null().to_numpy()) if codes.null_count() else None


def _in_pieces(codes: tuple[pl.Series, pl.Series], pieces: Pairs) -> Iterator[Pairs]:
    """Places of equal codes in equal pieces."""
    plain = [_numbers(column) for column in codes]
    mixed = [_mixed(numbers, of) for numbers, of in zip(plain, pieces, strict=True)]
    known = _known(codes[0]), _known(codes[1])
    for at, of in CodeMatch(mixed[0], mixed[1], known).pairs(MOST_PAIRS):
        same = (plain[0][at] == plain[1][of]) & (pieces[0][at] == pieces[1][of])
        yield at[same], of[same]


def _in_order(at: Places, of: Places) -> Iterator[Pairs]:
    """Sorted by place on the left, then on the right: that is the order of rows in the result."""
    packed = at << 32
    packed |= of
    packed.sort()
    for start in range(0, len(packed), MOST_ROWS):
        part = packed[start : start + MOST_ROWS]
        yield part >> 32, part & 0xFFFFFFFF


def _pieces(ticks: Places, kept: Places, low: int, high: int) -> tuple[tuple[Places, Places], Places] | None:
    """For rows spread over far more time than the interval is long: the pieces of time each looks into.

    Pieces are as long as the interval, so what a row looks for lies in one piece or two.
    """
    width = max(high - low, 1)
    if int(ticks.max()) - int(ticks.min()) <= 2 * width:
        return None
    return ((ticks + low) // width, (ticks + high) // width), kept // width


def _by_time_too(
    codes: tuple[pl.Series, pl.Series], pieces: tuple[tuple[Places, Places], Places]
) -> Iterator[Pairs]:
    (first, last), kept = pieces
    yield from _in_pieces(codes, (first, kept))
    more = np.flatnonzero(first != last)
    for at, of in _in_pieces((codes[0][more], codes[1]), (last[more], kept)):
        yield more[at], of


def _mixed(numbers: Places, pieces: Places) -> Places:
    mixed = numbers.view(np.uint64) * SPREAD
    mixed ^= mixed >> np.uint64(29)
    mixed += pieces.view(np.uint64)
    mixed *= SPREAD
    mixed ^= mixed >> np.uint64(32)
    return mixed.view(np.int64)


def in_order(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows sorted by `TICK`; those of one tick stay as they came."""
    ticks = rows.get_column(TICK).to_numpy()
    if (ticks[1:] >= ticks[:-1]).all():
        return rows
    return rows[np.argsort(ticks, kind="stable")]
