"""How far a job is: one frozen record, made from its counters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

_APART = ("filtered", "late", "rejected")


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceProgress:
    """One source: rows and bytes read, what lies ahead where that is known, and what it waits for."""

    rows: int
    nbytes: int
    rejected: int = 0
    backlog_rows: int | None = None
    backlog_bytes: int | None = None
    total_rows: int | None = None
    total_bytes: int | None = None
    waiting_for: str = ""
    ended: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Progress:
    """A job at one moment. Rates are over the last few seconds; times are in seconds.

    `rows_in = rows_out + filtered + late + rejected` holds for every stateless step; `operators` has the
    counters of each vertex.
    """

    status: str
    seconds: float = 0.0
    ticks: int = 0
    rows_in: int = 0
    rows_out: int = 0
    bytes_in: int = 0
    filtered: int = 0
    late: int = 0
    rejected: int = 0
    rows_per_second: float = 0.0
    bytes_per_second: float = 0.0
    done: float | None = None
    """Share of a bounded job that is done, 0 to 1, where the sources know their size."""
    seconds_left: float | None = None
    watermark: int | None = None
    """Least watermark over the sinks in microseconds since the epoch; None before the first."""
    watermark_lag: float | None = None
    checkpoint: int | None = None
    checkpoint_age: float | None = None
    sources: Mapping[str, SourceProgress] = field(default_factory=dict)
    operators: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def __repr__(self) -> str:
        also = (f", {count:,} {what}" for what in _APART if (count := getattr(self, what)))
        return f"<Progress {self.status}: {self.rows_in:,} rows in, {self.rows_out:,} out{''.join(also)}>"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON and logs."""
        return asdict(self)
