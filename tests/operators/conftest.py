"""Random sequences through an operator: cut anywhere, crashed anywhere, on both backends."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import polars as pl
import pytest

from unistream.clock import Random
from unistream.config import Settings
from unistream.elements import MAX_TIME, MIN_TIME, Batch, Watermark
from unistream.expressions.schema import StreamSchema
from unistream.metrics import Metrics
from unistream.operators.base import Context, Operator, OperatorSpec
from unistream.state.memory import MemoryBackend
from unistream.state.rocksdb import RocksBackend
from unistream.testing.bench import Gathered
from unistream.testing.clock import VirtualClock
from unistream.testing.schedules import cut_at_random

# The modules beside the tests can be imported by them.
sys.path.append(str(Path(__file__).parent))

Events = Sequence[Batch | Watermark]
Outputs = dict[str, pl.DataFrame]


class Replay:
    """Runs a spec over events; `seed` decides cuts, the backend and where the operator dies.

    Dying is: snapshot, a new backend that restores it, a new operator. Gives what came out, in order, by tag.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._runs = 0

    def __call__(
        self, spec: OperatorSpec, inputs: Sequence[StreamSchema], events: Events, seed: int
    ) -> Outputs:
        random = Random(seed)
        self._kind = random.choice((MemoryBackend, RocksBackend))
        crash_share = random.choice((0.0, 0.3, 0.6))
        schema, metrics, clock = spec.schema(inputs), Metrics(), VirtualClock()
        out = Gathered(schema, metrics)

        def opened() -> Operator:
            operator = spec.build(inputs)
            store = self._backend.store("operator", spec.keys or ())
            operator.open(Context("operator", clock, metrics, Settings(), store))
            return operator

        self._backend = self._new_backend()
        operator = opened()
        for event in _cut(events, random):
            if isinstance(event, Batch):
                operator.process(event, out)
            else:
                operator.on_watermark(event.time, out)
            if random.random() < crash_share:
                operator.before_checkpoint()
                self._restore()
                operator = opened()
        operator.on_watermark(MAX_TIME, out)
        operator.finish(out)
        self._backend.close()
        frames = {"": schema.empty()} | {
            tag: pl.DataFrame(schema=columns) for tag, columns in schema.side_outputs.items()
        }
        return {tag: pl.concat([empty, *out.frames.get(tag, [])]) for tag, empty in frames.items()}

    def _new_backend(self) -> MemoryBackend | RocksBackend:
        self._runs += 1
        folder = self._folder / str(self._runs)
        folder.mkdir()
        return self._kind(folder)

    def _restore(self) -> None:
        old, snapshot = self._backend, self._backend.snapshot(self._runs).finish()
        self._backend = self._new_backend()
        self._backend.restore(snapshot.tables, {file.logical_name: file.path for file in snapshot.files})
        snapshot.release()
        old.close()


def _cut(events: Events, random: Random) -> list[Batch | Watermark]:
    result: list[Batch | Watermark] = []
    time = MIN_TIME
    for event in events:
        if isinstance(event, Batch):
            result += [Batch(part, event.port) for part in _parts(event.frame, random)]
        elif event.time > time:
            time = event.time
            result.append(event)
    return result


def _parts(frame: pl.DataFrame, random: Random) -> list[pl.DataFrame]:
    """A few slices, or sometimes many: short sequences say most when they are cut into few."""
    if random.random() < 0.1:
        return cut_at_random(frame, random)
    places = sorted(random.randint(0, frame.height) for _ in range(random.randint(0, 3)))
    parts = [
        frame.slice(start, end - start)
        for start, end in zip([0, *places], [*places, frame.height], strict=True)
    ]
    return [part for part in parts if part.height]


@pytest.fixture
def replay(tmp_path: Path) -> Callable[..., Outputs]:
    """See `Replay`."""
    return Replay(tmp_path)


@pytest.fixture(params=[pytest.param(1, id="few"), pytest.param(20, id="many", marks=pytest.mark.nightly)])
def seeds(request: pytest.FixtureRequest) -> Callable[[int], range]:
    """How many sequences to try: as many as asked for, and by night many more."""

    def chosen(count: int) -> range:
        return range(count) if request.param == 1 else range(count, request.param * count)

    return chosen
