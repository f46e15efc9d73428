"""What comes first at the start: rules that are there already, before the rows that they are for."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from unistream.operators.base import OperatorSpec
from unistream.runtime.alignment import HeldBack
from unistream.runtime.task import SourceTask, Task

Waits = dict[SourceTask, list[SourceTask]]
"""For each source those that come before it."""


class Precedence:
    """Decides before each tick which sources wait for what others have to give when the job begins."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self._waits: Waits = {}
        behind: dict[Task, frozenset[SourceTask]] = {}
        for task in tasks:  # every task comes behind those it reads from
            inputs = [behind[origin] for origin in task.upstream]
            behind[task] = frozenset([task] if isinstance(task, SourceTask) else []).union(*inputs)
            spec = task.vertex.payload
            for port in spec.first_inputs if isinstance(spec, OperatorSpec) else ():
                self._put_first(inputs[port], behind[task])

    def _put_first(self, first: frozenset[SourceTask], all: frozenset[SourceTask]) -> None:
        for source in all - first:
            known = self._waits.setdefault(source, [])
            known += [one for one in first if one not in known and not _follows(one, source, self._waits)]

    @property
    def waiting(self) -> Collection[SourceTask]:
        """Those it holds back: nobody else is to hold them, to let them go or to wait for them."""
        return self._waits.keys()

    def step(self) -> None:
        """Hold back, and let go for good."""
        for source in list(self._waits):
            first = self._still_first(source)
            source.hold(HeldBack(None, first[0].vertex.id, "has not given its first rows") if first else None)
            if not first:
                del self._waits[source]

    def lets_go(self) -> bool:
        """Whether a source that waits may go on now."""
        return any(not self._still_first(source) for source in self._waits)

    def _still_first(self, source: SourceTask) -> list[SourceTask]:
        """Those that are not through; what they gave has been worked off when the next tick begins."""
        first = [one for one in self._waits[source] if not (one.ended or one.feed.status().caught_up)]
        self._waits[source] = first
        return first


def _follows(one: SourceTask, other: SourceTask, waits: Mapping[SourceTask, list[SourceTask]]) -> bool:
    """Whether `one` waits for `other`, maybe by way of more: then `other` cannot wait for it too."""
    return any(before is other or _follows(before, other, waits) for before in waits.get(one, ()))
