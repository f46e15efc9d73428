"""What the footer of a Parquet file tells before any row is read."""

from __future__ import annotations

import os
from bisect import bisect_right
from dataclasses import dataclass
from datetime import date, datetime
from itertools import accumulate
from pathlib import Path
from typing import Any

import polars as pl

from unistream.elements import MAX_TIME
from unistream.errors import DataError
from unistream.location import user_location

MAGIC = b"PAR1"


@dataclass(frozen=True, slots=True)
class Footer:
    """Rows of a file, where its row groups end, and the least value of one time column (microseconds)."""

    rows: int
    group_ends: tuple[int, ...]
    least_time: int | None

    def span(self, row: int, most: int) -> int:
        """How many rows to read from `row` on: about `most`, to the end of a row group where one is near."""
        ends = self.group_ends
        last = bisect_right(ends, row + most) - 1
        end = ends[last] if last >= 0 and ends[last] > row else row + most
        return min(end, self.rows) - row


def read_footer(path: str, time_column: str | None = None) -> Footer:
    """The footer of a file; `DataError` when it has none or it cannot be read."""
    import pyarrow.parquet as pq  # a whole query needs none of it

    try:
        meta = pq.read_metadata(path)
        groups = [meta.row_group(number) for number in range(meta.num_row_groups)]
        ends = tuple(accumulate(group.num_rows for group in groups))
        return Footer(meta.num_rows, ends, _least(meta, groups, time_column))
    except FileNotFoundError:
        raise
    except Exception as error:
        raise broken(path, error) from error


def read_extremes(path: str, column: str) -> tuple[Any, Any] | None:
    """Least and greatest value of a column without nulls; None where the statistics do not tell."""
    import pyarrow.parquet as pq

    try:
        meta = pq.read_metadata(path)
    except Exception as error:
        raise broken(path, error) from error
    names = [meta.schema.column(number).path for number in range(meta.num_columns)]
    if column not in names:
        return None
    groups = [meta.row_group(number).column(names.index(column)) for number in range(meta.num_row_groups)]
    found = [group.statistics for group in groups]
    if not found or not all(each and each.has_null_count and each.has_min_max for each in found):
        return None
    if any(each.null_count for each in found):
        return None
    try:
        return min(each.min for each in found), max(each.max for each in found)
    except (ValueError, OverflowError):  # times that Python has no object for
        return None


def has_footer(path: str) -> bool:
    """Whether the file ends like a Parquet file whose writer has finished."""
    with Path(path).open("rb") as file:
        head, size = file.read(4), file.seek(0, os.SEEK_END)
        if head != MAGIC or size < 12:
            return False
        file.seek(-8, os.SEEK_END)
        tail = file.read(8)
    return tail[4:] == MAGIC and int.from_bytes(tail[:4], "little") <= size - 12


def read_schema(path: str) -> pl.Schema:
    """Columns and types as Polars reads them; `DataError` when the file is no Parquet file or damaged."""
    try:
        with Path(path).open("rb") as file:  # a path would be taken for a pattern
            return pl.Schema(pl.read_parquet_schema(file))
    except FileNotFoundError:
        raise
    except BaseException as error:
        raise_unless_data(error)
        raise broken(path, error) from error


def broken(path: str, error: BaseException | str) -> DataError:
    """The error for a file that is not what it should be."""
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return DataError(
        f"{path} is not a readable Parquet file: {reason}",
        user_location(),
        'write the file again, remove it, or read on without it: on_error="skip" or "collect"',
    )


def raise_unless_data(error: BaseException) -> None:
    """Pass on what no file can be blamed for: interrupts and the like. Polars' panics count as data."""
    if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
        raise error


def check_same_columns(path: str, found: pl.Schema, first: str, expected: pl.Schema) -> None:
    """Raise `DataError` unless both files have the same columns, in any order."""
    parts = []
    if missing := [name for name in expected if name not in found]:
        parts.append(f"lacks {', '.join(map(repr, missing))}")
    if extra := [name for name in found if name not in expected]:
        parts.append(f"has also {', '.join(map(repr, extra))}")
    for name in expected:
        if name in found and found[name] != expected[name]:
            parts.append(f"has {name!r} as {found[name]}, not {expected[name]}")
    if parts:
        raise DataError(
            f"{path} does not have the columns of {first}: it {'; it '.join(parts)}",
            user_location(),
            "files of one source have the same columns; read the others as a source of their own",
        )


def to_micros(value: Any) -> int | None:
    """A date or datetime in microseconds since the epoch, as event time counts; None for anything else."""
    if isinstance(value, (datetime, date)):
        return int(pl.Series([value]).cast(pl.Datetime("us")).to_physical()[0])
    return None


def _least(meta: Any, groups: list[Any], time_column: str | None) -> int | None:
    if time_column is None:
        return None
    if meta.num_rows == 0:
        return MAX_TIME
    names = [meta.schema.column(number).path for number in range(meta.num_columns)]
    if time_column not in names:
        return None
    index = names.index(time_column)
    least = []
    for group in groups:
        statistics = group.column(index).statistics
        if statistics is not None and statistics.null_count == group.num_rows:
            continue
        if statistics is None or not statistics.has_min_max:
            return None
        least.append(to_micros(statistics.min))
    known = [value for value in least if value is not None]
    return (min(known) if known else MAX_TIME) if len(known) == len(least) else None
