"""`KeyedStream` and `WindowedStream`: rows put together by keys and windows, before they become something."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from unistream.api import steps
from unistream.api.keyed_verbs import KeyedVerbs, ordering
from unistream.durations import Duration, microseconds
from unistream.errors import InvalidQuery, InvalidSettings
from unistream.expressions.analysis import expand, why_not_row_wise
from unistream.expressions.schema import StreamSchema
from unistream.location import user_location
from unistream.operators.count_window import CountingWindowSpec
from unistream.operators.global_window import GlobalWindowSpec
from unistream.operators.running_aggregate import RunningAggregate, what_is_kept
from unistream.operators.session_window import SessionWindowSpec
from unistream.operators.window_aggregate import AlignedWindowSpec, SameWindowSpec
from unistream.operators.window_contents import Aggregation, Application, Calculation, Top
from unistream.operators.window_spec import WindowSpec
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
from unistream.plan.nodes import Apply, Node, Stateless

if TYPE_CHECKING:
    from unistream.api.stream import Stream


class KeyedStream(KeyedVerbs):
    """Rows put together by key columns; made by `Stream.group_by`."""

    __slots__ = ("_keys", "_node")

    def __init__(self, node: Node, keys: tuple[str, ...]) -> None:
        self._node = node
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
        from unistream.api.stream import Stream

        where = user_location()
        columns = self._node.schema.columns
        parts = expand(exprs, named, columns, "agg", where, keys=self._keys)
        if not parts:
            raise InvalidQuery("agg needs at least one aggregate", where, "as in `agg(n=pl.len())`")
        kept = what_is_kept(self._keys, parts, self._node.schema)
        spec = RunningAggregate(by=self._keys, exprs=tuple(parts), kept=kept, where=where)
        return Stream(self._node)._apply(spec)

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
        return windowed(self._node, self._keys, window, allowed_lateness, emit)

    def __repr__(self) -> str:
        return f"<KeyedStream by {', '.join(self._keys)}>"


def keyed(node: Node, by: Sequence[Any], named: Mapping[str, Any], where: str | None) -> KeyedStream:
    """The rows by these columns; expressions become columns first."""
    schema = node.schema
    exprs = expand(by, named, schema.columns, "group_by", where)
    if not exprs:
        raise InvalidQuery(
            "group_by needs at least one key", where, "for one group of all rows leave group_by out"
        )
    computed = [expr for expr in exprs if not _is_plain(expr)]
    for expr in computed:
        why = why_not_row_wise(expr, schema.columns)
        if why is not None:
            raise InvalidQuery(f"group_by takes keys from one row at a time, and {why}", where, why.hint)
    if computed:
        node = Stateless(input=node, step=steps.with_columns(schema, computed, {}, where), where=where)
    return KeyedStream(node, tuple(expr.meta.output_name() for expr in exprs))


def _is_plain(expr: pl.Expr) -> bool:
    inner = expr.meta.undo_aliases()
    return inner.meta.is_column() and inner.meta.output_name() == expr.meta.output_name()


def windowed(
    node: Node, keys: tuple[str, ...], window: Window | None, lateness: Duration, emit: str | Emit
) -> WindowedStream:
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
    return WindowedStream(node, keys, window, late, emit if isinstance(emit, Emit) else Emit(when=emit))


class WindowedStream:
    """Rows put together by windows; made by `window`. `agg`, `apply` and `top_k` say what becomes of them."""

    __slots__ = ("_emit", "_keys", "_lateness", "_node", "_window")

    def __init__(self, node: Node, keys: tuple[str, ...], window: Window, lateness: int, emit: Emit) -> None:
        self._node = node
        self._keys = keys
        self._window = window
        self._lateness = lateness
        self._emit = emit

    @property
    def _schema(self) -> StreamSchema:
        return self._node.schema

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
        parts = expand(exprs, named, self._schema.columns, "agg", where, self._keys)
        if not parts:
            raise InvalidQuery("agg needs at least one aggregate", where, "as in `.agg(n=pl.len())`")
        return self._made(Aggregation.of(parts), where)

    def top_k(self, n: int, by: Any, *, reverse: bool | Sequence[bool] = False) -> Stream:
        """The `n` rows of each key and window that are greatest by these columns (least with `reverse`).

        Rows keep all their columns. Among equals those that came first are taken; nulls come last.

        >>> import unistream as us
        >>> rows = us.from_frame({"t": [0, 4, 5], "v": [1, 3, 2]}).with_event_time("t", unit="s")
        >>> rows.window(us.tumbling("10s")).top_k(2, by="v").select("v").collect().to_series().to_list()
        [3, 2]
        """
        where = user_location()
        exprs, flags = ordering(n, by, reverse, self._schema.columns, where)
        return self._made(Top(frozenset(self._schema.columns), n, exprs, flags), where)

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
        made = steps.promised(function, self._schema.columns, schema, "apply", where)
        return self._made(Application(frozenset(self._schema.columns), function, made, where), where)

    def _made(self, calculation: Calculation, where: str | None) -> Stream:
        from unistream.api.stream import Stream

        node = Apply(spec=self._spec(calculation, where), over=(self._node,), where=where)
        _ = node.schema  # refused here, at the user's line
        return Stream(node)

    def _spec(self, calculation: Calculation, where: str | None) -> WindowSpec:
        kind = SPECS.get(type(self._window))
        if kind is None:
            raise InvalidQuery(f"{self._window!r} is no window that can be computed", where)
        overlapping = isinstance(self._window, (Sliding, Cumulating))
        return kind(
            window=self._window,
            by=self._keys,
            calculation=calculation,
            lateness=self._lateness,
            emit=self._emit,
            kept=calculation.kept(self._schema.columns, self._keys, overlapping=overlapping),
            where=where,
        )

    def __repr__(self) -> str:
        keys = f" by {', '.join(self._keys)}" if self._keys else ""
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
