"""What a `ProcessFunction` can do and know while it works on a row or a timer."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, SupportsIndex

import polars as pl

from unistream.elements import MIN_TIME
from unistream.errors import DataError, InvalidQuery
from unistream.operators.base import Output

TimerClock = Literal["event", "processing"]
Row = Mapping[str, Any]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class ProcessContext:
    """What a `ProcessFunction` can do and know; it is handed to each of its methods.

    **All times are whole numbers, microseconds since 1970 in UTC**, also where the column of event time is a
    datetime: a minute later is `ctx.time + 60_000_000`. Timers may be set by a datetime as well:
    `ctx.set_timer(row["ts"] + timedelta(minutes=1))`.

    `time`: event time of the row, or the time of the timer; None when the stream has no event time.
    `watermark`: how far event time has come; no row before it is expected, but for late ones.
    `now`: the job's clock (processing time) when this slice of rows, or this timer, came.
    `clock`: in `on_timer`, which time reached the timer: "event" or "processing".
    `ended`: whether the input has ended; event timers that are set now come at once.

    `set_timer` and `cancel_timer` are about the key at hand; `emit` gives a row of the output, which in
    `process` and `on_timer` is the same as `yield`, and `emit_to` one of a side output.
    """

    def __init__(self, outputs: Mapping[str, pl.Schema]) -> None:
        self.time: int | None = None
        self.watermark: int = MIN_TIME
        self.now: int = 0
        self.clock: TimerClock = "event"
        self.ended = False
        self._schemas = dict(outputs)
        self._names = {tag: schema.keys() for tag, schema in outputs.items()}
        self._rows: dict[str, list[Row]] = {tag: [] for tag in outputs}
        self._own_names = self._names[""]
        self._own_rows = self._rows[""]
        self.wanted: list[tuple[int, TimerClock, bool]] = []
        """Timers set (True) and cancelled since this was last emptied."""

    def emit(self, row: Row) -> None:
        """Give a row of the output: a mapping with just the columns that `output` declares."""
        try:
            fits = row.keys() == self._own_names
        except AttributeError:
            raise self._no_row(row, "") from None
        if not fits:
            raise self._wrong(row, "")
        self._own_rows.append(row)

    def emit_to(self, tag: str, row: Row) -> None:
        """Give a row of the side output `tag`, which is declared in `side_outputs`.

        `Stream.side_output(tag)` is the stream of these rows.
        """
        if tag not in self._names or not tag:
            raise InvalidQuery.from_missing_name(tag, [name for name in self._names if name], "side_outputs")
        try:
            fits = row.keys() == self._names[tag]
        except AttributeError:
            raise self._no_row(row, tag) from None
        if not fits:
            raise self._wrong(row, tag)
        self._rows[tag].append(row)

    def set_timer(self, time: int | datetime, clock: TimerClock = "event") -> None:
        """Have `on_timer` called for this key at a time; setting it twice is setting it once.

        `time` is in microseconds since 1970, as `ctx.time` is, or a datetime (UTC if it has no time zone).
        With `clock="event"` it comes when the watermark has reached it, at the end of the input at the
        latest; with `"processing"` when the job's clock has, so count from `ctx.now`; those that are left
        when the input ends do not come. A timer of a time that is past comes as soon as it can.
        """
        if clock != "event" and clock != "processing":
            raise _no_clock(clock)
        self.wanted.append((time if type(time) is int else _micros(time), clock, True))

    def cancel_timer(self, time: int | datetime, clock: TimerClock = "event") -> None:
        """Forget the timer of this key at that time, if there is one; `time` and `clock` as it was set."""
        if clock != "event" and clock != "processing":
            raise _no_clock(clock)
        self.wanted.append((time if type(time) is int else _micros(time), clock, False))

    def flush(self, out: Output) -> None:
        """Hand on what was emitted."""
        for tag, rows in self._rows.items():
            if rows:
                frame = self._frame(tag, rows)
                rows.clear()
                if tag:
                    out.emit_to(tag, frame)
                else:
                    out.emit(frame)

    def no_rows(self, given: object, method: str) -> DataError:
        """What to say when a method gave something that holds no rows."""
        return DataError(f"{method} gave {type(given).__name__} in place of rows", hint=self._how(""))

    def _frame(self, tag: str, rows: list[Row]) -> pl.DataFrame:
        try:
            columns = [
                pl.Series(name, [row[name] for row in rows], dtype=dtype, strict=True)
                for name, dtype in self._schemas[tag].items()
            ]
        except (TypeError, pl.exceptions.PolarsError) as error:
            place = "side_outputs" if tag else "output"
            raise DataError(
                f"A row that was emitted does not have the types {dict(self._schemas[tag])}: {error}",
                hint=f"convert the value, or declare another type in `{place}`",
            ) from error
        return pl.DataFrame(columns)

    def _wrong(self, row: Row, tag: str) -> DataError:
        given, wanted = list(row), list(self._schemas[tag])
        return DataError(
            f"A row for {_named(tag)} has columns {given}, declared are {wanted}",
            hint="give every declared column, None where there is no value",
        )

    def _no_row(self, row: object, tag: str) -> DataError:
        message = f"A row for {_named(tag)} is a mapping of columns to values, not {type(row).__name__}"
        return DataError(message, hint=self._how(tag))

    def _how(self, tag: str) -> str:
        row = f'{{"{next(iter(self._schemas[tag]), "column")}": ...}}'
        if tag:
            return f'write `ctx.emit_to("{tag}", {row})`'
        return f"write `yield {row}`, or `return [{row}]`, a list, also for one row"


def _named(tag: str) -> str:
    return f"side output {tag!r}" if tag else "the output"


def _micros(time: SupportsIndex | datetime) -> int:
    """From what is not plainly a number of microseconds."""
    if isinstance(time, datetime):
        moment = time if time.tzinfo else time.replace(tzinfo=UTC)
        return (moment - _EPOCH) // timedelta(microseconds=1)
    try:
        return operator.index(time)
    except TypeError:
        hint = (
            "give whole microseconds since 1970, `ctx.time + 60_000_000`, "
            'or a datetime, `row["ts"] + timedelta(minutes=1)`'
        )
        raise InvalidQuery(f"A timer is set for a moment, not for {time!r}", hint=hint) from None


def _no_clock(clock: object) -> InvalidQuery:
    return InvalidQuery(f"There is no clock {clock!r} for timers", hint='use "event" or "processing"')
