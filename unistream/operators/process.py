"""Python for every row, with state and timers of its key."""

from __future__ import annotations

import copy
import heapq
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count, repeat
from typing import Any, ClassVar

import numpy as np
import polars as pl

from unistream.elements import MAX_TIME, MIN_TIME, Batch
from unistream.errors import DataError, InvalidQuery, StateError
from unistream.expressions.schema import StreamSchema
from unistream.expressions.time import microseconds_of
from unistream.graph import LATE, REJECTED
from unistream.operators.base import Context, Operator, OperatorSpec, Output
from unistream.operators.process_context import ProcessContext, Row, TimerClock
from unistream.operators.stored_time import StoredTime
from unistream.state.handles import Cursor, KeyedStates, State
from unistream.state.key_codes import join_on_keys
from unistream.state.timers import TIME, Timers

_ROWS_AT_ONCE = 16_384
"""More Python objects at a time would be looked through by the garbage collector again and again."""
_MOST_IN_A_ROW = 1_000_000
"""Timers that those of one key may set off, one by one, where no time that is reached ends them."""


class ProcessFunction(ABC):
    """What to do with each row of a key: the most general step, and the slowest.

    `output` names the columns of the rows it gives, `side_outputs` those of further outputs, by tag, which
    `Stream.side_output` reads. State is declared in the class body (`us.ValueState`, `us.ListState`,
    `us.MapState`, `us.ReducingState`) and is that of the key at hand: it is written through its handle, as in
    `self.last.value = 3`. Everything else an instance holds is shared by all keys and lost in a crash.

    `process` and `on_timer` give rows as mappings with just these columns: by `yield`, by `ctx.emit`, or as a
    list. Rows of side outputs go by `ctx.emit_to`.

    Times are whole numbers: microseconds since 1970. `ctx.time` is the event time of the row, `ctx.watermark`
    how far event time has come, `ctx.now` processing time; timers are set for either, by such a number or by
    a datetime such as `row["ts"] + timedelta(minutes=1)`. See `us.ProcessContext`.

    >>> import polars as pl, unistream as us
    >>> class Idle(us.ProcessFunction):
    ...     output = {"user": pl.String, "idle_since": pl.Int64}
    ...     last = us.ValueState(pl.Int64)
    ...     def process(self, key, row, ctx):
    ...         if self.last.value is not None:
    ...             ctx.cancel_timer(self.last.value + 10_000_000)
    ...         self.last.value = ctx.time
    ...         ctx.set_timer(ctx.time + 10_000_000)
    ...     def on_timer(self, key, time, ctx):
    ...         yield {"user": key, "idle_since": self.last.value // 1_000_000}
    >>> rows = us.from_frame({"user": ["a", "b", "a"], "t": [1, 2, 8]}).with_event_time("t", unit="s")
    >>> rows.group_by("user").process(Idle()).collect().rows()
    [('b', 2), ('a', 8)]
    """

    output: ClassVar[Any] = None
    side_outputs: ClassVar[Mapping[str, Any]] = {}

    def open(self, ctx: ProcessContext) -> None:
        """Once, before any rows; there is no key yet."""

    @abstractmethod
    def process(self, key: Any, row: dict[str, Any], ctx: ProcessContext) -> Iterable[Row] | None:
        """A row; `key` is the value of the key column, or a tuple of several.

        `row` has all columns as Python values, so a moment is a datetime; `ctx.time` is a number.
        """

    def on_timer(self, key: Any, time: int, ctx: ProcessContext) -> Iterable[Row] | None:
        """A timer that was set for this key has come.

        `time` is the one it was set for, in microseconds since 1970; `ctx.clock` says in which time.
        """
        return None

    def close(self) -> None:
        """Give back resources; also after an error."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Process(OperatorSpec):
    """A `ProcessFunction` over the rows of each key."""

    name: ClassVar[str] = "process"
    by: tuple[str, ...]
    function: ProcessFunction
    made: pl.Schema
    sides: Mapping[str, pl.Schema] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for tag in self.sides:
            if tag in ("", LATE, REJECTED):
                hint = "choose another tag in `side_outputs`"
                raise InvalidQuery(f"A side output cannot be called {tag!r}", self.where, hint)

    def schema(self, inputs: Sequence[StreamSchema]) -> StreamSchema:
        return StreamSchema(self.made, bounded=inputs[0].bounded, side_outputs=dict(self.sides))

    @property
    def keys(self) -> tuple[str, ...]:
        return self.by

    def build(self, inputs: Sequence[StreamSchema]) -> Operator:
        return _Process(self, inputs[0])

    def describe(self) -> Mapping[str, str]:
        kept = ", ".join(f"{name} ({type(state).__name__})" for name, state in states_of(self.function))
        sides = {"side outputs": ", ".join(self.sides)} if self.sides else {}
        return {
            "by": ", ".join(self.by),
            "runs": f"{type(self.function).__name__}, in Python for every row",
            "state": kept or "none",
            **sides,
        }


def states_of(function: ProcessFunction) -> list[tuple[str, State]]:
    """The states that the class of a function declares, by name."""
    found = {
        name: value
        for kind in reversed(type(function).__mro__)
        for name, value in vars(kind).items()
        if isinstance(value, State)
    }
    return list(found.items())


class _Process(Operator):
    """Loads the states of a batch's keys, calls the function row by row, writes the states back."""

    def __init__(self, spec: Process, schema: StreamSchema) -> None:
        self._spec = spec
        self._schema = schema
        self._by = list(spec.by)
        self._cursor = Cursor()
        self._function = copy.deepcopy(spec.function)
        self._states = {name: state.bound(self._cursor) for name, state in states_of(spec.function)}
        for name, state in self._states.items():
            vars(self._function)[name] = state  # in its place: assigning to it is refused
        self._keys: list[Any] = []
        self._key_frame = pl.DataFrame()

    def open(self, context: Context) -> None:
        keys = pl.Schema({name: self._schema.columns[name] for name in self._by})
        self._clock = context.clock
        self._kept = KeyedStates(context.state, keys, self._states)
        self._timers: dict[TimerClock, Timers] = {
            "event": Timers(context.state, "event_timers", keys),
            "processing": Timers(context.state, "processing_timers", keys),
        }
        self._time = StoredTime(context.state.cell("watermark"))
        self._ctx = ProcessContext({"": self._spec.made, **self._spec.sides})
        self._ctx.watermark = self._time.now
        self._ctx.now = self._clock.now()
        self._function.open(self._ctx)
        if self._ctx.wanted:
            hint = "set it in process and on_timer, where there is one"
            raise StateError("A timer belongs to a key", hint=hint)

    def process(self, batch: Batch, out: Output) -> None:
        for frame in batch.frame.iter_slices(_ROWS_AT_ONCE):
            self._process(frame, out)

    def _process(self, frame: pl.DataFrame, out: Output) -> None:
        ctx, function = self._ctx, self._function.process
        keys = frame.select(self._by)
        distinct = keys.unique(maintain_order=True)
        self._load(distinct)
        places = _places(keys, distinct)
        cursor, wanted = self._cursor, ctx.wanted
        orders: list[tuple[int, int, TimerClock, bool]] = []
        keys_by_place = self._keys
        made: Iterable[Row] | None = None
        try:
            for at, time, row in zip(places, self._times(frame), _rows_of(frame), strict=False):
                cursor.at, ctx.time = at, time
                made = function(keys_by_place[at], row, ctx)
                if made is not None:
                    for result in made:
                        ctx.emit(result)
                if wanted:
                    orders += [(at, *order) for order in wanted]
                    wanted.clear()
        except TypeError as error:
            self._check_rows(made, "process", error)
            raise
        self._set_timers(orders)
        self._save(out)

    def on_watermark(self, watermark: int, out: Output) -> None:
        self._time.advance(watermark)
        self._ctx.watermark = self._time.now
        self._ctx.ended = watermark == MAX_TIME
        self._fire("event", watermark, out)

    def next_wakeup(self) -> int | None:
        times = [self._timers["processing"].next_time(), self._kept.next_expiry()]
        return min((time for time in times if time is not None), default=None)

    def on_processing_time(self, now: int, out: Output) -> None:
        self._fire("processing", now, out)
        self._kept.expire(now)

    def before_checkpoint(self) -> None:
        self._time.store()

    def close(self) -> None:
        self._function.close()

    def _load(self, keys: pl.DataFrame) -> None:
        self._ctx.now = self._clock.now()
        self._kept.load(keys, self._ctx.now)
        self._key_frame = keys
        self._keys = keys.to_series().to_list() if keys.width == 1 else keys.rows()

    def _save(self, out: Output) -> None:
        self._cursor.leave()
        self._kept.save(self._ctx.now)
        self._ctx.flush(out)

    def _check_rows(self, made: object, method: str, error: TypeError) -> None:
        """Looked at when it fails, so that it costs nothing when it does not."""
        if made is not None and not isinstance(made, Iterable):
            raise self._ctx.no_rows(made, method) from error

    def _times(self, frame: pl.DataFrame) -> Iterable[int | None]:
        time = self._schema.event_time
        if time is None:
            return repeat(None)
        return frame.select(microseconds_of(time, self._schema.columns)).to_series().to_list()

    def _set_timers(self, orders: Sequence[tuple[int, int, TimerClock, bool]]) -> None:
        """In order: a timer that is cancelled and set again is set."""
        start = 0
        for end in range(1, len(orders) + 1):
            if end == len(orders) or orders[end][2:] != orders[start][2:]:
                run = orders[start:end]
                timers = self._timers[run[0][2]]
                change = timers.register if run[0][3] else timers.cancel
                change(np.array([order[1] for order in run]), self._key_frame[[order[0] for order in run]])
                start = end

    def _fire(self, clock: TimerClock, until: int, out: Output) -> None:
        due = self._timers[clock].due(until)
        if not due.height:
            return
        keys = due.drop(TIME)
        distinct = keys.unique(maintain_order=True)
        self._load(distinct)
        firing = _Firing(due[TIME].to_list(), _places(keys, distinct), ended=until == MAX_TIME)
        ctx, later = self._ctx, []
        ctx.clock = clock
        while (timer := firing.next()) is not None:
            time, at = timer
            self._cursor.at, ctx.time = at, time
            made = self._function.on_timer(self._keys[at], time, ctx)
            try:
                for result in () if made is None else made:
                    ctx.emit(result)
            except TypeError as error:
                self._check_rows(made, "on_timer", error)
                raise
            for when, of_clock, sets in ctx.wanted:
                if of_clock == clock and when <= until:
                    firing.change(when, at, sets)
                else:
                    later.append((at, when, of_clock, sets))
            ctx.wanted.clear()
        self._set_timers(later)
        self._save(out)


class _Firing:
    """Timers that are due, in order, with those that are set and cancelled while they fire."""

    def __init__(self, times: Sequence[int], places: Sequence[int], *, ended: bool) -> None:
        self._ended = ended
        self._now = MIN_TIME
        self._numbers = count(len(times))
        self._heap = [(time, n, at) for n, (time, at) in enumerate(zip(times, places, strict=True))]
        self._waiting = {(time, at) for time, _, at in self._heap}
        self._more: dict[int, int] = defaultdict(int)
        heapq.heapify(self._heap)

    def next(self) -> tuple[int, int] | None:
        """Time and place of the next timer."""
        while self._heap:
            time, _, at = heapq.heappop(self._heap)
            if (time, at) in self._waiting:
                self._waiting.remove((time, at))
                self._now = time
                return time, at
        return None

    def change(self, time: int, at: int, sets: bool) -> None:
        """Set or cancel a timer that is due at once."""
        if not sets:
            self._waiting.discard((time, at))
        elif (time, at) not in self._waiting:
            if self._ended or time <= self._now:
                self._count(at)
            self._waiting.add((time, at))
            heapq.heappush(self._heap, (time, next(self._numbers), at))

    def _count(self, at: int) -> None:
        """Timers that set later ones come to where time is; others of a key may go on for ever."""
        self._more[at] += 1
        if self._more[at] > _MOST_IN_A_ROW:
            ended, ahead = "when ctx.ended is true", "that is not later than the one that has come"
            hint = f"set no timer in on_timer {ended if self._ended else ahead}"
            raise DataError("Timers that are due set further timers that are due, without end", hint=hint)


def _rows_of(frame: pl.DataFrame) -> Iterator[dict[str, Any]]:
    """The rows as dictionaries, made in C from pairs: nearly twice as fast as `iter_rows(named=True)`."""
    pairs = (zip(repeat(column.name), column.to_list()) for column in frame.get_columns())
    return map(dict, zip(*pairs, strict=True))


def _places(keys: pl.DataFrame, distinct: pl.DataFrame) -> list[int]:
    """Which of the distinct keys each key is."""
    if keys.height == distinct.height:
        return list(range(keys.height))
    numbered = distinct.with_row_index("__place")
    return join_on_keys(keys, numbered, keys.columns, "left")["__place"].to_list()
