"""Folders of CSV and NDJSON files, exactly once."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import polars as pl

from unistream.errors import InvalidSettings
from unistream.io.base import Writer, WriterContext
from unistream.io.file_sink import FileSink
from unistream.io.format_csv import csv_bytes
from unistream.io.format_ndjson import ndjson_bytes
from unistream.io.line_writer import LineWriter
from unistream.location import user_location


@dataclass(frozen=True)
class LineSink(FileSink):
    """Rows as lines; `max_file_bytes` are bytes on disk."""

    def open(self, context: WriterContext) -> Writer:
        """A writer of staged files."""
        header = self._header(self._file_columns(context.schema))
        return LineWriter(self._folder, context, self._layout, self._encoder(), header)

    @abstractmethod
    def _encoder(self) -> Callable[[pl.DataFrame], bytes]:
        """Rows as whole lines."""

    @abstractmethod
    def _header(self, columns: pl.Schema) -> bytes:
        """What stands before the first row of a file."""


@dataclass(frozen=True)
class CsvSink(LineSink):
    """CSV files; nulls are empty fields, empty text is `""`, durations are numbers of their unit.

    Each file begins with a header unless `include_header` is off. `CsvSource` reads the same rows back.
    """

    separator: str = ","
    include_header: bool = True

    name = "csv"
    label = "CSV"
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
    label = "NDJSON"
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
