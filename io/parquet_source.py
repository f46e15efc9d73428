"""Parquet files, folders of them, and folders that still get new ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import polars as pl

from unistream.durations import Duration, seconds
from unistream.errors import ConnectorError, InvalidSettings
from unistream.io.base import Position, Reader, Request, Source
from unistream.io.hive import folder_columns
from unistream.io.listing import HIVE_NULL, FileEntry, Listing, Paths
from unistream.io.parquet_footer import check_same_columns, has_footer, read_extremes, read_schema
from unistream.location import user_location
from unistream.one_query import RowWatch, Terms

OnError = Literal["fail", "skip", "collect"]

SUFFIXES = (".parquet", ".pq", ".parq")

UNPACKED = 4
"""How many times as large as their files rows are taken to be in memory."""

CHECKED_AHEAD = 256
"""Files whose columns are compared before a whole query begins; of more, Polars finds the odd one."""


@dataclass(frozen=True)
class ParquetSource(Source):
    """Reads files named by a path, a glob or a folder, one split per file.

    With `watch` new files are read as they appear, each once, when it has been whole and unchanged for
    one `poll` interval. `hive` reads `key=value` folders as typed columns (None: if every file lies in
    some). A file that cannot be read fails the job, is left out ("skip") or becomes a rejected row
    ("collect").
    """

    paths: Paths
    watch: bool = False
    poll: Duration = "1s"
    hive: bool | None = None
    on_error: OnError = "fail"

    name = "parquet"

    def __post_init__(self) -> None:
        if self.on_error not in ("fail", "skip", "collect"):
            known = ("fail", "skip", "collect")
            raise InvalidSettings.from_unknown("on_error", str(self.on_error), known, user_location())
        object.__setattr__(self, "paths", Listing.of(self.paths).patterns)
        object.__setattr__(self, "poll", seconds(self.poll, "poll"))
        if self.watch:
            self.listing.check_watchable("pass the folder the file lies in; a Parquet file cannot grow")

    @property
    def listing(self) -> Listing:
        """The files it stands for."""
        return Listing.of(self.paths, SUFFIXES, self.hive)

    @property
    def bounded(self) -> bool:
        """It ends unless it watches."""
        return not self.watch

    @property
    def pushes(self) -> frozenset[str]:
        """Only the columns and row groups that are needed are read."""
        return frozenset({"columns", "predicate"})

    def schema(self) -> pl.Schema:
        """The columns of the first file, then those of the folders."""
        return pl.Schema({**self.file_columns, **self.folder_columns})

    def open(self, positions: Mapping[str, Position], request: Request) -> Reader:
        """A reader; positions are (next row or -1 for "done", size, time of change) of each file."""
        from unistream.io.parquet_reader import ParquetReader

        return ParquetReader(self, positions, request)

    def lazy(self, terms: Terms) -> pl.LazyFrame | None:
        """All files as one scan, when that gives the same rows and errors; a watch reads its column first."""
        if self.watch or self.on_error != "fail":
            return None
        if self.folder_columns and "=" in self.listing.root:
            return None  # Polars would read the folders above the root as columns too
        entries = self.listing.find()
        if self.folder_columns and not all(_polars_reads(entry) for entry in entries):
            return None
        for entry in entries[:CHECKED_AHEAD]:
            check_same_columns(entry.path, read_schema(entry.path), self.first_file.path, self.file_columns)
        query = pl.scan_parquet(
            [entry.path for entry in entries],
            glob=False,
            hive_partitioning=bool(self.folder_columns),
            hive_schema=self.folder_columns or None,
        )
        if terms.watch is not None:
            watch = terms.watch()
            terms.conditions.before(lambda: _show(query, watch))
        return query.select(self.schema().names() if terms.columns is None else terms.columns)

    def takes(self, path: str) -> bool:
        """Whether it is, or would be, among its files."""
        return self.listing.takes(path)

    def size(self) -> int:
        return UNPACKED * sum(entry.size for entry in self.listing.find())

    def extremes(self, column: str) -> tuple[Any, Any] | None:
        """From the statistics in the footers, if they are not too many."""
        entries = self.listing.find()
        if column not in self.file_columns or len(entries) > CHECKED_AHEAD:
            return None
        found = [read_extremes(entry.path, column) for entry in entries]
        known = [extremes for extremes in found if extremes is not None]
        if not known or len(known) < len(found):
            return None
        return min(least for least, _ in known), max(greatest for _, greatest in known)

    def count_rows(self) -> int:
        """From the footers, which Polars reads without the help of Arrow."""
        paths = [entry.path for entry in self.listing.find()]
        return int(pl.scan_parquet(paths, glob=False).select(pl.len()).collect().item())

    def describe(self) -> dict[str, str]:
        """What `explain` prints of it."""
        shown = {"paths": ", ".join(self.listing.patterns)}
        if self.watch:
            shown["watch"] = f"every {self.poll:g} s"
        if self.on_error != "fail":
            shown["on_error"] = self.on_error
        return shown

    @cached_property
    def first_file(self) -> FileEntry:
        """The file that the columns are taken from."""
        entries = self.listing.find(required=not self.watch)
        whole = (entry for entry in entries if not self.watch or has_footer(entry.path))
        entry = next(whole, None)
        if entry is None:
            raise ConnectorError(
                f"No Parquet file in {', '.join(self.listing.patterns)} yet: the columns are not known",
                user_location(),
                "start when the first file is there; one without rows is enough",
            )
        return entry

    @cached_property
    def file_columns(self) -> pl.Schema:
        """Columns that every file holds."""
        return read_schema(self.first_file.path)

    @cached_property
    def folder_columns(self) -> pl.Schema:
        """Columns that stand in the names of folders."""
        return folder_columns(self.listing, self.listing.find(required=not self.watch))


def _show(query: pl.LazyFrame, watch: RowWatch) -> None:
    """One column of all files, in order: a small part of what the query itself reads."""
    first = 0
    column = query.select(watch.column)
    for rows in column.collect_batches(maintain_order=True, lazy=True, engine="streaming"):
        watch.see(first, rows)
        first += rows.height
    watch.finish()


def _polars_reads(entry: FileEntry) -> bool:
    """Whether Polars takes the same from its folders: it leaves keys escaped and escaped nulls null."""
    keys = (folder.partition("=")[0] for folder in entry.split.split("/")[:-1])
    return not any("%" in key for key in keys) and HIVE_NULL not in entry.partition.values()
