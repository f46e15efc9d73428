"""The few kinds of error, sorted by what the user can do about each."""

from __future__ import annotations

import difflib
import traceback
from collections.abc import Iterable
from typing import Self


class UnistreamError(Exception):
    """Base of every error this library raises on purpose.

    The message says what went wrong; `where` is the line of the user's program that asked for it and
    `hint` the way out. All three are constructor arguments so that an error survives pickling.
    """

    def __init__(self, message: str, where: str | None = None, hint: str | None = None) -> None:
        super().__init__(message, where, hint)
        self.message = message
        self.where = where
        self.hint = hint

    def located(self, where: str | None) -> Self:
        """Itself, with the line of the program when it has none yet."""
        if self.where is None and where is not None:
            self.where = where
            self.args = (self.args[0], where, *self.args[2:])
        return self

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows of it: the message alone, unless the setting `debug` asks for the trace."""
        from unistream.config import Settings

        try:
            whole = Settings.load().debug
        except UnistreamError:
            whole = False
        return traceback.format_exception(self) if whole else [f"{type(self).__name__}: {self}"]

    def __str__(self) -> str:
        lines = [self.message]
        if self.where:
            lines.append(f"  at {self.where}")
        if self.hint:
            lines.append(f"Hint: {self.hint}")
        return "\n".join(lines)


class InvalidQuery(UnistreamError):
    """The program asks for something that cannot be: change the query."""

    @classmethod
    def from_missing_column(
        cls, name: str, columns: Iterable[str], step: str, where: str | None
    ) -> InvalidQuery:
        known = list(columns)
        near = nearest(name, known)
        hint = f"did you mean {near!r}?" if near else "choose one of these columns"
        return cls(f"Column {name!r} not found in {step}. Columns: {some_of(known, near)}", where, hint)

    @classmethod
    def from_missing_name(cls, name: str, names: Iterable[str], place: str) -> InvalidQuery:
        known = sorted(names)
        near = nearest(name, known)
        hint = f"did you mean {near!r}?" if near else f"it has {', '.join(known) or 'none'}"
        return cls(f"There is no {name!r} in {place}", None, hint)


class InvalidSettings(UnistreamError):
    """A setting or option has a name or a value that does not exist: change the setting."""

    @classmethod
    def from_unknown(
        cls, what: str, name: str, known: Iterable[str], where: str | None = None
    ) -> InvalidSettings:
        choices = sorted(known)
        near = nearest(name, choices)
        hint = f"did you mean {near!r}?" if near else f"one of {choices}"
        return cls(f"Unknown {what} {name!r}", where, hint)


class MissingDependency(UnistreamError):
    """An optional package is needed: install the extra that the message names."""

    @classmethod
    def from_extra(cls, what: str, extra: str) -> MissingDependency:
        return cls(f"{what} needs a package that is not installed", None, f"pip install 'unistream[{extra}]'")


class DataError(UnistreamError):
    """A row or a file cannot be read as what it should be: fix it, skip it or collect it."""


class ConnectorError(UnistreamError):
    """The outside world refused or is absent; `retry_after` seconds later may be better, None means never."""

    def __init__(
        self,
        message: str,
        where: str | None = None,
        hint: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, where, hint)
        self.args = (message, where, hint, retry_after)
        self.retry_after = retry_after


class StateError(UnistreamError):
    """Stored state is damaged, foreign or no longer fits: do not restart blindly."""


class JobFailed(UnistreamError):
    """A running job ended with an error; the cause is chained and `operator` says where it happened."""

    def __init__(
        self, message: str, where: str | None = None, hint: str | None = None, operator: str | None = None
    ) -> None:
        super().__init__(message, where, hint)
        self.args = (message, where, hint, operator)
        self.operator = operator


def some_of(names: Iterable[str], first: str | None = None, most: int = 20) -> str:
    """Names as a list that stays readable for tables with very many columns.

    >>> some_of(["a", "b", "c"], most=2), some_of(["a", "b", "c"], first="c", most=2)
    ("['a', 'b', and 1 more]", "['c', 'a', and 1 more]")
    """
    known = list(names)
    if len(known) <= most:
        return str(known)
    shown = known if first is None else [first, *(name for name in known if name != first)]
    return f"{str(shown[:most])[:-1]}, and {len(known) - most} more]"


def nearest(name: str, choices: Iterable[str]) -> str | None:
    """The choice most like `name`, or None when nothing is near.

    >>> nearest("usr", ["user", "amount"])
    'user'
    """
    by_fold = {choice.casefold(): choice for choice in choices}
    found = difflib.get_close_matches(name.casefold(), by_fold, n=1, cutoff=0.6)
    return by_fold[found[0]] if found else None
