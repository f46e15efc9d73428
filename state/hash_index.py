"""Row ids by 64-bit tag: open addressing with linear probing, vectorised over whole batches."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from unistream.state.array_space import IN_MEMORY, ArraySpace
from unistream.state.backend import RowIds

Tags = npt.NDArray[np.uint64]
Slots = npt.NDArray[np.int32]
Places = npt.NDArray[np.int64]
Same = Callable[[RowIds, npt.NDArray[np.intp]], npt.NDArray[np.bool_]]
"""Whether the keys of these rows equal the keys asked for at these positions of the batch."""

EMPTY = -1
DELETED = -2
MAX_LOAD = 0.6
SMALLEST = 64
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_HALF = np.uint64(32)
# Nearly all keys are found within a few single steps; the rest look at a window at once, because every
# further step would cost the same dozen NumPy calls for a handful of keys.
_SINGLE_STEPS = 4
_WINDOW = np.arange(16)


class HashIndex:
    """Slots of row ids. The tags themselves lie with the rows, so a slot costs four bytes.

    Rows of equal tag may coexist (two keys with one hash); `find_same` tells them apart.
    """

    def __init__(self, space: ArraySpace = IN_MEMORY) -> None:
        self._space = space
        self._count = 0
        self._allocate(SMALLEST)

    def __len__(self) -> int:
        return self._count

    @property
    def nbytes(self) -> int:
        """Bytes the slots take."""
        return int(self._slots.nbytes)

    def find(self, tags: Tags, row_tags: Tags) -> RowIds:
        """The first row of each tag, -1 where there is none; `row_tags` are the tags by row id."""
        at = self._home(tags)
        slots = self._slots.take(at)
        hit = self._matches(slots, tags, row_tags)
        found = np.where(hit, slots, np.int32(EMPTY)).astype(np.int64)
        rest = np.flatnonzero(~hit & (slots != EMPTY))
        at, tags = at.take(rest) + 1, tags.take(rest)
        step = 1
        while len(rest):
            look = self._step if step <= _SINGLE_STEPS else self._window
            slots, ended = look(at, tags, row_tags)
            hit = slots >= 0
            found[rest[hit]] = slots[hit]
            going = np.flatnonzero(~(hit | ended))
            rest, tags = rest.take(going), tags.take(going)
            at = at.take(going) + (1 if step <= _SINGLE_STEPS else len(_WINDOW))
            step += 1
        return found

    def find_same(self, tags: Tags, row_tags: Tags, same: Same) -> RowIds:
        """The row of each tag whose key is the one asked for: slower, for tags that several keys share."""
        found = np.full(len(tags), EMPTY, dtype=np.int64)
        rest = np.arange(len(tags))
        at = self._home(tags)
        while len(rest):
            slots = self._slots.take(at & self._mask)
            hit = np.flatnonzero(self._matches(slots, tags.take(rest), row_tags))
            hit = hit[same(slots[hit].astype(np.int64), rest[hit])]
            found[rest[hit]] = slots[hit]
            slots[hit] = EMPTY
            going = np.flatnonzero(slots != EMPTY)
            rest, at = rest.take(going), at.take(going) + 1
        return found

    def expect(self, rows: int, row_tags: Tags) -> None:
        """Make room for so many rows at once, rather than again and again."""
        self._reserve(rows - self._count, row_tags)

    def is_full(self, more: int) -> bool:
        """Whether it has to be built anew before so many rows can be added."""
        return self._used + more > MAX_LOAD * len(self._slots)

    def rows(self) -> RowIds:
        """All rows, in no order."""
        return self._slots[self._slots >= 0].astype(np.int64)

    def insert(self, tags: Tags, rows: RowIds, row_tags: Tags) -> None:
        """Add rows that are not in the index; `row_tags` must hold their tags already."""
        self._reserve(len(rows), row_tags)
        self._claim(tags, rows.astype(np.int32))
        self._count += len(rows)

    def remove(self, tags: Tags, rows: RowIds) -> None:
        """Take out rows that are in the index."""
        at, wanted = self._home(tags), rows.astype(np.int32)
        self._count -= len(rows)
        while len(wanted):
            here = self._slots.take(at) == wanted
            self._slots[at[here]] = DELETED
            at, wanted = (at[~here] + 1) & self._mask, wanted[~here]
        if self._count == 0:
            self._allocate(SMALLEST)

    def _allocate(self, size: int) -> None:
        self._slots: Slots = self._space.zeros(size, np.int32)
        self._slots.fill(EMPTY)
        self._mask = size - 1
        self._shift = np.uint64(65 - size.bit_length())
        self._used = 0

    def _home(self, tags: Tags) -> Places:
        """First slot of each tag; the upper half is folded in so that no part of a key is ignored."""
        mixed = tags >> _HALF
        mixed ^= tags
        mixed *= _GOLDEN
        mixed >>= self._shift
        return mixed.view(np.int64)

    @staticmethod
    def _matches(slots: Slots, tags: Tags, row_tags: Tags) -> npt.NDArray[np.bool_]:
        # Empty and deleted slots wrap to the last rows; the second test takes them out again.
        result: npt.NDArray[np.bool_] = row_tags.take(slots, mode="wrap") == tags
        result &= slots >= 0
        return result

    def _step(self, at: Places, tags: Tags, row_tags: Tags) -> tuple[Slots, npt.NDArray[np.bool_]]:
        """The row in each place, negative unless it has the tag; and where the chain ends."""
        slots = self._slots.take(at & self._mask)
        hit = self._matches(slots, tags, row_tags)
        return np.where(hit, slots, np.int32(EMPTY)), slots == EMPTY

    def _window(self, at: Places, tags: Tags, row_tags: Tags) -> tuple[Slots, npt.NDArray[np.bool_]]:
        """As `_step`, for as many places as the window is wide."""
        slots = self._slots.take((at[:, None] + _WINDOW) & self._mask)
        hits = self._matches(slots, tags[:, None], row_tags)
        first = hits.argmax(axis=1)
        line = np.arange(len(at))
        hit = np.where(hits[line, first], slots[line, first], np.int32(EMPTY))
        return hit, (slots == EMPTY).any(axis=1)

    def _reserve(self, more: int, row_tags: Tags) -> None:
        """Room for more rows; deleted slots are swept out on the way."""
        if not self.is_full(more):
            return
        rows = self._slots[self._slots >= 0]
        size = len(self._slots)
        # Below the full load, or a table that adds and deletes would be rebuilt for every few rows.
        while self._count + more > 0.75 * MAX_LOAD * size:
            size *= 2
        self._allocate(size)
        self._claim(row_tags.take(rows), rows)

    def _claim(self, tags: Tags, rows: Slots) -> None:
        """Each row takes the first free slot of its chain; where two want one, the later one wins."""
        at = self._home(tags)
        self._used += len(rows)
        while len(rows):
            free = self._slots.take(at) < 0
            self._slots[at[free]] = rows[free]
            lost = self._slots.take(at) != rows
            at, rows = (at[lost] + 1) & self._mask, rows[lost]
