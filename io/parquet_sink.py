"""A folder of Parquet files, exactly once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from unistream.durations import Duration, microseconds
from unistream.errors import InvalidQuery, InvalidSettings
from unistream.expressions.schema import StreamSchema
from unistream.io.base import LazyWrite, Sink, Token, Writer, WriterContext
from unistream.io.parquet_format import Compression, ParquetFormat
from unistream.io.staging import Mode, StagedFolder
from unistream.location import user_location

_COMPRESSIONS = ("zstd", "lz4", "snappy", "gzip", "brotli", "uncompressed")


@dataclass(frozen=True)
class ParquetSink(Sink):
    """Writes rows to `path`, a folder, as `part-<subtask>-<checkpoint>-<number>.parquet`.

    Files appear whole when the checkpoint that covers their rows is complete, in a bounded job without
    checkpoints at its end. Every page carries a checksum. `partition_by` makes Hive folders
    (`day=2024-01-01/`); its columns are not in the files. A file is full at `max_file_rows` or at
    `max_file_bytes` of rows as they lie in memory (3 to 10 times their size on disk); an unbounded job
    without checkpoints shows rows at the latest after `max_file_age`. `mode` says what to do with a
    folder that holds data: refuse ("error"), add to it ("append") or replace it with the first commit
    ("overwrite").
    """

    path: str | os.PathLike[str]
    partition_by: str | Sequence[str] = ()
    mode: Mode = "error"
    max_file_rows: int = 5_000_000
    max_file_bytes: int = 2 << 30
    max_file_age: Duration = "60s"
    compression: Compression = "zstd"
    compression_level: int | None = None
    row_group_rows: int | None = None

    name = "parquet"

    def __post_init__(self) -> None:
        given = (self.partition_by,) if isinstance(self.partition_by, str) else tuple(self.partition_by)
        path = os.path.abspath(Path(self.path).expanduser())  # noqa: PTH100 (no symlinks resolved)
        object.__setattr__(self, "partition_by", given)
        object.__setattr__(self, "path", path)
        if self.compression not in _COMPRESSIONS:
            raise InvalidSettings.from_unknown(
                "compression", self.compression, _COMPRESSIONS, user_location()
            )
        for option in ("max_file_rows", "max_file_bytes", "row_group_rows"):
            value = getattr(self, option)
            if value is not None and value < 1:
                hint = "leave it out for the default"
                raise InvalidSettings(f"{option} must be at least 1, not {value}", user_location(), hint)
        _ = self._folder, self._format  # both check what they are given

    @property
    def promise(self) -> str:
        """Files are named by a checkpoint and renamed into place once it is complete."""
        return "exactly once"

    def check(self, schema: StreamSchema) -> None:
        """Refuse what Parquet or a folder name cannot hold."""
        for name in self._format.partition_by:
            if name not in schema.columns:
                raise InvalidQuery.from_missing_column(name, schema.columns, "partition_by", user_location())
            if not _makes_folders(schema.columns[name]):
                raise InvalidQuery(
                    f"Column {name!r} of type {schema.columns[name]} cannot name folders",
                    user_location(),
                    "partition by text, integer, date, datetime or boolean columns",
                )
        rest = {n: kind for n, kind in schema.columns.items() if n not in self._format.partition_by}
        if not rest:
            problem = "All columns are in partition_by; none is left for the files"
            raise InvalidQuery(problem, user_location(), "partition by fewer columns")
        for name, kind in rest.items():
            if not _storable(kind):
                hint = f'cast or drop it: pl.col("{name}").cast(pl.Int64)'
                raise InvalidQuery(
                    f"Parquet cannot hold column {name!r} of type {kind}", user_location(), hint
                )

    def prepare_target(self, restored: bool) -> None:
        """Make the folder, or refuse one that holds data."""
        self._folder.prepare_target(restored)

    def open(self, context: WriterContext) -> Writer:
        """A writer that encodes on threads of its own."""
        from unistream.io.parquet_writer import (
            ParquetWriter,  # pyarrow costs 40 MiB; a whole query needs none
        )

        return ParquetWriter(self._folder, context, self._format)

    def commit(self, tokens: Sequence[Token]) -> None:
        """Rename the files of these tokens into place."""
        self._folder.commit(tokens)

    def abort(self, context: WriterContext) -> None:
        """Remove the staged files of this job."""
        self._folder.abort(context)

    @property
    def writes_queries(self) -> bool:
        """A bounded query is written in one run."""
        return True

    def lazy(self, query: pl.LazyFrame, context: WriterContext) -> LazyWrite:
        """The same files by one Polars run."""
        from unistream.io.parquet_query import ParquetQuery

        return ParquetQuery(query, self._folder, context, self._format)

    def describe(self) -> dict[str, str]:
        """What `explain` prints of it."""
        shown = {"path": str(self.path), "compression": self.compression, "mode": self.mode}
        if self._format.partition_by:
            shown["partition_by"] = ", ".join(self._format.partition_by)
        return shown

    @property
    def _folder(self) -> StagedFolder:
        return StagedFolder(str(self.path), ".parquet", self.mode)

    @property
    def _format(self) -> ParquetFormat:
        return ParquetFormat(
            partition_by=tuple(self.partition_by),
            compression=self.compression,
            level=self.compression_level,
            file_rows=self.max_file_rows,
            file_bytes=self.max_file_bytes,
            file_age_micros=microseconds(self.max_file_age, "max_file_age"),
            row_group_rows=self.row_group_rows,
        )


def _makes_folders(kind: pl.DataType) -> bool:
    text = kind in (pl.String, pl.Categorical, pl.Enum)
    return text or kind.is_integer() or kind in (pl.Date, pl.Datetime, pl.Boolean)


def _storable(kind: Any) -> bool:
    """Whether both encoders can write the type, itself and inside lists and structs."""
    if isinstance(kind, pl.Struct):
        return bool(kind.fields) and all(_storable(kind) for kind in kind.to_schema().values())
    if isinstance(kind, (pl.List, pl.Array)):
        return _storable(kind.inner)
    return kind not in (pl.Int128, pl.UInt128, pl.Object)
