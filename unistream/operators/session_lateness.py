"""Which rows of a batch come too late for any session, judged one after another but found for all at once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from unistream.elements import MAX_TIME
from unistream.operators.session_intervals import Codes
from unistream.operators.time_grid import Ticks

Marks = npt.NDArray[np.bool_]


def late_marks(codes: Codes, starts: Ticks, gap: int, watermark: int, opened: Ticks) -> Marks:
    """Mark the rows that are late, as if each were looked at alone, in the order they came.

    `codes` says which key a row has, `opened` where the earliest open session of each key begins (`MAX_TIME`
    for none). A row whose own session has ended is in time when it touches a session that has not; it then
    moves the beginning of that one back, which may let the next row in. What a row meets depends on
    earlier rows only, so one answer alone agrees with itself. It is looked for from below (no such row is
    in time) and from above (all are), because each is quick where the other is not.
    """
    suspect = starts <= watermark - gap
    concerned = np.flatnonzero(starts <= watermark)  # what begins later touches nothing that has ended
    order = concerned[np.argsort(codes[concerned], kind="stable")]
    before = _Before(codes[order], starts[order], opened)
    doubtful = suspect[order]
    guesses = [~doubtful, np.ones(len(order), dtype=np.bool_)]
    while True:
        better = [~doubtful | (before.reach(guess) < starts[order] + gap) for guess in guesses]
        found = [new for new, old in zip(better, guesses, strict=True) if np.array_equal(new, old)]
        if found:
            break
        guesses = better
    marks = np.zeros(len(starts), dtype=np.bool_)
    marks[order] = ~found[0]
    return marks


class _Before:
    """How far back the open session of a key reaches when each of its rows comes; rows lie key by key."""

    def __init__(self, codes: Codes, starts: Ticks, opened: Ticks) -> None:
        # Ranks of all times leave room to put key and time into one number.
        known, ranks = np.unique(np.concatenate([starts, opened, [MAX_TIME]]), return_inverse=True)
        self._known = known
        self._ranks, self._opened = ranks[: len(starts)], ranks[len(starts) : -1][codes]
        self._never = len(known) - 1
        first = np.flatnonzero(np.append(True, codes[1:] != codes[:-1])) if len(codes) else codes
        # A running minimum over numbers that get smaller from key to key never looks back past a key.
        self._step = (len(first) - np.repeat(np.arange(len(first)), np.diff(first, append=len(codes)))) * len(
            known
        )
        self._first = first

    def reach(self, counted: Marks) -> Ticks:
        """The earliest beginning among the open session and the earlier rows that count."""
        ranks = np.where(counted, self._ranks, self._never)
        earlier = np.empty_like(ranks)
        earlier[1:] = ranks[:-1]
        earlier[self._first] = self._never
        least = np.minimum.accumulate(earlier + self._step) - self._step
        return self._known[np.minimum(least, self._opened)]
