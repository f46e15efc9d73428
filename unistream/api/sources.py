"""Where a stream comes from: the `scan_*` functions and `from_frame`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import polars as pl

from unistream.api.stream import Stream
from unistream.durations import Duration
from unistream.errors import InvalidQuery
from unistream.io.base import Source
from unistream.location import user_location
from unistream.plan.nodes import Scan

Paths = str | os.PathLike[str] | list[str] | tuple[str | os.PathLike[str], ...]
OnError = Literal["fail", "skip", "collect"]
SchemaLike = Mapping[str, Any] | pl.Schema

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def scan(source: Source) -> Stream:
    """Any source, by its configuration; the door for sources of one's own."""
    where = user_location()
    if not isinstance(source, Source):
        hint = "subclass unistream.io.base.Source; for frames and lists there is us.from_frame"
        raise InvalidQuery(f"scan needs a Source, not {type(source).__name__}", where, hint)
    node = Scan(source=source, where=where)
    _ = node.schema  # a missing file or a schema that cannot be read is an error of this line
    return Stream(node)


def from_frame(data: Any, *, schema: SchemaLike | None = None) -> Stream:
    """A bounded stream of what is in memory: a Polars or pandas frame, an Arrow table, dicts, columns.

    >>> import unistream as us
    >>> us.from_frame([{"a": 1}, {"a": 2}]).collect().rows()
    [(1,), (2,)]
    """
    from unistream.io.frames import FrameSource, as_frame

    return scan(FrameSource(as_frame(data, schema)))


def scan_parquet(
    paths: Paths,
    *,
    watch: bool = False,
    poll: Duration = "1s",
    hive: bool | None = None,
    on_error: OnError = "fail",
) -> Stream:
    """Rows of Parquet files: a path, a glob, a folder or several.

    `watch=True` makes it unbounded: new files are picked up every `poll`, each exactly once. Columns and
    filters of the query are pushed into the reading.

    >>> import tempfile, unistream as us
    >>> folder = tempfile.mkdtemp()
    >>> pl.DataFrame({"a": [1, 2]}).write_parquet(folder + "/x.parquet")
    >>> us.scan_parquet(folder).filter(pl.col("a") > 1).collect().rows()
    [(2,)]
    """
    from unistream.io.parquet_source import ParquetSource

    return scan(ParquetSource(paths, watch=watch, poll=poll, hive=hive, on_error=on_error))


def scan_csv(
    paths: Paths,
    *,
    schema: SchemaLike | None = None,
    separator: str = ",",
    has_header: bool = True,
    null_values: str | Sequence[str] = ("",),
    watch: bool = False,
    tail: bool = False,
    poll: Duration = "1s",
    hive: bool | None = None,
    on_error: OnError = "fail",
    max_line_bytes: int = 1 << 20,
) -> Stream:
    """Rows of CSV files, also gzip or zstd; without `schema` types are inferred from the first rows.

    `watch=True` picks up new files, `tail=True` follows growing ones through rotation. `key=value` folders
    become columns when every file lies in some (`hive` says so or forbids it). A line longer than
    `max_line_bytes` counts as one that cannot be read.

    >>> import pathlib, tempfile, unistream as us
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> _ = (folder / "x.csv").write_text("a,b\\n1,x\\n2,y\\n")
    >>> us.scan_csv(folder).collect().rows()
    [(1, 'x'), (2, 'y')]
    """
    from unistream.io.line_files import CsvSource

    return scan(
        CsvSource(
            paths,
            schema=schema,
            separator=separator,
            has_header=has_header,
            null_values=null_values,
            watch=watch,
            tail=tail,
            poll=poll,
            hive=hive,
            on_error=on_error,
            max_line_bytes=max_line_bytes,
        )
    )


def scan_ndjson(
    paths: Paths,
    *,
    schema: SchemaLike | None = None,
    watch: bool = False,
    tail: bool = False,
    poll: Duration = "1s",
    hive: bool | None = None,
    on_error: OnError = "fail",
    max_line_bytes: int = 1 << 20,
) -> Stream:
    """Rows of files with one JSON object a line, also gzip or zstd; options as for `scan_csv`.

    >>> import pathlib, tempfile, unistream as us
    >>> file = pathlib.Path(tempfile.mkdtemp(), "x.ndjson")
    >>> _ = file.write_text('{"a": 1}\\n{"a": 2}\\n')
    >>> us.scan_ndjson(file).collect().rows()
    [(1,), (2,)]
    """
    from unistream.io.line_files import NdjsonSource

    return scan(
        NdjsonSource(
            paths,
            schema=schema,
            watch=watch,
            tail=tail,
            poll=poll,
            hive=hive,
            on_error=on_error,
            max_line_bytes=max_line_bytes,
        )
    )


def scan_text(
    paths: Paths,
    *,
    column: str = "line",
    watch: bool = False,
    tail: bool = False,
    poll: Duration = "1s",
    hive: bool | None = None,
    on_error: OnError = "fail",
    max_line_bytes: int = 1 << 20,
) -> Stream:
    """Lines of text files as one column, also gzip or zstd; options as for `scan_csv`.

    >>> import pathlib, tempfile, unistream as us
    >>> file = pathlib.Path(tempfile.mkdtemp(), "x.log")
    >>> _ = file.write_text("one\\ntwo\\n")
    >>> us.scan_text(file).collect().rows()
    [('one',), ('two',)]
    """
    from unistream.io.line_files import TextSource

    return scan(
        TextSource(
            paths,
            column=column,
            watch=watch,
            tail=tail,
            poll=poll,
            hive=hive,
            on_error=on_error,
            max_line_bytes=max_line_bytes,
        )
    )


def scan_socket(
    address: str,
    *,
    schema: SchemaLike | None = None,
    format: Literal["ndjson", "csv", "text"] = "ndjson",
    listen: bool = False,
    spool: str | Path | None = None,
    on_error: OnError = "fail",
    on_close: Literal["reconnect", "end"] = "reconnect",
    idle_timeout: Duration | None = "30s",
) -> Stream:
    """Lines from a TCP server at "host:port", or from whoever connects when `listen` is set.

    A socket cannot be read again: at most once, unless `spool` names a folder in which bytes are kept
    until a checkpoint covers them. A server that closes or is away is tried again with growing pauses.

    Whoever connects may be quiet for long. One that ends no line within `idle_timeout` is closed when it has
    begun one, or when all 64 places are taken and others wait; None closes nobody.
    """
    from unistream.io.tcp import TcpSource

    return scan(
        TcpSource(
            address,
            schema=schema,
            format=format,
            listen=listen,
            spool=spool,
            on_error=on_error,
            on_close=on_close,
            idle_timeout=idle_timeout,
        )
    )


def scan_iterable(factory: Callable[..., Any] | Sequence[Any], *, schema: SchemaLike) -> Stream:
    """Rows (dicts, tuples) or frames from Python: a function that returns an iterator, or a list.

    After a restart the function is called again and items already used are skipped; a function with a
    parameter `start` is given their number instead. The stream ends when the iterator does.

    >>> import unistream as us
    >>> us.scan_iterable(lambda: ({"n": n} for n in range(3)), schema={"n": pl.Int64}).collect().rows()
    [(0,), (1,), (2,)]
    """
    from unistream.io.iterable import IterableSource

    return scan(IterableSource(factory, schema=schema))


def scan_rate(rows_per_second: float = 1.0, *, total_rows: int | None = None) -> Stream:
    """Numbered rows at a steady rate, for trying things out: columns `timestamp` and `value`.

    >>> import unistream as us
    >>> us.scan_rate(100_000, total_rows=3).collect()["value"].to_list()
    [0, 1, 2]
    """
    from unistream.io.generate import RateSource

    return scan(RateSource(rows_per_second, total_rows=total_rows))


def scan_nexmark(
    events: int | None = None,
    *,
    rate: float | None = None,
    which: Literal["person", "auction", "bid"] | None = None,
    seed: int = 0,
    start: datetime | None = None,
) -> Stream:
    """The events of the Nexmark benchmark: of every fifty one person, three auctions and 46 bids.

    An event depends on its number and the seed alone, so streams of `which="person"`, `"auction"` and
    `"bid"` are parts of one history; without `which` all come in one stream, as `event_type` and one struct
    column for each kind. `events` counts all kinds and bounds the stream. `rate` is events in a second, by
    the clock; without it they come as fast as they are used, with 10,000 to a second of event time.
    `start` is when the first one happened: when the job began with a rate, else in July 2015. With a rate,
    streams that are to fit together need the same `start`.

    >>> import unistream as us
    >>> us.scan_nexmark(50, which="auction").select("id", "seller", "category").collect().rows()
    [(1000, 1004, 10), (1001, 1000, 11), (1002, 1000, 10)]
    """
    from unistream.io.nexmark import NexmarkSource

    if start is not None and start.tzinfo is None:
        start = start.replace(tzinfo=UTC)
    micros = None if start is None else (start - _EPOCH) // timedelta(microseconds=1)
    return scan(NexmarkSource(events, rate=rate, which=which, seed=seed, start=micros))
