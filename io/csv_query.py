"""CSV files within one query, read by Polars' own reader; what it lets pass is found out beside it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import polars as pl

from unistream.io.compressed_bytes import COMPRESSED
from unistream.io.csv_look import LOOK_BYTES, FilesLook, Signs, lined_up
from unistream.io.format_csv import CsvFormat
from unistream.of_columns import columns_of
from unistream.one_query import Conditions, Reading, RowWatch, Terms

ROW = "__row"
"""The number of a row, by which a watch puts pieces in order."""

LEAST_PLAIN = 128 << 20
"""Bytes of files from which on it pays to hope that there are no quotes: the parser is faster without, but
when there are some after all it begins again."""


class CsvQuery:
    """CSV files without compression or surprises in their headers, as Polars reads them.

    It fills missing fields with nulls and, where it leaves columns out, passes over surplus ones. So the last
    column is read too, of which no value may be null, and separators are counted in the bytes. Whatever is
    wrong makes the query void: the source's own reader then says what it is, or reads it.
    """

    def __init__(self, format: CsvFormat, paths: Sequence[str], max_line_bytes: int) -> None:
        self._paths = list(paths)
        self._longest_line = max_line_bytes
        self.possible = (
            bool(paths)
            and max_line_bytes >= LOOK_BYTES
            and ROW not in format.schema
            and not any(path.endswith(COMPRESSED) for path in paths)
        )
        if not self.possible:
            return
        try:
            with Path(paths[0]).open("rb") as file:
                begins = file.read(LOOK_BYTES)
            small = sum(Path(path).stat().st_size for path in paths) < LEAST_PLAIN
        except OSError:  # the source's own reader says what it is
            self.possible = False
            return
        self._format = lined_up(format, begins, paths[0])
        self._quoted = format.quote is not None and (small or format.quote in begins)

    def query(self, columns: Sequence[str], terms: Terms) -> pl.LazyFrame:
        """These columns of all rows."""
        conditions, watch = terms.conditions, None if terms.watch is None else terms.watch()
        quoted = self._quoted or terms.reading is Reading.QUOTED
        reading = _Reading(self._format, columns, watch, conditions)
        scan = pl.scan_csv(
            self._paths,
            glob=False,
            schema=self._format.wire,
            has_header=self._format.has_header,
            separator=self._format.separator,
            quote_char=self._format.quote_char if quoted else None,  # without, the parser is faster
            null_values=list(self._format.null_values) or None,
            row_index_name=ROW if watch is not None else None,
        )
        # Surplus fields are passed over only where columns are left out.
        counted = len(reading.needed) < len(self._format.in_line)
        signs = Signs(ord(self._format.separator), self._format.quote, quoted, self._longest_line, counted)
        look = FilesLook(self._format, self._paths, signs, conditions)
        conditions.reads_leniently = True
        conditions.before(look.begin)
        conditions.after(partial(self._compare, reading, look, conditions))
        if watch is not None:
            conditions.after(watch.finish)
        return scan.select([*([ROW] if watch is not None else []), *reading.needed]).map_batches(
            reading.typed,
            predicate_pushdown=False,
            projection_pushdown=False,
            slice_pushdown=False,
            validate_output_schema=False,
            schema=reading.schema,
            streamable=True,
        )

    def _compare(self, reading: _Reading, look: FilesLook, conditions: Conditions) -> None:
        """Whether there are as many separators as that many rows have."""
        headers = len(self._paths) if self._format.has_header else 0
        separators = look.separators()
        if look.counted and separators != (reading.rows() + headers) * (len(self._format.in_line) - 1):
            conditions.fail("rows have other numbers of fields", instead=Reading.OWN)


class _Reading:
    """Pieces that the parser read, made columns of their types on its threads."""

    def __init__(
        self, format: CsvFormat, columns: Sequence[str], watch: RowWatch | None, conditions: Conditions
    ) -> None:
        watched = [] if watch is None else [watch.column]
        self._last = format.in_line[-1]
        self._format = format.project([*columns, *watched])
        self._columns = list(columns)
        self._watch = watch
        self._conditions = conditions
        self._lock = threading.Lock()
        self._rows = 0
        self.needed = list(dict.fromkeys([*self._format.schema, self._last]))
        self.schema = pl.Schema({name: format.schema[name] for name in columns})

    def rows(self) -> int:
        """How many rows there were."""
        return self._rows

    def typed(self, wire: pl.DataFrame) -> pl.DataFrame:
        """One piece."""
        if self._conditions.unmet is not None:
            raise self._conditions.unmet
        if wire[self._last].null_count():
            self._conditions.fail(f"fields may be missing where {self._last} is null", instead=Reading.OWN)
        frame = self._format.typed(wire)
        if frame is None:
            self._conditions.fail("a value does not fit", instead=Reading.OWN)
        if self._watch is not None and wire.height:
            self._watch.see(int(wire.get_column(ROW)[0]), frame)
        with self._lock:
            self._rows += wire.height
        return columns_of(frame, self._columns)
