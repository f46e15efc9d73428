"""The rows of several inputs as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import polars as pl

from unistream.elements import Batch
from unistream.expressions.schema import CHANGE, Change, Changes, StreamSchema
from unistream.operators.base import Operator, OperatorSpec, Output


@dataclass(frozen=True, eq=False, kw_only=True)
class UnionSpec(OperatorSpec):
    """Forwards every input; `result` was derived by the plan."""

    name: ClassVar[str] = "union"
    stateful: ClassVar[bool] = False
    result: StreamSchema

    def schema(self, inputs: Sequence[StreamSchema]) -> StreamSchema:
        return self.result

    @property
    def accepts_updates(self) -> bool:
        return True

    @property
    def keeps_splits(self) -> bool:
        return True

    def build(self, inputs: Sequence[StreamSchema]) -> Operator:
        updating = self.result.changes is not Changes.APPEND
        marks = [updating and schema.changes is Changes.APPEND for schema in inputs]
        return UnionOperator(marks)


class UnionOperator(Operator):
    """Forwards frames; rows of append-only inputs are marked as insertions where the result is updating."""

    def __init__(self, marks: Sequence[bool]) -> None:
        self._marks = marks

    def process(self, batch: Batch, out: Output) -> None:
        frame = batch.frame
        if self._marks[batch.port]:
            frame = frame.with_columns(pl.lit(Change.INSERT.value, pl.Int8).alias(CHANGE))
        out.emit(frame, batch.split)
