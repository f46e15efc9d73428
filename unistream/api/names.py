"""Names of columns as users write them: text, a plain `pl.col`, or several of these."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import polars as pl

from unistream.errors import InvalidQuery
from unistream.location import user_location

Name = str | pl.Expr
Names = Name | Sequence[Name]


def is_plain(expr: pl.Expr) -> bool:
    """Whether it is a column under its own name."""
    inner = expr.meta.undo_aliases()
    return inner.meta.is_column() and inner.meta.output_name() == expr.meta.output_name()


def names_of(given: Any, step: str) -> tuple[str, ...]:
    """The columns meant by one name or several.

    >>> names_of("k", "join"), names_of([pl.col("k"), "day"], "join")
    (('k',), ('k', 'day'))
    """
    several = isinstance(given, Iterable) and not isinstance(given, (str, pl.Expr))
    return tuple(name_of(name, step) for name in (given if several else (given,)))


def name_of(given: Any, step: str) -> str:
    """The column meant by a name."""
    if isinstance(given, str):
        return given
    if isinstance(given, pl.Expr) and is_plain(given):
        return given.meta.output_name()
    raise no_name(given, step)


def no_name(given: Any, step: str) -> InvalidQuery:
    """The refusal of what is no column that is there."""
    shown = f"`{given}`" if isinstance(given, pl.Expr) else repr(given)
    hint = "compute it first: .with_columns(day=pl.col('ts').dt.date()), and take that name"
    return InvalidQuery(f"{step} takes the name of a column, not {shown}", user_location(), hint)
