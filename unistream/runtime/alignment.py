"""Event-time alignment: a source far ahead of those it meets is not read from until they have caught up."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from unistream.durations import Duration, microseconds, spelled
from unistream.elements import MIN_TIME
from unistream.operators.base import OperatorSpec
from unistream.runtime.task import OperatorTask, SourceTask, Task

PATIENCE = 10_000_000
"""How long (microseconds) a source without `idle_after` that has nothing to give holds the others back."""


@dataclass(frozen=True, slots=True)
class HeldBack:
    """Why a source is not read from: it is `ahead` microseconds ahead of `of`, or `of` has not begun."""

    ahead: int | None
    of: str
    lacks: str = "has no event time yet"

    def __str__(self) -> str:
        if self.ahead is None:
            return f"held back: {self.of} {self.lacks}"
        return f"held back: {spelled(self.ahead // 1000 * 1000)} ahead of {self.of}"


@dataclass(slots=True)
class _Member:
    """A source of a group: how far it may run ahead, and when it last was known to have something to give."""

    task: SourceTask
    allowed: int | None
    patience: int
    busy: int = MIN_TIME

    def time(self) -> int | None:
        """How far it has come by its slowest clock; None when it holds nobody and nothing holds it."""
        if self.task.ended:
            return None
        name = self.task.vertex.id
        times = [operator.source_time(name) for operator in self.task.listeners]
        return min((time for time in times if time is not None), default=None)

    def waited_for(self, time: int, now: int, patient: bool) -> bool:
        """Whether the others wait for it: not when it has had nothing to give for long, or ever."""
        status = self.task.feed.status()
        if self.task.took or not (status.caught_up or status.exhausted):
            self.busy = now
            return True
        return patient and time != MIN_TIME and now < self.busy + self.patience


class Alignment:
    """Decides before each tick which sources are held back.

    Sources whose event times meet somewhere (in a join, in a union) are a group. Each has one time, and the
    one that is least behind which anybody waits is never held; so there is always one that goes on.
    With `patient` off (a run until what is there has been read) nobody waits for a source that gives nothing.
    """

    def __init__(self, tasks: Sequence[Task], default: Duration | None, patient: bool) -> None:
        self._patient = patient
        allowed = None if default is None else microseconds(default, "max_drift")
        self._groups = [
            [_member(source, tasks, allowed) for source in group] for group in _groups_that_meet(tasks)
        ]
        members = [member for group in self._groups for member in group]
        if all(member.allowed is None for member in members):
            self._groups = []

    def step(self, now: int, apart: Collection[SourceTask]) -> None:
        """Hold back and let go, but for those `apart`: they wait for others, which may not wait for them."""
        for group in self._groups:
            self._align([member for member in group if member.task not in apart], now)

    def lets_go(self, now: int, apart: Collection[SourceTask]) -> bool:
        """Whether a source that is held back may go on now."""
        members = [member for group in self._groups for member in group if member.task not in apart]
        held = [member for member in members if member.task.held is not None]
        if held:
            self.step(now, apart)
        return any(member.task.held is None for member in held)

    def _align(self, group: Sequence[_Member], now: int) -> None:
        times = [(member, member.time()) for member in group]
        waited = [
            (time, member.task)
            for member, time in times
            if time is not None and member.waited_for(time, now, self._patient)
        ]
        least = min(waited, key=lambda each: each[0], default=None)
        for member, time in times:
            member.task.hold(None if time is None or least is None else _held(member, time, *least))


def _held(member: _Member, time: int, least: int, slowest: SourceTask) -> HeldBack | None:
    if member.allowed is None or time == MIN_TIME or time - least <= member.allowed:
        return None
    return HeldBack(None if least == MIN_TIME else time - least, slowest.vertex.id)


def _member(source: SourceTask, tasks: Iterable[Task], default: int | None) -> _Member:
    clocks = [task for task in tasks if isinstance(task, OperatorTask) and task.operator in source.listeners]
    specs = [task.vertex.payload for task in clocks if isinstance(task.vertex.payload, OperatorSpec)]
    drifts = [spec.max_drift for spec in specs if spec.max_drift is not None]
    idle = [spec.idle_after for spec in specs if spec.idle_after is not None]
    return _Member(source, min(drifts, default=default), max(idle, default=PATIENCE))


def _groups_that_meet(tasks: Sequence[Task]) -> list[list[SourceTask]]:
    """Sources whose event time comes together somewhere, if more than one does."""
    sources: dict[str, SourceTask] = {
        task.vertex.id: task for task in tasks if isinstance(task, SourceTask) and task.listeners
    }
    behind: dict[Task, frozenset[str]] = {}
    group_of: dict[str, frozenset[str]] = {name: frozenset([name]) for name in sources}
    for task in tasks:  # every task comes behind those it reads from
        behind[task] = _sources_behind(task, sources, behind)
        merged = frozenset[str]().union(*[group_of[name] for name in behind[task]])
        group_of |= dict.fromkeys(merged, merged)
    groups = {group for group in group_of.values() if len(group) > 1}
    return [[source for name, source in sources.items() if name in group] for group in groups]


def _sources_behind(
    task: Task, sources: Mapping[str, SourceTask], behind: Mapping[Task, frozenset[str]]
) -> frozenset[str]:
    if not isinstance(task, OperatorTask):
        return frozenset()
    own = frozenset(name for name, source in sources.items() if task.operator in source.listeners)
    return own.union(*[behind[origin] for origin in task.timed_upstream()])
