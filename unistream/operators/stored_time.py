"""Where time stands, over restarts."""

from __future__ import annotations

from unistream.elements import MAX_TIME, MIN_TIME
from unistream.state.backend import Cell


class StoredTime:
    """The watermark of an operator, as a checkpoint keeps it.

    The end of the input closes what is open, but it is no moment: a job that is started again, with more
    input, goes on from where time had come to, or everything that is new would be late.
    """

    def __init__(self, cell: Cell) -> None:
        self._cell = cell
        self._lasting: int = cell.get(MIN_TIME)
        self.now: int = self._lasting

    def advance(self, watermark: int) -> None:
        """Time has come to this watermark, if it was not there already."""
        self.now = max(self.now, watermark)
        if self.now != MAX_TIME:
            self._lasting = self.now

    def settle(self, until: int) -> None:
        """What lies before this moment is decided, although no watermark has passed it."""
        self._lasting = max(self._lasting, until)

    def store(self) -> None:
        """Put it where a checkpoint finds it."""
        self._cell.set(self._lasting)
