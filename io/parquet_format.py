"""How a sink lays out Parquet files, and how partition values become folders."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import polars as pl

from unistream.io.file_sink import Layout
from unistream.io.staging import partition_folder

Compression = Literal["zstd", "lz4", "snappy", "gzip", "brotli", "uncompressed"]

ZSTD_LEVEL = 1
"""Of the levels of zstd the one that costs least; 3, Polars' own choice, makes files 1 to 10 % smaller."""

GROUP_ROWS = 250_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ParquetFormat(Layout):
    """Layout of the files of one sink, checked by `ParquetSink`."""

    compression: Compression
    level: int | None
    row_group_rows: int | None

    @property
    def compression_level(self) -> int | None:
        """The level for the codec; None where it has none."""
        return ZSTD_LEVEL if self.level is None and self.compression == "zstd" else self.level

    @property
    def group_rows(self) -> int:
        """Rows that are gathered for one row group."""
        return min(self.row_group_rows or GROUP_ROWS, self.file_rows)


def folder_of(keys: pl.DataFrame) -> str:
    """The Hive folders of the first row of the partition columns.

    >>> folder_of(pl.DataFrame({"year": [2024], "city": ["a/b"]}))
    'year=2024/city=a%2Fb'
    """
    return partition_folder(keys.head(1).select(pl.all().cast(pl.String)).row(0, named=True))


def leaf_columns(schema: pl.Schema) -> int:
    """How many Parquet columns these columns make: a struct makes one for each field.

    >>> leaf_columns(pl.Schema({"a": pl.Int64, "b": pl.Struct({"x": pl.Int64, "y": pl.List(pl.String)})}))
    3
    """
    return sum(_leaves(kind) for kind in schema.values())


def _leaves(kind: Any) -> int:
    if isinstance(kind, pl.Struct):
        return leaf_columns(pl.Schema(kind.to_schema()))
    if isinstance(kind, (pl.List, pl.Array)):
        return _leaves(kind.inner)
    return 1
