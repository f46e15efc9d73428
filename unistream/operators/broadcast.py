"""Rows beside a small table that changes while they run: rules, prices, blocked users."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import polars as pl

from unistream.elements import Batch
from unistream.errors import DataError
from unistream.expressions.changelog import fold_changes
from unistream.expressions.schema import CHANGE, Change, Changes, StreamSchema
from unistream.operators.base import Context, Operator, OperatorSpec, Output

RuleFunction = Callable[[pl.DataFrame, pl.DataFrame], pl.DataFrame]
"""From rows and the rules as they are now to rows."""

RULES, ROWS = 0, 1
"""Ports. Rules come first, so that those of one tick are known to its rows."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Broadcast(OperatorSpec):
    """`function` over each batch of rows and the whole table of rules."""

    name: ClassVar[str] = "broadcast"
    inputs: ClassVar[int] = 2
    function: RuleFunction
    made: pl.Schema

    def schema(self, inputs: Sequence[StreamSchema]) -> StreamSchema:
        rows = inputs[ROWS]
        time = rows.event_time
        if time is not None and self.made.get(time.column) != rows.columns[time.column]:
            time = None
        return StreamSchema(self.made, event_time=time, bounded=all(schema.bounded for schema in inputs))

    @property
    def accepts_updates(self) -> bool:
        return True  # of the rules; the verb refuses rows that update

    @property
    def timed_inputs(self) -> Sequence[int]:
        return (ROWS,)

    @property
    def first_inputs(self) -> Sequence[int]:
        return (RULES,)

    def build(self, inputs: Sequence[StreamSchema]) -> Operator:
        return _Broadcast(self, inputs[RULES])

    @property
    def label(self) -> str:
        """The function's name as the user knows it."""
        return getattr(self.function, "__name__", type(self.function).__name__)

    def describe(self) -> Mapping[str, str]:
        return {"runs": self.label, "state": "all rules, on every worker"}


class _Broadcast(Operator):
    """Keeps the rules as one frame; they are few, so a change of them may cost as much as they are."""

    def __init__(self, spec: Broadcast, rules: StreamSchema) -> None:
        self._spec = spec
        self._schema = rules

    def open(self, context: Context) -> None:
        self._log = context.state.log("rules", self._schema.columns)
        self._rules = pl.concat([pl.DataFrame(schema=self._schema.columns), *self._log.frames(0)])

    def process(self, batch: Batch, out: Output) -> None:
        if batch.port == RULES:
            self._change(batch.frame)
            return
        result = self._spec.function(batch.frame, self._rules)
        if not isinstance(result, pl.DataFrame) or result.schema != self._spec.made:
            got = dict(result.schema) if isinstance(result, pl.DataFrame) else type(result).__name__
            raise DataError(
                f"broadcast: {self._spec.label} returned {got}, promised {dict(self._spec.made)}",
                self._spec.where,
                "pass schema= with the columns and types the function returns",
            )
        out.emit(result)

    def _change(self, changes: pl.DataFrame) -> None:
        if self._schema.changes is Changes.APPEND:
            self._log.append(0, changes)
            self._rules = pl.concat([self._rules, changes])
            return
        there = self._rules.with_columns(pl.lit(Change.INSERT.value, pl.Int8).alias(CHANGE))
        self._rules = fold_changes(pl.concat([there, changes]), self._schema)
        self._log.replace(0, [self._rules])
