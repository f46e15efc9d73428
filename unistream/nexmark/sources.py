"""Where the queries read from: the three kinds of events as streams with event time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import polars as pl

import unistream as us

KINDS = ("person", "auction", "bid")
DELAY = "4s"
"""How much out of order events may be, as the benchmark has it."""


def side_input() -> pl.DataFrame:
    """The table of query 13."""
    keys = pl.DataFrame({"key": pl.int_range(10_000, eager=True)})
    return keys.with_columns(value=pl.format("value {}", "key"))


@dataclass(frozen=True)
class Sources:
    """Persons, auctions and bids of one history, and the table of query 13."""

    person: us.Stream
    auction: us.Stream
    bid: us.Stream
    side_input: pl.DataFrame = field(default_factory=side_input)


def timed(streams: Mapping[str, us.Stream]) -> Sources:
    """Streams by kind, each with its event time."""
    person, auction, bid = (streams[kind].with_event_time("dateTime", delay=DELAY) for kind in KINDS)
    return Sources(person, auction, bid)


def generated(events: int | None = None, **options: Any) -> Sources:
    """Read from the generator as events are made; options as for `us.scan_nexmark`."""
    return timed({kind: us.scan_nexmark(events, which=kind, **options) for kind in KINDS})  # type: ignore[arg-type]


def in_memory(frames: Mapping[str, pl.DataFrame]) -> Sources:
    """Read from frames."""
    return timed({kind: us.from_frame(frames[kind]) for kind in KINDS})


def frames(events: int, **options: Any) -> dict[str, pl.DataFrame]:
    """The same events as frames."""
    return {kind: us.scan_nexmark(events, which=kind, **options).collect() for kind in KINDS}  # type: ignore[arg-type]
