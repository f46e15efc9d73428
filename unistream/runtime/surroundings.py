"""What a job is given beside its graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from unistream.clock import Clock, Random, SystemClock, fresh_random
from unistream.config import Settings
from unistream.state.backend import StateStore

StoreFactory = Callable[[str], StateStore]


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What a job is given beside its graph."""

    store: StoreFactory
    checkpoint: str | Path | None = None
    restore: int | str | Path | None = None
    allow_dropped_state: bool = False
    settings: Settings = field(default_factory=Settings)
    clock: Clock = field(default_factory=SystemClock)
    random: Random = field(default_factory=fresh_random)
    threads: bool = True
    until: str = "end"
