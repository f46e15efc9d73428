"""Settings of a job: one frozen record, from keywords, the environment and TOML."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

from unistream.durations import Duration, seconds
from unistream.errors import InvalidSettings
from unistream.location import user_location

ENVIRONMENT_PREFIX = "UNISTREAM_"

_INTERVALS = ("checkpoint_interval", "max_drift", "progress_interval")
_COUNTS = (
    "tick_rows",
    "tick_bytes",
    "queue_chunks",
    "queue_bytes",
    "checkpoints_kept",
    "key_groups",
    "memory_budget_bytes",
)
_SWITCHES = ("whole_query", "debug")
_ON, _OFF = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a job runs. Durations take `"10s"`, a `timedelta` or seconds, and are kept in seconds.

    >>> Settings(tick_rows=50_000, checkpoint_interval="30s").checkpoint_interval
    30.0
    """

    tick_rows: int = 250_000
    """Most rows of one source in one tick."""
    tick_bytes: int = 64 << 20
    """Most bytes of one source in one tick."""
    queue_chunks: int = 64
    """Most chunks read ahead per source; a full queue makes the reader wait."""
    queue_bytes: int = 32 << 20
    """Most bytes read ahead per source."""
    checkpoint_interval: Duration = 10.0
    """Seconds between checkpoints."""
    checkpoints_kept: int = 3
    """Complete checkpoints kept; older ones are removed."""
    key_groups: int = 128
    """Parts that keyed state is divided into; fixed for the life of a job."""
    memory_budget_bytes: int = 4 << 30
    """Keyed state kept in memory; colder parts go to disk beyond it."""
    max_drift: Duration | None = 3600.0
    """Seconds of event time a source may be ahead of the slowest it meets in a join or union; None: any."""
    whole_query: bool = True
    """Hand bounded parts to one Polars query where that gives the same rows."""
    progress_interval: Duration = 0.25
    """Seconds between updates of the progress display."""
    debug: bool = False
    """Show the inner trace of errors."""

    def __new__(cls, *_: Any, **given: Any) -> Self:
        """Only to name the nearest setting when one is misspelled."""
        cls._check_names(given, "setting")
        return object.__new__(cls)

    def __post_init__(self) -> None:
        for name in _INTERVALS:
            self._check_interval(name)
        for name in _COUNTS:
            self._check_count(name)
        for name in _SWITCHES:
            self._check_switch(name)

    def _check_interval(self, name: str) -> None:
        given = getattr(self, name)
        if given is None and name == "max_drift":
            return
        found = seconds(given, name)
        if found < 0:
            hint = f'give a length of time from zero on, as in {name}="5s"'
            raise InvalidSettings(f"{name}={given!r} is less than nothing", user_location(), hint)
        object.__setattr__(self, name, found)

    def _check_count(self, name: str) -> None:
        value = getattr(self, name)
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value < 2**63:
            unit = ", in bytes" if name.endswith("_bytes") else ""
            hint = f"the default is {type(self).__dataclass_fields__[name].default}{unit}"
            most = " and below 2**63" if isinstance(value, int) and value > 1 else ""
            problem = f"Setting {name!r} must be a whole number from 1{most}, not {value!r}"
            raise InvalidSettings(problem, user_location(), hint)

    def _check_switch(self, name: str) -> None:
        value = getattr(self, name)
        if not isinstance(value, bool):
            hint = "in the environment and on the command line also yes and no, on and off, 1 and 0"
            problem = f"Setting {name!r} must be True or False, not {value!r}"
            raise InvalidSettings(problem, user_location(), hint)

    @classmethod
    def load(
        cls,
        keywords: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> Settings:
        """Keywords win over `UNISTREAM_*` variables, those over `unistream.toml`, that over defaults."""
        values: dict[str, Any] = {}
        file = (folder or Path()) / "unistream.toml"
        if file.is_file():
            try:
                values |= tomllib.loads(file.read_text())
            except tomllib.TOMLDecodeError as error:
                hint = 'write lines such as `tick_rows = 50_000` or `checkpoint_interval = "30s"`'
                raise InvalidSettings(f"{file} is not valid TOML: {error}", user_location(), hint) from error
        cls._check_names(values, f"setting in {file.name}")
        given = os.environ if environment is None else environment
        from_environment = {
            name.removeprefix(ENVIRONMENT_PREFIX).lower(): parsed(text)
            for name, text in given.items()
            if name.startswith(ENVIRONMENT_PREFIX) and not name.startswith(ENVIRONMENT_PREFIX + "TEST_")
        }
        cls._check_names(from_environment, f"setting in the environment ({ENVIRONMENT_PREFIX}...)")
        cls._check_names(keywords or {}, "setting")
        texts = {**from_environment, **(keywords or {})}  # the command line's come as keywords
        for name in texts.keys() & set(_SWITCHES):
            texts[name] = _switch(texts[name])
        return cls(**{**values, **texts})

    def override(self, **changes: Any) -> Settings:
        """The same settings with some replaced."""
        self._check_names(changes, "setting")
        return replace(self, **changes)

    @classmethod
    def _check_names(cls, given: Iterable[str], what: str) -> None:
        known = {field.name for field in fields(cls)}
        for name in given:
            if name not in known:
                raise InvalidSettings.from_unknown(what, name, known, user_location())


def parsed(text: str) -> Any:
    """A variable's value as TOML would read it; anything else is text."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except ValueError:  # also what Python finds too long to be a number
        return text


def _switch(value: Any) -> Any:
    """What a word such as `No` means for a setting that is on or off; anything else as it is."""
    word = str(value).strip().lower()
    return word in _ON if word in _ON + _OFF else value
