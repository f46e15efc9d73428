"""A folder of Parquet files, exactly once."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import polars as pl

from unistream.errors import InvalidSettings
from unistream.io.base import LazyWrite, Writer, WriterContext
from unistream.io.file_sink import FileSink
from unistream.io.parquet_format import Compression, ParquetFormat
from unistream.location import user_location

_COMPRESSIONS = ("zstd", "lz4", "snappy", "gzip", "brotli", "uncompressed")


@dataclass(frozen=True)
class ParquetSink(FileSink):
    """Rows as Parquet; every page carries a checksum.

    `max_file_bytes` are bytes of rows as they lie in memory, 3 to 10 times their size on disk.
    """

    max_file_bytes: int = 2 << 30
    compression: Compression = "zstd"
    compression_level: int | None = None
    row_group_rows: int | None = None

    name = "parquet"
    suffix = ".parquet"
    label = "Parquet"
    way_out = 'cast or drop it: pl.col("{name}").cast(pl.Int64)'

    def __post_init__(self) -> None:
        if self.compression not in _COMPRESSIONS:
            raise InvalidSettings.from_unknown(
                "compression", self.compression, _COMPRESSIONS, user_location()
            )
        self._check_least("row_group_rows")
        super().__post_init__()

    def open(self, context: WriterContext) -> Writer:
        """A writer that encodes on threads of its own."""
        from unistream.io.parquet_writer import (
            ParquetWriter,  # pyarrow costs 40 MiB; a whole query needs none
        )

        return ParquetWriter(self._folder, context, self._format)

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
        return {"compression": self.compression, **super().describe()}

    def _holds(self, dtype: Any) -> bool:
        return _storable(dtype)

    @property
    def _format(self) -> ParquetFormat:
        return ParquetFormat(
            **asdict(self._layout),
            compression=self.compression,
            level=self.compression_level,
            row_group_rows=self.row_group_rows,
        )


def _storable(kind: Any) -> bool:
    """Whether both encoders can write the type, itself and inside lists and structs."""
    if isinstance(kind, pl.Struct):
        return bool(kind.fields) and all(_storable(kind) for kind in kind.to_schema().values())
    if isinstance(kind, (pl.List, pl.Array)):
        return _storable(kind.inner)
    return kind not in (pl.Int128, pl.UInt128, pl.Object)
