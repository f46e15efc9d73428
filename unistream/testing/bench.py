"""Holds an operator the way a runtime does: tables, clock, counters, outputs, restores between calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType

import polars as pl

from unistream.config import Settings
from unistream.durations import Duration
from unistream.elements import MAX_TIME, MIN_TIME, Batch
from unistream.expressions.schema import StreamSchema
from unistream.metrics import Metrics
from unistream.operators.base import Context, Operator, OperatorSpec, Output
from unistream.state.key_groups import group_range, key_groups, subtask_of
from unistream.state.snapshot import StateBackend
from unistream.testing.clock import VirtualClock

OPERATOR_ID = "operator"


class Gathered(Output):
    """Keeps frames by output; "" is the main one. Refuses what the spec did not promise."""

    def __init__(self, schema: StreamSchema, metrics: Metrics) -> None:
        self.frames: dict[str, list[pl.DataFrame]] = {}
        self._schema = schema
        self._metrics = metrics

    def emit(self, frame: pl.DataFrame, split: str = "") -> None:
        self._metrics.add("rows_out", frame.height)
        self._keep("", frame, self._schema.physical)

    def emit_to(self, tag: str, frame: pl.DataFrame) -> None:
        self._keep(tag, frame, self._schema.side_outputs.get(tag, frame.schema))

    def _keep(self, tag: str, frame: pl.DataFrame, promised: pl.Schema) -> None:
        if frame.schema != promised:
            raise AssertionError(
                f"output {tag or 'main'!r} gave columns {dict(frame.schema)}, promised {dict(promised)}"
            )
        if frame.height:
            self.frames.setdefault(tag, []).append(frame)


class OperatorBench:
    """Subtasks of an operator. With `restores` each call is followed by a restart from files."""

    def __init__(
        self, spec: OperatorSpec, inputs: Sequence[StreamSchema], subtasks: int = 1, restores: bool = False
    ) -> None:
        self.metrics = Metrics()
        self.clock = VirtualClock()
        self._spec = spec
        self._out = Gathered(spec.schema(inputs), self.metrics)
        self._watermark = MIN_TIME
        self._folder = TemporaryDirectory(prefix="unistream-bench-")
        self._subtasks = [
            _Subtask(spec, inputs, self, Path(self._folder.name), (number, subtasks), restores)
            for number in range(subtasks)
        ]

    @property
    def frames(self) -> Mapping[str, list[pl.DataFrame]]:
        """What came out so far, by output tag; "" is the main output."""
        return self._out.frames

    def process(self, batch: Batch) -> None:
        """Rows, each to the subtask of its key."""
        self.metrics.add("rows_in", batch.frame.height)
        for subtask, frame in zip(self._subtasks, self._spread(batch.frame), strict=True):
            if frame.height:
                part = Batch(frame, batch.port, batch.split)
                subtask.call(lambda op, part=part: op.process(part, self._out))  # type: ignore[misc]

    def _spread(self, frame: pl.DataFrame) -> list[pl.DataFrame]:
        count = len(self._subtasks)
        if count == 1 or not self._spec.keys:
            return [frame, *([frame.clear()] * (count - 1))]
        owners = pl.Series(subtask_of(key_groups(frame.select(self._spec.keys)), count))
        return [frame.filter(owners == number) for number in range(count)]

    def advance_watermark(self, time: int) -> None:
        """Time moves on, unless it is there already."""
        if time <= self._watermark:
            return
        self._watermark = time
        for subtask in self._subtasks:
            subtask.call(lambda op: op.on_watermark(time, self._out))
            subtask.check_watermark(time)

    def pass_time(self, duration: Duration) -> None:
        """The clock moves on."""
        self.clock.advance(duration)
        for subtask in self._subtasks:
            subtask.call(lambda op: None)

    def tell_splits(self, pending: Mapping[str, int | None], ended: Sequence[str]) -> None:
        """News of the sources in front; a split's name begins with that of its source."""
        names = {name.partition("/")[0] for name in (*pending, *ended)}
        for source in sorted(names):
            of_source = {name: at for name, at in pending.items() if name.partition("/")[0] == source}
            over = [name for name in ended if name.partition("/")[0] == source]
            for subtask in self._subtasks:
                subtask.call(partial(_tell, source=source, pending=of_source, ended=over))

    def finish(self) -> None:
        """The last watermark, then the end."""
        self.advance_watermark(MAX_TIME)
        for subtask in self._subtasks:
            subtask.operator.finish(self._out)

    def wake(self, operator: Operator) -> None:
        """Fire what is due, as a tick does."""
        wakeup = operator.next_wakeup()
        if wakeup is not None and wakeup <= self.clock.now():
            operator.on_processing_time(self.clock.now(), self._out)

    def check_conservation(self) -> None:
        """Rows in = rows out + filtered + late + rejected."""
        counts = {
            name: int(self.metrics.get(name))
            for name in ("rows_in", "rows_out", "filtered", "late", "rejected")
        }
        if 2 * counts["rows_in"] != sum(counts.values()):
            raise AssertionError(f"rows vanished or appeared: {counts}")

    def __enter__(self) -> OperatorBench:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for subtask in self._subtasks:
            subtask.close()
        self._folder.cleanup()


class _Subtask:
    """An operator with its backend."""

    def __init__(
        self,
        spec: OperatorSpec,
        inputs: Sequence[StreamSchema],
        bench: OperatorBench,
        folder: Path,
        place: tuple[int, int],
        restores: bool,
    ) -> None:
        self._spec = spec
        self._inputs = inputs
        self._bench = bench
        self._folder = folder
        self._place = place
        self._restores = restores and spec.stateful
        self._generation = 0
        self._told = MIN_TIME
        self._backend = self._new_backend()
        self.operator = self._new_operator()

    def call(self, use: Callable[[Operator], None]) -> None:
        """Use the operator, fire what is due, and restart it when that is asked for."""
        use(self.operator)
        self._bench.wake(self.operator)
        if self._restores:
            self._restart()

    def check_watermark(self, time: int) -> None:
        """What it hands on never goes back."""
        handed_on = self.operator.output_watermark(time)
        if handed_on < self._told or handed_on > time:
            raise AssertionError(f"output watermark {handed_on} after {self._told}, inputs at {time}")
        self._told = handed_on

    def _restart(self) -> None:
        self.operator.before_checkpoint()
        snapshot = self._backend.snapshot(self._generation).finish()
        old = self._backend
        self.operator.close()
        self._backend = self._new_backend()
        self._backend.restore(snapshot.tables, {file.logical_name: file.path for file in snapshot.files})
        self.operator = self._new_operator()
        snapshot.release()
        old.close()

    def _new_backend(self) -> StateBackend:
        from unistream.state.memory import MemoryBackend

        number, count = self._place
        self._generation += 1
        folder = self._folder / f"{number}-{self._generation}"
        folder.mkdir()
        return MemoryBackend(folder, owned=group_range(number, count))

    def _new_operator(self) -> Operator:
        operator = self._spec.build(self._inputs)
        store = self._backend.store(OPERATOR_ID, self._spec.keys or ()) if self._spec.stateful else None
        number, count = self._place
        bench = self._bench
        operator.open(
            Context(
                OPERATOR_ID, bench.clock, bench.metrics, Settings(), store, subtask=number, subtasks=count
            )
        )
        return operator

    def close(self) -> None:
        self.operator.close()
        self._backend.close()


def _tell(operator: Operator, source: str, pending: Mapping[str, int | None], ended: Sequence[str]) -> None:
    operator.on_splits(source, pending, ended)
