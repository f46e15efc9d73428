"""Timers of keys in event or processing time, as a calendar of log buckets."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

from unistream.of_columns import columns_of, frame_of
from unistream.state.backend import StateStore

TIME = "__time"
"""Column of `Timers.due` with the time of each timer, in microseconds."""

_ORDER = "__order"
_CANCELS = "__cancels"
_FAN = 64
_LEVELS = 8

Times = npt.NDArray[np.int64]


class Timers:
    """Keys to be woken at given times. One timer per key and time, however often it is registered.

    Near times lie in narrow buckets and far ones in wide buckets that are cut up when time gets there, so a
    batch touches few buckets however far its timers spread, and a timer moves at most once per level.
    Everything lies in a log of the store: timers are restored and divided with the keys.

    >>> from unistream.state.memory import MemoryBackend
    >>> timers = Timers(MemoryBackend().store("alarm"), "timers", pl.Schema({"user": pl.String}))
    >>> timers.register(np.array([5, 9, 5]), pl.DataFrame({"user": ["ada", "bob", "ada"]}))
    >>> timers.cancel(np.array([9]), pl.DataFrame({"user": ["bob"]}))
    >>> timers.next_time(), timers.due(10).rows(), timers.next_time()
    (5, [(5, 'ada')], None)
    """

    def __init__(self, store: StateStore, name: str, keys: pl.Schema, width: int = 1_000_000) -> None:
        """`width` of the narrowest buckets in microseconds: about the time between calls of `due`."""
        self._keys = keys.names()
        self._due_schema = pl.Schema({TIME: pl.Int64(), **keys})
        self._log = store.log(
            name, pl.Schema({TIME: pl.Int64(), _ORDER: pl.Int64(), _CANCELS: pl.Boolean(), **keys})
        )
        self._widths = [width * _FAN**level for level in range(_LEVELS) if width * _FAN**level < 2**62]
        self._now: int | None = None
        self._earliest: dict[int, int] = {}
        self._next_order = 0
        for bucket in self._log.buckets():
            frames = self._log.frames(bucket)
            self._earliest[bucket] = min(_least(frame[TIME]) for frame in frames)
            self._next_order = max(self._next_order, *(1 + _greatest(frame[_ORDER]) for frame in frames))

    def register(self, times: Times, keys: pl.DataFrame) -> None:
        """Wake each key at its time (microseconds). Times that have passed are due at once."""
        self._add(times, keys, cancels=False)

    def cancel(self, times: Times, keys: pl.DataFrame) -> None:
        """Forget these timers; those that do not exist are ignored."""
        self._add(times, keys, cancels=True)

    def due(self, until: int) -> pl.DataFrame:
        """Take out all timers up to this time, in order: `TIME` and the key columns."""
        if -(2**62) < until < 2**62:
            self._now = until
        ready: list[pl.DataFrame] = []
        for bucket in [bucket for bucket, time in self._earliest.items() if time <= until]:
            frames = pl.concat(self._log.frames(bucket))
            self._log.drop([bucket])
            del self._earliest[bucket]
            ready.append(frames.filter(pl.col(TIME) <= until))
            if ready[-1].height < frames.height:
                self._place(frames.filter(pl.col(TIME) > until))
        if not ready:
            return pl.DataFrame(schema=self._due_schema)
        timers = pl.concat(ready).sort(TIME, _ORDER)
        timers = timers.unique([TIME, *self._keys], keep="last", maintain_order=True)
        return timers.filter(~pl.col(_CANCELS)).select(TIME, *self._keys)

    def next_time(self) -> int | None:
        """When to call `due` next (it may find that the timer was cancelled), or None."""
        return min(self._earliest.values(), default=None)

    def __len__(self) -> int:
        """How many registrations and cancellations are held."""
        return len(self._log)

    def _add(self, times: Times, keys: pl.DataFrame, cancels: bool) -> None:
        count = len(times)
        if not count:
            return
        order = np.arange(self._next_order, self._next_order + count)
        self._next_order += count
        head = [
            pl.Series(TIME, np.asarray(times, dtype=np.int64)),
            pl.Series(_ORDER, order),
            pl.Series(_CANCELS, np.full(count, cancels)),
        ]
        self._place(frame_of([*head, *columns_of(keys, self._keys).get_columns()]))

    def _place(self, frame: pl.DataFrame) -> None:
        """Put timers into the buckets of their times."""
        times = frame[TIME].to_numpy()
        buckets = self._buckets_of(times)
        first = int(buckets[0])
        if (buckets == first).all():
            self._append(first, frame, int(times.min()))
            return
        order = np.argsort(buckets, kind="stable")
        buckets, times, frame = buckets[order], times[order], frame[order]
        starts = np.flatnonzero(np.diff(buckets, prepend=buckets[0] - 1))
        earliest = np.minimum.reduceat(times, starts)
        ends = [*starts[1:].tolist(), len(buckets)]
        for start, end, time in zip(starts.tolist(), ends, earliest.tolist(), strict=True):
            self._append(int(buckets[start]), frame[start:end], time)

    def _append(self, bucket: int, frame: pl.DataFrame, earliest: int) -> None:
        self._log.append(bucket, frame)
        self._earliest[bucket] = min(earliest, self._earliest.get(bucket, earliest))

    def _buckets_of(self, times: Times) -> Times:
        """The level by the distance from now, the bucket by the time: `index * levels + level`."""
        widths = np.array(self._widths)
        if self._now is None:
            levels = np.full(len(times), len(widths) - 1)
        else:
            # As floats: a distance may not fit 64 bits, and near the edge of a level either bucket will do.
            distance = times.astype(np.float64) - self._now
            levels = np.searchsorted(widths[1:].astype(np.float64), distance, side="right")
        buckets: Times = (times // widths[levels]) * _LEVELS + levels
        return buckets


def _least(column: pl.Series) -> int:
    return int(column.to_numpy().min())


def _greatest(column: pl.Series) -> int:
    return int(column.to_numpy().max())
