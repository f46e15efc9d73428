"""What windows a user can ask for: frozen descriptions, checked when they are written."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import timedelta
from typing import ClassVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from unistream.durations import Duration, microseconds, spelled
from unistream.errors import InvalidQuery, InvalidSettings
from unistream.location import user_location

_DAY = 86_400_000_000
_CALENDAR = re.compile(r"(\d+)(mo|q|y|w|d)")
_MONTHS = {"mo": 1, "q": 3, "y": 12}


@dataclass(frozen=True, slots=True)
class Span:
    """A length of time of one kind: months, or days, or microseconds; `weekly` when given in weeks.

    A day in a time zone is as long as that day was there, a month as long as the month.
    """

    months: int = 0
    days: int = 0
    micros: int = 0
    weekly: bool = False

    @classmethod
    def parse(cls, given: Duration, what: str, where: str | None = None) -> Span:
        """From Polars' spelling, a `timedelta` or seconds; it must be longer than nothing.

        >>> Span.parse("1q", "size").text, Span.parse("90m", "size").text
        ('3mo', '1h30m')
        """
        found = cls._parse(given, what, where)
        if found.months <= 0 and found.days <= 0 and found.micros <= 0:
            hint = 'as in us.tumbling("1m") or us.sliding("10m", every="1m")'
            raise InvalidSettings(f"The {what} {given!r} of a window is not longer than nothing", where, hint)
        return found

    @classmethod
    def _parse(cls, given: Duration, what: str, where: str | None) -> Span:
        if isinstance(given, str):
            calendar = _CALENDAR.fullmatch(given.strip())
            if calendar:
                count, unit = int(calendar[1]), calendar[2]
                if unit in _MONTHS:
                    return cls(months=count * _MONTHS[unit])
                return cls(days=count * 7, weekly=True) if unit == "w" else cls(days=count)
            if _CALENDAR.search(given) and re.search(r"\d(mo|q|y)", given):
                hint = 'take one unit, as in "1mo", or days and shorter units, as in "1d12h"'
                raise InvalidSettings(f"The {what} {given!r} mixes months with other units", where, hint)
        micros = microseconds(given, what)
        whole_days = isinstance(given, timedelta) and micros % _DAY == 0
        return cls(days=micros // _DAY) if whole_days else cls(micros=micros)

    @property
    def text(self) -> str:
        """In Polars' spelling."""
        if self.months:
            return f"{self.months}mo"
        if self.weekly:
            return f"{self.days // 7}w"
        return f"{self.days}d" if self.days else spelled(self.micros)

    @property
    def fixed(self) -> int | None:
        """Microseconds, where days have 24 hours; None for months."""
        return None if self.months else self.days * _DAY + self.micros

    @property
    def at_most(self) -> int:
        """No span of this kind is longer than so many microseconds."""
        return self.months * 31 * _DAY + (self.days + bool(self.days)) * _DAY + self.micros


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """How rows are put together; see the subclasses. `where` is the user's line."""

    kind: ClassVar[str] = "window"
    needs_time: ClassVar[bool] = True
    where: str | None = field(default=None, repr=False)

    @property
    def text(self) -> str:
        """For `explain`."""
        return self.kind


@dataclass(frozen=True, slots=True, kw_only=True)
class AlignedWindow(Window):
    """Windows that lie on a grid of time, the same for every key.

    `offset` (microseconds) moves the grid; `time_zone` is where days and months begin, that of the column
    when it is None.
    """

    size: Span
    offset: int = 0
    time_zone: str | None = None

    def __post_init__(self) -> None:
        if self.time_zone is not None:
            try:
                ZoneInfo(self.time_zone)
            except (ZoneInfoNotFoundError, ValueError) as error:
                hint = 'a name such as "Europe/Berlin" or "UTC"'
                raise InvalidSettings(f"Unknown time zone {self.time_zone!r}", self.where, hint) from error

    @property
    def text(self) -> str:
        parts = [f"{self.kind} {self.size.text}", *self._more()]
        if self.offset:
            parts.append(f"offset {spelled(self.offset)}")
        if self.time_zone:
            parts.append(f"in {self.time_zone}")
        return " ".join(parts)

    def _more(self) -> list[str]:
        return []


@dataclass(frozen=True, slots=True, kw_only=True)
class Tumbling(AlignedWindow):
    """Each row in one window; windows follow each other without gaps."""

    kind: ClassVar[str] = "tumbling"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sliding(AlignedWindow):
    """A window of `size` begins at every `every`; a row is in all that span it."""

    kind: ClassVar[str] = "sliding"
    every: Span

    def _more(self) -> list[str]:
        return [f"every {self.every.text}"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cumulating(AlignedWindow):
    """Windows that share their beginning and grow by `step` until they have `size`."""

    kind: ClassVar[str] = "cumulating"
    step: Span

    def _more(self) -> list[str]:
        return [f"step {self.step.text}"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SameWindow(Window):
    """The windows that the rows, themselves results of a window, already belong to."""

    kind: ClassVar[str] = "same window"


@dataclass(frozen=True, slots=True, kw_only=True)
class Session(Window):
    """Rows of a key with less than `gap` (microseconds) between one and the next."""

    kind: ClassVar[str] = "session"
    gap: int

    @property
    def text(self) -> str:
        return f"session gap {spelled(self.gap)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Counting(Window):
    """So many rows of a key; a new window begins at every `every` rows."""

    kind: ClassVar[str] = "counting"
    needs_time: ClassVar[bool] = False
    n: int
    every: int

    def __post_init__(self) -> None:
        for name in ("n", "every"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise InvalidSettings(
                    f"counting: {name} must be a whole number from 1, not {value!r}", self.where
                )
        if self.every > self.n:
            raise InvalidSettings(
                f"counting: every={self.every} leaves out rows between windows of n={self.n}",
                self.where,
                "take every <= n, and filter to leave out rows",
            )

    @property
    def text(self) -> str:
        return f"counting {self.n} rows" + (f" every {self.every}" if self.every != self.n else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class GlobalWindow(Window):
    """All rows of a key; given every so many rows (`every`), and begun anew after that with `purge`."""

    kind: ClassVar[str] = "global"
    needs_time: ClassVar[bool] = False
    every: int | None = None
    purge: bool = False

    def __post_init__(self) -> None:
        every = self.every
        if every is not None and (not isinstance(every, int) or isinstance(every, bool) or every < 1):
            raise InvalidSettings(
                f"global_window: every must be a whole number of rows from 1, not {every!r}",
                self.where,
                'for results by the clock say .window(us.global_window(), emit=us.every("5s"))',
            )
        if every is not None and self.purge:
            hint = f"use us.counting({every}), which is that"
            raise InvalidSettings("A global window that begins anew every so many rows", self.where, hint)

    @property
    def text(self) -> str:
        parts = ["global"]
        parts += [f"given every {self.every} rows"] if self.every else []
        return ", ".join([*parts, *(["purged when given"] if self.purge else [])])


@dataclass(frozen=True, slots=True, kw_only=True)
class Emit:
    """When a window gives results: once when it closes, at every change, or every so often (microseconds)."""

    when: str = "close"
    every: int = 0

    def __post_init__(self) -> None:
        if self.when not in ("close", "change", "every"):
            hint = 'use emit="close", emit="change" or emit=us.every("5s")'
            raise InvalidQuery(f"emit={self.when!r} is not known", user_location(), hint)

    @property
    def text(self) -> str:
        """For `explain`."""
        return f"every {spelled(self.every)}" if self.when == "every" else f"at {self.when}"
