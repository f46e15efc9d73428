"""The contract between an operator and whatever drives it.

A spec is frozen configuration that pickles, derives its output schema from its inputs and builds the
operator. The operator sees whole frames, one at a time, on one thread.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import polars as pl

from unistream.clock import Clock
from unistream.config import Settings
from unistream.elements import Batch
from unistream.errors import StateError
from unistream.expressions.schema import StreamSchema
from unistream.metrics import Metrics

if TYPE_CHECKING:
    from unistream.state.backend import StateStore


class Output(ABC):
    """Where an operator puts its rows."""

    @abstractmethod
    def emit(self, frame: pl.DataFrame, split: str = "") -> None:
        """Rows of the main output; an empty frame is dropped."""

    @abstractmethod
    def emit_to(self, tag: str, frame: pl.DataFrame) -> None:
        """Rows of a side output; dropped when nobody listens to it."""


@dataclass(frozen=True, slots=True)
class OpenWindows:
    """Windows open for one key, a row each in order of their ends, with their values so far.

    `ends` are the moments (microseconds) at which they fire, None for windows that do not fire by time;
    then `fires` says in words what each waits for.
    """

    frame: pl.DataFrame
    ends: Sequence[int] | None = None
    fires: Sequence[str] = ()


class Journal(Protocol):
    """Notes about rows since the last checkpoint, which are there when these rows are read again."""

    def notes(self, operator: str) -> list[list[Any]]:
        """What this operator noted since the restored checkpoint, oldest first."""

    def note(self, operator: str, *note: Any) -> None:
        """Keep this, until a later checkpoint makes it needless."""


@dataclass(frozen=True, slots=True)
class Context:
    """What an operator may use: its tables, the clock, its counters, the settings and where it stands."""

    operator_id: str
    clock: Clock
    metrics: Metrics
    settings: Settings
    store: StateStore | None = None
    journal: Journal | None = None
    """There only where all sources give the same rows again and something outlives the process."""
    subtask: int = 0
    subtasks: int = 1
    wake: Callable[[], object] = lambda: None
    """Ends the wait for input: `next_wakeup` of all operators is asked again. Called from any thread."""

    @property
    def state(self) -> StateStore:
        """The operator's tables."""
        if self.store is None:
            raise StateError(f"{self.operator_id} keeps no state", hint="set `stateful = True` in its spec")
        return self.store


class Operator(ABC):
    """Runs one step of the plan. All methods are called on the same thread.

    Everything that must outlive a crash is in tables of `context.state`; there is no snapshot method.
    """

    def open(self, context: Context) -> None:
        """Once, before any rows. Tables opened here hold their restored content already."""

    @abstractmethod
    def process(self, batch: Batch, out: Output) -> None:
        """Some rows of input `batch.port`; never empty."""

    def on_watermark(self, watermark: int, out: Output) -> None:
        """The least watermark over all inputs has advanced to `watermark` (microseconds)."""

    def output_watermark(self, watermark: int) -> int:
        """The watermark to hand on when the inputs stand at `watermark`; asked after `on_watermark`."""
        return watermark

    def on_splits(self, source: str, pending: Mapping[str, int | None], ended: Sequence[str]) -> None:
        """News of a source in front, for operators that keep time per split; the first comes before any rows.

        `pending` are all its splits that are known but have given no rows yet, with the least event time
        each can hold where it is known; `ended` are those that will give no more. Splits are named
        "source/split"; the source's own name among the ended ones says that it is over.
        """

    def source_time(self, source: str) -> int | None:
        """How far event time has come in the rows of a source in front, in microseconds.

        None when it keeps no such time, and when the source holds nobody back: it is silent, or over.
        """
        return None

    def on_held_back(self, source: str) -> None:
        """A source in front is not being read from, because it is ahead of others: it is not silent."""

    def next_wakeup(self) -> int | None:
        """The processing time (microseconds) at which `on_processing_time` is wanted, or None."""
        return None

    def on_processing_time(self, now: int, out: Output) -> None:
        """The clock has reached the time `next_wakeup` named."""

    def busy(self) -> bool:
        """Whether rows it has taken will come out by themselves, soon: the end waits for that, in ticks."""
        return False

    def before_checkpoint(self) -> None:
        """A checkpoint follows at once: write what is held outside the tables into them."""

    def explain_time(self) -> Mapping[str, Any]:
        """What it knows of time: watermarks, who holds them back, what fires next. From any thread."""
        return {}

    def open_windows(self, key: pl.DataFrame) -> OpenWindows | None:
        """The windows open for the key in this one row; None when it cannot say. Called between ticks."""
        return None

    def finish(self, out: Output) -> None:
        """All inputs have ended and the last watermark was delivered; nothing follows."""

    def close(self) -> None:
        """Give back resources; called once, also after an error."""


@dataclass(frozen=True, eq=False, kw_only=True)
class OperatorSpec(ABC):
    """What an operator does, checked while the plan is built. `where` is the user's line."""

    name: ClassVar[str] = "operator"
    inputs: ClassVar[int] = 1
    stateful: ClassVar[bool] = True
    """Whether it opens tables; an operator without any is given no store."""
    where: str | None = None

    @abstractmethod
    def schema(self, inputs: Sequence[StreamSchema]) -> StreamSchema:
        """The main output (with `side_outputs` filled in) for these inputs; raises `InvalidQuery`."""

    @abstractmethod
    def build(self, inputs: Sequence[StreamSchema]) -> Operator:
        """A new operator for inputs of these schemas."""

    @property
    def keys(self) -> tuple[str, ...] | None:
        """The columns rows must be partitioned by, or None when any spread will do."""
        return None

    @property
    def by_time(self) -> bool:
        """Whether what it gives depends on when event time passes.

        `lazy` may then assume that no row is late: that is made sure of while the query runs.
        """
        return False

    def holds_rows(self, schemas: Sequence[StreamSchema]) -> bool:
        """Whether `lazy` holds rows in memory that ticks forget in time, or keep on disk when many."""
        return self.by_time

    @property
    def keeps_order(self) -> bool:
        """Whether the rows of `lazy` come in the order of those of its only streaming input."""
        return False

    @property
    def by_order(self) -> bool:
        """Whether what it gives depends on the order of rows: `lazy` counts only where the query keeps it."""
        return False

    @property
    def accepts_updates(self) -> bool:
        """Whether inputs that are not append-only are understood."""
        return False

    @property
    def needs_retractions(self) -> bool:
        """Whether an updated row must be taken back before the new one comes, not just replaced by key."""
        return False

    @property
    def timed_inputs(self) -> Sequence[int] | None:
        """The inputs whose watermarks count, or None for all; the others hold nobody back."""
        return None

    @property
    def first_inputs(self) -> Sequence[int]:
        """The inputs that give what they have when the job begins before any row of the others is read."""
        return ()

    @property
    def max_drift(self) -> int | None:
        """How far (microseconds) the sources whose time it keeps may run ahead; None: as the job says."""
        return None

    @property
    def idle_after(self) -> int | None:
        """How long (microseconds) a source whose time it keeps may be silent before nobody waits for it."""
        return None

    @property
    def keeps_splits(self) -> bool:
        """Whether rows leave with the split they came with, so that time can be assigned behind it."""
        return False

    def reads(self, inputs: Sequence[StreamSchema], needed: frozenset[str]) -> Sequence[frozenset[str]]:
        """The columns of each input it must have to give the columns `needed`; the rest may be pruned."""
        return [frozenset(schema.columns) for schema in inputs]

    def lazy(self, inputs: Sequence[pl.LazyFrame], schemas: Sequence[StreamSchema]) -> pl.LazyFrame | None:
        """The final table over bounded inputs as one Polars query, or None when there is no equal one.

        Inputs and result are tables as they are at the end, so an updating stream has no `CHANGE` here.
        `schemas` are those of the inputs.
        """
        return None

    def describe(self) -> Mapping[str, str]:
        """What `explain` prints of it, in order."""
        return {}


Step = Callable[[pl.DataFrame], pl.DataFrame]
"""A stateless step: rows in, rows out, the same whichever way the rows are cut."""
