"""Pairs of rows with equal keys and times near each other, found a bounded number at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from unistream.of_columns import columns_of
from unistream.operators.join_codes import SPREAD, CodeMatch, Pairs, Places
from unistream.operators.row_order import in_order_of
from unistream.state.gather import taken
from unistream.state.key_groups import stable_hash

Flags = npt.NDArray[np.bool_]
Known = tuple[Places | None, Places | None]

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


@dataclass(frozen=True, slots=True)
class Keyed:
    """What rows are matched by: codes, times, and which rows have a code (None: all)."""

    codes: Places
    ticks: Places
    known: Flags | None

    @classmethod
    def of(cls, rows: pl.DataFrame) -> Keyed:
        """Of rows with columns `CODE` and `TICK`."""
        column = rows.get_column(CODE)
        codes = _numbers(column)
        known = column.is_not_null().to_numpy() if column.null_count() else None
        return cls(codes, rows.get_column(TICK).to_numpy(), known)

    def cut(self, start: int, stop: int) -> Keyed:
        """Those of some neighbouring rows."""
        part = slice(start, stop)
        known = None if self.known is None else self.known[part]
        return Keyed(self.codes[part], self.ticks[part], known)

    @classmethod
    def joined(cls, parts: Sequence[Keyed]) -> Keyed:
        """Those of one frame after another."""
        if len(parts) == 1:
            return parts[0]
        known = None
        if any(part.known is not None for part in parts):
            known = np.concatenate([part.which_known() for part in parts])
        codes = np.concatenate([part.codes for part in parts])
        return cls(codes, np.concatenate([part.ticks for part in parts]), known)

    def which_known(self) -> Flags:
        """Whether each row has a code."""
        return np.ones(len(self.codes), dtype=np.bool_) if self.known is None else self.known

    @property
    def known_places(self) -> Places | None:
        """Where the rows with a code are; None for everywhere."""
        return None if self.known is None else np.flatnonzero(self.known)


def near_pairs(probe: Keyed, kept: Keyed, low: int, high: int) -> Iterator[Pairs]:
    """Places in `probe` and in `kept` of rows with one code and `kept` later by `low` to `high` ticks.

    Pairs come ordered by place, some at a time.
    """
    if not len(probe.codes) or not len(kept.codes):
        return
    known = probe.known_places, kept.known_places
    match = CodeMatch(probe.codes, kept.codes, known)
    pieces = _pieces(probe.ticks, kept.ticks, low, high) if match.total > MOST_PAIRS else None
    found = match.pairs(MOST_PAIRS) if pieces is None else _by_time_too((probe, kept), pieces)
    for at, of in found:
        later = kept.ticks[of] - probe.ticks[at]
        near = (later >= low) & (later <= high)
        yield from _in_order(at[near], of[near])


def equal_pairs(
    left: pl.Series, right: pl.Series, pieces: tuple[pl.Series, pl.Series] | None = None
) -> Iterator[Pairs]:
    """Places of equal codes, and of equal `pieces` if these are given; ordered by place, some at a time."""
    if pieces is None:
        found = _match(left, right).pairs(MOST_PAIRS)
    else:
        known = _known(left), _known(right)
        numbers = _numbers(left), _numbers(right)
        found = _in_pieces(numbers, known, (pieces[0].to_numpy(), pieces[1].to_numpy()))
    for at, of in found:
        yield from _in_order(at, of)


def _match(left: pl.Series, right: pl.Series) -> CodeMatch:
    return CodeMatch(_numbers(left), _numbers(right), (_known(left), _known(right)))


def _numbers(codes: pl.Series) -> Places:
    found: Places = (codes.fill_null(0) if codes.null_count() else codes).to_numpy()
    return found


def _known(codes: pl.Series) -> Places | None:
    return np.flatnonzero(codes.is_not_null().to_numpy()) if codes.null_count() else None


def _in_pieces(codes: Pairs, known: Known, pieces: Pairs) -> Iterator[Pairs]:
    """Places of equal codes in equal pieces."""
    mixed = [_mixed(numbers, of) for numbers, of in zip(codes, pieces, strict=True)]
    for at, of in CodeMatch(mixed[0], mixed[1], known).pairs(MOST_PAIRS):
        same = (codes[0][at] == codes[1][of]) & (pieces[0][at] == pieces[1][of])
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


def _by_time_too(sides: tuple[Keyed, Keyed], pieces: tuple[tuple[Places, Places], Places]) -> Iterator[Pairs]:
    (first, last), kept = pieces
    probe, other = sides
    known = probe.known_places, other.known_places
    yield from _in_pieces((probe.codes, other.codes), known, (first, kept))
    more = np.flatnonzero(first != last)
    has_code = None if probe.known is None else np.flatnonzero(probe.known[more])
    for at, of in _in_pieces((probe.codes[more], other.codes), (has_code, known[1]), (last[more], kept)):
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
    return taken(rows, in_order_of(ticks))
