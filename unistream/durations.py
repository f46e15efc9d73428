"""Durations as users write them (`"5s"`, `"1h30m"`, `timedelta`, seconds) in microseconds."""

from __future__ import annotations

import re
from datetime import timedelta

from unistream.errors import InvalidSettings
from unistream.location import user_location

MICROSECONDS = {
    "us": 1,
    "ms": 1_000,
    "s": 1_000_000,
    "m": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
    "w": 7 * 86_400_000_000,
}
_PART = re.compile(r"(\d+(?:\.\d+)?)(us|ms|s|m|h|d|w)")

Duration = str | timedelta | int | float
"""A length of time: text in Polars' spelling, a `timedelta`, or a number of seconds."""


def microseconds(duration: Duration, what: str = "duration") -> int:
    """The duration in microseconds; a leading minus is understood.

    >>> microseconds("1m30s"), microseconds(2), microseconds("-5ms")
    (90000000, 2000000, -5000)
    """
    micros = _micros(duration)
    if micros is None:
        raise InvalidSettings(
            f"{what} {duration!r} is not a duration",
            user_location(),
            'write "5s", "250ms" or "1h30m" (us ms s m h d w), a timedelta, or a number of seconds',
        )
    if not abs(micros) < 2**63:  # nor is that which is no number
        problem = f"{what} {duration!r} is longer than can be counted in microseconds"
        raise InvalidSettings(problem, user_location(), 'write a finite one below "106751991d"')
    return round(micros)


def _micros(duration: Duration) -> int | float | None:
    """Microseconds that may be too many or no number, or None for what is written in another way."""
    if isinstance(duration, timedelta):
        return duration // timedelta(microseconds=1)
    if isinstance(duration, (int, float)) and not isinstance(duration, bool):
        return duration * 1_000_000
    if isinstance(duration, str):
        text = duration.strip().removeprefix("-")
        if text and _PART.sub("", text) == "":
            total = sum(float(n) * MICROSECONDS[unit] for n, unit in _PART.findall(text))
            return -total if duration.strip().startswith("-") else total
    return None


def seconds(duration: Duration, what: str = "duration") -> float:
    """The duration in seconds.

    >>> seconds("250ms")
    0.25
    """
    return microseconds(duration, what) / 1_000_000


def spelled(micros: int) -> str:
    """The shortest exact spelling, largest units first.

    >>> spelled(90_000_000)
    '1m30s'
    """
    if micros == 0:
        return "0s"
    text, rest = "", abs(micros)
    for unit in ("w", "d", "h", "m", "s", "ms", "us"):
        count, rest = divmod(rest, MICROSECONDS[unit])
        if count:
            text += f"{count}{unit}"
    return ("-" if micros < 0 else "") + text
