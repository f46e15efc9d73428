"""Neighbouring steps without state as one operator."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import polars as pl

from unistream.elements import Batch
from unistream.expressions.direct import Compute, direct
from unistream.expressions.schema import Changes, StreamSchema
from unistream.of_columns import frame_of, rows_where
from unistream.operators.base import Context, Operator, OperatorSpec, Output
from unistream.operators.stateless import (
    FilterStep,
    MapBatchesStep,
    RowStep,
    SelectStep,
    WithColumnsStep,
    columns_read_by,
)

Run = Callable[[pl.DataFrame], pl.DataFrame]

MANY_ROWS = 100_000
"""From so many rows on it pays to filter several columns at once, though others use the processors too."""


@dataclass(frozen=True, eq=False, kw_only=True)
class StatelessChain(OperatorSpec):
    """Steps run one after another on each frame."""

    name: ClassVar[str] = "stateless"
    stateful: ClassVar[bool] = False
    steps: tuple[RowStep, ...]

    def schema(self, inputs: Sequence[StreamSchema]) -> StreamSchema:
        schema = inputs[0]
        for step in self.steps:
            schema = step.derive(schema)
        return schema

    def build(self, inputs: Sequence[StreamSchema]) -> Operator:
        runs = []
        schema = inputs[0]
        for step in together(self.steps):
            runs.append((run_of(step, schema, inputs[0].changes), isinstance(step, FilterStep)))
            schema = step.derive(schema)
        return StatelessOperator(runs)

    @property
    def accepts_updates(self) -> bool:
        return not any(isinstance(step, MapBatchesStep) for step in self.steps)

    @property
    def keeps_splits(self) -> bool:
        return True

    def describe(self) -> Mapping[str, str]:
        return {f"{n}": step.describe() for n, step in enumerate(self.steps, 1)}


class StatelessOperator(Operator):
    """Runs a chain; the split of the rows stays with them. Of each step is said whether it is a filter."""

    def __init__(self, steps: Sequence[tuple[Run, bool]]) -> None:
        self._steps = steps

    def open(self, context: Context) -> None:
        self._metrics = context.metrics

    def process(self, batch: Batch, out: Output) -> None:
        frame = batch.frame
        for run, filters in self._steps:
            before = frame.height
            frame = run(frame)
            if filters and frame.height < before:
                self._metrics.add("filtered", before - frame.height)
            if frame.height == 0:
                return
        out.emit(frame, batch.split)


def run_of(step: RowStep, schema: StreamSchema, changes: Changes) -> Run:
    """What runs a step on rows of this schema: without a query where its expressions allow that."""
    if changes is Changes.APPEND:
        match step:
            case FilterStep(predicate=predicate):
                passes = direct(predicate, schema.columns)
                if passes is not None:
                    return partial(_rows_that_pass, passes)
            case SelectStep(exprs=exprs) | WithColumnsStep(exprs=exprs):
                made = [direct(expr, schema.columns) for expr in exprs]
                known = [compute for compute in made if compute is not None]
                if len(known) == len(exprs):
                    return partial(_selected if isinstance(step, SelectStep) else _with_columns, known)
    return partial(step.apply, changes=changes)


def _rows_that_pass(passes: Compute, frame: pl.DataFrame) -> pl.DataFrame:
    chosen = passes(frame)
    return rows_where(frame, chosen) if frame.height < MANY_ROWS else frame.filter(chosen)


def _selected(made: Sequence[Compute], frame: pl.DataFrame) -> pl.DataFrame:
    return frame_of([compute(frame) for compute in made])


def _with_columns(made: Sequence[Compute], frame: pl.DataFrame) -> pl.DataFrame:
    new = {column.name: column for column in [compute(frame) for compute in made]}
    if not any(name in new for name in frame.columns):
        return frame.hstack(list(new.values()))
    old = {column.name: column for column in frame.get_columns()}
    return frame_of((old | new).values())


def together(steps: Iterable[RowStep]) -> list[RowStep]:
    """The steps, with neighbours that add columns as one where neither looks at what the other makes.

    For few rows the price of a step is that of its call.
    """
    found: list[RowStep] = []
    for step in steps:
        before = found[-1] if found else None
        if isinstance(step, WithColumnsStep) and isinstance(before, WithColumnsStep):
            makes = {expr.meta.output_name() for expr in step.exprs}
            if not (makes | columns_read_by(step.exprs)) & {e.meta.output_name() for e in before.exprs}:
                made = pl.Schema({**before.made, **step.made})
                found[-1] = replace(before, exprs=before.exprs + step.exprs, made=made)
                continue
        found.append(step)
    return found
