"""One test of an operator, replayed under many schedules that must not change its rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import polars as pl

from unistream.clock import Random
from unistream.durations import Duration
from unistream.elements import Batch, Watermark
from unistream.expressions.schema import Changes, StreamSchema
from unistream.operators.base import OperatorSpec
from unistream.operators.stateless import FilterStep, SelectStep, WithColumnsStep
from unistream.operators.stateless_chain import StatelessChain
from unistream.testing.asserts import assert_same_rows
from unistream.testing.bench import OperatorBench
from unistream.testing.event_times import early_watermarks, has_late_rows
from unistream.testing.schedules import cut_at_random

RANDOM_CUTS = 5
"""Schedules with random cuts, each from its own seed."""


@dataclass(frozen=True, slots=True)
class Passed:
    """The job's clock advances by `duration`; an operator that asked to be woken is."""

    duration: Duration


@dataclass(frozen=True, slots=True)
class Splits:
    """News of the sources in front: splits not begun yet (with their least event time) and ended ones."""

    pending: Mapping[str, int | None] = field(default_factory=dict)
    ended: Sequence[str] = ()


Event = Batch | Watermark | Passed | Splits


@dataclass(frozen=True, slots=True)
class Schedule:
    """How a script is replayed. `cuts` is "given", "rows", "whole" or the seed of random ones."""

    cuts: str | int = "given"
    watermarks: str = "given"
    restores: bool = False
    subtasks: int = 1

    def __str__(self) -> str:
        cuts = {"given": "rows as given", "rows": "one row at a time", "whole": "neighbouring rows at once"}
        parts = [cuts.get(str(self.cuts), f"random cuts (seed {self.cuts})")]
        times = {"early": "watermarks as early as can be", "end": "one watermark at the end"}
        parts += [times[self.watermarks]] if self.watermarks in times else []
        parts += ["state restored after every call"] if self.restores else []
        parts += [f"{self.subtasks} subtasks"] if self.subtasks > 1 else []
        return ", ".join(parts)


class OperatorHarness:
    """Feeds an operator the same rows in many ways and compares what comes out.

    The rows are replayed as given, one at a time, all neighbours at once and cut at random; with
    watermarks as given, as early as the rows allow, and only at the end (unless rows are late, which then
    would no longer be); with state written to files and restored into a new operator after every call;
    and, for keyed operators, spread over three of them.

    >>> from unistream.api.steps import filter as filter_step
    >>> rows = pl.DataFrame({"n": [1, 2, 3]})
    >>> step = filter_step(StreamSchema(rows.schema), [pl.col("n") > 1], {}, None)
    >>> harness = OperatorHarness(StatelessChain(steps=(step,)), StreamSchema(rows.schema))
    >>> harness.feeds(rows).expects(pl.DataFrame({"n": [2, 3]}))
    """

    def __init__(self, spec: OperatorSpec, *inputs: StreamSchema) -> None:
        self._spec = spec
        self._inputs = inputs
        self._script: list[Event] = []

    def feeds(self, *events: pl.DataFrame | Event) -> OperatorHarness:
        """Append to the script: frames (of input 0), `Batch`, `Watermark`, `Passed`, `Splits`."""
        self._script += [Batch(event) if isinstance(event, pl.DataFrame) else event for event in events]
        return self

    def expects(
        self,
        rows: pl.DataFrame,
        *,
        side: Mapping[str, pl.DataFrame] | None = None,
        ordered: bool = False,
        watermarks: Sequence[str] = ("given", "early", "end"),
        conserved: bool | None = None,
        tolerance: float = 1e-9,
    ) -> None:
        """Replay the script under every schedule; each must give these rows and side outputs.

        Changelogs are folded, so `rows` is the table at the end. `ordered` compares the order too. Leave
        schedules out of `watermarks` where the time of emission is the point of the test. `conserved`
        checks rows in = rows out + filtered + late + rejected; by default for steps that drop or keep rows.
        """
        schema = self._spec.schema(self._inputs)
        law = self._keeps_rows() if conserved is None else conserved
        for schedule in self.schedules(watermarks):
            try:
                bench = self.run(schedule)
                expected = {"": rows, **(side or {})}
                for tag, frame in expected.items():
                    empty = schema.empty() if tag == "" else pl.DataFrame(schema=schema.side_outputs[tag])
                    got = pl.concat([empty, *bench.frames.get(tag, [])])
                    assert_same_rows(got, frame, ordered=ordered, key=schema.key, tolerance=tolerance)
                if law:
                    bench.check_conservation()
            except AssertionError as error:
                raise AssertionError(f"{self._spec.name}, {schedule}: {error}") from None

    def schedules(self, watermarks: Sequence[str] = ("given", "early", "end")) -> Iterator[Schedule]:
        """Every way the script is replayed."""
        keyed = bool(self._spec.keys)
        for way in self._ways(watermarks):
            for cuts in ("given", "rows", "whole", *range(RANDOM_CUTS)):
                yield Schedule(cuts, way)
            if self._spec.stateful:
                yield Schedule("given", way, restores=True)
                yield Schedule(0, way, restores=True)
            if keyed:
                yield Schedule("given", way, subtasks=3)
                yield Schedule("rows", way, restores=self._spec.stateful, subtasks=3)

    def _ways(self, wanted: Sequence[str]) -> list[str]:
        """The watermark schedules that say something about this script."""
        batches = [event for event in self._script if isinstance(event, Batch)]
        marks = [event.time for event in self._script if isinstance(event, Watermark)]
        timed = all(schema.event_time for schema in self._inputs) and bool(batches)
        ways = ["given"]
        if timed:
            ways.append("early")
        if marks and not (timed and has_late_rows(self._script, self._inputs)):
            ways.append("end")
        return [way for way in ways if way in wanted]

    def run(self, schedule: Schedule) -> OperatorBench:
        """Replay the script in one way and return what came out."""
        bench = OperatorBench(self._spec, self._inputs, schedule.subtasks, schedule.restores)
        with bench:
            for event in self._events(schedule):
                match event:
                    case Batch():
                        bench.process(event)
                    case Watermark():
                        bench.advance_watermark(event.time)
                    case Passed():
                        bench.pass_time(event.duration)
                    case Splits():
                        bench.tell_splits(event.pending, event.ended)
            bench.finish()
        return bench

    def _events(self, schedule: Schedule) -> list[Event]:
        events = list(self._script)
        if schedule.watermarks == "end":
            events = [event for event in events if not isinstance(event, Watermark)]
        events = _recut(events, schedule.cuts)
        return early_watermarks(events, self._inputs) if schedule.watermarks == "early" else events

    def _keeps_rows(self) -> bool:
        if self._spec.stateful:
            return False
        if not isinstance(self._spec, StatelessChain):
            return True
        upsert = self._inputs[0].changes is Changes.UPSERT
        keeping = (SelectStep, WithColumnsStep, FilterStep)
        return not upsert and all(isinstance(step, keeping) for step in self._spec.steps)


def _recut(events: Sequence[Event], cuts: str | int) -> list[Event]:
    """The same rows in the same order between the same other events, cut anew."""
    if cuts == "given":
        return list(events)
    random = Random(cuts) if isinstance(cuts, int) else None
    result: list[Event] = []
    for (kind, port, split), group in groupby(events, key=_neighbours):
        if kind is not Batch:
            result += group
            continue
        frame = pl.concat([event.frame for event in group if isinstance(event, Batch)])
        result += [Batch(part, port, split) for part in _parts(frame, cuts, random)]
    return result


def _neighbours(event: Event) -> tuple[type, int, str]:
    return (Batch, event.port, event.split) if isinstance(event, Batch) else (type(event), 0, "")


def _parts(frame: pl.DataFrame, cuts: str | int, random: Random | None) -> list[pl.DataFrame]:
    if cuts == "whole":
        return [frame]
    if random is None:
        return [frame.slice(row, 1) for row in range(frame.height)]
    return cut_at_random(frame, random)
