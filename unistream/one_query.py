"""What must hold of its rows for a bounded run to be one query; found out before, within and after it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, NoReturn, Protocol

if TYPE_CHECKING:
    import polars as pl


class Reading(IntEnum):
    """How sources are read within a query; what comes later is slower and takes less for granted."""

    PLAIN = 0
    QUOTED = 1
    OWN = 2


class Unmet(Exception):
    """Rows were found for which one query would not give what ticks give.

    With `instead` only the way of reading is at fault: a query that reads in this one may do.
    """

    def __init__(self, why: str, instead: Reading | None = None) -> None:
        super().__init__(why)
        self.instead = instead


class RowWatch(Protocol):
    """Looks at all rows of a source while a query reads them, on any thread and in any order."""

    @property
    def column(self) -> str:
        """The column it looks at."""

    def see(self, first: int, rows: pl.DataFrame) -> None:
        """Some rows in order, the first of which has the number `first`; raises `Unmet`."""

    def finish(self) -> None:
        """All rows were seen; raises `Unmet`."""


class Conditions:
    """Checks that sources and steps ask for. What the query gives may be used when all of them held."""

    def __init__(self) -> None:
        self._before: list[Callable[[], None]] = []
        self._after: list[Callable[[], None]] = []
        self.unmet: Unmet | None = None
        self.over = False
        """Whether nobody waits for the checks that are still going on."""
        self.reads_leniently = False
        """Whether some source is read by a reader that tells less of bad rows than its own: any error of the
        query is then looked at again with its own."""

    def __bool__(self) -> bool:
        """Whether anything has to hold."""
        return bool(self._before or self._after)

    def before(self, check: Callable[[], None]) -> None:
        """Call this before the query runs."""
        self._before.append(check)

    def after(self, check: Callable[[], None]) -> None:
        """Call this when the query has run to its end."""
        self._after.append(check)

    def fail(self, why: str, instead: Reading | None = None) -> NoReturn:
        """The query must not be used; from any thread. Kept, for Polars wraps what is raised within it."""
        self.unmet = self.unmet or Unmet(why, instead)
        raise self.unmet

    def begin(self) -> None:
        """What can be found out ahead; raises `Unmet`."""
        for check in self._before:
            check()

    def end(self) -> None:
        """The query has run to its end; raises `Unmet`."""
        for check in self._after:
            check()
        if self.unmet is not None:
            raise self.unmet

    def failed(self, error: Exception) -> Exception:
        """What to make of an error of the query: `Unmet` when that may be behind it, else the error."""
        self.over = True
        if self.unmet is None and self.reads_leniently:
            self.unmet = Unmet(str(error).partition("\n")[0], instead=Reading.OWN)
        return self.unmet or error


@dataclass(frozen=True, slots=True)
class Terms:
    """What a plan asks of a source that it wants to read within one query.

    `watch` makes a watch that has to see every row.
    """

    columns: tuple[str, ...] | None = None
    watch: Callable[[], RowWatch] | None = None
    reading: Reading = Reading.PLAIN
    conditions: Conditions = field(default_factory=Conditions)
