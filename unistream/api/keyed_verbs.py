"""Verbs of `KeyedStream` beside `agg` and `window`: tops, answers row by row, functions with state."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from unistream.api.instead import Unfinished
from unistream.api.keys import Keys
from unistream.durations import Duration, microseconds
from unistream.errors import InvalidQuery
from unistream.expressions.analysis import expand, output_schema, why_not_row_wise
from unistream.expressions.schema import Changes
from unistream.io.frames import as_schema
from unistream.location import user_location
from unistream.operators.over import Over
from unistream.operators.process import Process, ProcessFunction
from unistream.operators.process_batches import BatchFunction, ProcessBatches
from unistream.operators.stateless import columns_read_by
from unistream.operators.top_k import TopK

if TYPE_CHECKING:
    from unistream.api.stream import Stream

_INSTEAD = {
    "group_by": 'all keys at once, as in .group_by("a", "b")',
    "map_groups": ".process_batches(fn, state_schema=...), or .window(...).apply(fn)",
    "apply": ".process_batches(fn, state_schema=...), or .window(...).apply(fn)",
    "map": ".process(function)",
    "flat_map": ".process(function)",
    "rolling": '.over(range="10m").agg(...)',
}


class KeyedVerbs(Unfinished):
    """Needs the keys."""

    __slots__ = ()
    _called = "a stream grouped by keys"
    _instead = _INSTEAD
    _keys: Keys

    def top_k(self, n: int, by: Any, *, reverse: bool | Sequence[bool] = False) -> Stream:
        """The `n` rows of each key that are greatest by these columns so far (least with `reverse`).

        The result updates: a row comes when it enters the top and is taken back when it falls out. Among
        equals those that came first are taken; nulls come last. Of rows that are only added just the top is
        kept; of a stream that updates all rows are, as another moves up when one goes.

        >>> import unistream as us
        >>> rows = us.from_frame({"k": ["a", "a", "b", "a"], "v": [1, 3, 2, 2]})
        >>> rows.group_by("k").top_k(2, by="v").collect().sort("k", "v").rows()
        [('a', 2), ('a', 3), ('b', 2)]
        """
        where = user_location()
        order, flags = ordering(n, by, reverse, self._keys.columns, where)
        rows = self._keys.seen_by(columns_read_by(order))
        appends = rows.node.schema.changes is Changes.APPEND
        kept = f"{n} rows per key" if appends else "all rows, because they may go again"
        return rows.given(TopK(by=rows.by, n=n, order=order, reverse=flags, kept=kept, where=where))

    def over(self, *, rows: int | None = None, range: Duration | None = None) -> OverStream:
        """For `agg`: each row with aggregates over the last `rows` rows of its key, or the last `range`.

        The row itself is one of them. With `rows` they are counted in order of arrival and answers come at
        once. With `range` those count that happened at most so long before (less than `range`, as in
        Polars' `rolling`), also at the same moment; answers come when time has passed the row.

        >>> import polars as pl, unistream as us
        >>> rows = us.from_frame({"k": ["a", "a", "a"], "v": [1, 2, 5]})
        >>> rows.group_by("k").over(rows=2).agg(recent=pl.col("v").sum()).collect()["recent"].to_list()
        [1, 3, 7]
        """
        where = user_location()
        if (rows is None) == (range is None):
            raise InvalidQuery("over takes rows= or range=", where, 'as in `.over(range="1h")`')
        if rows is not None and (not isinstance(rows, int) or isinstance(rows, bool) or rows < 1):
            raise InvalidQuery(f"over takes a whole number of rows from 1, not {rows!r}", where)
        micros = None if range is None else microseconds(range, "range")
        if micros is not None and micros <= 0:
            raise InvalidQuery(f"The range {range!r} is not longer than nothing", where)
        return OverStream(self._keys, rows, micros)

    def process(self, function: ProcessFunction, schema: Any = None) -> Stream:
        """Python for every row, with state and timers of its key; see `us.ProcessFunction`.

        `schema` names the columns it gives, unless its class has `output`. For columns at a time see
        `process_batches`, which is many times faster.

        >>> import polars as pl, unistream as us
        >>> class Rising(us.ProcessFunction):
        ...     output = {"k": pl.String, "by": pl.Int64}
        ...     last = us.ValueState(pl.Int64)
        ...     def process(self, key, row, ctx):
        ...         if self.last.value is not None and row["v"] > self.last.value:
        ...             yield {"k": key, "by": row["v"] - self.last.value}
        ...         self.last.value = row["v"]
        >>> rows = us.from_frame({"k": ["a", "a", "a"], "v": [1, 5, 2]})
        >>> rows.group_by("k").process(Rising()).collect().rows()
        [('a', 4)]
        """
        where = user_location()
        if not isinstance(function, ProcessFunction):
            hint = "derive a class from us.ProcessFunction and pass an instance of it"
            raise InvalidQuery(f"process takes a ProcessFunction, not {function!r}", where, hint)
        made = function.output if schema is None else schema
        if made is None:
            hint = 'as in `output = {"user": pl.String}` in the class, or pass schema='
            raise InvalidQuery(f"{type(function).__name__} does not say what it gives", where, hint)
        sides = {tag: as_schema(columns) for tag, columns in function.side_outputs.items()}
        rows = self._keys.in_full("process", where)
        return rows.given(
            Process(by=rows.by, function=function, made=as_schema(made), sides=sides, where=where)
        )

    def process_batches(
        self, function: BatchFunction, *, state_schema: Mapping[str, Any], schema: Any = None
    ) -> Stream:
        """A function over all rows of a tick, with their key's state as columns beside them.

        It gets a frame of the rows with the columns of `state_schema`, null for keys without state, and
        returns two frames: rows, and the states to keep, which have the key columns and those of the state.
        Of several states of one key the last stands; keys that are not among them keep theirs; a state of
        nulls is forgotten. Several rows of a key may come in one tick and have the state before it beside
        them: what they do to each other is for the function to mind. Without `schema` it is asked once with
        an empty frame what it returns.

        >>> import polars as pl, unistream as us
        >>> def numbered(frame):
        ...     n = pl.col("seen").fill_null(0) + pl.int_range(1, pl.len() + 1).over("k")
        ...     rows = frame.select("k", n=n)
        ...     return rows, rows.rename({"n": "seen"})
        >>> rows = us.from_frame({"k": ["a", "b", "a"]}).group_by("k")
        >>> rows.process_batches(numbered, state_schema={"seen": pl.Int64}).collect().rows()
        [('a', 1), ('b', 1), ('a', 2)]
        """
        where = user_location()
        rows = self._keys.in_full("process_batches", where)
        columns = rows.node.schema.columns
        state = as_schema(state_schema)
        if not state:
            raise InvalidQuery("process_batches needs at least one state column", where)
        both = sorted(set(state) & set(columns))
        if both:
            hint = "give the state another name; it stands beside the rows"
            raise InvalidQuery(f"State column {both[0]!r} is a column of the rows too", where, hint)
        made = as_schema(schema) if schema is not None else _asked(function, columns, state, where)
        return rows.given(ProcessBatches(by=rows.by, function=function, state=state, made=made, where=where))


class OverStream(Unfinished):
    """Rows with those before them; made by `KeyedStream.over`."""

    __slots__ = ("_keys", "_range", "_rows")
    _called = "what over() gives"

    def __init__(self, keys: Keys, rows: int | None, range: int | None) -> None:
        self._keys = keys
        self._rows = rows
        self._range = range

    def agg(self, *exprs: Any, **named: Any) -> Stream:
        """Adds these columns to each row. Any Polars aggregate works.

        >>> import polars as pl, unistream as us
        >>> rows = us.from_frame({"k": ["a"] * 3, "t": [0, 50, 70], "v": [1, 2, 4]})
        >>> timed = rows.with_event_time("t", unit="s").group_by("k")
        >>> timed.over(range="1m").agg(total=pl.col("v").sum()).select("t", "total").collect().rows()
        [(0, 1), (50, 3), (70, 6)]
        """
        where = user_location()
        parts = expand(exprs, named, self._keys.columns, "agg", where, self._keys.names)
        if not parts:
            raise InvalidQuery("agg needs at least one aggregate", where, "as in `agg(n=pl.len())`")
        time = self._keys.origin.schema.event_time
        by_time = {time.column} if time is not None and self._range is not None else set[str]()
        rows = self._keys.seen_by(columns_read_by(parts) | by_time)
        spec = Over(by=rows.by, exprs=tuple(parts), rows=self._rows, range=self._range, where=where)
        return rows.given(spec)


def ordering(
    n: Any, by: Any, reverse: bool | Sequence[bool], columns: pl.Schema, where: str | None
) -> tuple[tuple[pl.Expr, ...], tuple[bool, ...]]:
    """What the rows of a top are ordered by, checked."""
    if not isinstance(n, int) or isinstance(n, bool) or n < 1:
        raise InvalidQuery(f"top_k takes a whole number from 1, not {n!r}", where)
    listed: Iterable[Any] = by if isinstance(by, (list, tuple)) else [by]
    exprs = tuple(expand(listed, {}, columns, "top_k", where))
    for expr in exprs:
        why = why_not_row_wise(expr, columns)
        if why is not None:
            raise InvalidQuery(f"top_k orders rows by themselves, and {why}", where, why.hint)
    output_schema("select", exprs, columns, "top_k", where)
    flags = (reverse,) * len(exprs) if isinstance(reverse, bool) else tuple(reverse)
    if not exprs or len(flags) != len(exprs):
        raise InvalidQuery(f"top_k has {len(exprs)} columns and {len(flags)} of reverse", where)
    return exprs, flags


def _asked(function: BatchFunction, columns: pl.Schema, state: pl.Schema, where: str | None) -> pl.Schema:
    """The columns of the rows that the function returns for no rows."""
    hint = "pass schema= with the columns and types of the rows it returns"
    try:
        rows, _ = function(pl.DataFrame(schema={**columns, **state}))
    except Exception as error:
        what = f"{type(error).__name__}: {error}"
        message = f"process_batches asked the function with an empty frame and it raised {what}"
        raise InvalidQuery(message, where, hint) from error
    if not isinstance(rows, pl.DataFrame):
        raise InvalidQuery(f"process_batches: the function gave {type(rows).__name__} for rows", where, hint)
    return rows.schema
