"""Where a stream can go: each `sink_*` gives a `Job`, which has not run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from unistream.api.names import Names, names_of
from unistream.durations import Duration
from unistream.location import user_location
from unistream.plan.nodes import Node, Write

if TYPE_CHECKING:
    from unistream.api.job import Job
    from unistream.io.base import Sink
    from unistream.io.parquet_format import Compression
    from unistream.io.staging import Mode
    from unistream.io.table_sink import Mode as TableMode


class Sinks:
    """The part of a stream that hands its rows to the outside."""

    __slots__ = ()
    _node: Node

    def sink(self, sink: Sink) -> Job:
        """Any sink, by its configuration; the door for sinks of one's own."""
        from unistream.api.job import Job

        return Job((Write(input=self._node, sink=sink, where=user_location()),))

    def sink_parquet(
        self,
        path: str | Path,
        *,
        partition_by: Names = (),
        compression: Compression = "zstd",
        compression_level: int | None = None,
        row_group_rows: int | None = None,
        max_file_rows: int | None = None,
        max_file_bytes: int | None = None,
        max_file_age: Duration | None = None,
        mode: Mode = "error",
    ) -> Job:
        """Parquet files in a folder; each appears whole, under its final name, or not at all.

        A new file is begun at `max_file_rows`, `max_file_bytes` or `max_file_age`. `mode` says what happens
        when the folder holds data already: "error", "append" or "overwrite". Pages carry checksums.

        >>> import tempfile, unistream as us
        >>> folder = tempfile.mkdtemp() + "/out"
        >>> us.from_frame({"a": [1, 2]}).sink_parquet(folder).run(progress=False).rows_out
        2
        """
        from unistream.io.parquet_sink import ParquetSink

        return self.sink(
            ParquetSink(
                path,
                partition_by=names_of(partition_by, "partition_by="),
                compression=compression,
                **_given(compression_level=compression_level, row_group_rows=row_group_rows),
                **_rollover(max_file_rows, max_file_bytes, max_file_age),
                mode=mode,
            )
        )

    def sink_csv(
        self,
        path: str | Path,
        *,
        partition_by: Names = (),
        separator: str = ",",
        include_header: bool = True,
        max_file_rows: int | None = None,
        max_file_bytes: int | None = None,
        max_file_age: Duration | None = None,
        mode: Mode = "error",
    ) -> Job:
        """CSV files in a folder, whole or not at all; options as for `sink_parquet`.

        >>> import pathlib, tempfile, unistream as us
        >>> folder = pathlib.Path(tempfile.mkdtemp(), "out")
        >>> _ = us.from_frame({"a": [1, 2]}).sink_csv(folder).run(progress=False)
        >>> [file.read_text() for file in folder.iterdir()]
        ['a\\n1\\n2\\n']
        """
        from unistream.io.line_sinks import CsvSink

        return self.sink(
            CsvSink(
                path,
                partition_by=names_of(partition_by, "partition_by="),
                separator=separator,
                include_header=include_header,
                **_rollover(max_file_rows, max_file_bytes, max_file_age),
                mode=mode,
            )
        )

    def sink_ndjson(
        self,
        path: str | Path,
        *,
        partition_by: Names = (),
        max_file_rows: int | None = None,
        max_file_bytes: int | None = None,
        max_file_age: Duration | None = None,
        mode: Mode = "error",
    ) -> Job:
        """Files of one JSON object a line, whole or not at all; options as for `sink_parquet`.

        >>> import pathlib, tempfile, unistream as us
        >>> folder = pathlib.Path(tempfile.mkdtemp(), "out")
        >>> _ = us.from_frame({"a": [1, 2]}).sink_ndjson(folder).run(progress=False)
        >>> [file.read_text() for file in folder.iterdir()]
        ['{"a":1}\\n{"a":2}\\n']
        """
        from unistream.io.line_sinks import NdjsonSink

        return self.sink(
            NdjsonSink(
                path,
                partition_by=names_of(partition_by, "partition_by="),
                **_rollover(max_file_rows, max_file_bytes, max_file_age),
                mode=mode,
            )
        )

    def sink_console(self, *, rows: int = 20, to: TextIO | None = None) -> Job:
        """Rows printed as they come, at most `rows` of each tick.

        >>> import unistream as us
        >>> us.scan_rate(10).sink_console(rows=3)
        <Job unbounded to console; not started>
        """
        from unistream.io.console import ConsoleSink

        return self.sink(ConsoleSink(rows=rows, to=to))

    def sink_socket(self, address: str, *, format: str = "ndjson", listen: bool = False) -> Job:
        """Lines over TCP: to the server at "host:port", or to whoever connects when `listen` is set.

        TCP does not tell what the other side has used, so rows on their way may be lost or come twice when
        a connection breaks.

        >>> import unistream as us
        >>> us.from_frame({"a": [1, 2]}).sink_socket("127.0.0.1:9000")
        <Job bounded to socket; not started>
        """
        from unistream.io.tcp_sink import TcpSink

        return self.sink(TcpSink(address, format=format, listen=listen))

    def sink_table(
        self,
        url: str,
        table: str,
        *,
        key: Names = (),
        mode: TableMode = "append",
        max_age: Duration = "1s",
        staging: str | Path | None = None,
    ) -> Job:
        """A table of SQLite, DuckDB or PostgreSQL, exactly once; it is made when it is not there.

        `url` is `sqlite:///file.db`, `duckdb:///file.db` or `postgresql://user@host/database`. Without
        `key` rows are added. With it a row replaces the one with the same key; aggregates, which update by
        a key, have theirs already, and delete what is gone. `mode` says what happens when the table holds
        rows: "append", "error", or "overwrite" with the first commit. Without checkpoints an unbounded job
        commits every `max_age`. For types and `staging` see `TableSink`.

        >>> import sqlite3, tempfile, polars as pl, unistream as us
        >>> file = tempfile.mkdtemp() + "/shop.db"
        >>> sales = us.from_frame({"item": ["tea", "rice", "tea"], "amount": [3, 4, 5]})
        >>> totals = sales.group_by("item").agg(total=pl.col("amount").sum())
        >>> _ = totals.sink_table(f"sqlite:///{file}", "totals").run(progress=False)
        >>> sqlite3.connect(file).execute("SELECT * FROM totals ORDER BY item").fetchall()
        [('rice', 4), ('tea', 8)]
        """
        from unistream.io.table_sink import TableSink

        names = names_of(key, "key=")
        return self.sink(TableSink(str(url), table, names, mode, max_age, staging))

    def sink_batches(self, function: Callable[..., Any]) -> Job:
        """Call `function(frame)` with rows as they come, or `function(frame, checkpoint_id)` once per commit.

        Rows of a stream that updates have a column `op`. Where it does so by a key, `+I` and `+U` both mean
        to put the row and `-D` to delete it if it is there; `.changes()` before makes these exact.

        >>> import unistream as us
        >>> heights = []
        >>> job = us.from_frame({"a": [1, 2]}).sink_batches(lambda frame: heights.append(frame.height))
        >>> _ = job.run(progress=False); heights
        [2]
        """
        from unistream.io.memory import CallbackSink

        return self.sink(CallbackSink(function))


def _rollover(rows: int | None, nbytes: int | None, age: Duration | None) -> dict[str, Any]:
    """The limits that were given; a sink has defaults of its own for the rest."""
    return _given(max_file_rows=rows, max_file_bytes=nbytes, max_file_age=age)


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
