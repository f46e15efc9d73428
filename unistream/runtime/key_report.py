"""Which windows are open for one key, what is in them, and why they have not fired yet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import polars as pl

from unistream.durations import spelled
from unistream.elements import MAX_TIME, MIN_TIME
from unistream.errors import InvalidQuery
from unistream.location import user_location
from unistream.operators.base import OpenWindows, OperatorSpec
from unistream.runtime.task import OperatorTask, Task
from unistream.runtime.time_report import TimeReport, because, moment, rough

MOST_NAMED = 10
"""Windows that are described; the data has all of them."""

BOUNDS = ("window_start", "window_end")


def with_key(report: TimeReport, tasks: Iterable[Task], key: object) -> TimeReport:
    """The report with what there is of `key`; called between two ticks. Raises `InvalidQuery`."""
    keyed = [(task, names) for task in tasks if isinstance(task, OperatorTask) and (names := _keys(task))]
    rows = [(task, row) for task, names in keyed if (row := _row(task, names, key)) is not None]
    if not rows:
        raise _unknown(key, {task.vertex.id: names for task, names in keyed})
    lines = list(report.lines)
    windows: dict[str, pl.DataFrame] = {}
    for task, row in rows:
        found = task.operator.open_windows(row)
        if found is not None:
            windows[task.vertex.id] = found.frame
        lines.extend(f"{task.vertex.id}: {line}" for line in _about(found, row, task))
    return replace(report, lines=tuple(lines), windows=windows)


def _keys(task: Task) -> tuple[str, ...]:
    payload = task.vertex.payload
    return tuple(payload.keys or ()) if isinstance(payload, OperatorSpec) else ()


def _row(task: Task, names: tuple[str, ...], key: object) -> pl.DataFrame | None:
    """The key as one row of the step's key columns; None when it is not one of that step."""
    columns = task.vertex.input_schemas[0].columns
    if isinstance(key, Mapping):
        given: dict[str, Any] = dict(key)
    else:
        values = key if isinstance(key, tuple) else (key,)
        given = dict(zip(names, values, strict=False)) if len(names) == len(values) else {}
    if set(given) != set(names) or not set(names) <= set(columns):
        return None
    try:
        return pl.DataFrame([pl.Series(name, [given[name]], columns[name]) for name in names])
    except (TypeError, pl.exceptions.PolarsError):
        return None


def _unknown(key: object, keyed: Mapping[str, tuple[str, ...]]) -> InvalidQuery:
    known = "; ".join(f"{name} by {', '.join(columns)}" for name, columns in keyed.items())
    hint = f"steps by key are {known}: give a value of that type, or a dict with all of these columns"
    return InvalidQuery(
        f"No step of the job has a key like {key!r}", user_location(), hint if known else "use group_by(...)"
    )


def _about(found: OpenWindows | None, row: pl.DataFrame, task: OperatorTask) -> Iterator[str]:
    key = ", ".join(f"{name}={value!r}" for name, value in row.row(0, named=True).items())
    if found is None:
        table = f"run.state({str(task.vertex.id)!r}) has all that it keeps"
        yield f"this step does not look up what it keeps for one key ({key}); {table}"
        return
    if not found.frame.height:
        yield f"no window is open for {key}"
        return
    fires = found.fires or [_fires(end, task) for end in found.ends or ()]
    windows: dict[tuple[object, ...], str] = {}
    for bounds, when in zip(found.frame.select(BOUNDS).rows(), fires, strict=True):
        windows.setdefault(bounds, when)
    yield (
        f"{len(windows):,} windows are open for {key}" if len(windows) > 1 else f"a window is open for {key}"
    )
    one_each = len(windows) == found.frame.height
    values = found.frame.drop(*row.columns, *BOUNDS, strict=False)
    for at, ((start, end), when) in enumerate(windows.items()):
        if at == MOST_NAMED:
            yield f"and {len(windows) - at:,} more"
            return
        now = ", ".join(f"{name}={value}" for name, value in values.row(at, named=True).items())
        yield f"{start} to {end}{f', {now} so far' if one_each and now else ''}: {when}"


def _fires(end: int, task: OperatorTask) -> str:
    watermark = task.input_watermark()
    if watermark == MIN_TIME:
        return f"it fires when the watermark is at {moment(end)}, and there is none yet{because(task)}"
    if watermark == MAX_TIME:
        return "all inputs have ended"
    if end <= watermark:
        return "it has fired, and takes late rows until its allowed lateness is over"
    missing = spelled(rough(end - watermark))
    return f"it fires when the watermark has moved {missing} further{because(task)}"
