"""Nexmark events as files: written once, then read and counted as often as wanted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

import unistream as us
from unistream.nexmark.sources import KINDS, Sources, timed

FORMATS = ("parquet", "ndjson", "csv")
FIRST_EVENT = datetime(2015, 7, 15)

_MAKE = "`unistream bench generate FOLDER` writes all three kinds"


def generate_events(
    folder: str | Path,
    events: int,
    *,
    form: str = "parquet",
    kinds: Sequence[str] = KINDS,
    event_rate: float = 10_000,
    seed: int = 0,
    start: datetime = FIRST_EVENT,
    overwrite: bool = False,
    progress: bool | None = None,
) -> Iterator[tuple[str, us.Progress]]:
    """Write each kind of event to a folder of its own within `folder`; gives each kind as it is done.

    `event_rate` says how many events happen in a second of event time.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     written = {kind: done.rows_out for kind, done in generate_events(folder, 100, progress=False)}
    ...     written, count_events(folder)
    ({'person': 2, 'auction': 6, 'bid': 92}, 100)
    """
    for kind in dict.fromkeys(kinds):
        # The rate is that of the past: everything is due at once.
        stream = us.scan_nexmark(events, which=kind, rate=event_rate, seed=seed, start=start)  # type: ignore[arg-type]
        sink: Any = getattr(stream, f"sink_{form}")
        job: us.Job = sink(Path(folder, kind), mode="overwrite" if overwrite else "error")
        yield kind, job.run(progress=progress)


def from_files(folder: str | Path) -> Sources:
    """Read what `generate_events` wrote, in whichever format."""
    streams = {}
    for kind in KINDS:
        form, files = _files(Path(folder), kind)
        # Line files say nothing of types; Parquet files do.
        options = {} if form == "parquet" else {"schema": us.scan_nexmark(which=kind).schema}  # type: ignore[arg-type]
        streams[kind] = getattr(us, f"scan_{form}")(files, **options)
    return timed(streams)


def count_events(folder: str | Path) -> int:
    """How many events of all kinds lie there; an error when there are none, or not all kinds."""
    found = 0
    for kind in KINDS:
        form, files = _files(Path(folder), kind)
        try:
            found += getattr(pl, f"scan_{form}")(files).select(pl.len()).collect().item()
        except pl.exceptions.PolarsError as error:
            raise us.DataError(f"{files} cannot be read: {error}", hint=_MAKE) from error
    if not found:
        raise us.InvalidSettings(f"There are no events in {folder}", hint=_MAKE)
    return found


def _files(folder: Path, kind: str) -> tuple[str, Path]:
    """Format and pattern of the files of one kind."""
    try:
        if not folder.is_dir():
            raise us.InvalidSettings(f"There is no folder {str(folder)!r}", hint=_MAKE)
        if not (folder / kind).is_dir():
            raise us.InvalidSettings(f"There is no folder {kind!r} in {str(folder)!r}", hint=_MAKE)
        endings = {path.suffix[1:] for path in (folder / kind).iterdir() if path.name[0] not in "._"}
    except OSError as error:
        hint = f"a folder that you may read is needed; {_MAKE}"
        raise us.ConnectorError(f"{folder / kind} cannot be read: {error.strerror}", hint=hint) from error
    forms = [form for form in FORMATS if form in endings]
    if len(forms) != 1:
        what = f"files of {len(forms)} formats" if forms else "no Parquet, NDJSON or CSV files"
        raise us.InvalidSettings(f"There are {what} in {str(folder / kind)!r}", hint=_MAKE)
    return forms[0], folder / kind / f"*.{forms[0]}"
