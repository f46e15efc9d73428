"""The open sessions of all keys: the newest of each key found by the key, older ones beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from unistream.elements import MAX_TIME, MIN_TIME
from unistream.expressions.aggregates import StateColumn
from unistream.of_columns import beside, columns_of, frame_of, stacked
from unistream.operators.folded_array import FoldedArray, value_columns
from unistream.operators.row_order import in_order_of
from unistream.operators.session_ends import EndCalendar
from unistream.operators.session_intervals import Codes, Sessions
from unistream.operators.session_lateness import Marks
from unistream.operators.time_grid import Ticks
from unistream.operators.window_contents import Contents
from unistream.operators.window_layout import END, START
from unistream.operators.window_sequence import SEQUENCE
from unistream.state.backend import KeyedTable, RowIds, StateStore
from unistream.state.gather import taken

BORN = SEQUENCE
"""How many rows had come before the first one of a session."""

_COUNT, _FLOOR, _SLOT, _ALL = "__count", "__floor", "__slot", "__all"


@dataclass(frozen=True, slots=True)
class Found:
    """The open sessions of some keys; `codes` says which key each has, `older` where older ones lie.

    `newest` is the row of each key in the table of that name, -1 for none.
    """

    frame: pl.DataFrame
    codes: Codes
    older: RowIds
    newest: RowIds


@dataclass(frozen=True, slots=True)
class Standings:
    """Of the newest session of some keys where it begins and ends, how many sessions the key has (0: it
    waits for the first) and, if there are older ones, where the last of them ends."""

    starts: Ticks
    ends: Ticks
    counts: Codes
    floors: Ticks


@dataclass(frozen=True, slots=True)
class Given:
    """Sessions made of new rows: where they begin and end, when the first row came, and their parts."""

    starts: Ticks
    ends: Ticks
    born: Codes
    parts: pl.DataFrame


_PAGES = 64
"""How fine the calendar is, for each gap: what ends soon is looked at again and again until it does."""


class SessionTable:
    """Most keys have one open session at most: it is the row of its key in the table `newest`.

    A key whose rows are further out of order than a gap has several; the older ones are in the table
    `older` under the key and a number, and the newest knows how many sessions the key had when it was
    written, and where the last older one ends (`__floor`). A newest session closes last, so a key without one
    has none.
    """

    def __init__(
        self,
        state: StateStore,
        keys: pl.Schema,
        contents: Contents,
        gap: int,
        columns: Sequence[StateColumn] = (),
        flags: Sequence[str] = (),
    ) -> None:
        """`columns` are those of the contents where all fold in place, `flags` are kept beside them."""
        self._by = keys.names()
        self._contents = contents
        bounds = {START: pl.Int64(), END: pl.Int64(), BORN: pl.Int64()}
        # Without keys all rows have the same one.
        table_keys = pl.Schema(keys) if keys else pl.Schema({_ALL: pl.Int8()})
        values = pl.Schema({**bounds, **contents.stored, **dict.fromkeys(flags, pl.Boolean())})
        self._values = values.names()
        stored = {**bounds, **value_columns(columns)} if columns else values
        own = pl.Schema({**stored, _COUNT: pl.Int32(), _FLOOR: pl.Int64()})
        self._newest = state.keyed("newest", table_keys, own)
        self._arrays = [FoldedArray(column, self._newest) for column in columns]
        self._older = state.keyed("older", pl.Schema({**table_keys, _SLOT: pl.Int32()}), values)
        self._older_end = self._least_older_end()
        self._calendar = EndCalendar(gap // _PAGES)
        rows = self._newest.rows()
        self._calendar.enter(rows, self._newest.column(END).take(rows))

    def __len__(self) -> int:
        return len(self._newest) + len(self._older)

    @property
    def tables(self) -> tuple[KeyedTable, KeyedTable]:
        """All sessions; those of the second are the newest of their keys."""
        return self._older, self._newest

    def frame(self, table: KeyedTable, rows: RowIds) -> pl.DataFrame:
        """Keys, bounds and what is kept of these rows of a table."""
        values = self._read(rows) if table is self._newest else columns_of(table.read(rows), self._values)
        return beside(columns_of(table.keys(rows), self._by), values)

    def of_key(self, key: pl.DataFrame) -> pl.DataFrame:
        """The sessions of the key in this one row."""
        found = self.find(key).frame
        return pl.DataFrame([*(column.new_from_index(0, found.height) for column in key), *found])

    def last_sequence(self) -> int:
        """The greatest number of a row that is known of."""
        frames = [self._read(self._newest.rows()), self._older.read(self._older.rows())]
        born = [int(frame[BORN].max()) for frame in frames if frame.height]  # type: ignore[arg-type]
        return max([-1, *born, *(self._contents.last_sequence(frame) for frame in frames)])

    def next_end(self) -> int:
        """No open session ends before this tick."""
        return min(self._older_end, self._calendar.next_end)

    def last_end(self) -> int:
        """Where the last of all sessions ends."""
        ends = [table.column(END).take(table.rows()).max(initial=MIN_TIME) for table in self.tables]
        return int(max(ends))

    def _least_older_end(self) -> int:
        ends = self._older.column(END).take(self._older.rows())
        return int(ends.min()) if len(ends) else MAX_TIME

    def _key_frame(self, keys: pl.DataFrame) -> pl.DataFrame:
        return keys if self._by else pl.DataFrame({_ALL: np.zeros(keys.height, dtype=np.int8)})

    def _read(self, rows: RowIds) -> pl.DataFrame:
        """Newest sessions as older ones are kept."""
        if not self._arrays:
            return columns_of(self._newest.read(rows), self._values)
        bounds = [pl.Series(name, self._newest.column(name).take(rows)) for name in (START, END, BORN)]
        return frame_of([*bounds, *(array.read(rows) for array in self._arrays)])

    def _write(self, rows: RowIds, values: pl.DataFrame, counts: Codes, floors: Ticks) -> None:
        """Replace newest sessions, and what their keys have beside them."""
        for array in self._arrays:
            array.put(rows, values.get_column(array.name))
        if self._arrays:
            values = columns_of(values, [START, END, BORN])
        beside = [pl.Series(_COUNT, counts, dtype=pl.Int32), pl.Series(_FLOOR, floors)]
        self._newest.write(rows, values.with_columns(beside))

    def find(self, keys: pl.DataFrame) -> Found:
        """All open sessions of these distinct keys."""
        newest = self._newest.find(self._key_frame(keys))
        codes = np.flatnonzero(newest >= 0)
        more = self._newest.column(_COUNT).take(newest[codes]) - 1
        codes, more = codes[more >= 0], more[more >= 0]  # others have a row and wait for their first session
        rows = newest[codes]
        frames, all_codes, older = [self._read(rows)], [codes], []
        for slot in range(int(more.max()) if len(rows) else 0):
            some = codes[more > slot]
            keyed = self._key_frame(keys[some]).with_columns(pl.lit(slot, pl.Int32).alias(_SLOT))
            ids = self._older.find(keyed)
            older.append(ids[ids >= 0])
            frames.append(columns_of(self._older.read(older[-1]), self._values))
            all_codes.append(some[ids >= 0])
        lost: RowIds = np.concatenate(older) if older else np.empty(0, dtype=np.int64)
        return Found(stacked(frames), np.concatenate(all_codes), lost, newest)

    def place(self, keys: pl.DataFrame) -> RowIds:
        """The row of each key, made where there is none; keys may occur several times."""
        return self._newest.place(self._key_frame(keys))[0]

    def standings(self, rows: RowIds) -> Standings:
        """What is known of these rows."""
        return Standings(*(self._newest.column(name).take(rows) for name in (START, END, _COUNT, _FLOOR)))

    def grow(self, rows: RowIds, fresh: Marks, given: Given) -> None:
        """Put one session into each row: what is `fresh` begins a session, behind the newest if there is one.

        The others reach into the newest session of their key, and into no older one.
        """
        begins = np.flatnonzero(fresh)
        counts = self._newest.column(_COUNT).take(rows)
        began = rows[begins]
        self._set_aside(began[counts[begins] > 0])
        for name, values, meet in (
            (START, given.starts, np.minimum),
            (END, given.ends, np.maximum),
            (BORN, given.born, np.minimum),
        ):
            bounds = self._newest.column(name)
            bounds[rows] = np.where(fresh, values, meet(bounds.take(rows), values))
        self._newest.column(_COUNT)[rows] = counts + fresh
        for array in self._arrays:
            array.fold(rows, begins, given.parts.get_column(array.name))
        self._newest.touch(rows)
        self._calendar.enter(began, given.ends[begins])

    def _set_aside(self, rows: RowIds) -> None:
        """The newest sessions of these rows become older ones."""
        if not len(rows):
            return
        slots = pl.Series(_SLOT, self._newest.column(_COUNT).take(rows) - 1)
        ids, _ = self._older.upsert(self._newest.keys(rows).with_columns(slots))
        self._older.write(ids, self._read(rows))
        ends = self._newest.column(END).take(rows)
        self._newest.column(_FLOOR)[rows] = ends
        self._older_end = min(self._older_end, int(ends.min()))

    def put(self, keys: pl.DataFrame, found: Found, sessions: Sessions, parts: pl.DataFrame) -> None:
        """Replace the open sessions of these keys by `sessions`, one row of `parts` each."""
        self._older.delete(found.older)
        bounds = {START: sessions.starts, END: sessions.ends, BORN: sessions.born}
        values = parts.with_columns(**{name: pl.Series(array) for name, array in bounds.items()})
        values = values.select(self._values)
        codes = sessions.codes
        last = np.append(codes[1:] != codes[:-1], True)
        newest = np.flatnonzero(last)
        count = np.diff(newest, prepend=-1)
        ids = found.newest[codes[newest]]
        missing = np.flatnonzero(ids < 0)
        if len(missing):
            ids[missing] = self._newest.insert(self._key_frame(keys[codes[newest][missing]]))
        alone = len(newest) == len(codes)
        rows = values if alone else values[newest]
        # Sessions of a key lie beside each other: the one in front of its newest ends where that is.
        before = sessions.ends[np.maximum(newest - 1, 0)]
        self._write(ids, rows, count, np.where(count > 1, before, MIN_TIME))
        self._calendar.enter(ids, sessions.ends[newest])
        if not alone:
            slots = np.arange(len(codes)) - np.repeat(newest - count + 1, count)
            older = np.flatnonzero(~last)
            marked = self._key_frame(keys[codes[older]]).with_columns(
                pl.Series(_SLOT, slots[older], dtype=pl.Int32)
            )
            ids, _ = self._older.upsert(marked)
            self._older.write(ids, values[older])
            self._older_end = min(self._older_end, int(sessions.ends[older].min()))

    def take_closed(self, until: int) -> pl.DataFrame | None:
        """Remove the sessions that end at this tick or before, in order of their ends; None for none."""
        closed = [
            self._taken(table, rows)
            for table, rows in ((self._older, self._ended_older(until)), (self._newest, self._ended(until)))
            if len(rows)
        ]
        if not closed:
            return None
        # What follows may go by order, which must not depend on how far time moved at once.
        frame = stacked(closed)
        order = in_order_of(*(frame.get_column(name).to_numpy() for name in (END, BORN)))
        return taken(frame.drop(BORN), order)

    def _ended_older(self, until: int) -> RowIds:
        if self._older_end > until:
            return np.empty(0, dtype=np.int64)
        rows = self._older.rows()
        ends = self._older.column(END).take(rows)
        self._older_end = int(ends[ends > until].min(initial=MAX_TIME))
        return rows[ends <= until]

    def _ended(self, until: int) -> RowIds:
        if self._calendar.next_end > until:
            return np.empty(0, dtype=np.int64)
        rows = self._calendar.take(until)
        rows = rows[self._newest.column(_COUNT).take(rows) > 0]  # others were closed under an earlier entry
        ends = self._newest.column(END).take(rows)
        waiting = ends > until
        self._calendar.enter(rows[waiting], ends[waiting])
        return rows[~waiting]

    def _taken(self, table: KeyedTable, rows: RowIds) -> pl.DataFrame:
        frame = self.frame(table, rows)
        table.delete(rows)
        return frame
