"""A sink whose rows count when their checkpoint is committed and not before: the judge of exactly once."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field

import polars as pl

from unistream.expressions.schema import Changes
from unistream.io.base import Sink, Token, Writer, WriterContext


@dataclass(frozen=True, slots=True, eq=False)
class CommittedSink(Sink):
    """Keeps the committed rows by checkpoint id, whatever happens to the job that wrote them.

    The token holds the rows, so a restarted job can commit what a crashed one prepared. Committing again is
    harmless; committing other rows under an id that was used is an error of the engine and raised as one.

    >>> import unistream as us
    >>> sink = CommittedSink()
    >>> _ = us.from_frame({"n": [1, 2]}).sink(sink).run(progress=False)
    >>> sink.result()["n"].to_list()
    [1, 2]
    """

    committed: dict[int, pl.DataFrame] = field(default_factory=dict)

    name = "committed"

    @property
    def accepts(self) -> frozenset[Changes]:
        return frozenset(Changes)

    @property
    def promise(self) -> str:
        return "exactly once"

    def open(self, context: WriterContext) -> Writer:
        return _Writer()

    def commit(self, tokens: Sequence[Token]) -> None:
        for token in tokens:
            rows = pl.read_ipc_stream(io.BytesIO(base64.b64decode(token["rows"])))
            known = self.committed.setdefault(token["checkpoint"], rows)
            if not known.equals(rows):
                raise AssertionError(f"checkpoint {token['checkpoint']} is committed again with other rows")

    def result(self, schema: pl.Schema | None = None) -> pl.DataFrame:
        """The rows of all commits, in the order of their checkpoints."""
        frames = [self.committed[number] for number in sorted(self.committed)]
        return pl.concat([*([pl.DataFrame(schema=schema)] if schema is not None else []), *frames])


class _Writer(Writer):
    def __init__(self) -> None:
        self._frames: list[pl.DataFrame] = []

    def write(self, frame: pl.DataFrame) -> None:
        self._frames.append(frame)

    def prepare(self, checkpoint_id: int) -> Token | None:
        if not self._frames:
            return None
        buffer = io.BytesIO()
        pl.concat(self._frames).write_ipc_stream(buffer)
        self._frames = []
        return {"checkpoint": checkpoint_id, "rows": base64.b64encode(buffer.getvalue()).decode("ascii")}
