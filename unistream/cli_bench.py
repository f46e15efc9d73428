"""`unistream bench generate`: the events of the Nexmark benchmark as files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import unistream as us
from unistream.runtime.progress import Progress

KINDS = ("person", "auction", "bid")
FORMATS = ("parquet", "ndjson", "csv")
FIRST_EVENT = datetime(2015, 7, 15)


def generate_events(
    folder: Path,
    events: int,
    *,
    form: str = "parquet",
    kinds: Sequence[str] = KINDS,
    event_rate: float = 10_000,
    seed: int = 0,
    start: datetime = FIRST_EVENT,
    overwrite: bool = False,
    progress: bool | None = None,
) -> Iterator[tuple[str, Progress]]:
    """Write each kind of event to a folder of its own within `folder`; gives each kind as it is done.

    `event_rate` says how many events happen in a second of event time.
    """
    for kind in dict.fromkeys(kinds):
        # The rate is that of the past: everything is due at once.
        stream = us.scan_nexmark(events, which=kind, rate=event_rate, seed=seed, start=start)  # type: ignore[arg-type]
        sink: Any = getattr(stream, f"sink_{form}")
        job: us.Job = sink(folder / kind, mode="overwrite" if overwrite else "error")
        yield kind, job.run(progress=progress)
