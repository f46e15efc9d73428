"""Writes a whole bounded query to staged Parquet files in one Polars run."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path
from typing import IO

import polars as pl

from unistream.errors import ConnectorError
from unistream.expressions.schema import CHANGE
from unistream.io.base import Cancelled, LazyWrite, Token, WriterContext
from unistream.io.parquet_checksums import ChecksumFile
from unistream.io.parquet_format import ParquetFormat, folder_of, leaf_columns
from unistream.io.staging import StagedFolder, sync_file

CHECKPOINT_ID = 1
"""What files of a whole query carry in the place of a checkpoint: there is only one commit."""


class ParquetQuery(LazyWrite):
    """One run of Polars' streaming engine into the staged layout of `ParquetSink`.

    Polars encodes on its own threads; each file passes through a `ChecksumFile`, so that it carries page
    checksums like those of the writer.
    """

    def __init__(
        self, query: pl.LazyFrame, folder: StagedFolder, context: WriterContext, format: ParquetFormat
    ) -> None:
        self._query = query
        self._folder = folder
        self._context = context
        self._format = format
        self._leaves = leaf_columns(context.schema.columns) - len(format.partition_by)
        self._files: list[tuple[str, str, ChecksumFile]] = []  # staged path, final name
        self._numbers = itertools.count()
        self._cancelled = self._over = False
        self._closing = threading.Lock()  # no file begins once it is known that the query is over
        self._ended = threading.Event()
        self._error: BaseException | None = None
        self._not_begun: BaseException | None = None

    def run(self) -> Token | None:
        """Write everything; the files are closed and synced when this returns.

        Polars cannot be interrupted between two writes, so after `cancel` this returns at once and the
        query ends by itself at its next write, which fails.
        """
        thread = threading.Thread(target=self._write, name="parquet-query", daemon=True)
        thread.start()
        try:
            self._ended.wait()
        except BaseException:  # an interrupt from the keyboard
            self.cancel()
            raise
        if self._cancelled:
            raise Cancelled
        thread.join()
        if self._error is not None:
            raise self._cause(self._error)
        named = sorted(((staged, final) for staged, final, _ in self._files), key=lambda pair: pair[1])
        return self._folder.token(named) or self._folder.emptied(self._context)

    def cancel(self) -> None:
        """Make `run` return with `Cancelled`; nothing more is written."""
        self._cancelled = True
        self._begin_no_more()
        self._ended.set()

    def progress(self) -> int:
        """About how many rows are written; exact when `run` has returned."""
        files = [file for _, _, file in list(self._files)]
        return sum(file.rows if file.complete else file.values // max(1, self._leaves) for file in files)

    def _write(self) -> None:
        keys = list(self._format.partition_by)
        target = pl.PartitionBy(
            self._folder.folder,
            file_path_provider=self._begin_file,
            key=keys or None,
            include_key=False if keys else None,
            max_rows_per_file=self._format.file_rows,
            approximate_bytes_per_file=self._format.file_bytes,
        )
        try:
            self._check()
            self._query.drop(CHANGE, strict=False).sink_parquet(
                target,
                compression=self._format.compression,
                compression_level=self._format.compression_level,
                row_group_size=self._format.row_group_rows,
                engine="streaming",
            )
        except BaseException as error:
            self._error = error
            self._begin_no_more()  # other threads of Polars may not know yet that one has failed
        finally:
            for _, _, file in self._files:
                file.close()
            self._ended.set()

    def _begin_no_more(self) -> None:
        with self._closing:
            self._over = True

    def _begin_file(self, args: pl.io.partition.FileProviderArgs) -> IO[bytes]:
        """Called by Polars, on its threads, for each file."""
        with self._closing:
            self._check()
            try:
                return self._opened(args)
            except BaseException as error:
                self._not_begun = self._not_begun or error
                raise

    def _opened(self, args: pl.io.partition.FileProviderArgs) -> IO[bytes]:
        partition = folder_of(args.partition_keys) if self._format.partition_by else ""
        staged = self._folder.stage(self._context, next(self._numbers))
        final = self._folder.final_name(self._context, CHECKPOINT_ID, args.index_in_partition, partition)
        raw = Path(staged).open("wb", buffering=0)  # noqa: SIM115 (the ChecksumFile closes it)
        file = ChecksumFile(raw, sync_file, self._check)
        self._files.append((staged, final, file))
        return file  # type: ignore[return-value]

    def _check(self) -> None:
        if self._over:
            raise Cancelled

    def _cause(self, error: BaseException) -> BaseException:
        """What went wrong with a file, if it was that: Polars only says that a write failed."""
        # A file that cannot begin comes first: Polars closes the others then, maybe while it writes them.
        errors = [self._not_begun, *(file.error for _, _, file in self._files)]
        # Once one has failed, the others are told to stop: that is no cause.
        cause = next((one for one in errors if one is not None and not isinstance(one, Cancelled)), error)
        if isinstance(cause, OSError):
            wrapped = ConnectorError(f"Cannot write Parquet to {self._folder.folder}: {cause}")
            wrapped.__cause__ = cause
            return wrapped
        return cause
