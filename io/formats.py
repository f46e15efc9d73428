"""The line formats by name: NDJSON, CSV and plain text."""

from __future__ import annotations

from typing import Any

import polars as pl

from unistream.errors import InvalidQuery, InvalidSettings
from unistream.io.format_base import (
    BYTE_ORDER_MARK,
    POLICIES,
    RAW_LIMIT,
    UNREADABLE_SCHEMA,
    Decoded,
    Format,
    checked_policy,
    joined,
    rejected_rows,
    unreadable,
)
from unistream.io.format_csv import CsvFormat
from unistream.io.format_ndjson import NdjsonFormat
from unistream.io.format_text import TextFormat
from unistream.location import user_location

__all__ = [
    "BYTE_ORDER_MARK",
    "FORMATS",
    "POLICIES",
    "RAW_LIMIT",
    "UNREADABLE_SCHEMA",
    "CsvFormat",
    "Decoded",
    "Format",
    "NdjsonFormat",
    "TextFormat",
    "checked_policy",
    "format_named",
    "joined",
    "rejected_rows",
    "unreadable",
]

FORMATS: dict[str, type[Format]] = {kind.name: kind for kind in (NdjsonFormat, CsvFormat, TextFormat)}
"""Every line format by its name."""


def format_named(name: str, schema: Any = None, **options: Any) -> Format:
    """The format called `name`, for `schema` (a mapping of column to Polars type) and its own options.

    >>> format_named("csv", {"user": pl.String, "amount": pl.Int64}, separator=";").name
    'csv'
    """
    if name not in FORMATS:
        raise InvalidSettings.from_unknown("line format", name, FORMATS, user_location())
    if name == "text":
        return _made(TextFormat, name, options)
    if not schema:
        raise InvalidQuery(
            f"Format {name!r} needs a schema",
            user_location(),
            'pass schema={"user": pl.String, "amount": pl.Int64}, for example',
        )
    return _made(FORMATS[name], name, {"schema": pl.Schema(schema), **options})


def _made(kind: type[Format], name: str, options: dict[str, Any]) -> Format:
    known = kind.__dataclass_fields__  # type: ignore[attr-defined]
    for option in options:
        if option not in known:
            raise InvalidSettings.from_unknown(f"option of format {name!r}:", option, known)
    return kind(**options)
