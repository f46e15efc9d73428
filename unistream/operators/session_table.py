"""The open sessions of all keys: the newest of each key found by the key, older ones beside it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from unistream.elements import MAX_TIME
from unistream.operators.session_ends import EndCalendar
from unistream.operators.session_intervals import Codes, Sessions
from unistream.operators.window_contents import SEQUENCE, Contents
from unistream.operators.window_layout import END, START
from unistream.state.backend import KeyedTable, RowIds, StateStore

BORN = SEQUENCE
"""How many rows had come before the first one of a session."""

_COUNT, _SLOT, _ALL = "__count", "__slot", "__all"


@dataclass(frozen=True, slots=True)
class Found:
    """The open sessions of some keys; `codes` says which key each has, `older` where older ones lie.

    `newest` is the row of each key in the table of that name, -1 for none.
    """

    frame: pl.DataFrame
    codes: Codes
    older: RowIds
    newest: RowIds


class SessionTable:
    """Most keys have one open session at most: it is the row of its key in the table `newest`.

    A key whose rows are further out of order than a gap has several; the older ones are in the table
    `older` under the key and a number, and the newest knows how many sessions the key had when it was
    written. A newest session closes last, so a key without one has none.
    """

    def __init__(self, state: StateStore, keys: pl.Schema, contents: Contents, gap: int) -> None:
        self._by = keys.names()
        self._contents = contents
        bounds = {START: pl.Int64(), END: pl.Int64(), BORN: pl.Int64()}
        # Without keys all rows have the same one.
        table_keys = pl.Schema(keys) if keys else pl.Schema({_ALL: pl.Int8()})
        values = pl.Schema({**bounds, **contents.stored})
        self._values = values.names()
        self._newest = state.keyed("newest", table_keys, pl.Schema({**values, _COUNT: pl.Int32()}))
        self._older = state.keyed("older", pl.Schema({**table_keys, _SLOT: pl.Int32()}), values)
        self._older_end = self._least_older_end()
        self._calendar = EndCalendar(gap // 8)
        rows = self._newest.rows()
        self._calendar.enter(rows, self._newest.column(END).take(rows))

    def __len__(self) -> int:
        return len(self._newest) + len(self._older)

    def last_sequence(self) -> int:
        """The greatest number of a row that is known of."""
        frames = [table.read(table.rows()) for table in (self._newest, self._older)]
        born = [int(frame[BORN].max()) for frame in frames if frame.height]  # type: ignore[arg-type]
        return max([-1, *born, *(self._contents.last_sequence(frame) for frame in frames)])

    def next_end(self) -> int:
        """No open session ends before this tick."""
        return min(self._older_end, self._calendar.next_end)

    def _least_older_end(self) -> int:
        ends = self._older.column(END).take(self._older.rows())
        return int(ends.min()) if len(ends) else MAX_TIME

    def _key_frame(self, keys: pl.DataFrame) -> pl.DataFrame:
        return keys if self._by else pl.DataFrame({_ALL: np.zeros(keys.height, dtype=np.int8)})

    def find(self, keys: pl.DataFrame) -> Found:
        """All open sessions of these distinct keys."""
        newest = self._newest.find(self._key_frame(keys))
        codes = np.flatnonzero(newest >= 0)
        rows = newest[codes]
        more = self._newest.column(_COUNT).take(rows) - 1
        frames, all_codes, older = [self._newest.read(rows).select(self._values)], [codes], []
        for slot in range(int(more.max()) if len(rows) else 0):
            some = codes[more > slot]
            keyed = self._key_frame(keys[some]).with_columns(pl.lit(slot, pl.Int32).alias(_SLOT))
            ids = self._older.find(keyed)
            older.append(ids[ids >= 0])
            frames.append(self._older.read(older[-1]).select(self._values))
            all_codes.append(some[ids >= 0])
        lost: RowIds = np.concatenate(older) if older else np.empty(0, dtype=np.int64)
        return Found(pl.concat(frames), np.concatenate(all_codes), lost, newest)

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
            ids[missing], _ = self._newest.upsert(self._key_frame(keys[codes[newest][missing]]))
        alone = len(newest) == len(codes)
        rows = values if alone else values[newest]
        self._newest.write(ids, rows.with_columns(pl.Series(_COUNT, count, dtype=pl.Int32)))
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
        # What follows may go by order, which must not depend on how far time moved at once.
        return pl.concat(closed).sort(END, BORN).drop(BORN) if closed else None

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
        frame = pl.DataFrame(
            [
                *table.keys(rows).select(self._by).get_columns(),
                *table.read(rows).select(self._values).get_columns(),
            ]
        )
        table.delete(rows)
        return frame
