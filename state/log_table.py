"""Frames under integer buckets, each kept as it came, written to a checkpoint once, and on disk when cold."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import polars as pl

from unistream.errors import StateError
from unistream.state.backend import LogTable
from unistream.state.detached import without_left_overs


class StoredFrames(Protocol):
    """Neighbouring frames of a bucket in one file of a checkpoint."""

    @property
    def durable(self) -> bool:
        """Whether the file is written."""

    def read(self) -> list[pl.DataFrame]:
        """The frames, in order."""


class ColdFrame(Protocol):
    """A frame in the spill space; it stays there as long as this object is used."""

    def read(self) -> pl.DataFrame:
        """The frame."""


class SpillSpace(Protocol):
    """Counts what logs hold in memory, and takes what is too much."""

    def watch(self, log: FrameLog) -> None:
        """Ask this log for cold buckets when memory runs short."""

    def grew(self, nbytes: int) -> None:
        """A log holds so many bytes more, or fewer."""

    def next_use(self) -> int:
        """A number for each use of a bucket, ascending over all logs."""

    def put(self, frame: pl.DataFrame) -> ColdFrame:
        """Move a frame to disk."""


@dataclass(eq=False, slots=True)
class LogFrame:
    """A frame of a log: in memory, or else in a file of a checkpoint (as its `part`th), or else spilled."""

    frame: pl.DataFrame | None
    height: int
    nbytes: int
    stored: StoredFrames | None = None
    part: int = 0
    cold: ColdFrame | None = None

    @classmethod
    def hot(cls, frame: pl.DataFrame) -> LogFrame:
        """A new frame, in memory."""
        frame = without_left_overs(frame)
        return cls(frame, frame.height, int(frame.estimated_size()))


class FrameLog(LogTable):
    """The production log: a list of frames per bucket. Nothing is copied on the way in or out, but
    for text that is a small part of what its buffers hold."""

    def __init__(self, schema: pl.Schema, space: SpillSpace | None = None) -> None:
        self.schema = pl.Schema(schema)
        self._names, self._dtypes = self.schema.names(), self.schema.dtypes()
        self._buckets: dict[int, list[LogFrame]] = {}
        self._last_use: dict[int, int] = {}
        self._length = 0
        self._space = space
        if space is not None:
            space.watch(self)

    def append(self, bucket: int, frame: pl.DataFrame) -> None:
        frame = self._checked(frame)
        if frame.height:
            self._add(int(bucket), LogFrame.hot(frame))

    def buckets(self) -> Sequence[int]:
        return sorted(self._buckets)

    def frames(self, bucket: int, start: int = 0) -> Sequence[pl.DataFrame]:
        entries = self._buckets.get(bucket, [])[start:]
        if not entries:
            return []
        self._use(bucket)
        result: list[pl.DataFrame] = []
        run: StoredFrames | None = None
        parts: list[pl.DataFrame] = []
        for entry in entries:
            if entry.frame is not None:
                result.append(entry.frame)
            elif entry.cold is not None:
                result.append(entry.cold.read())
            else:
                if entry.stored is not run:
                    run = entry.stored
                    assert run is not None
                    parts = [self._checked(part) for part in run.read()]
                result.append(parts[entry.part])
        return result

    def replace(self, bucket: int, frames: Iterable[pl.DataFrame], start: int = 0) -> None:
        made = [LogFrame.hot(frame) for frame in map(self._checked, frames) if frame.height]
        kept = self._buckets.get(bucket, [])[:start]
        if kept:
            self._give_up(self._buckets[bucket][start:])
            self._buckets[bucket] = kept
        else:
            self.drop([bucket])
        for entry in made:
            self._add(int(bucket), entry)

    def drop(self, buckets: Iterable[int]) -> None:
        for bucket in buckets:
            self._last_use.pop(bucket, None)
            self._give_up(self._buckets.pop(bucket, ()))

    def thin(self, bucket: int, gone: Collection[int]) -> None:
        entries = self._buckets[bucket]
        self._give_up([entries[number] for number in gone])
        kept = [entry for number, entry in enumerate(entries) if number not in gone]
        if kept:
            self._buckets[bucket] = kept
        else:
            self._last_use.pop(bucket, None)
            del self._buckets[bucket]

    def _give_up(self, gone: Sequence[LogFrame]) -> None:
        self._length -= sum(entry.height for entry in gone)
        if self._space is not None:
            self._space.grew(-sum(entry.nbytes for entry in gone if entry.frame is not None))

    def __len__(self) -> int:
        return self._length

    def bucket_entries(self, bucket: int) -> Sequence[LogFrame]:
        """The frames of a bucket with what is remembered about them."""
        return self._buckets.get(bucket, ())

    def load(self, bucket: int, frame: pl.DataFrame, stored: StoredFrames | None, part: int) -> None:
        """Put back a stored frame behind those of the bucket."""
        if frame.height:
            entry = LogFrame.hot(frame)
            entry.stored, entry.part = stored, part
            self._add(bucket, entry)

    def uses(self) -> Iterable[tuple[int, int]]:
        """When each bucket that may be in memory was last used, and the bucket."""
        return [(use, bucket) for bucket, use in self._last_use.items()]

    def spill(self, bucket: int) -> None:
        """Keep the frames of this bucket on disk only, until it is dropped or replaced."""
        assert self._space is not None
        self._last_use.pop(bucket, None)
        for entry in self._buckets.get(bucket, ()):
            if entry.frame is not None:
                if entry.stored is None or not entry.stored.durable:
                    entry.cold = self._space.put(entry.frame)
                entry.frame = None
                self._space.grew(-entry.nbytes)

    def _add(self, bucket: int, entry: LogFrame) -> None:
        self._buckets.setdefault(bucket, []).append(entry)
        self._length += entry.height
        self._use(bucket)
        if self._space is not None:
            self._space.grew(entry.nbytes)

    def _use(self, bucket: int) -> None:
        if self._space is not None:
            self._last_use[bucket] = self._space.next_use()

    def _checked(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The frame in the columns of the log."""
        if frame.columns == self._names and frame.dtypes == self._dtypes:  # ten times as fast as of schemas
            return frame
        try:
            return frame.select(pl.col(name).cast(dtype) for name, dtype in self.schema.items())
        except pl.exceptions.PolarsError as error:
            raise StateError(
                f"A frame of {dict(frame.schema)} does not fit a log of {dict(self.schema)}",
                hint="append frames with the columns the log was opened with",
            ) from error
