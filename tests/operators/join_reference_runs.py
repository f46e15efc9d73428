"""Runs an operator over sequences: cut into ticks, killed between them, on both backends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
from join_reference import Event, Mark, Pair, Row, plain_rows, schemas_of

from unistream.clock import Random
from unistream.config import Settings
from unistream.elements import MAX_TIME, MIN_TIME, Batch
from unistream.expressions.schema import StreamSchema
from unistream.expressions.time import microseconds_of
from unistream.metrics import Metrics
from unistream.operators.base import Context, Operator, OperatorSpec, Output
from unistream.state.memory import MemoryBackend
from unistream.state.rocksdb import RocksBackend
from unistream.testing.asserts import fold
from unistream.testing.clock import VirtualClock


@dataclass
class Checked(Output):
    """Keeps what comes out; refuses what was not promised: other columns, or rows behind the watermark."""

    schema: StreamSchema
    handed_on: int = MIN_TIME
    frames: dict[str, list[pl.DataFrame]] = field(default_factory=dict)

    def emit(self, frame: pl.DataFrame, split: str = "") -> None:
        assert frame.schema == self.schema.physical, f"{frame.schema}, promised {self.schema.physical}"
        if not frame.height:
            return
        if self.schema.event_time is not None and self.handed_on != MIN_TIME:
            time = microseconds_of(self.schema.event_time, self.schema.columns)
            first = frame.select(time.min()).item()
            assert first >= self.handed_on, f"{first} after watermark {self.handed_on}: {frame}"
        self.frames.setdefault("", []).append(frame)

    def emit_to(self, tag: str, frame: pl.DataFrame) -> None:
        assert frame.schema == self.schema.side_outputs[tag]
        self.frames.setdefault(tag, []).append(frame)

    def rows(self, tag: str = "") -> list[tuple[Any, ...]]:
        """All rows of an output; changes folded to what stands at the end."""
        frames = self.frames.get(tag, [])
        return plain_rows(fold(pl.concat(frames))) if frames else []


class Runs:
    """Where operators run; `budget` bytes of memory are all that RocksDB lets its tables and logs keep."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0

    def backend(self, kind: str) -> MemoryBackend | RocksBackend:
        self._count += 1
        folder = self._folder / str(self._count)
        folder.mkdir()
        if kind == "memory":
            return MemoryBackend(folder)
        return RocksBackend(folder, **({"memory_budget_bytes": 1} if kind == "spilling" else {}))

    def __call__(self, pair: Pair, events: Sequence[Event]) -> tuple[Checked, Metrics]:
        """What comes out; `pair.seed` decides the cuts, the backend and where the operator dies."""
        stream = pair.joined(*(side.stream() for side in pair.inputs))
        spec, inputs = schemas_of(stream, pair.inputs)
        run = _Run(self, spec, inputs, pair)
        for event in cut(pair, events, inputs, run.random):
            run.step(event)
        run.end()
        return run.out, run.metrics


class _Run:
    def __init__(self, runs: Runs, spec: OperatorSpec, inputs: Sequence[StreamSchema], pair: Pair) -> None:
        self._new_backend = lambda: runs.backend(self._kind)
        self._spec, self._inputs, self._pair = spec, inputs, pair
        self.random = random = Random(pair.seed)
        self._kind = random.choice(("memory",) * 4 + ("rocksdb",) * 3 + ("spilling",))
        self._crashes = random.choice((0.0, 0.1, 0.3)) if pair.may_crash else 0.0
        self.metrics, self.clock = Metrics(), VirtualClock()
        self.out = Checked(spec.schema(inputs))
        self._backend = self._new_backend()
        self._operator = self._opened()

    def _opened(self) -> Operator:
        operator = self._spec.build(self._inputs)
        store = self._backend.store("operator", self._spec.keys or ()) if self._spec.stateful else None
        settings = Settings(memory_budget_bytes=1) if self._kind == "spilling" else Settings()
        operator.open(Context("operator", self.clock, self.metrics, settings, store))
        return operator

    def step(self, event: Batch | Mark) -> None:
        if isinstance(event, Batch):
            self._operator.process(event, self.out)
        else:
            self._pass(event.at)
        if self.random.random() < self._crashes:
            self._restart()

    def _pass(self, at: int) -> None:
        self._pair.passed(at, self.clock)
        self._operator.on_watermark(at, self.out)
        handed_on = self._operator.output_watermark(at)
        assert self.out.handed_on <= handed_on <= at
        self.out.handed_on = handed_on

    def _restart(self) -> None:
        """What was not in the checkpoint is gone; a new operator goes on with what was."""
        self._operator.before_checkpoint()
        old, snapshot = self._backend, self._backend.snapshot(1).finish()
        self._operator.close()
        self._backend = self._new_backend()
        self._backend.restore(snapshot.tables, {file.logical_name: file.path for file in snapshot.files})
        self._operator = self._opened()
        snapshot.release()
        old.close()

    def end(self) -> None:
        self._pass(MAX_TIME)
        self._operator.finish(self.out)
        self._operator.close()
        self._backend.close()


def cut(
    pair: Pair, events: Sequence[Event], inputs: Sequence[StreamSchema], random: Random
) -> list[Batch | Mark]:
    """The events as ticks: some rows of one side together, then some of the other."""
    most = random.choice((1, 3, 3, 8, 100))
    found: list[Batch | Mark] = []
    waiting: list[list[Row]] = [[], []]

    def flush() -> None:
        for port in random.sample((0, 1), 2):
            if waiting[port]:
                frame = pair.sides[port].frame(waiting[port])
                found.append(Batch(_renamed(frame, inputs[port]), port))
                waiting[port] = []

    size, mark = random.randint(1, most), MIN_TIME
    for event in events:
        if isinstance(event, Row):
            waiting[event.port].append(event)
            if sum(map(len, waiting)) < size:
                continue
        flush()
        size = random.randint(1, most)
        if isinstance(event, Mark) and event.at > mark:
            mark = event.at
            found.append(event)
    flush()
    return found


def _renamed(frame: pl.DataFrame, schema: StreamSchema) -> pl.DataFrame:
    """Columns under the names that the plan gives them in front of the join."""
    return frame.rename(dict(zip(frame.columns, schema.physical.names(), strict=True)))


def difference(got: Sequence[Any], expected: Sequence[Any]) -> str | None:
    """What only one of them has; None when they have the same rows equally often."""
    more, fewer = Counter(got), Counter(expected)
    if more == fewer:
        return None
    wrong, missing = (list(rows.elements())[:8] for rows in (more - fewer, fewer - more))
    return f"  came, but should not: {wrong}\n  did not come: {missing}"


def shown(events: Sequence[Event], labels: Callable[[Row], str] = lambda row: "LR"[row.port]) -> str:
    """A sequence for a failure, one event a line."""
    lines = [
        f"    mark {event.at / 1e6:g} s"
        if isinstance(event, Mark)
        else f"    {labels(event)}{event.number}{' gone' if event.gone else ''}"
        f" at {None if event.at is None else event.at / 1e6} {event.values}"
        for event in events
    ]
    return "\n".join(lines)
