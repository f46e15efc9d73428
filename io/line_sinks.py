"""Folders of CSV and NDJSON files, exactly once."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import polars as pl

from unistream.durations import Duration, microseconds
from unistream.errors import InvalidQuery, InvalidSettings
from unistream.expressions.schema import StreamSchema
from unistream.io.base import Sink, Token, Writer, WriterContext
from unistream.io.format_csv import csv_bytes
from unistream.io.format_ndjson import ndjson_bytes
from unistream.io.line_writer import Layout, LineWriter
from unistream.io.staging import Mode, StagedFolder
from unistream.location import user_location


@dataclass(frozen=True)
class LineSink(Sink):
    """Writes rows to `path`, a folder, as `part-<subtask>-<checkpoint>-<number>` and the format's suffix.

    Files appear whole when the checkpoint that covers their rows is complete, in a bounded job without
    checkpoints at its end. `partition_by` makes Hive folders (`day=2024-01-01/`); its columns are not in
    the files. A file is full at `max_file_rows` or at about `max_file_bytes` on disk; an unbounded job
    without checkpoints shows rows at the latest after `max_file_age`. `mode` says what to do with a folder
    that holds data: refuse ("error"), add to it ("append") or replace it with the first commit
    ("overwrite").
    """

    path: str | os.PathLike[str]
    partition_by: str | Sequence[str] = ()
    mode: Mode = "error"
    max_file_rows: int = 5_000_000
    max_file_bytes: int = 1 << 30
    max_file_age: Duration = "60s"

    suffix: ClassVar[str]

    def __post_init__(self) -> None:
        given = (self.partition_by,) if isinstance(self.partition_by, str) else tuple(self.partition_by)
        object.__setattr__(self, "partition_by", given)
        path = os.path.abspath(Path(self.path).expanduser())  # noqa: PTH100 (no symlinks resolved)
        object.__setattr__(self, "path", path)
        for option in ("max_file_rows", "max_file_bytes"):
            if getattr(self, option) < 1:
                hint = "leave it out for the default"
                raise InvalidSettings(f"{option} must be at least 1", user_location(), hint)
        _ = self._folder, self._layout  # both check what they are given

    @property
    def promise(self) -> str:
        """Files are named by a checkpoint and renamed into place once it is complete."""
        return "exactly once"

    def check(self, schema: StreamSchema) -> None:
        """Refuse what lines or a folder name cannot hold."""
        for name in self.partition_by:
            if name not in schema.columns:
                raise InvalidQuery.from_missing_column(name, schema.columns, "partition_by", user_location())
            if schema.columns[name].is_nested() or schema.columns[name].is_float():
                raise InvalidQuery(
                    f"Column {name!r} of type {schema.columns[name]} cannot name folders",
                    user_location(),
                    "partition by text, integer, date, datetime or boolean columns",
                )
        rest = [name for name in schema.columns if name not in self.partition_by]
        if not rest:
            problem = "All columns are in partition_by; none is left for the files"
            raise InvalidQuery(problem, user_location(), "partition by fewer columns")
        for name in rest:
            if not self._holds(schema.columns[name]):
                raise InvalidQuery(
                    f"{self.name.upper()} cannot hold column {name!r} of type {schema.columns[name]}",
                    user_location(),
                    "cast or drop it, or write Parquet",
                )

    def prepare_target(self, restored: bool) -> None:
        """Make the folder, or refuse one that holds data."""
        self._folder.prepare_target(restored)

    def open(self, context: WriterContext) -> Writer:
        """A writer of staged files."""
        columns = pl.Schema({n: t for n, t in context.schema.columns.items() if n not in self.partition_by})
        return LineWriter(self._folder, context, self._layout, self._encoder(), self._header(columns))

    def commit(self, tokens: Sequence[Token]) -> None:
        """Rename the files of these tokens into place."""
        self._folder.commit(tokens)

    def abort(self, context: WriterContext) -> None:
        """Remove the staged files of this job."""
        self._folder.abort(context)

    def describe(self) -> dict[str, str]:
        """What `explain` prints of it."""
        shown = {"path": str(self.path), "mode": self.mode}
        if self.partition_by:
            shown["partition_by"] = ", ".join(self.partition_by)
        return shown

    @abstractmethod
    def _encoder(self) -> Callable[[pl.DataFrame], bytes]:
        """Rows as whole lines."""

    @abstractmethod
    def _header(self, columns: pl.Schema) -> bytes:
        """What stands before the first row of a file."""

    @abstractmethod
    def _holds(self, dtype: Any) -> bool:
        """Whether the format can write this type."""

    @property
    def _folder(self) -> StagedFolder:
        return StagedFolder(str(self.path), self.suffix, self.mode)

    @property
    def _layout(self) -> Layout:
        return Layout(
            partition_by=tuple(self.partition_by),
            file_rows=self.max_file_rows,
            file_bytes=self.max_file_bytes,
            file_age_micros=microseconds(self.max_file_age, "max_file_age"),
        )


@dataclass(frozen=True)
class CsvSink(LineSink):
    """CSV files; nulls are empty fields, empty text is `""`, durations are numbers of their unit.

    Each file begins with a header unless `include_header` is off. `CsvSource` reads the same rows back.
    """

    separator: str = ","
    include_header: bool = True

    name = "csv"
    suffix = ".csv"

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.separator.encode()) != 1 or self.separator in '\r\n"':
            raise InvalidSettings(
                f"separator must be one ASCII character, not {self.separator!r}", user_location()
            )

    def _encoder(self) -> Callable[[pl.DataFrame], bytes]:
        return partial(csv_bytes, separator=self.separator, quote_char='"')

    def _header(self, columns: pl.Schema) -> bytes:
        if not self.include_header:
            return b""
        return csv_bytes(pl.DataFrame(schema=columns), self.separator, '"', header=True)

    def _holds(self, dtype: Any) -> bool:
        return not dtype.is_nested() and dtype not in (pl.Binary, pl.Object)


@dataclass(frozen=True)
class NdjsonSink(LineSink):
    """Files of one JSON object a line; durations are numbers of their unit, NaN and infinity become null.

    `NdjsonSource` reads the same rows back.
    """

    name = "ndjson"
    suffix = ".ndjson"

    def _encoder(self) -> Callable[[pl.DataFrame], bytes]:
        return ndjson_bytes

    def _header(self, columns: pl.Schema) -> bytes:
        return b""

    def _holds(self, dtype: Any) -> bool:
        if isinstance(dtype, pl.Struct):
            return all(self._holds(kind) for kind in dtype.to_schema().values())
        if isinstance(dtype, (pl.List, pl.Array)):
            return self._holds(dtype.inner)
        return dtype not in (pl.Binary, pl.Object)
