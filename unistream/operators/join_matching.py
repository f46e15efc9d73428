"""Pairs of rows with equal keys and times near each other, found a bounded number at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import polars as pl

from unistream.state.key_groups import stable_hash

CODE, TICK = "__code", "__tick"
"""The columns pairs are found by: a number for each key (null for keys with a null), and the time."""

MOST_PAIRS = 1 << 22
"""So many pairs with equal keys are looked at together at most, unless one row alone has more."""

MOST_ROWS = 1 << 18
"""So many pairs are handed on together at most."""

_AT, _OF = "__at", "__of"
_SPREAD = np.uint64(0x9E3779B97F4A7C15)

Places = npt.NDArray[np.int64]
Pairs = tuple[Places, Places]


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


def columns_of(frame: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
    """Some columns, without the query that `select` makes."""
    return pl.DataFrame([frame.get_column(name) for name in names])


def near_pairs(probe: pl.DataFrame, kept: pl.DataFrame, low: int, high: int) -> Iterator[Pairs]:
    """Places in `probe` and in `kept` of rows with one code and `kept` later by `low` to `high` ticks.

    Both frames have `CODE` and `TICK`. Pairs come ordered by place, some at a time.
    """
    if not probe.height or not kept.height:
        return
    codes = [probe.get_column(CODE), kept.get_column(CODE)]
    crowded = _most_pairs(*codes) > MOST_PAIRS
    rounds = (_by_time_too(probe, kept, low, high) if crowded else None) or [codes]
    ticks = [frame.get_column(TICK).to_numpy() for frame in (probe, kept)]
    mixed = rounds[0][0] is not codes[0]
    plain = [column.fill_null(0).to_numpy() for column in codes] if mixed else []
    for wanted, given in rounds:
        for at, of in equal_codes(wanted, given):
            later = ticks[1][of] - ticks[0][at]
            near = (later >= low) & (later <= high)
            if mixed:
                near &= plain[0][at] == plain[1][of]
            yield from _in_order(at[near], of[near])


def equal_pairs(
    left: pl.Series, right: pl.Series, pieces: tuple[pl.Series, pl.Series] | None = None
) -> Iterator[Pairs]:
    """Places of equal codes, and of equal `pieces` if these are given; ordered by place, some at a time."""
    if pieces is None:
        for at, of in equal_codes(left, right):
            yield from _in_order(at, of)
        return
    plain = [(left.fill_null(0).to_numpy(), right.fill_null(0).to_numpy())]
    plain += [(pieces[0].to_numpy(), pieces[1].to_numpy())]
    for at, of in equal_codes(_mixed(left, pieces[0]), _mixed(right, pieces[1])):
        same = np.ones(len(at), dtype=np.bool_)
        for mine, theirs in plain:
            same &= mine[at] == theirs[of]
        yield from _in_order(at[same], of[same])


def equal_codes(probe: pl.Series, kept: pl.Series) -> Iterator[Pairs]:
    """Places of equal codes, at most about `MOST_PAIRS` at a time."""
    wanted = probe.alias(CODE).to_frame().with_row_index(_AT)
    given = kept.alias(CODE).to_frame().with_row_index(_OF)
    if _most_pairs(probe, kept) <= MOST_PAIRS:
        yield _joined(wanted, given)
        return
    counts = given.group_by(CODE).agg(pl.len().alias(_OF))
    found = wanted.join(counts, on=CODE, how="left", maintain_order="left").get_column(_OF)
    before = found.fill_null(0).cast(pl.Int64).cum_sum().to_numpy()
    pieces = before // MOST_PAIRS
    edges = [0, *(np.flatnonzero(np.diff(pieces)) + 1).tolist(), probe.len()]
    for start, stop in pairwise(edges):
        yield _joined(wanted.slice(start, stop - start), given)


def _joined(wanted: pl.DataFrame, given: pl.DataFrame) -> Pairs:
    query = given.lazy().join(wanted.lazy(), on=CODE, how="inner").select(_AT, _OF)
    pairs = query.collect(engine="in-memory", optimizations=pl.QueryOptFlags.none())
    at, of = (pairs.get_column(name).to_numpy().astype(np.int64) for name in (_AT, _OF))
    return at, of


def _in_order(at: Places, of: Places) -> Iterator[Pairs]:
    """Sorted, because a parallel join promises no order and results must be the same each time."""
    packed = at << 32
    packed |= of
    packed.sort()
    for start in range(0, len(packed), MOST_ROWS):
        part = packed[start : start + MOST_ROWS]
        yield part >> 32, part & 0xFFFFFFFF


def _most_pairs(probe: pl.Series, kept: pl.Series) -> int:
    """No more pairs than this have equal codes.

    Each kept row meets at most the rows of the commonest code; where that says too little, the sum of
    products is bounded by the sums of squares (Cauchy and Schwarz).
    """
    rows = _runs(probe)
    most = int(rows.max(initial=0)) * len(kept)
    if most <= MOST_PAIRS:
        return most
    others = _runs(kept)
    return min(most, int(np.sqrt(float(rows @ rows) * float(others @ others))) + 1)


def _runs(codes: pl.Series) -> Places:
    """How often each code occurs."""
    known = np.sort((codes.drop_nulls() if codes.null_count() else codes).to_numpy())
    edges = np.flatnonzero(known[1:] != known[:-1])
    ends = np.concatenate(([-1], edges, [len(known) - 1]))
    runs: Places = np.diff(ends)
    return runs


def _by_time_too(
    probe: pl.DataFrame, kept: pl.DataFrame, low: int, high: int
) -> list[list[pl.Series]] | None:
    """Codes of key and piece of time, for rows spread over far more time than the interval is long.

    Pieces are as long as the interval, so what a row looks for lies in one piece or two: hence two rounds.
    """
    ticks = probe.get_column(TICK)
    width = max(high - low, 1)
    if np.ptp(ticks.to_numpy()) <= 2 * width:
        return None
    first, last = (ticks + low) // width, (ticks + high) // width
    given = _mixed(kept.get_column(CODE), kept.get_column(TICK) // width)
    codes = probe.get_column(CODE)
    second = _mixed(codes, last).set(first == last, None)
    return [[_mixed(codes, first), given], [second, given]]


def _mixed(codes: pl.Series, pieces: pl.Series) -> pl.Series:
    known = codes.is_not_null()
    mixed = codes.fill_null(0).to_numpy().view(np.uint64) * _SPREAD
    mixed ^= mixed >> np.uint64(29)
    mixed += pieces.to_numpy().view(np.uint64)
    mixed *= _SPREAD
    result = pl.Series(CODE, mixed.view(np.int64))
    return result if known.all() else result.set(~known, None)


def in_order(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows sorted by `TICK`; those of one tick stay as they came."""
    ticks = rows.get_column(TICK).to_numpy()
    if (ticks[1:] >= ticks[:-1]).all():
        return rows
    return rows[np.argsort(ticks, kind="stable")]
