"""Results kept in memory or handed to a function."""

from __future__ import annotations

import base64
import inspect
import io
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from unistream.errors import ConnectorError, InvalidQuery, StateError
from unistream.expressions.schema import Changes, spell_changes
from unistream.io.base import Cancelled, LazyWrite, Sink, Token, Writer, WriterContext
from unistream.location import user_location

_TOKEN_BYTES = 64 << 20


class Collected:
    """Frames in the order they were written; written by one thread, read by any."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._frames: list[pl.DataFrame] = []
        self._schema = pl.Schema()

    def begin(self, schema: pl.Schema) -> None:
        with self._lock:
            self._schema = schema

    def add(self, frame: pl.DataFrame) -> None:
        with self._lock:
            self._frames.append(frame)

    def frames(self) -> list[pl.DataFrame]:
        with self._lock:
            return list(self._frames)

    def take(self) -> list[pl.DataFrame]:
        with self._lock:
            taken, self._frames = self._frames, []
            return taken

    def result(self) -> pl.DataFrame:
        with self._lock:
            return pl.concat([pl.DataFrame(schema=self._schema), *self._frames])


@dataclass(frozen=True, slots=True, eq=False)
class MemorySink(Sink):
    """Keeps all rows in memory; `result()` gives them as one frame, also while the job runs.

    An updating stream is kept as its changelog, with the engine's column `__change`; nothing is folded.
    Use it for tests and small results. Rows show at once, so a restart may show some twice.
    """

    collected: Collected = field(default_factory=Collected)

    name = "memory"

    @property
    def accepts(self) -> frozenset[Changes]:
        return frozenset(Changes)

    def open(self, context: WriterContext) -> Writer:
        self.collected.begin(context.schema.physical)
        return _MemoryWriter(self.collected)

    @property
    def writes_queries(self) -> bool:
        return True

    def lazy(self, query: pl.LazyFrame, context: WriterContext) -> LazyWrite:
        self.collected.begin(context.schema.physical)
        return _MemoryQuery(query)

    def commit(self, tokens: Sequence[Token]) -> None:
        for token in tokens:  # of a query; used at once and never stored, so that it holds the frames
            for frame in token["frames"]:
                self.collected.add(frame)

    def take(self) -> list[pl.DataFrame]:
        """The frames that came since it was asked last; they are not kept any longer."""
        return self.collected.take()

    def result(self) -> pl.DataFrame:
        """All rows so far, in the order they came."""
        return self.collected.result()

    def frames(self) -> list[pl.DataFrame]:
        """The frames so far, as they were written."""
        return self.collected.frames()


class _MemoryWriter(Writer):
    def __init__(self, collected: Collected) -> None:
        self._collected = collected

    def write(self, frame: pl.DataFrame) -> None:
        self._collected.add(frame)


class _MemoryQuery(LazyWrite):
    """Collects the query, in batches, so that it can be cancelled and counted; rows show at the commit."""

    def __init__(self, query: pl.LazyFrame) -> None:
        self._query = query
        self._rows = 0
        self._cancelled = False

    def run(self) -> Token | None:
        frames = []
        for frame in self._query.collect_batches(maintain_order=True, lazy=True, engine="streaming"):
            if self._cancelled:
                raise Cancelled
            frames.append(frame)
            self._rows += frame.height
        return {"frames": frames}

    def cancel(self) -> None:
        self._cancelled = True

    def progress(self) -> int:
        return self._rows


@dataclass(frozen=True, slots=True)
class CallbackSink(Sink):
    """Hands rows to a function, in one of two forms; updates carry a first column `op` ("+I -U +U -D").

    `function(frame)` is called with every frame at once: after a crash some rows come again (at least once).

    `function(frame, checkpoint_id)` is called when a checkpoint is complete, with all rows since the one
    before. After a crash it may be called again with the same number and the same rows, so it makes them
    exactly once by storing the number with the rows, in one transaction, and doing nothing when that
    number is there already. The rows are part of the checkpoint until then: keep them below 64 MB
    (packed) per interval. Numbers count within one checkpoint folder. A job without one numbers its calls
    from 1 in every run and keeps the rows of a bounded job for one call at its end.
    """

    function: Callable[..., Any]

    name = "function"

    def __post_init__(self) -> None:
        if not callable(self.function):
            problem = f"{type(self.function).__name__!r} cannot be called"
        elif _answers_later(self.function):
            problem = "The function is async or a generator: nobody would run what it returns"
        elif self._arguments not in (1, 2):
            problem = f"The function takes {self._arguments} arguments"
        else:
            return
        hint = "write def function(frame) or def function(frame, checkpoint_id)"
        raise InvalidQuery(problem, user_location(), hint)

    @property
    def _arguments(self) -> int:
        """Positional parameters without a default; built-in functions count as one."""
        try:
            parameters = inspect.signature(self.function).parameters.values()
        except (TypeError, ValueError):
            return 1
        positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        needed = [p for p in parameters if p.kind in positional and p.default is p.empty]
        takes_any = any(p.kind is p.VAR_POSITIONAL or p.kind in positional for p in parameters)
        return max(len(needed), 1) if takes_any else 0

    @property
    def accepts(self) -> frozenset[Changes]:
        return frozenset(Changes)

    @property
    def promise(self) -> str:
        return (
            "at least once"
            if self._arguments == 1
            else "exactly once, when the function keeps the checkpoint id"
        )

    def open(self, context: WriterContext) -> Writer:
        if self._arguments == 1:
            return _DirectWriter(self.function)
        return _CheckpointWriter(durable=context.checkpoints)

    def commit(self, tokens: Sequence[Token]) -> None:
        by_checkpoint: dict[int, list[pl.DataFrame]] = {}
        for token in tokens:
            rows = token["rows"]
            frame = rows if isinstance(rows, pl.DataFrame) else _unpacked(rows)
            by_checkpoint.setdefault(int(token["checkpoint"]), []).append(frame)
        for checkpoint_id in sorted(by_checkpoint):
            _call(self.function, pl.concat(by_checkpoint[checkpoint_id]), checkpoint_id)

    def describe(self) -> dict[str, str]:
        return {"function": getattr(self.function, "__qualname__", type(self.function).__name__)}


def _answers_later(function: Callable[..., Any]) -> bool:
    """Whether calling it does nothing yet."""
    kinds = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)
    return any(is_kind(it) for is_kind in kinds for it in (function, type(function).__call__))


def _call(function: Callable[..., Any], *given: Any) -> None:
    if inspect.isawaitable(function(*given)):
        raise InvalidQuery(
            "The function returned something to await, so the rows went nowhere",
            hint="let it do its work before it returns, as with asyncio.run(...)",
        )


class _DirectWriter(Writer):
    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def write(self, frame: pl.DataFrame) -> None:
        _call(self._function, spell_changes(frame).clone())  # others may be given the same frame


class _CheckpointWriter(Writer):
    """Gathers rows until a checkpoint; the token holds them, so that they come again after a crash.

    Without checkpoints the token is used at once and never stored, so it holds the frame itself.
    """

    def __init__(self, durable: bool) -> None:
        self._durable = durable
        self._frames: list[pl.DataFrame] = []

    def write(self, frame: pl.DataFrame) -> None:
        self._frames.append(spell_changes(frame))

    def due(self, now: int) -> bool:
        return bool(self._frames)

    def prepare(self, checkpoint_id: int) -> Token | None:
        if not self._frames:
            return None
        frame, self._frames = pl.concat(self._frames), []
        if not self._durable:
            return {"checkpoint": checkpoint_id, "rows": frame}
        rows = _packed(frame)
        if len(rows) > _TOKEN_BYTES:
            raise ConnectorError(
                f"The rows of checkpoint {checkpoint_id} for the function take {len(rows) >> 20} MB",
                hint="checkpoint more often, or write to a table or to files",
            )
        return {"checkpoint": checkpoint_id, "rows": rows}


def _packed(frame: pl.DataFrame) -> str:
    buffer = io.BytesIO()
    frame.clone().write_ipc_stream(buffer, compression="zstd")  # not the handle that others may look at
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _unpacked(text: str) -> pl.DataFrame:
    try:
        return pl.read_ipc_stream(io.BytesIO(base64.b64decode(text)))
    except (ValueError, OSError, pl.exceptions.PolarsError) as error:
        raise StateError(f"The rows kept for a function cannot be read: {error}") from error
