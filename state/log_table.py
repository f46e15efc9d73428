"""Frames under integer buckets, each kept as it came and written to a checkpoint once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from unistream.errors import StateError
from unistream.state.backend import LogTable


@dataclass(eq=False, slots=True)
class LogFrame:
    """A frame of a log; `stored` is whatever the checkpoint code remembers about where it was written."""

    frame: pl.DataFrame
    stored: Any = field(default=None)

    @property
    def height(self) -> int:
        """Rows of the frame."""
        return self.frame.height


class FrameLog(LogTable):
    """The production log: a list of frames per bucket. Nothing is copied on the way in or out."""

    def __init__(self, schema: pl.Schema) -> None:
        self.schema = pl.Schema(schema)
        self._buckets: dict[int, list[LogFrame]] = {}
        self._length = 0

    def append(self, bucket: int, frame: pl.DataFrame) -> None:
        frame = self._checked(frame)
        if frame.height:
            self._buckets.setdefault(int(bucket), []).append(LogFrame(frame))
            self._length += frame.height

    def buckets(self) -> Sequence[int]:
        return sorted(self._buckets)

    def frames(self, bucket: int) -> Sequence[pl.DataFrame]:
        return [entry.frame for entry in self._buckets.get(bucket, ())]

    def replace(self, bucket: int, frames: Iterable[pl.DataFrame]) -> None:
        kept = [LogFrame(frame) for frame in map(self._checked, frames) if frame.height]
        self.drop([bucket])
        if kept:
            self._buckets[int(bucket)] = kept
            self._length += sum(entry.height for entry in kept)

    def drop(self, buckets: Iterable[int]) -> None:
        for bucket in buckets:
            gone = self._buckets.pop(bucket, ())
            self._length -= sum(entry.height for entry in gone)

    def __len__(self) -> int:
        return self._length

    @property
    def nbytes(self) -> int:
        """Bytes the frames refer to; frames cut from one batch share them, so this may count twice."""
        entries = (entry for entries in self._buckets.values() for entry in entries)
        return sum(int(entry.frame.estimated_size()) for entry in entries)

    def bucket_entries(self, bucket: int) -> Sequence[LogFrame]:
        """The frames of a bucket with what is remembered about them."""
        return self._buckets.get(bucket, ())

    def load(self, bucket: int, frame: pl.DataFrame, stored: Any) -> None:
        """Put back a stored frame behind those of the bucket."""
        if not frame.height:
            return
        self._buckets.setdefault(bucket, []).append(LogFrame(frame, stored))
        self._length += frame.height

    def _checked(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The frame in the columns of the log."""
        if frame.schema == self.schema:
            return frame
        try:
            return frame.select(pl.col(name).cast(dtype) for name, dtype in self.schema.items())
        except pl.exceptions.PolarsError as error:
            raise StateError(
                f"A frame of {dict(frame.schema)} does not fit a log of {dict(self.schema)}",
                hint="append frames with the columns the log was opened with",
            ) from error
