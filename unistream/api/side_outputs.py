"""Rows that a step gives beside its own: rejected and late ones, and those of side outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unistream.errors import InvalidQuery, nearest
from unistream.graph import LATE, REJECTED
from unistream.location import user_location
from unistream.plan.nodes import Node, SideOutput, Union
from unistream.plan.tree import walk

if TYPE_CHECKING:
    from unistream.api.stream import Stream

_OWN_VERBS = {LATE: "late", REJECTED: "rejected"}


class SideOutputs:
    """The part of a stream that finds what its steps gave beside."""

    __slots__ = ()
    _node: Node

    def rejected(self) -> Stream:
        """The rows that could not be read or have no possible event time: source, position, reason, content.

        Sources give theirs with `on_error="collect"`.

        >>> import unistream as us
        >>> rows = us.from_frame({"t": [1, None]}).with_event_time("t", unit="s")
        >>> rows.rejected().collect().select("reason", "raw").rows()
        [('no event time', '{"t":null}')]
        """
        where = user_location()
        parts = tuple(SideOutput(origin=node, tag=REJECTED, where=where) for node in self._with(REJECTED))
        return _stream(parts[0] if len(parts) == 1 else Union(parts=parts, where=where))

    def late(self) -> Stream:
        """The rows that came too late for the last step that goes by time: why, and what they missed.

        Beside their own columns they have `late_reason`, `late_watermark`, and for windows
        `late_window_start` and `late_window_end`.

        >>> import polars as pl, unistream as us
        >>> source = us.from_frame({"t": [5, 25, 3]}).with_event_time("t", unit="s")
        >>> source.window(us.tumbling("10s")).agg(n=pl.len()).late().columns
        ['t', 'late_reason', 'late_watermark', 'late_window_start', 'late_window_end']
        """
        where = user_location()
        found = self._with(LATE)
        if not found:
            hint = "windows and joins by time have late rows: call late() behind them"
            raise InvalidQuery("No step of this stream can find a row late", where, hint)
        return _stream(SideOutput(origin=found[-1], tag=LATE, where=where))

    def side_output(self, tag: str) -> Stream:
        """The rows that a `ProcessFunction` gave by `ctx.emit_to(tag, ...)`, as its `side_outputs` declare.

        One job with both streams runs the function once. Where several steps have such a side output, it is
        that of the step just before, or it has to be asked for directly behind the one that is meant. Event
        time does not come along: say `with_event_time` again where it is needed.

        >>> import polars as pl, unistream as us
        >>> class Checked(us.ProcessFunction):
        ...     output = {"item": pl.String, "price": pl.Int64}
        ...     side_outputs = {"odd": {"item": pl.String, "why": pl.String}}
        ...     def process(self, key, row, ctx):
        ...         if row["price"] < 0:
        ...             ctx.emit_to("odd", {"item": key, "why": "less than nothing"})
        ...         else:
        ...             yield row
        >>> prices = us.from_frame({"item": ["a", "b"], "price": [3, -1]})
        >>> checked = prices.group_by("item").process(Checked())
        >>> checked.collect().rows(), checked.side_output("odd").collect().rows()
        ([('a', 3)], [('b', 'less than nothing')])
        """
        where = user_location()
        if tag in _OWN_VERBS:
            verb = _OWN_VERBS[tag]
            raise InvalidQuery(f"{verb} rows are no side output of a step", where, f"write .{verb}()")
        found = self._with(tag)
        if not found:
            message = f"No step of this stream has a side output {tag!r}"
            raise InvalidQuery(message, where, self._tags_hint(tag))
        if len(found) > 1 and found[-1] is not self._node:
            hint = "call it directly behind the step that is meant; `union` puts several together"
            raise InvalidQuery(f"Several steps of this stream have a side output {tag!r}", where, hint)
        return _stream(SideOutput(origin=found[-1], tag=tag, where=where))

    def _with(self, tag: str) -> list[Node]:
        """The steps that have this output, those nearer to the sources first."""
        return [node for node in walk([self._node]) if tag in node.schema.side_outputs]

    def _tags_hint(self, tag: str) -> str:
        known = {tag: None for node in walk([self._node]) for tag in node.schema.side_outputs}
        tags = [tag for tag in known if tag not in _OWN_VERBS]
        near = nearest(tag, tags)
        if near:
            return f"did you mean {near!r}?"
        if tags:
            return f"there are {', '.join(map(repr, tags))}"
        return "declare it in `side_outputs` of a ProcessFunction, and call side_output behind `process`"


def _stream(node: Node) -> Stream:
    from unistream.api.stream import Stream

    return Stream(node)
