"""The tick: poll, push, advance time, fire timers, let sinks write."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from unistream.errors import InvalidSettings, UnistreamError
from unistream.faults import point
from unistream.graph import JobGraph, Kind, Vertex, WholeQuery
from unistream.io.base import Cancelled, LazyWrite, Sink, WriterContext
from unistream.metrics import Metrics
from unistream.one_query import Unmet
from unistream.runtime.alignment import Alignment
from unistream.runtime.assembly import Assembly
from unistream.runtime.freed_memory import keep_freed_memory
from unistream.runtime.key_report import with_key
from unistream.runtime.meter import Meter
from unistream.runtime.places import check_places
from unistream.runtime.precedence import Precedence
from unistream.runtime.progress import Progress
from unistream.runtime.query_run import run_query
from unistream.runtime.questions import Questions
from unistream.runtime.surroundings import Surroundings
from unistream.runtime.task import SinkTask, SourceTask, Task, failure
from unistream.runtime.time_report import TimeReport, time_report
from unistream.state.backend import StateStore

if TYPE_CHECKING:
    from unistream.runtime.checkpoint import Checkpoints

logger = logging.getLogger(__name__)

IDLE_WAIT = 0.1
"""Longest wait for input, in seconds, so that ages and stops are noticed."""

T = TypeVar("T")


class LocalRuntime:
    """Runs a graph in the thread that calls it; readers have threads of their own unless `threads` is off."""

    def __init__(self, graph: JobGraph, surroundings: Surroundings) -> None:
        self._graph = graph
        self._with = surroundings
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._bounded = graph.bounded
        self._commits = 0
        self.metrics = Metrics()
        self.tasks: dict[str, Task] = {}
        self._query: LazyWrite | None = None
        self._meter = Meter(surroundings.clock, self.metrics)
        self._contexts: dict[str, WriterContext] = {}
        self._checkpoints: Checkpoints | None = None
        self._draining = False
        self.stores: dict[str, StateStore] = {}
        """The state of the operators that keep any; for the operator thread alone."""
        self._questions = Questions()

    # Set-up and end

    def open(self) -> None:
        """Check targets, open writers, operators and readers, in this order: nothing is read in vain."""
        keep_freed_memory()
        around = self._with
        check_places(self._graph, around.checkpoint)
        if around.checkpoint is not None:
            from unistream.runtime.checkpoint import Checkpoints  # most runs do without

            self._checkpoints = Checkpoints(
                around.checkpoint,
                around.settings,
                around.clock,
                around.random,
                background=around.threads,
                restore=around.restore,
            )
        self._check_targets()
        self._open_graph()

    def _check_targets(self) -> None:
        kept = self._checkpoints
        for vertex in self._graph:
            if vertex.kind in (Kind.SINK, Kind.QUERY):
                _sink_of(vertex).prepare_target(kept is not None and kept.restored)

    def _open_graph(self) -> None:
        around = self._with
        self._open_sinks()
        for vertex in self._graph:
            if isinstance(vertex.payload, WholeQuery):
                self._query = vertex.payload.sink.lazy(vertex.payload.query, self._contexts[vertex.id])
                self._meter.follow_query(self._query)
        assembly = Assembly(self._graph, around, self._checkpoints, self._contexts, self.metrics, self._wake)
        self.tasks, self.stores = assembly.tasks, assembly.stores  # filled, and closed, even if one fails
        assembly.make()
        tasks = list(self.tasks.values())
        self._meter.follow(tasks)
        self._alignment = Alignment(tasks, around.settings.max_drift, patient=around.until != "available")
        self._precedence = Precedence(tasks)
        if self._checkpoints is not None:
            self._checkpoints.check_all_used(list(self.tasks), list(self.stores), around.allow_dropped_state)
            self._checkpoints.follow(tasks)

    def _open_sinks(self) -> None:
        """Places for what is written, brought to where the restored checkpoint left them."""
        kept = self._checkpoints
        job_id = self._with.random.token() if kept is None else kept.job_id
        for vertex in self._graph:
            if vertex.kind not in (Kind.SINK, Kind.QUERY):
                continue
            context = WriterContext(
                f"{job_id}-{vertex.id}",
                vertex.schema,
                checkpoints=kept is not None,
                bounded=self._bounded,
                stopping=self._stopping,
            )
            self._contexts[vertex.id] = context
            if kept is not None:
                try:
                    _sink_of(vertex).recover(kept.tokens(vertex.id), context)
                except UnistreamError:
                    raise
                except Exception as error:
                    raise failure(vertex, error) from error

    def close(self) -> None:
        """Give back everything; what was written and not committed is discarded.

        With checkpoints what was prepared stays: a restart commits or drops it, as the newest one says.
        """
        self._questions.close()
        with ExitStack() as closing:  # the last comes first, and one that fails keeps no other open
            if self._checkpoints is not None:
                closing.callback(self._checkpoints.close)
            else:
                self._abort_at(closing)
            for task in self.tasks.values():
                closing.callback(task.close)
            closing.callback(self._meter.stopped)

    def _abort_at(self, closing: ExitStack) -> None:
        for vertex in self._graph:
            if vertex.id in self._contexts:
                closing.callback(_sink_of(vertex).abort, self._contexts[vertex.id])

    # Running

    def run(self) -> bool:
        """Tick until the end or until `stop`; true when the job came to its end."""
        while self._query is not None:
            try:
                return self._run_query(self._query)
            except Unmet as unmet:
                logger.info("not as one query, because %s", unmet)
                self._begin_anew(unmet)
        while not self._stopping.is_set() and self.step():
            pass
        return self.conclude()

    def step(self) -> bool:
        """One tick, and a wait for input when there was none; false when nothing can come any more."""
        self._wake.clear()
        more = self.tick()
        if more and not self._took_input():
            self._with.clock.wait(self._wake, self._idle_wait())
        return more

    def conclude(self) -> bool:
        """Commit what may be committed; true when the job came to its end."""
        if self._draining:
            for task in self.tasks.values():
                if isinstance(task, SourceTask):
                    task.end()
            while self.step() and self._busy():
                pass
        finished = not self._stopping.is_set() or all(task.ended for task in self.tasks.values())
        if self._checkpoints is not None:
            self._checkpoints.step(list(self.tasks.values()), final=True)
        elif finished or not self._bounded:
            self._commit(everything=True)
        return finished and not self._draining

    def stop(self, drain: bool = False) -> None:
        """Let the tick that is going on finish, then end. Called from any thread.

        With `drain` the inputs count as ended: windows close and timers fire before the end.
        """
        self._draining = drain
        self._stopping.set()
        self._wake.set()
        if self._query is not None:
            self._query.cancel()

    def tick(self) -> bool:
        """One round through all tasks; false when nothing can come any more."""
        self._questions.answer()
        now = self._with.clock.now()
        self._precedence.step()
        self._alignment.step(now, self._precedence.waiting)
        with point("tick"):
            for task in self.tasks.values():
                task.run(now)
        self._meter.ticked()
        if self._checkpoints is not None:
            self._checkpoints.step(list(self.tasks.values()))
        elif not self._bounded:
            self._commit(everything=False)
        if all(task.ended for task in self.tasks.values()):
            return False
        return not (self._with.until == "available" and self._caught_up())

    def _caught_up(self) -> bool:
        if self._busy():
            return False
        sources = [task for task in self.tasks.values() if isinstance(task, SourceTask)]
        return all(not task.took and (task.ended or task.feed.status().caught_up) for task in sources)

    def _busy(self) -> bool:
        return any(task.busy() for task in self.tasks.values())

    def _took_input(self) -> bool:
        """Whether there is no need to wait: something came in, or a source was just let go."""
        if self._precedence.lets_go():
            return True
        if self._alignment.lets_go(self._with.clock.now(), self._precedence.waiting):
            return True
        return any(task.took for task in self.tasks.values() if isinstance(task, SourceTask))

    def _idle_wait(self) -> float:
        wakeups = [wakeup for task in self.tasks.values() if (wakeup := task.next_wakeup()) is not None]
        if not wakeups:
            return IDLE_WAIT
        return min(IDLE_WAIT, max(0.0, (min(wakeups) - self._with.clock.now()) / 1_000_000))

    def _commit(self, everything: bool) -> None:
        """Without checkpoints: commit the sinks that are due, or all of them at the end."""
        now = self._with.clock.now()
        sinks = [task for task in self.tasks.values() if isinstance(task, SinkTask)]
        ready = sinks if everything else [task for task in sinks if task.due(now)]
        if not ready:
            return
        self._commits += 1
        tokens = [(task, task.prepare(self._commits)) for task in ready]
        for task, token in tokens:
            task.commit(token)

    def _run_query(self, query: LazyWrite) -> bool:
        vertex = self._graph.of_kind(Kind.QUERY)[0]
        payload = vertex.payload
        assert isinstance(payload, WholeQuery)
        if not payload.conditions:
            self._questions.close()  # there are no ticks, and no state
        try:
            token = run_query(vertex, payload, query)
        except Cancelled:
            return False
        self._questions.close()
        if token is not None:
            payload.sink.commit([token])
        self._meter.query_ended(payload, query.progress())
        return True

    def _begin_anew(self, unmet: Unmet) -> None:
        """The rows are not for this query: nothing of it is kept, and what stands in for it is opened."""
        vertex = self._graph.of_kind(Kind.QUERY)[0]
        assert isinstance(vertex.payload, WholeQuery)
        vertex.payload.sink.abort(self._contexts.pop(vertex.id))
        self._query = None
        self._graph = vertex.payload.instead(unmet)
        self._bounded = self._graph.bounded
        self._open_graph()
        if self._query is not None and self._stopping.is_set():  # a stop that comes later finds the new one
            self._query.cancel()

    # Looking

    def explain_time(self, key: object = None) -> TimeReport:
        """Why time stands where it does; from any thread, but with a key only between two ticks."""
        report = time_report(self.tasks.values(), self._with.clock.now())
        return report if key is None else with_key(report, self.tasks.values(), key)

    def ask(self, function: Callable[[], T]) -> Future[T]:
        """Have `function` called between two ticks, when nothing changes. Called from any thread."""
        answer = self._questions.ask(function)
        self._wake.set()
        return answer

    def savepoint(self, target: str | Path) -> Future[int]:
        """Keep a checkpoint of the next moment between two ticks, copied to `target`; its id."""
        kept = self._checkpoints
        if kept is None:
            raise InvalidSettings(
                "A savepoint is a copy of a checkpoint, and this job keeps none",
                hint="start the job with checkpoint=...",
            )
        answer: Future[int] = Future()
        wanted = self.ask(lambda: kept.want_savepoint(target, answer))
        wanted.add_done_callback(lambda asked: _pass_on(asked, answer))
        return answer

    def progress(self, status: str) -> Progress:
        """Where the job stands; called from any thread."""
        latest = None if self._checkpoints is None else self._checkpoints.latest
        return self._meter.progress(status, latest)


def _pass_on(asked: Future[None], answer: Future[int]) -> None:
    error = asked.exception()
    if error is not None:
        answer.set_exception(error)


def _sink_of(vertex: Vertex) -> Sink:
    payload = vertex.payload.sink if isinstance(vertex.payload, WholeQuery) else vertex.payload
    if not isinstance(payload, Sink):
        raise TypeError(f"vertex {vertex.id} holds a {type(payload).__name__}")
    return payload
