"""How many values rows bring that their group has not had: what running counts of distinct values add up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from unistream.expressions.aggregate_state import Distinct, name_of
from unistream.of_columns import beside, columns_of, frame_of
from unistream.operators.folded_array import Mask
from unistream.state.backend import RowIds, StateStore
from unistream.state.columns import physical
from unistream.state.distinct import distinct, numbered, starts_of_runs
from unistream.state.gather import taken

_NUMBER = "number"
_PAIR = "pair"
_SMALL = 2**31
"""Whole numbers from 0 up to this are their own codes; the codes of other values begin here."""

_CODE_BITS = 32
"""Of a pair the lower bits are the code of the value, the upper ones the number of the group."""

Numbers = npt.NDArray[np.int64]


class DistinctMarks:
    """Puts beside the rows of a batch how many values they bring that are new, in a column for each count.

    The column holds it in some row of each group, zero in the others, so its sum is what a group gains.
    Values that were there are looked up, not listed: a batch costs what it holds.
    Groups are numbered, and so are values that are no small whole numbers; a value that a group had is one
    number of both, kept once for all filters that the value is counted under.
    """

    def __init__(self, store: StateStore, keys: pl.Schema, wanted: Sequence[Distinct]) -> None:
        self._by = keys.names()
        self._numbering = _Numbering(store, "numbers of groups", keys)
        together: dict[str, list[Distinct]] = {}
        for one in wanted:
            together.setdefault(name_of(one.values.expr), []).append(one)
        self._seen = [_Seen(store, same) for same in together.values()]
        exprs = {name: expr for seen in self._seen for name, expr in seen.inputs.items()}
        self._inputs = [expr.alias(name) for name, expr in exprs.items()]

    def marked(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The rows, and beside them the marks."""
        if frame.is_empty():
            marks = [pl.Series(mark, [], pl.Int64) for seen in self._seen for mark in seen.filters]
            return beside(frame, frame_of(marks))
        groups = _Groups.of(self._numbering.of(columns_of(frame, self._by)))
        inputs = frame.select(self._inputs)
        return beside(frame, frame_of([mark for seen in self._seen for mark in seen.marks(inputs, groups)]))


@dataclass(frozen=True, slots=True)
class _Groups:
    """The groups of a batch: their numbers, which of them each row has, and a row of each."""

    numbers: Numbers
    codes: Numbers
    rows: Numbers

    @classmethod
    def of(cls, numbers: Numbers) -> _Groups:
        found, codes = numbered(numbers)
        rows = np.empty(len(found), dtype=np.int64)
        rows[codes] = np.arange(len(codes))
        return cls(found, codes, rows)


class _Numbering:
    """Numbers of keys, from 0 on."""

    def __init__(self, store: StateStore, name: str, keys: pl.Schema) -> None:
        self._table = store.keyed(name, keys, pl.Schema({_NUMBER: pl.Int32()}))
        known = self._table.column(_NUMBER)[self._table.rows()]
        self._next = int(known.max()) + 1 if len(known) else 0

    def of(self, keys: pl.DataFrame) -> Numbers:
        """The number of each key, which may repeat; new ones get the next."""
        rows, made = self._table.place(keys)
        numbers = self._table.column(_NUMBER)
        if made.any():
            new = distinct(rows[made])
            numbers[new] = np.arange(self._next, self._next + len(new))
            self._next += len(new)
        return numbers.take(rows).astype(np.int64)


class _Seen:
    """The values of one expression that groups have had, and under which filters."""

    def __init__(self, store: StateStore, counted: Sequence[Distinct]) -> None:
        values = counted[0].values
        self._value = name_of(values.expr)
        self._is_whole = values.dtype.is_integer() and values.dtype not in (pl.UInt64, pl.Int128, pl.UInt128)
        wheres = {one.mark: one.values.where for one in counted}
        self.filters = {mark: None if where is None else name_of(where) for mark, where in wheres.items()}
        self.inputs = {self._value: values.expr}
        self.inputs |= {name_of(where): where for where in wheres.values() if where is not None}
        keys = pl.Schema({self._value: values.dtype})
        self._numbering = _Numbering(store, f"values of {self._value}", keys)
        marks = pl.Schema(dict.fromkeys(self.filters, pl.Boolean()))
        self._pairs = store.keyed(f"pairs with {self._value}", pl.Schema({_PAIR: pl.Int64()}), marks)

    def marks(self, inputs: pl.DataFrame, groups: _Groups) -> list[pl.Series]:
        """One column for each filter."""
        passing = {mark: _passing(inputs, where) for mark, where in self.filters.items()}
        counted = np.flatnonzero(np.logical_or.reduce(list(passing.values())))
        if not len(counted):
            nothing = np.zeros(inputs.height, dtype=np.int64)
            return [pl.Series(mark, nothing) for mark in passing]
        values = self._codes(taken(columns_of(inputs, [self._value]), counted)).view(np.uint64)
        bits = int(values.max()).bit_length()
        pairs = (groups.codes.take(counted).view(np.uint64) << np.uint64(bits)) | values
        # A pair and the filters it passes are sorted as one number: as many filters at once as fit into it.
        room = max(1, 64 - bits - len(groups.numbers).bit_length())
        marks, wanted = [], list(passing)
        for some in (wanted[at : at + room] for at in range(0, len(wanted), room)):
            found, passed = _together(pairs, [passing[mark].take(counted) for mark in some])
            group = (found >> np.uint64(bits)).view(np.int64)
            value = (found & np.uint64(2**bits - 1)).view(np.int64)
            places = self._places(groups.numbers.take(group) << _CODE_BITS | value)
            rows = groups.rows.take(group)
            for mark, passes in zip(some, passed, strict=True):
                new = self._new(mark, places, passes)
                marks.append(pl.Series(mark, np.bincount(rows[new], minlength=inputs.height)))
        return marks

    def _codes(self, values: pl.DataFrame) -> Numbers:
        """Small whole numbers stand for themselves; the numbers of other values lie above them."""
        if not self._is_whole:
            return self._numbering.of(values) + _SMALL
        column = values.to_series()
        codes = physical(column, np.dtype(np.int64))
        small = (codes >= 0) & (codes < _SMALL)
        if column.null_count():
            small &= column.is_not_null().to_numpy()
        others = np.flatnonzero(~small)
        if len(others):
            codes = codes.copy()
            codes[others] = self._numbering.of(taken(values, others)) + _SMALL
        return codes

    def _places(self, pairs: Numbers) -> RowIds:
        """The rows of distinct pairs, made where there is none."""
        keys = pl.Series(_PAIR, pairs).to_frame()
        places = self._pairs.find(keys)
        missing = np.flatnonzero(places < 0)
        if len(missing):
            places[missing] = self._pairs.insert(taken(keys, missing))
        return places

    def _new(self, mark: str, places: RowIds, passes: Mask) -> Mask:
        """Which pairs were not there under this filter; from now on they are."""
        seen = self._pairs.column(mark)
        new: Mask = passes & ~seen.take(places)
        rows = places[new]
        seen[rows] = True
        self._pairs.touch(rows)
        return new


def _together(
    pairs: npt.NDArray[np.uint64], passed: Sequence[Mask]
) -> tuple[npt.NDArray[np.uint64], list[Mask]]:
    """Each pair once that passes a filter, ascending, and which filters it passes in any of its rows."""
    room = np.uint64(len(passed))
    packed = pairs << room
    for at, passes in enumerate(passed):
        packed |= passes.astype(np.uint64) << np.uint64(at)
    filters = np.uint64(2 ** len(passed) - 1)
    packed = np.sort(packed[(packed & filters) != 0])
    found = packed >> room
    first = np.flatnonzero(starts_of_runs(found.view(np.int64)))
    if not len(first):
        return found, [np.zeros(0, dtype=np.bool_) for _ in passed]
    flags = np.bitwise_or.reduceat(packed & filters, first)
    return found.take(first), [(flags >> np.uint64(at)) & np.uint64(1) != 0 for at in range(len(passed))]


def _passing(inputs: pl.DataFrame, where: str | None) -> Mask:
    if where is None:
        return np.ones(inputs.height, dtype=np.bool_)
    return physical(inputs.get_column(where), np.dtype(np.bool_))
