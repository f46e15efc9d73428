"""Columns that stand in the names of folders (`day=2024-01-01/`): their types and values."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

import polars as pl

from unistream.errors import DataError, InvalidQuery
from unistream.io.base import Backlog, Chunk, Exhausted, Position, Reader, Wait
from unistream.io.listing import FileEntry, Listing
from unistream.location import user_location


def _whole_number(text: str) -> int:
    """A 64-bit number as Python and Polars both read it: no blank, plus, underscore or other digits."""
    if re.fullmatch(r"-?[0-9]{1,19}", text) and -(1 << 63) <= int(text) < 1 << 63:
        return int(text)
    raise ValueError(text)


def _unsigned(text: str) -> int:
    """A number of 64 bits without a sign."""
    if re.fullmatch(r"[0-9]{1,20}", text) and int(text) < 1 << 64:
        return int(text)
    raise ValueError(text)


def _truth(text: str) -> bool:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    raise ValueError(text)


def _day(text: str) -> date:
    """A date as Polars reads it too; Python takes weeks and dates without dashes besides."""
    if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
        return date.fromisoformat(text)
    raise ValueError(text)


_MOMENT = r"[0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?"


def _moment(text: str) -> datetime:
    """A moment with no more than microseconds: what is finer stays text, which loses nothing."""
    if re.fullmatch(_MOMENT, text):
        return datetime.fromisoformat(text)
    raise ValueError(text)


def _moment_in_utc(text: str) -> datetime:
    """A moment with its distance to UTC."""
    if re.fullmatch(_MOMENT + r"(Z|[+-][0-9]{2}:[0-9]{2})", text):
        try:
            return datetime.fromisoformat(text).astimezone(UTC)
        except OverflowError as error:
            raise ValueError(text) from error
    raise ValueError(text)


_TYPES: dict[pl.DataType, Callable[[str], Any]] = {
    pl.Int64(): _whole_number,
    pl.UInt64(): _unsigned,
    pl.Boolean(): _truth,
    pl.Date(): _day,
    pl.Datetime("us"): _moment,
    pl.Datetime("us", "UTC"): _moment_in_utc,
    pl.String(): str,
}
"""Types of folder columns, the narrowest first, and how each reads its text: as Polars finds them too."""


def folder_columns(listing: Listing, entries: list[FileEntry]) -> pl.Schema:
    """The columns the folders of these files name, none unless all files lie in some."""
    if not listing.has_hive_folders(entries):
        return pl.Schema()
    if not entries:
        raise InvalidQuery(
            f"{', '.join(listing.patterns)}: no file yet to take the folder columns from",
            user_location(),
            "start when the first file is there, or leave hive=True out to go without such columns",
        )
    names = list(entries[0].partition)
    return pl.Schema({name: _narrowest(entry.partition.get(name) for entry in entries) for name in names})


def _narrowest(values: Iterable[str | None]) -> pl.DataType:
    """The narrowest type that holds all values of a folder column."""
    known = {value for value in values if value is not None}
    for kind, parse in _TYPES.items():
        try:
            for value in known:
                parse(value)
        except ValueError:
            continue
        if known:
            return kind
    return pl.String()


def folder_value(value: str | None, kind: Any, path: str) -> Any:
    """A folder's text as a value of its column."""
    try:
        return None if value is None else _TYPES[kind](value)
    except ValueError as error:
        raise DataError(
            f"{path} lies in a folder with {value!r}, which is no {kind}",
            hint="the type comes from the folders there were at the start; hive=False ignores folders",
        ) from error


def folder_values(kinds: pl.Schema, partition: Mapping[str, str | None], path: str) -> list[pl.Expr]:
    """Expressions that add the folder columns to the rows of one file."""
    if partition.keys() != kinds.keys():
        raise DataError(
            f"{path} lies in folders for {list(partition)}, the first file in ones for {list(kinds)}",
            hint="all files of a source with Hive folders lie at the same depth; hive=False ignores them",
        )
    return [
        pl.lit(folder_value(partition[name], kind, path), kind).alias(name) for name, kind in kinds.items()
    ]


class WithFolderColumns(Reader):
    """Adds the columns of the folders to what another reader gives; its splits are named like the files.

    Folders with the name of a column `in_files` are passed over: the column of the file wins.
    """

    def __init__(
        self, inner: Reader, kinds: pl.Schema, columns: tuple[str, ...], in_files: Collection[str] = ()
    ) -> None:
        self._inner = inner
        self._kinds = kinds
        self._columns = columns
        self._in_files = in_files
        self._split = ""
        self._values: list[pl.Expr] = []

    def poll(self, max_rows: int) -> Chunk | Wait | Exhausted:
        given = self._inner.poll(max_rows)
        if not isinstance(given, Chunk):
            return given
        if given.split != self._split:
            partition = FileEntry(given.split, given.split, 0, 0).partition
            added = {key: value for key, value in partition.items() if key not in self._in_files}
            self._values = folder_values(self._kinds, added, given.split)
            self._split = given.split
        return replace(given, frame=given.frame.with_columns(self._values).select(self._columns))

    def pending(self) -> Mapping[str, int | None]:
        return self._inner.pending()

    def backlog(self) -> Backlog:
        return self._inner.backlog()

    def acknowledge(self, positions: Mapping[str, Position]) -> None:
        self._inner.acknowledge(positions)

    def close(self) -> None:
        self._inner.close()
