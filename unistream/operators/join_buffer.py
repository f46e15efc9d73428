"""Rows of one side of a join, kept in slices of time that are read and forgotten whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from unistream.of_columns import in_one_piece, stacked
from unistream.operators.join_matching import CODE, TICK, Keyed, in_order
from unistream.state.backend import LogTable, StateStore

DONE = "__done"
"""Whether a row needs no further attention: it found a partner, or left without one."""

MOST_SLICES = 256
"""With more of them, slices are made wider: Python runs per slice."""

MOST_PIECES = 8
"""Frames a slice may have before some are merged; fewer are quicker to read, more are copied less."""

MOST_MERGED = 1 << 17
"""Frames of so many rows are not copied again."""

VIEWED = 4
"""A quarter of the memory budget is what kept rows may take while they are matched with others."""

MANY_PAIRS = 4
"""From one row taken in so many it pays to put the rows together first: taking them from pieces is slow."""

Flags = npt.NDArray[np.bool_]


@dataclass(slots=True)
class Piece:
    """What is known of one frame of a slice: times, codes, and which of its rows are done."""

    ticks: npt.NDArray[np.int64]
    first: int
    last: int
    """The earliest and the latest time."""
    ordered: bool
    """Whether times ascend."""
    keyed: Keyed | None
    """None where rows have no code."""
    done: Flags | None = None
    settled: int = 0
    """So many rows at its beginning are done."""


@dataclass(frozen=True, slots=True)
class Part:
    """Neighbouring rows of a slice: from `start` to `stop` of its frame number `number`."""

    bucket: int
    number: int
    piece: Piece
    start: int
    stop: int

    @property
    def height(self) -> int:
        """How many rows."""
        return self.stop - self.start


class View:
    """Rows of a buffer that lie in a range of time; read, maybe from disk, when they are asked for."""

    def __init__(self, log: LogTable, parts: Sequence[Part]) -> None:
        self._log = log
        self.parts = parts
        self.height = sum(part.height for part in parts)
        self._frame: pl.DataFrame | None = None

    @property
    def keyed(self) -> Keyed | None:
        """What the rows are matched by; None where there are none, or they have no code."""
        keyed = [part.piece.keyed.cut(part.start, part.stop) for part in self.parts if part.piece.keyed]
        return Keyed.joined(keyed) if keyed else None

    @property
    def frame(self) -> pl.DataFrame:
        """All rows."""
        if self._frame is None:
            self._frame = _one(list(self._frames()))
        return self._frame

    def frame_for(self, pairs: int) -> pl.DataFrame:
        """All rows, as one piece of memory if so many are taken out of them that it pays."""
        if pairs > self.height // MANY_PAIRS:
            self._frame = in_one_piece(self.frame)
        return self.frame

    def where(self, chosen: Flags) -> pl.DataFrame:
        """Some of the rows, without a frame of all of them."""
        ends = np.cumsum([part.height for part in self.parts])[:-1]
        flags = np.split(chosen, ends)
        return _one(
            [frame.filter(pl.Series(some)) for frame, some in zip(self._frames(), flags, strict=True)]
        )

    def _frames(self) -> Iterator[pl.DataFrame]:
        """Part by part; a slice on disk is read once, and held while its parts are asked for."""
        bucket: int | None = None
        frames: Sequence[pl.DataFrame] = ()
        for part in self.parts:
            if part.bucket != bucket:
                bucket, frames = part.bucket, self._log.frames(part.bucket)
            frame = frames[part.number]
            yield frame if part.height == frame.height else frame.slice(part.start, part.height)

    def done(self) -> Flags:
        """Which of the rows are done."""
        flags = [
            part.piece.done[part.start : part.stop] for part in self.parts if part.piece.done is not None
        ]
        return np.concatenate(flags) if flags else np.zeros(self.height, dtype=np.bool_)


def _one(frames: Sequence[pl.DataFrame]) -> pl.DataFrame:
    return stacked(frames) if frames else pl.DataFrame()


class SliceBuffer:
    """Frames in buckets of `width` ticks.

    Within a bucket frames are merged so that there are few of them and no row is copied often. They are
    sorted by time, unless the buffer need not be `exact`: then those merged are not, and a view may have
    rows beyond its range, of the slices at its ends.
    """

    def __init__(
        self,
        state: StateStore,
        name: str,
        columns: pl.Schema,
        width: int,
        *,
        marked: bool = False,
        exact: bool = True,
    ) -> None:
        extra = {DONE: pl.Boolean()} if marked else {}
        self._log: LogTable = state.log(name, pl.Schema({**columns, TICK: pl.Int64(), **extra}))
        self._cell = state.cell(f"{name} width")
        self._marked = marked
        self._exact = exact or marked
        self._width: int = self._cell.get(width)
        self._touched: set[int] = set()
        self._pieces: dict[int, list[Piece]] = {}
        self._row_bytes = 0
        self._restore()

    def _restore(self) -> None:
        """Take up what the log holds; slices of another width come from a subtask that widened its own."""
        foreign: list[pl.DataFrame] = []
        for bucket in self._log.buckets():
            frames = self._log.frames(bucket)
            pieces = [self._piece(frame) for frame in frames]
            if all(self._fits(piece, bucket) for piece in pieces):
                self._pieces[bucket] = pieces
            else:
                foreign += frames
                self._log.drop([bucket])
        for frame in foreign:
            self._add(frame)

    def _fits(self, piece: Piece, bucket: int) -> bool:
        return piece.first // self._width == piece.last // self._width == bucket

    def _piece(self, frame: pl.DataFrame) -> Piece:
        self._row_bytes = max(self._row_bytes, int(frame.estimated_size()) // frame.height)
        done = frame.get_column(DONE).to_numpy().copy() if self._marked else None
        keyed = Keyed.of(frame) if CODE in frame.columns else None
        ticks = frame.get_column(TICK).to_numpy()
        ordered = self._exact or bool((ticks[1:] >= ticks[:-1]).all())
        ends = (ticks[0], ticks[-1]) if ordered else (ticks.min(), ticks.max())
        return Piece(ticks, int(ends[0]), int(ends[1]), ordered, keyed, done)

    def __len__(self) -> int:
        return len(self._log)

    def earliest(self) -> int | None:
        """The time of the earliest row."""
        first = min(self._pieces, default=None)
        return None if first is None else min(piece.first for piece in self._pieces[first])

    def latest(self) -> int | None:
        """The time of the last row."""
        last = max(self._pieces, default=None)
        return None if last is None else max(piece.last for piece in self._pieces[last])

    def add(self, rows: pl.DataFrame, done: Flags | None = None) -> None:
        """Keep rows, sorted by `TICK`; with which of them are done already, where that is marked."""
        if rows.height:
            self._add(rows.hstack([pl.Series(DONE, done)]) if self._marked else rows)

    def _add(self, rows: pl.DataFrame) -> None:
        ticks = rows.get_column(TICK).to_numpy()
        first, last = int(ticks[0]) // self._width, int(ticks[-1]) // self._width
        if last == first:
            self._append(first, rows)
            return
        buckets = ticks // self._width
        starts = np.flatnonzero(np.diff(buckets, prepend=buckets[0] - 1))
        if len(starts) + len(self._pieces) > MOST_SLICES:
            self._widen(buckets[starts].tolist())
            self._add(rows)
            return
        for start, stop in zip(starts.tolist(), [*starts[1:].tolist(), rows.height], strict=True):
            self._append(int(buckets[start]), rows.slice(start, stop - start))

    def _append(self, bucket: int, rows: pl.DataFrame) -> None:
        pieces = self._pieces.setdefault(bucket, [])
        self._log.append(bucket, rows)
        pieces.append(self._piece(rows))
        self._fold(bucket)

    def _fold(self, bucket: int) -> None:
        """Merge the last frames, as far back as those before are not much longer than they are together."""
        pieces = self._pieces[bucket]
        if len(pieces) <= MOST_PIECES:
            return
        kept, length = len(pieces) - 1, len(pieces[-1].ticks)
        while kept and len(pieces[kept - 1].ticks) <= min(2 * length, MOST_MERGED):
            kept -= 1
            length += len(pieces[kept].ticks)
        if kept == len(pieces) - 1:
            return
        # Those before are not read: they may lie on disk, and would have to be written there again.
        merged = in_one_piece(stacked(self._current(bucket, kept)))
        merged = in_order(merged) if self._exact else merged
        self._log.replace(bucket, [merged], kept)
        pieces[kept:] = [self._piece(merged)]

    def _current(self, bucket: int, start: int = 0) -> list[pl.DataFrame]:
        """The frames of a bucket from number `start` on, with what is done by now."""
        frames = self._log.frames(bucket, start)
        if not self._marked:
            return list(frames)
        return [
            frame.with_columns(pl.Series(DONE, piece.done))
            for frame, piece in zip(frames, self._pieces[bucket][start:], strict=True)
        ]

    def _widen(self, wanted: Sequence[int]) -> None:
        """Make slices so much wider that those there are and those wanted are few."""
        factor = 4
        while len({bucket // factor for bucket in (*self._pieces, *wanted)}) > MOST_SLICES // 4:
            factor *= 4
        self.write_marks()
        old = {bucket: self._log.frames(bucket) for bucket in self._log.buckets()}
        self._log.drop(old)
        self._pieces.clear()
        self._width *= factor
        self._cell.set(self._width)
        for bucket, frames in old.items():
            for frame in frames:
                self._append(bucket // factor, frame)

    def view(self, low: int, high: int) -> View:
        """The rows from `low` to `high`."""
        return View(self._log, list(self._parts(low, high)))

    def views(self, low: int, high: int, most_bytes: int) -> Iterator[View]:
        """The same, in views of about so many bytes at most; a frame of a slice is never divided."""
        most = max(most_bytes // max(self._row_bytes, 1), 1)
        parts: list[Part] = []
        rows = 0
        for part in self._parts(low, high):
            if parts and rows + part.height > most:
                yield View(self._log, parts)
                parts, rows = [], 0
            parts.append(part)
            rows += part.height
        if parts:
            yield View(self._log, parts)

    def nbytes(self, rows: int) -> int:
        """About how much memory so many rows take."""
        return rows * self._row_bytes

    def _parts(self, low: int, high: int) -> Iterator[Part]:
        first, last = low // self._width, high // self._width
        for bucket in sorted(bucket for bucket in self._pieces if first <= bucket <= last):
            for number, piece in enumerate(self._pieces[bucket]):
                if (low <= piece.first and piece.last <= high) or not piece.ordered:
                    start, stop = 0, len(piece.ticks) if piece.first <= high and piece.last >= low else 0
                else:
                    start, stop = np.searchsorted(piece.ticks, [low, high + 1]).tolist()
                if start < stop:
                    yield Part(bucket, number, piece, start, stop)

    def mark(self, view: View, hit: Flags) -> None:
        """Rows of a view are done."""
        at = 0
        for part in view.parts:
            assert part.piece.done is not None
            news = hit[at : at + part.height]
            if news.any():
                part.piece.done[part.start : part.stop] |= news
                self._touched.add(part.bucket)
            at += part.height

    def settle(self, before: int) -> list[pl.DataFrame]:
        """The rows earlier than `before` that were not done; they are now."""
        found: list[pl.DataFrame] = []
        for bucket in sorted(self._pieces):
            if bucket * self._width >= before:
                break
            for at, piece in enumerate(self._pieces[bucket]):
                assert piece.done is not None
                stop = int(np.searchsorted(piece.ticks, before))
                start, piece.settled = piece.settled, max(stop, piece.settled)
                waiting = np.flatnonzero(~piece.done[start:stop])
                if len(waiting):
                    found.append(self._log.frames(bucket)[at][waiting + start])
                    piece.done[start:stop] = True
                    self._touched.add(bucket)
        return found

    def drop(self, before: int) -> None:
        """Forget what is earlier than `before`: whole slices, and of the slice it lies in whole frames."""
        gone = [bucket for bucket in self._pieces if (bucket + 1) * self._width <= before]
        self._log.drop(gone)
        for bucket in gone:
            del self._pieces[bucket]
        self._touched.difference_update(gone)
        bucket = before // self._width
        pieces = self._pieces.get(bucket, [])
        passed = {number for number, piece in enumerate(pieces) if piece.last < before}
        if passed:
            self._log.thin(bucket, passed)
            self._pieces[bucket] = [piece for number, piece in enumerate(pieces) if number not in passed]
            if len(passed) == len(pieces):
                del self._pieces[bucket]
                self._touched.discard(bucket)

    def write_marks(self) -> None:
        """Write what was done since the last time into the frames, for a checkpoint."""
        for bucket in sorted(self._touched):
            self._log.replace(bucket, self._current(bucket))
        self._touched.clear()
