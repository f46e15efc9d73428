"""A calendar of when sessions end, so that closing costs what closes and not what is open."""

from __future__ import annotations

import numpy as np

from unistream.elements import MAX_TIME
from unistream.operators.row_places import runs_of
from unistream.operators.time_grid import Ticks
from unistream.state.backend import RowIds


class EndCalendar:
    """Row ids by the page of time their session ends in.

    A session that grows is entered again and not struck out: whoever takes a page looks at the rows
    themselves. Made anew from the table after a restore.
    """

    def __init__(self, page: int) -> None:
        self._page = max(1, page)
        self._pages: dict[int, list[RowIds]] = {}
        self.next_end = MAX_TIME
        """No entry ends before this tick."""

    def enter(self, rows: RowIds, ends: Ticks) -> None:
        """These rows end at these ticks."""
        if not len(rows):
            return
        self.next_end = min(self.next_end, int(ends.min()))
        pages = ends // self._page
        first, last = int(pages.min()), int(pages.max())
        if first == last:
            self._pages.setdefault(first, []).append(rows)
            return
        order, starts = runs_of(pages - first)
        numbers = pages[order[starts]]
        for number, part in zip(numbers.tolist(), np.split(rows[order], starts[1:]), strict=True):
            self._pages.setdefault(number, []).append(part)

    def take(self, until: int) -> RowIds:
        """Remove and return all rows that may end at this tick or before, each once, ascending."""
        due = [page for page in self._pages if page * self._page <= until]
        found = [rows for page in due for rows in self._pages.pop(page)]
        self.next_end = min(self._pages, default=MAX_TIME)
        if self.next_end != MAX_TIME:
            self.next_end *= self._page
        if not found:
            return np.empty(0, dtype=np.int64)
        rows = np.sort(np.concatenate(found))
        distinct: RowIds = rows[np.append(True, rows[1:] != rows[:-1])]
        return distinct
