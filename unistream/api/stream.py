"""`Stream`: a lazy, immutable description of a table that may still be growing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import polars as pl

from unistream.api import steps, time
from unistream.api.inputs import accepted, before_step, in_full, refuse_updates, same_columns
from unistream.api.joins import Joins
from unistream.api.results import Results
from unistream.api.side_outputs import SideOutputs
from unistream.api.sinks import Sinks
from unistream.durations import Duration, microseconds
from unistream.errors import InvalidQuery
from unistream.expressions.schema import Changes
from unistream.location import user_location
from unistream.operators.broadcast import Broadcast
from unistream.operators.changelog import ShowChanges
from unistream.operators.deduplicate import Unique
from unistream.plan.nodes import Apply, Node, Stateless, Union

if TYPE_CHECKING:
    from unistream.api.keyed import KeyedStream, WindowedStream
    from unistream.api.names import Name
    from unistream.operators.base import OperatorSpec
    from unistream.operators.stateless import RowStep
    from unistream.operators.windows import Emit, Window


class Stream(Joins, SideOutputs, Sinks, Results):
    """A table that may still be growing.

    Every verb returns a new stream; nothing runs until a result is asked for.

    >>> import unistream as us
    >>> orders = us.from_frame({"item": ["a", "b", "a"], "amount": [3, 4, 5]})
    >>> orders.filter(pl.col("item") == "a").select("amount").collect().to_series().to_list()
    [3, 5]
    """

    __slots__ = ("_node",)

    def __init__(self, node: Node) -> None:
        self._node = node

    # What is known

    @property
    def schema(self) -> pl.Schema:
        """Names and types of the columns, known before a row flows.

        >>> import unistream as us
        >>> us.from_frame({"a": [1]}).with_columns(b=pl.col("a") / 2).schema
        Schema([('a', Int64), ('b', Float64)])
        """
        return self._node.schema.columns

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        return self.schema.names()

    @property
    def bounded(self) -> bool:
        """Whether the stream ends by itself, so that `collect` has an end."""
        return self._node.schema.bounded

    # Stateless verbs

    def select(self, *exprs: Any, **named: Any) -> Stream:
        """Exactly these columns, from names and expressions over one row at a time.

        >>> import unistream as us
        >>> us.from_frame({"a": [1, 2]}).select("a", twice=pl.col("a") * 2).collect().rows()
        [(1, 2), (2, 4)]
        """
        return self._step(steps.select, exprs, named)

    def with_columns(self, *exprs: Any, **named: Any) -> Stream:
        """All columns, some added or replaced by expressions over one row at a time.

        >>> import unistream as us
        >>> us.from_frame({"a": [1, 2]}).with_columns(b=pl.col("a") + 10).collect().rows()
        [(1, 11), (2, 12)]
        """
        return self._step(steps.with_columns, exprs, named)

    def filter(self, *predicates: Any, **constraints: Any) -> Stream:
        """The rows for which all predicates are true; `filter(a=1)` means `filter(pl.col("a") == 1)`.

        >>> import unistream as us
        >>> us.from_frame({"a": [1, 2, None]}).filter(pl.col("a") > 1).collect().rows()
        [(2,)]
        """
        return self._step(steps.filter, predicates, constraints)

    def drop(self, *columns: Any) -> Stream:
        """All columns but these.

        >>> import unistream as us
        >>> us.from_frame({"a": [1], "b": [2]}).drop("a").columns
        ['b']
        """
        return self._step(steps.drop, columns)

    def rename(self, mapping: Mapping[str, str]) -> Stream:
        """Some columns under other names; event time and keys follow.

        >>> import unistream as us
        >>> us.from_frame({"a": [1]}).rename({"a": "b"}).columns
        ['b']
        """
        return self._step(steps.rename, mapping)

    def cast(self, dtypes: Any) -> Stream:
        """Some columns (a mapping of names or selectors to types) or all (one type) with other types.

        >>> import unistream as us
        >>> us.from_frame({"a": [1]}).cast({"a": pl.String}).collect().rows()
        [('1',)]
        """
        return self._step(steps.cast, dtypes)

    def explode(self, *columns: Any) -> Stream:
        """One row for each item of the list columns.

        >>> import unistream as us
        >>> us.from_frame({"a": [[1, 2], [3]]}).explode("a").collect().to_series().to_list()
        [1, 2, 3]
        """
        return self._step(steps.explode, columns)

    def unnest(self, *columns: Any) -> Stream:
        """The fields of struct columns as columns of their own.

        >>> import unistream as us
        >>> us.from_frame({"a": [{"x": 1, "y": 2}]}).unnest("a").collect().rows()
        [(1, 2)]
        """
        return self._step(steps.unnest, columns)

    def map_batches(self, function: Callable[[pl.DataFrame], pl.DataFrame], schema: Any = None) -> Stream:
        """Whatever `function` makes of each slice of rows, a Polars frame in and a frame out.

        The function must treat rows so that it does not matter how they are sliced. Without `schema`
        it is asked once with an empty frame what it returns.

        >>> import unistream as us
        >>> us.from_frame({"a": [1, 2]}).map_batches(lambda frame: frame * 2).collect().to_series().to_list()
        [2, 4]
        """
        return self._step(steps.map_batches, function, schema)

    def unique(
        self,
        subset: Any = None,
        *,
        keep: Literal["first", "last"] = "first",
        within: Duration | None = None,
    ) -> Stream:
        """One row for each value of `subset` (all columns by default): the first, or the last so far.

        `within` bounds the state: a key is forgotten that long (event time) after its first row.
        `keep="last"` gives a stream that updates.

        >>> import unistream as us
        >>> us.from_frame({"a": [1, 1, 2], "b": [1, 2, 3]}).unique("a").collect().rows()
        [(1, 1), (2, 3)]
        """
        where = user_location()
        if keep not in ("first", "last"):
            raise InvalidQuery(f"unique has no keep={keep!r}", where, 'use keep="first" or keep="last"')
        given = self.columns if subset is None else subset
        names = steps.column_names(self._node.schema, given, "unique", where)
        micros = None if within is None else microseconds(within, "within")
        whole = set(names) == set(self.columns)
        return self._apply(Unique(subset=names, keep=keep, within=micros, whole=whole, where=where))

    def union(self, *others: Stream) -> Stream:
        """The rows of this stream and the others, which have the same columns.

        >>> import unistream as us
        >>> us.from_frame({"a": [1]}).union(us.from_frame({"a": [2]})).collect().sort("a").rows()
        [(1,), (2,)]
        """
        where = user_location()
        for other in others:
            same_columns(self, other, where)
        if not others:
            return self
        # Upserts of one part would replace rows of another that happen to have the same key.
        parts = tuple(in_full(part._node, where) for part in (self, *others))
        return Stream(Union(parts=parts, where=where))

    def split(self, branches: Mapping[str, pl.Expr], rest: str | None = None) -> dict[str, Stream]:
        """Several streams by name; each row goes to the first whose predicate is true, or to `rest`.

        >>> import unistream as us
        >>> parts = us.from_frame({"a": [1, 20, 300]}).split({"small": pl.col("a") < 10}, rest="big")
        >>> parts["big"].collect().to_series().to_list()
        [20, 300]
        """
        if not isinstance(branches, Mapping):
            hint = 'as in split({"small": pl.col("a") < 10}, rest="big")'
            raise InvalidQuery("split takes predicates by the names of their streams", user_location(), hint)
        taken: list[pl.Expr] = []
        streams: dict[str, Stream] = {}
        if rest in branches:
            raise InvalidQuery(
                f"split has two branches {rest!r}", user_location(), "choose another name for rest"
            )
        for name, predicate in branches.items():
            self.filter(predicate)  # refuses it under the user's own spelling
            streams[name] = self.filter(predicate, *(~before for before in taken))
            taken.append(predicate.fill_null(False))
        if rest is not None:
            streams[rest] = self.filter(*(~before for before in taken)) if taken else self
        return streams

    def apply(self, spec: OperatorSpec, *others: Stream) -> Stream:
        """Any operator, by its spec; `others` are its further inputs. The door for operators of one's own."""
        return self._apply(replace(spec, where=spec.where or user_location()), *others)

    def pipe(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """`function(self, ...)`, so that functions over streams read in order.

        >>> import unistream as us
        >>> def at_least(stream, least):
        ...     return stream.filter(pl.col("a") >= least)
        >>> us.from_frame({"a": [1, 2]}).pipe(at_least, 2).collect().rows()
        [(2,)]
        """
        return function(self, *args, **kwargs)

    def named(self, label: str) -> Stream:
        """The same stream; the step before keeps this name in `explain`, counters and checkpoints."""
        return Stream(self._node.replaced(label=label))

    def changes(self) -> Stream:
        """What happens to the table as rows that are only added, with `op` one of "+I -U +U -D".

        >>> import unistream as us
        >>> us.from_frame({"a": [1, 1]}).unique("a", keep="last").changes().collect().rows()
        [('+I', 1)]
        """
        where = user_location()
        return Stream(in_full(self._node, where))._apply(ShowChanges(where=where))

    # Time, keys and windows

    def with_event_time(
        self,
        column: Name,
        delay: Duration = "0s",
        idle_after: Duration | None = None,
        *,
        unit: str | None = None,
        max_ahead: Duration | None = None,
        max_drift: Duration | None = None,
    ) -> Stream:
        """Says which column tells when a row happened, and how much out of order rows may come.

        The column holds moments, dates, or integers, of which `unit` says what they count since 1970 ("s",
        "ms", "us", "ns"); moments without a time zone are taken as UTC. For each part of the source (a file,
        a partition) time has come as far as its greatest event time less `delay`; for the stream, as far as
        for the least of them. A part that gives nothing for `idle_after` holds nobody back; until then it
        does.

        Rows without event time are rejected, and with `max_ahead` also those that are so much ahead of the
        clock: one wrong date would close all windows. See `rejected` and `late`.

        Where it meets other sources, in a join or a union, a source is not read from while it is more than
        `max_drift` ahead of the slowest of them, so that little has to be kept. Not given, it is as
        `us.Settings(max_drift=)` says: an hour.

        >>> import polars as pl, unistream as us
        >>> orders = us.from_frame({"t": [1, 12, 4], "amount": [10, 20, 30]})
        >>> timed = orders.with_event_time("t", delay="10s", unit="s")
        >>> timed.window(us.tumbling("10s")).agg(pl.col("amount").sum()).collect().rows()
        [(0, 10, 40), (10, 20, 20)]
        """
        where = user_location()
        spec = time.event_time(
            self._node.schema, column, delay, idle_after, unit, max_ahead, max_drift, where
        )
        return Stream(Apply(spec=spec, over=(self._node,), where=where))

    def with_ingestion_time(self, name: str = "ingested_at") -> Stream:
        """Adds the moment a row came in, by the job's clock, and makes it event time: nothing is ever late.

        The clock never goes back, also when the job resumes, and rows that are read again after a crash get
        the time of the first reading (when the machine itself went down, or the checkpoints are in an object
        store, those not committed before get that of the second).

        >>> import unistream as us
        >>> us.from_frame({"a": [1]}).with_ingestion_time("at").schema["at"]
        Datetime(time_unit='us', time_zone='UTC')
        """
        where = user_location()
        spec = time.ingestion_time(self._node.schema, name, where)
        return Stream(Apply(spec=spec, over=(self._node,), where=where))

    def group_by(self, *by: Any, **named_by: Any) -> KeyedStream:
        """Rows put together by key columns, or by expressions over one row at a time.

        >>> import unistream as us
        >>> us.from_frame({"k": ["a"], "n": [1]}).group_by("k", half=pl.col("n") // 2)
        <KeyedStream by k, half>
        """
        from unistream.api.keyed import keyed

        return keyed(self._node, by, named_by, user_location())

    def window(
        self,
        window: Window | None = None,
        *,
        allowed_lateness: Duration = 0,
        emit: str | Emit = "close",
    ) -> WindowedStream:
        """Rows put together by time, or by how many they are: `us.tumbling`, `sliding`, `session`, and so on.

        A window gives its results once, when time has passed its end (`emit="close"`); with `"change"` or
        `us.every("5s")` also before, and with `allowed_lateness` corrected ones after: those streams update
        by key and window. Rows that come when all their windows have closed are in `late()`. Without a
        window, rows that are results of one stay in the windows they are from: the top five of a count.

        >>> import polars as pl, unistream as us
        >>> rows = us.from_frame({"t": [0, 4, 11]}).with_event_time("t", unit="s")
        >>> rows.window(us.tumbling("10s")).agg(n=pl.len()).collect().rows()
        [(0, 10, 2), (10, 20, 1)]
        """
        from unistream.api.keyed import windowed

        return windowed(self._node, (), window, allowed_lateness, emit)

    def broadcast(
        self,
        rules: Stream,
        function: Callable[[pl.DataFrame, pl.DataFrame], pl.DataFrame],
        schema: Any = None,
    ) -> Stream:
        """Whatever `function(frame, rules)` makes of each slice of rows and the rules as they are now.

        `rules` is a stream that every worker keeps whole: rows that are added, or a table that updates, such
        as `changes.unique("id", keep="last")`. Rows see the rules that came before them: those that are there
        when the job begins are read before any row, and of one tick the rules come first. Without `schema`
        the function is asked once with empty frames what it returns.

        >>> import unistream as us
        >>> orders = us.from_frame({"item": ["a", "b"], "amount": [10, 20]})
        >>> limits = us.from_frame({"item": ["a", "b"], "most": [5, 50]})
        >>> def over_limit(frame, limits):
        ...     return frame.join(limits, on="item").filter(pl.col("amount") > pl.col("most"))
        >>> orders.broadcast(limits, over_limit).collect().rows()
        [('a', 10, 5)]
        """
        where = user_location()
        if not isinstance(rules, Stream):
            hint = "wrap a frame in us.from_frame"
            raise InvalidQuery(f"broadcast takes a stream of rules, not {rules!r}", where, hint)
        refuse_updates("broadcast", self._node, where)
        empty = pl.DataFrame(schema=rules.schema)
        made = steps.promised(lambda rows: function(rows, empty), self.schema, schema, "broadcast", where)
        return rules._apply(Broadcast(function=function, made=made, where=where), self)

    def __repr__(self) -> str:
        kind = "bounded" if self.bounded else "unbounded"
        mode = "" if self._node.schema.changes is Changes.APPEND else f", {self._node.schema.changes.value}"
        columns = ", ".join(f"{name}: {dtype}" for name, dtype in self.schema.items())
        return f"<Stream {kind}{mode} [{columns}]>"

    def _repr_html_(self) -> str:
        from unistream.api.html import stream_html

        return stream_html(self)

    if not TYPE_CHECKING:  # or every verb would be there for type checkers

        def __getattr__(self, name: str) -> Any:
            from unistream.api.instead import instead_of

            raise AttributeError(f"a stream has no {name!r}{instead_of(name)}", name=name, obj=self)

    def _apply(self, spec: OperatorSpec, *others: Stream) -> Stream:
        """An operator over this stream and others; what it cannot do here is refused at the user's line."""
        over = tuple(accepted(spec, stream._node) for stream in (self, *others))
        node = Apply(spec=spec, over=over, where=spec.where)
        _ = node.schema
        return Stream(node)

    def _step(self, make: Callable[..., RowStep], *given: Any) -> Stream:
        """A stateless verb: the step is checked against what is known of this stream."""
        where = user_location()
        step = make(self._node.schema, *given, where)
        node = before_step(step, self._node)
        return Stream(Stateless(input=node, step=step, where=where))
