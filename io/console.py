"""Rows for the eye: a table or plain lines on a text stream."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TextIO

import polars as pl
from rich.console import Console
from rich.table import Table
from rich.text import Text

from unistream.errors import ConnectorError, InvalidSettings
from unistream.expressions.schema import Changes, spell_changes
from unistream.io.base import Sink, Writer, WriterContext
from unistream.location import user_location


@dataclass(frozen=True, slots=True)
class ConsoleSink(Sink):
    """Shows the first `rows` rows of every tick and how many more there were.

    `style="table"` draws a table per tick, `style="lines"` one line of `column=value` per row. Updates
    carry a first column `op` ("+I -U +U -D"). `to` is standard output unless given. Use it to look at
    a running job; rows show at once, so a restart may show some twice.
    """

    rows: int = 20
    style: str = "table"
    title: str | None = None
    to: TextIO | None = None

    name = "console"

    def __post_init__(self) -> None:
        if self.style not in ("table", "lines"):
            raise InvalidSettings.from_unknown("style", self.style, ("table", "lines"), user_location())
        if self.rows < 0:
            raise InvalidSettings(f"rows must not be negative: {self.rows}", user_location())

    @property
    def accepts(self) -> frozenset[Changes]:
        return frozenset(Changes)

    def open(self, context: WriterContext) -> Writer:
        return _ConsoleWriter(self)

    def describe(self) -> dict[str, str]:
        return {"style": self.style, "rows": str(self.rows)}


class _Printer(Console):
    def on_broken_pipe(self) -> None:
        """Instead of ending the process, which is not ours, as its base does."""
        raise BrokenPipeError


class _ConsoleWriter(Writer):
    def __init__(self, sink: ConsoleSink) -> None:
        self._sink = sink
        self._stream = sink.to or sys.stdout
        self._console = _Printer(file=self._stream, highlight=False)

    def write(self, frame: pl.DataFrame) -> None:
        try:
            self._print(frame)
        except BrokenPipeError as error:
            hint = "whoever read it has ended, as `| head` does: stop the job instead, or write to files"
            raise ConnectorError("Nobody reads what is printed any more", hint=hint) from error

    def _print(self, frame: pl.DataFrame) -> None:
        shown = spell_changes(frame.head(self._sink.rows))
        if self._sink.style == "table":
            self._console.print(_table(shown, self._sink.title))
        else:
            prefix = f"{self._sink.title}: " if self._sink.title else ""
            self._stream.writelines(f"{prefix}{_line(shown.columns, row)}\n" for row in shown.iter_rows())
        if more := frame.height - shown.height:
            self._stream.write(f"… and {more:,} more rows\n")
        self._stream.flush()


def _table(frame: pl.DataFrame, title: str | None) -> Table:
    table = Table(title=None if title is None else Text(title))
    for name, dtype in frame.schema.items():
        table.add_column(Text(_spelled(name)), justify="right" if dtype.is_numeric() else "left")
    for row in frame.iter_rows():
        table.add_row(*(Text(_spelled(value)) for value in row))
    return table


def _line(names: list[str], row: tuple[object, ...]) -> str:
    return "  ".join(f"{_spelled(name)}={_spelled(value)}" for name, value in zip(names, row, strict=True))


def _spelled(value: object) -> str:
    """The value as text; control characters, which could steer a terminal, are escaped."""
    text = "null" if value is None else str(value)
    return text if text.isprintable() else repr(text)[1:-1]
