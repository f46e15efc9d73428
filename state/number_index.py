"""Row ids by number: a slot for every number where they lie close together, as ids do; hashed where not."""

from __future__ import annotations

import numpy as np

from unistream.state.array_space import IN_MEMORY, ArraySpace
from unistream.state.backend import RowIds
from unistream.state.hash_index import HashIndex, Places, Slots, Tags

LEAST_SPAN = 1 << 18
"""Numbers that may always have a slot each. A slot costs four bytes, and memory only beside one in use."""

SPAN_PER_ROW = 8
"""Numbers for each row, above which most slots would be empty."""

_LIMIT = 2**63


class NumberIndex:
    """As `HashIndex`, for tags that no two rows share. Looking up takes one step instead of a dozen."""

    def __init__(self, space: ArraySpace = IN_MEMORY) -> None:
        self._space = space
        self._hashed: HashIndex | None = None
        self._empty()

    def __len__(self) -> int:
        return self._count if self._hashed is None else len(self._hashed)

    @property
    def nbytes(self) -> int:
        """Bytes the slots take, those included that were never written."""
        return int(self._slots.nbytes) + (0 if self._hashed is None else self._hashed.nbytes)

    def find(self, tags: Tags, row_tags: Tags) -> RowIds:
        """The row of each tag, -1 where there is none; `row_tags` are the tags by row id."""
        if self._hashed is not None:
            return self._hashed.find(tags, row_tags)
        found = self._slots.take(self._places(tags), mode="clip").astype(np.int64)
        found -= 1
        return found

    def expect(self, rows: int, row_tags: Tags) -> None:
        """So many rows will come."""
        if self._hashed is not None:
            self._hashed.expect(rows, row_tags)

    def insert(self, tags: Tags, rows: RowIds, row_tags: Tags) -> None:
        """Add rows that are not in the index; `row_tags` must hold their tags already."""
        if not len(rows):
            return
        if self._hashed is None and not self._has_slots(tags):
            self._spread(self._rows(), tags, row_tags)
        elif self._hashed is not None and self._hashed.is_full(len(rows)):
            # It would be built anew anyhow, and numbers that were drawn from a range fill it by and by.
            self._spread(self._hashed.rows(), tags, row_tags)
        if self._hashed is not None:
            self._hashed.insert(tags, rows, row_tags)
        else:
            self._slots[self._places(tags)] = rows + 1
            self._count += len(rows)

    def remove(self, tags: Tags, rows: RowIds) -> None:
        """Take out rows that are in the index."""
        if self._hashed is not None:
            self._hashed.remove(tags, rows)
        else:
            self._slots[self._places(tags)] = 0
            self._count -= len(rows)
        if not len(self):
            self._hashed = None
            self._empty()

    def _empty(self) -> None:
        self._count = 0
        self._first, self._end = 0, 0
        # Before the first slot and behind the last lies one for all numbers beyond; they stay empty.
        self._slots: Slots = self._space.zeros(2, np.int32)

    def _places(self, tags: Tags) -> Places:
        """The slot of each tag; out of bounds where it has none."""
        return (tags - np.uint64((self._first - 1) % 2**64)).view(np.int64)

    def _has_slots(self, tags: Tags) -> bool:
        numbers = tags.view(np.int64)
        return self._first <= int(numbers.min()) and int(numbers.max()) < self._end

    def _rows(self) -> RowIds:
        """All rows, in the order of their numbers."""
        slots = self._slots
        return slots[slots > 0].astype(np.int64) - 1

    def _spread(self, rows: RowIds, more: Tags, row_tags: Tags) -> None:
        """Slots for these rows and for tags that will be added, in whichever way suits them."""
        old = row_tags.take(rows)
        both = np.concatenate([old, more]).view(np.int64)
        least, greatest = int(both.min()), int(both.max())
        span = greatest - least + 1
        if span > max(LEAST_SPAN, SPAN_PER_ROW * len(both)):
            if self._hashed is None:
                self._empty()
                self._hashed = HashIndex(self._space)
                self._hashed.expect(len(both), row_tags)
                self._hashed.insert(old, rows, row_tags)
            return
        # Room on the side where numbers come, or each batch of running ids would move all slots.
        room = span // 2 + 64
        grows_down = self._first != self._end and least < self._first
        self._first = max(-_LIMIT, least - room) if grows_down else least
        self._end = min(_LIMIT, greatest + 1 + (0 if grows_down else room))
        self._hashed, self._count = None, len(rows)
        self._slots = self._space.zeros(self._end - self._first + 2, np.int32)
        self._slots[self._places(old)] = rows + 1
