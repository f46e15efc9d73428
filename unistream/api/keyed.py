"""`KeyedStream` and `WindowedStream`: rows put together by keys and windows, before they become something."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from unistream.api import steps
from unistream.api.instead import Unfinished
from unistream.api.keyed_verbs import KeyedVerbs, ordering
from unistream.api.keys import KeyedRows, Keys
from unistream.api.names import is_plain
from unistream.durations import Duration, microseconds
from unistream.errors import InvalidQuery, InvalidSettings
from unistream.expressions.analysis import expand, why_not_row_wise
from unistream.location import user_location
from unistream.operators.count_window import CountingWindowSpec
from unistream.operators.global_window import GlobalWindowSpec
from unistream.operators.running_aggregate import RunningAggregate, what_is_kept
from unistream.operators.session_window import SessionWindowSpec
from unistream.operators.stateless import columns_read_by
from unistream.operators.window_aggregate import AlignedWindowSpec, SameWindowSpec
from unistream.operators.window_contents import Aggregation, Application, Calculation, Top
from unistream.operators.window_spec import WINDOW_END, WINDOW_START, WindowSpec
from unistream.operators.windows import (
    Counting,
    Cumulating,
    Emit,
    GlobalWindow,
    SameWindow,
    Session,
    Sliding,
    Tumbling,
    Window,
)
from unistream.plan.nodes import Apply, Node

if TYPE_CHECKING:
    from unistream.api.stream import Stream


class KeyedStream(KeyedVerbs):
    """Rows put together by key columns; made by `Stream.group_by`."""

    __slots__ = ("_keys",)

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    def agg(self, *exprs: Any, **named: Any) -> Stream:
        """One row for each key, over all its rows so far; the result updates as rows come.

        Any Polars aggregate works; see `WindowedStream.agg` for what is kept of the rows. State stays for
        every key that was ever seen. `collect` gives the final rows, `changes` every step on the way.

        >>> import polars as pl, unistream as us
        >>> rows = us.from_frame({"k": ["a", "b", "a"], "v": [1, 2, 5]})
        >>> rows.group_by("k").agg(n=pl.len(), total=pl.col("v").sum()).collect().sort("k").rows()
        [('a', 2, 6), ('b', 1, 2)]
        """
        where = user_location()
        parts = expand(exprs, named, self._keys.columns, "agg", where, self._keys.names)
        if not parts:
            raise InvalidQuery("agg needs at least one aggregate", where, "as in `agg(n=pl.len())`")
        rows = self._keys.seen_by(columns_read_by(parts))
        kept = what_is_kept(rows.by, parts, rows.node.schema)
        return rows.given(RunningAggregate(by=rows.by, exprs=tuple(parts), kept=kept, where=where))

    def window(
        self,
        window: Window | None = None,
        *,
        allowed_lateness: Duration = 0,
        emit: str | Emit = "close",
    ) -> WindowedStream:
        """Rows of a key put together by time, or by how many they are; see `Stream.window`.

        >>> import polars as pl, unistream as us
        >>> rows = us.from_frame({"t": [0, 4, 11], "k": ["a", "b", "a"]}).with_event_time("t", unit="s")
        >>> rows.group_by("k").window(us.tumbling("10s")).agg(n=pl.len()).collect().sort("k", "n").rows()
        [('a', 0, 10, 1), ('a', 10, 20, 1), ('b', 0, 10, 1)]
        """
        return _windowed(self._keys, window, allowed_lateness, emit)

    def __repr__(self) -> str:
        return f"<KeyedStream by {', '.join(self._keys.names)}>"


def keyed(node: Node, by: Sequence[Any], named: Mapping[str, Any], where: str | None) -> KeyedStream:
    """The rows by these columns; expressions become columns first."""
    schema = node.schema
    exprs = expand(by, named, schema.columns, "group_by", where)
    if not exprs:
        hint = "for one group of all rows `group_by(all=pl.lit(1)).agg(...)`, and `.window(...)` without keys"
        raise InvalidQuery("group_by needs at least one key", where, hint)
    for expr in exprs:
        why = None if is_plain(expr) else why_not_row_wise(expr, schema.columns)
        if why is not None:
            raise InvalidQuery(f"group_by takes keys from one row at a time, and {why}", where, why.hint)
    return KeyedStream(Keys.of(node, exprs, where))


def windowed(
    node: Node, keys: tuple[str, ...], window: Window | None, lateness: Duration, emit: str | Emit
) -> WindowedStream:
    """The rows by windows, and by columns that are there."""
    return _windowed(Keys.plain(node, keys), window, lateness, emit)


def _windowed(keys: Keys, window: Window | None, lateness: Duration, emit: str | Emit) -> WindowedStream:
    """Checked here, so that the error is at the line of `window`."""
    where = user_location()
    if window is None:
        window = SameWindow(where=where)
    if not isinstance(window, Window):
        hint = 'as in .window(us.tumbling("1m"))'
        raise InvalidQuery(f"window takes a window, not {window!r}", where, hint)
    late = microseconds(lateness, "allowed_lateness")
    if late < 0:
        raise InvalidSettings(f"allowed_lateness={lateness!r} is less than nothing", where)
    return WindowedStream(keys, window, late, emit if isinstance(emit, Emit) else Emit(when=emit))


_INSTEAD = {
    "group_by": "the keys first, as in .group_by(...).window(...)",
    "map_groups": ".apply(fn)",
    "process": ".apply(fn), or without a window .group_by(...).process(function)",
    "process_batches": ".apply(fn), or without a window .group_by(...).process_batches(fn, ...)",
    "over": '.group_by(...).over(range="10m").agg(...) without a window',
    "allowed_lateness": ".window(..., allowed_lateness=...)",
}


class WindowedStream(Unfinished):
    """Rows put together by windows; made by `window`. `agg`, `apply` and `top_k` say what becomes of them."""

    __slots__ = ("_emit", "_keys", "_lateness", "_window")
    _called = "a stream in windows"
    _instead = _INSTEAD

    def __init__(self, keys: Keys, window: Window, lateness: int, emit: Emit) -> None:
        self._keys = keys
        self._window = window
        self._lateness = lateness
        self._emit = emit

    def agg(self, *exprs: Any, **named: Any) -> Stream:
        """One row for each key and window: the keys, `window_start`, `window_end` (exclusive), and these.

        Any Polars aggregate works. Those that can be put together from parts (sums, counts, extremes, means,
        deviations, first, last, ...) keep a few values per key; others keep the rows until the window
        closes; `explain` says which. First and last are those that came first and last.

        >>> import polars as pl, unistream as us
        >>> rows = us.from_frame({"t": [0, 4, 11], "v": [1, 2, 3]}).with_event_time("t", unit="s")
        >>> rows.window(us.tumbling("10s")).agg(pl.col("v").mean(), n=pl.len()).collect().rows()
        [(0, 10, 1.5, 2), (10, 20, 3.0, 1)]
        """
        where = user_location()
        parts = expand(exprs, named, self._keys.columns, "agg", where, self._keys.names)
        if not parts:
            raise InvalidQuery("agg needs at least one aggregate", where, "as in `.agg(n=pl.len())`")
        calculation = Aggregation.of(parts)
        return self._made(calculation, self._rows(calculation.reads), where)

    def top_k(self, n: int, by: Any, *, reverse: bool | Sequence[bool] = False) -> Stream:
        """The `n` rows of each key and window that are greatest by these columns (least with `reverse`).

        Rows keep all their columns. Among equals those that came first are taken; nulls come last.

        >>> import unistream as us
        >>> rows = us.from_frame({"t": [0, 4, 5], "v": [1, 3, 2]}).with_event_time("t", unit="s")
        >>> rows.window(us.tumbling("10s")).top_k(2, by="v").select("v").collect().to_series().to_list()
        [3, 2]
        """
        where = user_location()
        exprs, flags = ordering(n, by, reverse, self._keys.columns, where)
        rows = self._rows(columns_read_by(exprs))
        return self._made(Top(frozenset(rows.node.schema.columns), n, exprs, flags), rows, where)

    def apply(self, function: Callable[[pl.DataFrame], pl.DataFrame], schema: Any = None) -> Stream:
        """Whatever `function` makes of the rows of each key and window, a Polars frame in and a frame out.

        Called once for each key and window when it closes. Keys, `window_start` and `window_end` are put
        before its columns. Without `schema` it is asked once with an empty frame what it returns.

        >>> import polars as pl, unistream as us
        >>> rows = us.from_frame({"t": [0, 4, 11], "v": [1, 2, 3]}).with_event_time("t", unit="s")
        >>> doubled = rows.window(us.tumbling("10s")).apply(lambda frame: frame.select(pl.col("v").sum() * 2))
        >>> doubled.collect().rows()
        [(0, 10, 6), (10, 20, 6)]
        """
        where = user_location()
        rows = self._keys.in_full("apply", where)
        columns = rows.node.schema.columns
        made = steps.promised(function, columns, schema, "apply", where)
        return self._made(Application(frozenset(columns), function, made, where), rows, where)

    def _rows(self, reads: frozenset[str]) -> KeyedRows:
        """The rows for a calculation that reads these columns, and for the window, which may go by time."""
        time = self._keys.origin.schema.event_time
        if time is not None and self._window.needs_time:
            reads |= {time.column}
        return self._keys.seen_by(reads - {WINDOW_START, WINDOW_END})  # no names for keys: refused

    def _made(self, calculation: Calculation, rows: KeyedRows, where: str | None) -> Stream:
        from unistream.api.stream import Stream

        node = Apply(spec=self._spec(calculation, rows, where), over=(rows.node,), where=where)
        _ = node.schema  # refused here, at the user's line
        return rows.named(Stream(node))

    def _spec(self, calculation: Calculation, rows: KeyedRows, where: str | None) -> WindowSpec:
        kind = SPECS.get(type(self._window))
        if kind is None:
            raise InvalidQuery(f"{self._window!r} is no window that can be computed", where)
        overlapping = isinstance(self._window, (Sliding, Cumulating))
        return kind(
            window=self._window,
            by=rows.by,
            calculation=calculation,
            lateness=self._lateness,
            emit=self._emit,
            kept=calculation.kept(rows.node.schema.columns, rows.by, overlapping=overlapping),
            where=where,
        )

    def __repr__(self) -> str:
        keys = f" by {', '.join(self._keys.names)}" if self._keys.names else ""
        return f"<WindowedStream {self._window.text}{keys}, emits {self._emit.text}>"


SPECS: Mapping[type[Window], Callable[..., WindowSpec]] = {
    Tumbling: AlignedWindowSpec,
    Sliding: AlignedWindowSpec,
    Cumulating: AlignedWindowSpec,
    Counting: CountingWindowSpec,
    GlobalWindow: GlobalWindowSpec,
    SameWindow: SameWindowSpec,
    Session: SessionWindowSpec,
}
"""Who computes which window."""
