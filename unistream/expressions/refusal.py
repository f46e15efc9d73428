"""What Polars says about an expression, said again as an `InvalidQuery`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

import polars as pl

from unistream.causes import first_words, way_out
from unistream.errors import InvalidQuery, nearest

POLARS_ERRORS = (pl.exceptions.PolarsError, pl.exceptions.PanicException, TypeError, ValueError)
"""What Polars raises while an expression is resolved; panics are no `Exception`."""

_HINTS: tuple[tuple[type[BaseException], str], ...] = (
    (pl.exceptions.DuplicateError, "give each output its own name with `.alias(...)`"),
    (pl.exceptions.SchemaError, "cast the column, as in `pl.col(...).cast(pl.String)`"),
    (pl.exceptions.InvalidOperationError, "cast the operands to types that go together"),
)


def refusal(error: BaseException, schema: pl.Schema, step: str, where: str | None) -> InvalidQuery:
    """The `InvalidQuery` for what Polars raised about an expression over `schema`; raise it `from error`."""
    said = first_words(error)
    hint: str | None
    if isinstance(error, pl.exceptions.ColumnNotFoundError):
        name = _quoted(said)
        if name is not None and name not in schema:
            return InvalidQuery.from_missing_column(name, schema, step, where)
    if isinstance(error, pl.exceptions.StructFieldNotFoundError):
        fields = sorted(set(_field_names(schema.values())))
        near = nearest(said, fields)
        hint = f"did you mean {near!r}?" if near else f"fields: {fields}"
        return InvalidQuery(f"No struct in {step} has a field {said!r}", where, hint)
    if "filter predicate must be" in said:
        return InvalidQuery(f"{step} cannot work: {said}", where, "compare it, as in `pl.col('a') > 0`")
    hint = way_out(error) or next((text for kind, text in _HINTS if isinstance(error, kind)), None)
    return InvalidQuery(f"{step} cannot work: {said}", where, hint)


def _quoted(text: str) -> str | None:
    found = re.search(r'column "((?:[^"\\]|\\.)*)"', text) or re.search(r"^(\S+)$", text)
    return str(found.group(1)) if found else None


def _field_names(dtypes: Iterable[Any]) -> Iterator[str]:
    for dtype in dtypes:
        if isinstance(dtype, pl.Struct):
            yield from (field.name for field in dtype.fields)
            yield from _field_names(field.dtype for field in dtype.fields)
        elif isinstance(dtype, (pl.List, pl.Array)):
            yield from _field_names([dtype.inner])
