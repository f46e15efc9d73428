"""What travels on an edge: batches, watermarks, barriers and the end."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

MIN_TIME = -(2**63)
"""Watermark of an input that has promised nothing yet."""

MAX_TIME = 2**63 - 1
"""Watermark of an input that has ended: nothing is late before it, everything is after."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Some rows, the input of the operator they go to, and the part of the source they came from.

    `split` stays with rows until event time is assigned, because a watermark is kept per split; it is
    empty afterwards and where rows of several splits were mixed.
    """

    frame: pl.DataFrame
    port: int = 0
    split: str = ""


@dataclass(frozen=True, slots=True)
class Watermark:
    """No row with an earlier event time (microseconds since the epoch, UTC) is still expected."""

    time: int


@dataclass(frozen=True, slots=True)
class Barrier:
    """Rows before it belong to checkpoint `checkpoint_id`, rows after it do not."""

    checkpoint_id: int


@dataclass(frozen=True, slots=True)
class End:
    """The input gives no more rows."""


Element = Batch | Watermark | Barrier | End
