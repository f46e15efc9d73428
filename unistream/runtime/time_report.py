"""Why time stands where it does: watermarks of a running job, who holds them, and what waits for them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from unistream.durations import spelled
from unistream.elements import MAX_TIME, MIN_TIME
from unistream.runtime.task import OperatorTask, SourceTask, Task

FAR_AHEAD = 3_600_000_000
"""A split this much ahead of the clock (microseconds) has probably been led there by a wrong row."""


@dataclass(frozen=True, slots=True)
class TimeReport:
    """What `Run.explain_time` answers, as data and, in `lines`, in words.

    `sources` are those held back because they are ahead of others; `windows` are the open windows of the
    key that was asked for, by operator.
    """

    now: int
    operators: Mapping[str, Mapping[str, Any]]
    lines: tuple[str, ...]
    sources: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    windows: Mapping[str, pl.DataFrame] = field(default_factory=dict)

    def __str__(self) -> str:
        return "\n".join(self.lines)

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        from html import escape

        return f"<pre>{escape(str(self))}</pre>"


def time_report(tasks: Iterable[Task], now: int) -> TimeReport:
    """The report of this moment; called from any thread."""
    operators: dict[str, dict[str, Any]] = {}
    sources: dict[str, dict[str, Any]] = {}
    lines: list[str] = []
    for task in tasks:
        held = task.held if isinstance(task, SourceTask) else None
        if held is not None:
            sources[task.vertex.id] = {"held_back_by": held.of, "ahead": held.ahead}
            lines.append(f"{task.vertex.id}: {held}")
        if not isinstance(task, OperatorTask):
            continue
        found = dict(task.operator.explain_time())
        if not found:
            continue
        found["watermark"] = task.watermark
        found["late"] = int(task.metrics.get("late"))
        found["inputs"] = {origin.vertex.id: origin.watermark for origin in task.upstream}
        operators[task.vertex.id] = found
        words = _about_splits(found, now) if "splits" in found else _about_windows(found, task)
        lines.extend(f"{task.vertex.id}: {line}" for line in words)
    if not operators:
        lines.append('No step keeps event time. Say which column it is: .with_event_time("ts", delay="5s")')
    return TimeReport(now, operators, tuple(lines), sources)


def _about_splits(found: Mapping[str, Any], now: int) -> Iterator[str]:
    """Where time is assigned: the watermark, and the split behind it."""
    delay = found["delay"]
    splits: Mapping[str, int] = found["splits"]
    yield f"watermark {moment(found['watermark'])}; rows may come {spelled(delay)} late"
    if found["watermark"] == MAX_TIME:
        return
    holder = found["held_by"]
    waiting = [name for name in found["pending"] if name not in splits]
    if not splits and not waiting and found["watermark"] == MIN_TIME:
        yield f"no rows yet: {holder or 'the source'} has given none"
        return
    if holder is not None and holder not in splits and holder not in waiting:  # a source
        what = (
            "has given no rows yet"
            if found["watermark"] == MIN_TIME
            else "may give older rows in its next file"
        )
        yield f"held back by {holder}, which {what}; with idle_after= a silent source is released"
    elif holder in waiting:
        yield f"held back by {holder}, which has not been read yet"
    elif holder is not None:
        yield from _about_holder(holder, splits)
    for name, time in splits.items():
        ahead = time + delay - now
        if ahead > FAR_AHEAD:
            yield f"{name} is {spelled(rough(ahead))} ahead of the clock: a wrong row? see max_ahead="
    if found["idle"]:
        yield f"idle and not waited for: {', '.join(found['idle'])}"


def _about_holder(holder: str, splits: Mapping[str, int]) -> Iterator[str]:
    others = [time for name, time in splits.items() if name != holder]
    behind = max(others, default=splits[holder]) - splits[holder]
    if behind > 0:
        yield f"held back by {holder}, {spelled(rough(behind))} behind the furthest split"


def _about_windows(found: Mapping[str, Any], task: OperatorTask) -> Iterator[str]:
    """Where windows wait: which one is next, and what is missing for it to fire."""
    watermark, end = task.input_watermark(), found.get("next_window_end")
    if found["late"]:
        yield f"{found['late']:,} rows came after their window was closed; see .late()"
    if len(task.upstream) > 1:
        slowest = min(task.upstream, key=lambda origin: origin.watermark)
        furthest = max(origin.watermark for origin in task.upstream)
        if MIN_TIME < slowest.watermark < furthest < MAX_TIME:
            behind = spelled(rough(furthest - slowest.watermark))
            yield f"waits for its slower input {slowest.vertex.id}, which is {behind} behind"
    if end is None:
        yield "no window is open"
    elif watermark == MIN_TIME:
        yield f"the next window ends at {moment(end)}; there is no watermark yet{because(task)}"
    elif watermark == MAX_TIME:
        yield "all inputs have ended"
    else:
        missing = spelled(rough(max(end - watermark, 0)))
        until = f"it fires when the watermark has moved {missing} further{because(task)}"
        yield f"the next window ends at {moment(end)}; {until}"


def because(task: Task) -> str:
    """The step that assigns the time this one waits for, and what holds it."""
    while task.upstream:
        task = min(task.upstream, key=lambda origin: origin.watermark)
        found = task.operator.explain_time() if isinstance(task, OperatorTask) else {}
        if "held_by" in found:
            held = f", held back by {found['held_by']}" if found["held_by"] else ""
            return f", as {task.vertex.id} says{held}"
    return ""


def moment(micros: int) -> str:
    if micros == MIN_TIME:
        return "not begun"
    if micros == MAX_TIME:
        return "at the end"
    try:
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)
    except OverflowError:
        return f"{micros:,} us"
    return moment.strftime("%Y-%m-%d %H:%M:%S.%f").removesuffix("000").removesuffix(".000")


def rough(micros: int) -> int:
    """Milliseconds are enough for people."""
    return micros // 1000 * 1000
