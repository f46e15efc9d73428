"""The verbs of a stream that bring in other rows: of another stream, or of a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import polars as pl

from unistream.api import lookups, steps
from unistream.api.names import Names, names_of
from unistream.durations import Duration, microseconds
from unistream.errors import InvalidQuery
from unistream.expressions.analysis import output_schema, why_not_row_wise
from unistream.expressions.analysis import predicate as whole_predicate
from unistream.expressions.schema import StreamSchema
from unistream.location import user_location
from unistream.operators.interval_join import IntervalJoin
from unistream.operators.regular_join import RegularJoin
from unistream.operators.versioned_join import VersionedJoin
from unistream.operators.window_join import WindowJoin
from unistream.operators.windows import AlignedWindow, Window
from unistream.plan.nodes import Node, Stateless

if TYPE_CHECKING:
    from unistream.api.stream import Stream
    from unistream.operators.base import OperatorSpec

Within = Duration | tuple[Duration, Duration]


class Joins:
    """The part of a stream that puts rows beside its own."""

    __slots__ = ()
    _node: Node

    if TYPE_CHECKING:

        def _apply(self, spec: OperatorSpec, *others: Stream) -> Stream: ...

    def join(
        self,
        other: Stream,
        on: Names | None = None,
        *,
        left_on: Names | None = None,
        right_on: Names | None = None,
        how: Literal["inner", "left", "right", "full", "semi", "anti"] = "inner",
        within: Within | None = None,
        window: Window | None = None,
        ttl: Duration | None = None,
        unbounded: bool = False,
        predicate: pl.Expr | None = None,
        suffix: str = "_right",
    ) -> Stream:
        """Rows of two streams with equal keys side by side: all, or those near in time or in one window.

        `within=("-5m", "1m")`: the row of `other` may be five minutes earlier to one minute later than this
        one; one length means either way. Nothing is kept longer than that, and a row without a partner
        (in `how="left"`, `"right"`, `"full"`, `"anti"`) comes when time proves that there is none. Rows
        that come behind the watermark are in `late()`. `predicate`, over the columns of both sides, has to
        be true as well.

        `window=us.tumbling("10s")`: both rows are in the same window; pairs, and rows without a partner in
        it, come when it closes, with `window_start` and `window_end`.

        With neither, all rows are joined, and streams that update are followed: results are taken back and
        corrected. Both sides are kept, so streams without end need `ttl="1d"`, after which a row is
        forgotten (by event time when both have it, by the clock otherwise) while its results stand, or
        `unbounded=True`. Such a result has no event time.

        Key columns come once, under the name they have here; a column of `other` whose name is taken gets
        `suffix`. Null keys match nothing. The result's event time is `join_time`, the later of the two
        (`within`), or the last moment of the window.

        >>> import polars as pl, unistream as us
        >>> views = us.from_frame({"user": ["a", "b"], "t": [10, 20]}).with_event_time("t", unit="s")
        >>> clicks = us.from_frame({"user": ["a", "b"], "t": [12, 90]}).with_event_time("t", unit="s")
        >>> views.join(clicks, on="user", within=("0s", "30s")).collect().rows()
        [('a', 10, 12, 12)]
        >>> views.join(clicks, on="user", within=("0s", "30s"), how="left").collect().sort("t").rows()
        [('a', 10, 12, 12), ('b', 20, None, 20)]
        >>> views.join(clicks, on="user", window=us.tumbling("10s")).collect().rows()
        [('a', 10, 12, 10, 20)]
        >>> views.join(clicks, on="user", how="anti").collect().rows()
        []
        """
        where = user_location()
        by, right = _sides(self._node, other, (on, left_on, right_on), "join", suffix, where)
        fits = _predicate(self._node.schema, right._node.schema, predicate, where)
        shared: dict[str, Any] = {"by": by, "how": how, "predicate": fits, "where": where}
        _one_bound(within, window, ttl, unbounded, where)
        if window is not None:
            return self._apply(WindowJoin(window=_aligned(window, where), **shared), right)
        if within is not None:
            low, high = _interval(within, where)
            return self._apply(IntervalJoin(low=low, high=high, **shared), right)
        length = None if ttl is None else microseconds(ttl, "ttl")
        if length is not None and length <= 0:
            raise InvalidQuery(f"ttl={ttl!r} is not longer than nothing", where, 'as in ttl="1d"')
        return self._apply(RegularJoin(ttl=length, unbounded=unbounded, **shared), right)

    def join_asof(
        self,
        other: Stream,
        *,
        by: Names | None = None,
        left_by: Names | None = None,
        right_by: Names | None = None,
        strategy: Literal["backward", "forward", "nearest"] = "backward",
        tolerance: Duration | None = None,
        suffix: str = "_right",
    ) -> Stream:
        """Each row beside the version of `other` that was valid when it happened: a price, a rate, a status.

        Goes by the event times of both: with `strategy="backward"` the last row of `other` with the same
        key that is not later, with `"forward"` the first that is not earlier, with `"nearest"` the nearer of
        the two (the earlier at equal distance); not farther away than `tolerance`. Every row of this stream
        comes once, with nulls if there is no version, when both streams have come far enough that no
        better one can appear; it keeps its event time. Of versions with one time the last to come counts.
        Rows that come behind the watermark are in `late()`.

        >>> import polars as pl, unistream as us
        >>> rates = us.from_frame({"cur": ["EUR", "EUR"], "at": [0, 20], "rate": [1.1, 1.2]})
        >>> orders = us.from_frame({"cur": ["EUR", "EUR", "USD"], "t": [5, 25, 30]})
        >>> timed = orders.with_event_time("t", unit="s")
        >>> timed.join_asof(rates.with_event_time("at", unit="s"), by="cur").collect().rows()
        [('EUR', 5, 0, 1.1), ('EUR', 25, 20, 1.2), ('USD', 30, None, None)]
        """
        where = user_location()
        keys, right = _sides(self._node, other, (by, left_by, right_by), "join_asof", suffix, where)
        far = None if tolerance is None else microseconds(tolerance, "tolerance")
        if far is not None and far < 0:
            raise InvalidQuery(f"tolerance={tolerance!r} is less than nothing", where, 'as in tolerance="5m"')
        spec = VersionedJoin(by=keys, strategy=strategy, tolerance=far, where=where)
        return self._apply(spec, right)

    def lookup(
        self,
        source: Any,
        on: Names | None = None,
        *,
        left_on: Names | None = None,
        right_on: Names | None = None,
        how: Literal["left", "inner"] = "left",
        table: str | None = None,
        schema: Any = None,
        refresh: Duration | None = None,
        cache: Duration | None = None,
        cache_keys: int = 100_000,
        batch: int = 1_000,
        concurrency: int = 8,
        timeout: Duration = "30s",
        retries: int = 2,
        ordered: bool = True,
        waiting_rows: int = 100_000,
        suffix: str = "_right",
    ) -> Stream:
        """Each row beside what something else knows about its key.

        `source` is one of these:

        - a Polars frame, or a bounded stream, which is read whole when the job starts;
        - the path of Parquet files, read again every `refresh`;
        - a database, `"sqlite:///shop.db"` or `"duckdb:///shop.duckdb"`, with `table=`: asked for the keys of
          a batch at once, answers being kept for `cache` (a minute) for at most `cache_keys` keys;
        - a function from a frame of distinct keys to a frame with these keys and more columns, plain or
          `async`: called for `batch` keys at a time, `concurrency` calls at once, each given `timeout` and
          tried again `retries` times; answers are kept when `cache` is given. Pass `schema` (all columns it
          returns) unless it may be called with an empty frame to find out.

        A row comes once for each match, in the order of the stream; without a match once with nulls, or not
        at all with `how="inner"`. Null keys match nothing. What a table or a function says may change: rows
        that are read again after a crash get what it says then.

        With `ordered=False` a row leaves as soon as the answer of its own call is there (`batch` keys share
        one), so a slow key holds up no others; at most `waiting_rows` rows wait, in checkpoints too. Rows
        of different keys overtake each other, but no watermark overtakes a row: windows behind stay right.
        Give the stream its event time before. For functions, over streams that only add rows.

        >>> import polars as pl, unistream as us
        >>> items = pl.DataFrame({"item": ["a", "b"], "price": [3, 4]})
        >>> us.from_frame({"item": ["b", "c"], "n": [1, 2]}).lookup(items, on="item").collect().rows()
        [('b', 1, 4), ('c', 2, None)]
        >>> def lengths(keys):
        ...     return keys.with_columns(length=pl.col("item").str.len_chars())
        >>> us.from_frame({"item": ["b", "ccc"]}).lookup(lengths, on="item").collect().rows()
        [('b', 1), ('ccc', 3)]
        >>> async def prices(keys):
        ...     return keys.join(items, on="item")
        >>> orders = us.from_frame({"item": ["b", "c"], "n": [1, 2]})
        >>> orders.lookup(prices, on="item", batch=1, ordered=False).collect().sort("item").rows()
        [('b', 1, 4), ('c', 2, None)]
        """
        where = user_location()
        lefts, rights = _keys(on, left_on, right_on, "lookup", where)
        if how not in ("left", "inner"):
            raise InvalidQuery(f"lookup has no how={how!r}", where, 'use how="left" or how="inner"')
        columns = self._node.schema.columns
        _have(columns, lefts, "lookup", where)
        keys = pl.Schema({new: columns[old] for old, new in zip(lefts, rights, strict=True)})
        options = lookups.Options(
            table=table,
            schema=schema,
            refresh=refresh,
            cache=cache,
            cache_keys=cache_keys,
            batch=batch,
            concurrency=concurrency,
            timeout=timeout,
            retries=retries,
            ordered=ordered,
            waiting_rows=waiting_rows,
        )
        found = lookups.table_of(source, keys, options, where)
        _have(found.columns, rights, "the table of lookup", where)
        adds = _added(columns, found.columns, rights, suffix, where)
        keyed: dict[str, Any] = {"by": lefts, "table_by": rights, "adds": adds}
        spec = lookups.spec_of(found, options, self._node.schema, how=how, where=where, **keyed)
        return self._apply(spec)


def _sides(
    left: Node,
    other: Any,
    given: tuple[Names | None, Names | None, Names | None],
    verb: str,
    suffix: str,
    where: str | None,
) -> tuple[tuple[str, ...], Stream]:
    """The keys as the left side calls them, and the right side renamed to fit beside it."""
    from unistream.api.stream import Stream

    if not isinstance(other, Stream):
        hint = "for a frame, a table or a function there is .lookup(...)"
        raise InvalidQuery(f"{verb} takes a stream, not {type(other).__name__}", where, hint)
    lefts, rights = _keys(*given, verb, where)
    _have(left.schema.columns, lefts, f"the left side of {verb}", where)
    _have(other._node.schema.columns, rights, f"the right side of {verb}", where)
    return lefts, Stream(_renamed(left, other._node, dict(zip(rights, lefts, strict=True)), suffix, where))


def _have(columns: pl.Schema, names: Sequence[str], place: str, where: str | None) -> None:
    for name in names:
        if name not in columns:
            raise InvalidQuery.from_missing_column(name, columns, place, where)


def _added(
    mine: pl.Schema, theirs: pl.Schema, keys: Sequence[str], suffix: str, where: str | None
) -> dict[str, str]:
    """New names of the columns a table adds."""
    adds: dict[str, str] = {}
    for name in theirs:
        if name in keys:
            continue
        new = f"{name}{suffix}" if name in mine else name
        if new in mine or new in adds:
            hint = "choose another suffix, or rename the column"
            raise InvalidQuery(f"Column {name!r} of the table would become a second {new!r}", where, hint)
        adds[new] = name
    return adds


def _keys(
    on: Names | None, left_on: Names | None, right_on: Names | None, verb: str, where: str | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    word = "by" if verb == "join_asof" else "on"
    if (on is None) == (left_on is None and right_on is None) or (left_on is None) != (right_on is None):
        hint = f'{word}="user" when both sides call it so, or left_{word}="user", right_{word}="user_id"'
        raise InvalidQuery(f"{verb} needs the key columns of both sides, said once", where, hint)
    given = (on, on) if on is not None else (left_on, right_on)
    found = []
    for names in given:
        listed = names_of(names, verb)
        if not listed:
            raise InvalidQuery(f"{verb} needs at least one key column", where, f'as in {word}="user"')
        found.append(listed)
    if len(found[0]) != len(found[1]):
        raise InvalidQuery(f"left_on has {len(found[0])} columns and right_on {len(found[1])}", where)
    for listed in found:
        if len(set(listed)) < len(listed):
            raise InvalidQuery(f"A key column is named twice in {verb}: {list(listed)}", where)
    return found[0], found[1]


def _renamed(left: Node, right: Node, keys: dict[str, str], suffix: str, where: str | None) -> Node:
    """The right side with the left side's names of keys, and new names for columns that the left has too."""
    taken = set(left.schema.columns)
    names = {
        name: keys.get(name) or (f"{name}{suffix}" if name in taken else name)
        for name in right.schema.columns
    }
    made = list(names.values())
    for name, new in names.items():
        if made.count(new) > 1 or (new in taken and name not in keys):
            hint = "choose another suffix, or rename the column before the join"
            raise InvalidQuery(
                f"Column {name!r} of the right side would become a second {new!r}", where, hint
            )
    changed = {name: new for name, new in names.items() if name != new}
    if not changed:
        return right
    return Stateless(input=right, step=steps.rename(right.schema, changed, where), where=where)


def _predicate(
    left: StreamSchema, right: StreamSchema, given: pl.Expr | None, where: str | None
) -> pl.Expr | None:
    if given is None:
        return None
    both = pl.Schema({**left.columns, **right.columns})
    found = whole_predicate([given], {}, both, "the predicate of join", where)
    why = why_not_row_wise(found, both)
    if why is not None:
        raise InvalidQuery(f"The predicate of join looks at one pair at a time, and {why}", where, why.hint)
    output_schema("filter", [found], both, "the predicate of join", where)
    return found


def _one_bound(
    within: Within | None, window: Window | None, ttl: Duration | None, unbounded: bool, where: str | None
) -> None:
    given = [
        name
        for name, said in (
            ("within=", within is not None),
            ("window=", window is not None),
            ("ttl=", ttl is not None),
            ("unbounded=True", unbounded),
        )
        if said
    ]
    if len(given) > 1:
        hint = "within= for rows near each other, window= for rows in one window, ttl= to forget rows in time"
        raise InvalidQuery(f"join takes one of {' and '.join(given)}, not both", where, hint)


def _aligned(window: Any, where: str | None) -> AlignedWindow:
    if isinstance(window, AlignedWindow):
        return window
    kind = window.kind if isinstance(window, Window) else type(window).__name__
    hint = "us.tumbling, us.sliding or us.cumulating; for rows near each other within=(...)"
    raise InvalidQuery(f"join takes windows that are the same for all keys, not {kind}", where, hint)


def _interval(within: Within, where: str | None) -> tuple[int, int]:
    if isinstance(within, (tuple, list)):
        if len(within) != 2:
            hint = 'as in within=("-5m", "1m"): how much earlier and how much later'
            raise InvalidQuery(f"within={within!r} does not have two bounds", where, hint)
        return microseconds(within[0], "within"), microseconds(within[1], "within")
    length = microseconds(within, "within")
    return -length, length
