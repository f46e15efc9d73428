"""A source that runs ahead in event time is held back: little is kept, nobody waits for ever."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pytest

import unistream as us
from unistream.api.job import Job
from unistream.io.memory import MemorySink
from unistream.plan.nodes import Write
from unistream.runtime.local import LocalRuntime
from unistream.testing import ListSource, Pause, VirtualClock

SCHEMA = pl.Schema({"t": pl.Int64, "k": pl.Int64})
UNLIMITED = us.Settings(whole_query=False, max_drift=None)
MINUTES = us.Settings(whole_query=False, max_drift="10m")


def rows(times: Sequence[int]) -> pl.DataFrame:
    return pl.DataFrame({"t": times, "k": [time % 7 for time in times]}, schema=SCHEMA)


def stream(items: Sequence[object], bounded: bool = True, **time: str) -> us.Stream:
    source = ListSource(SCHEMA, items, bounded=bounded)  # type: ignore[arg-type]
    return us.scan(source).with_event_time("t", unit="s", **time)  # type: ignore[arg-type]


def paced(step: int, end: int = 10_000, **time: str) -> us.Stream:
    """A row a second, `step` of them a tick."""
    return stream([rows(range(first, first + step)) for first in range(0, end, step)], **time)


class Watched:
    """A job ticked by hand."""

    def __init__(
        self,
        asked: us.Stream,
        settings: us.Settings = MINUTES,
        until: str = "end",
        also: Sequence[us.Job] = (),
    ) -> None:
        self.sink = MemorySink()
        self.clock = VirtualClock()
        job = us.job(Job((Write(input=asked._node, sink=self.sink),)), *also)
        self.runtime: LocalRuntime = job.runtime(
            clock=self.clock,
            threads=False,
            settings=settings,
            until=until,  # type: ignore[arg-type]
        )
        self.runtime.open()
        self.most_kept = 0.0

    def steps(self, count: int) -> bool:
        """So many ticks; false when the job came to its end within them."""
        for _ in range(count):
            more = self.runtime.step()
            counts = self.runtime.progress("running").operators.values()
            self.most_kept = max([self.most_kept, *(each.get("rows_kept", 0) for each in counts)])
            if not more:
                self.runtime.conclude()
                return False
        return True

    def to_end(self) -> list[tuple[object, ...]]:
        assert not self.steps(20_000), "it does not come to its end"
        self.runtime.close()
        return sorted(self.sink.result().rows())

    def held(self) -> dict[str, str]:
        sources = self.runtime.progress("running").sources
        return {name: source.waiting_for for name, source in sources.items() if "held" in source.waiting_for}

    def read(self, name: str) -> int:
        return self.runtime.progress("running").sources[name].rows


def joined(fast: us.Stream, slow: us.Stream) -> us.Stream:
    return fast.join(slow, on="k", within=("0s", "5s")).select("t", "t_right", "k")


def test_what_a_join_keeps_stays_small_beside_a_source_that_is_100_times_faster() -> None:
    query = joined(paced(2_000), paced(20))
    free, held = Watched(query, UNLIMITED), Watched(query, MINUTES)
    assert free.to_end() == held.to_end()
    assert free.most_kept > 9_000
    assert held.most_kept < 600 + 2 * 2_000


def test_a_limit_of_the_stream_wins_over_that_of_the_job() -> None:
    narrow = Watched(joined(paced(100, max_drift="1m"), paced(20)), MINUTES)
    free = Watched(joined(paced(100), paced(20)), UNLIMITED)
    assert narrow.to_end() == free.to_end()
    assert narrow.most_kept < 60 + 3 * 100 < 600


def test_a_union_is_aligned_too_before_and_after_time_is_said() -> None:
    timed = paced(2_000).union(paced(20))
    raw = [
        us.scan(ListSource(SCHEMA, [rows(range(first, first + step)) for first in range(0, 10_000, step)]))
        for step in (2_000, 20)
    ]
    for query in (timed, raw[0].union(raw[1]).with_event_time("t", unit="s")):
        counts = query.window(us.tumbling("1m")).agg(n=pl.len())
        watched = Watched(counts)
        watched.steps(20)
        assert "ahead of" in next(iter(watched.held().values()))
        assert watched.to_end() == Watched(counts, UNLIMITED).to_end()


def test_sources_that_never_meet_do_not_wait_for_each_other() -> None:
    fast, slow = MemorySink(), MemorySink()
    both = Job((Write(input=paced(2_000)._node, sink=fast), Write(input=paced(20)._node, sink=slow)))
    runtime = both.runtime(clock=VirtualClock(), threads=False, settings=MINUTES)
    runtime.open()
    for _ in range(20):
        runtime.tick()
    assert runtime.progress("running").sources["list-1"].rows == 10_000
    runtime.close()


def test_progress_and_the_report_say_who_is_held_back_by_whom() -> None:
    watched = Watched(paced(2_000).union(paced(20)))
    watched.steps(2)
    assert watched.held() == {"list-1": "held back: 32m40s ahead of list-2"}
    report = watched.runtime.explain_time()
    assert "list-1: held back: 32m40s ahead of list-2" in str(report)
    assert report.sources == {"list-1": {"held_back_by": "list-2", "ahead": 1_960_000_000}}
    watched.runtime.close()


@pytest.mark.parametrize("other", [[], [rows([0])]], ids=["empty", "one row"])
def test_a_source_that_has_ended_holds_nobody(other: list[pl.DataFrame]) -> None:
    watched = Watched(paced(2_000).union(stream(other)))
    assert len(watched.to_end()) == 10_000 + len(other)


def test_a_source_that_has_given_nothing_and_has_nothing_holds_nobody() -> None:
    silent = stream([Pause("1d")], bounded=False)
    watched = Watched(paced(2_000).union(silent))
    watched.steps(25)
    assert watched.read("list-1") == 10_000
    watched.runtime.close()


def test_a_silent_source_holds_the_others_for_as_long_as_it_may_be_silent() -> None:
    silent = stream([rows([0]), Pause("1d")], bounded=False, idle_after="30s")
    watched = Watched(paced(2_000, 10_000, idle_after="1s").union(silent))  # held back is not silent
    while watched.clock.now() < 29_000_000:
        watched.steps(1)
        assert watched.read("list-1") == 2_000
    while watched.clock.now() < 31_000_000:
        watched.steps(1)
    watched.steps(10)
    assert watched.read("list-1") == 10_000 and not watched.held()
    watched.runtime.close()


def test_a_silent_source_without_a_limit_is_not_waited_for_for_ever() -> None:
    watched = Watched(paced(2_000, 10_000).union(stream([rows([0]), Pause("1d")], bounded=False)))
    watched.steps(3)
    assert watched.read("list-1") == 2_000 and watched.held()
    watched.clock.advance("10s")
    watched.steps(10)
    assert watched.read("list-1") == 10_000 and not watched.held()
    watched.runtime.close()


def test_a_run_until_what_is_there_is_read_waits_for_no_silent_source() -> None:
    silent = stream([rows([0]), Pause("1d")], bounded=False)
    watched = Watched(paced(2_000, 10_000).union(silent), until="available")
    assert len(watched.to_end()) == 10_001
    assert watched.clock.now() < 1_000_000


def test_three_sources_that_take_turns() -> None:
    parts = [paced(step, 10_000) for step in (50, 100, 2_500)]
    query = parts[0].union(parts[1]).union(parts[2]).group_by("k").window(us.tumbling("1m")).agg(n=pl.len())
    assert Watched(query).to_end() == Watched(query, UNLIMITED).to_end()


def test_held_back_across_a_restart(tmp_path: Path) -> None:
    query = joined(paced(2_000), paced(50))

    def run(ticks: int | None) -> LocalRuntime:
        job = query.sink_parquet(tmp_path / "out")
        runtime = job.runtime(
            clock=VirtualClock(), threads=False, settings=MINUTES, checkpoint=tmp_path / "c"
        )
        runtime.open()
        while (ticks is None or ticks > 0) and runtime.step():
            ticks = None if ticks is None else ticks - 1
        if ticks is None:
            runtime.conclude()
        else:
            runtime.stop()
            runtime.conclude()
        runtime.close()
        return runtime

    run(100)
    run(None)
    written = sorted(pl.read_parquet(tmp_path / "out").rows())
    assert written == Watched(query, UNLIMITED).to_end()


def ruled(rows: us.Stream, rules: us.Stream) -> us.Job:
    """A job in which `rows` wait until those rules are there that are there."""
    return rows.broadcast(rules, lambda frame, table: frame).sink(MemorySink())


def test_a_source_that_waits_for_rules_does_not_hold_the_rules_back() -> None:
    slow, fast = paced(20, 3_000), paced(1_000, 3_000)
    waiting = Watched(joined(slow, fast), also=[ruled(slow, fast)])
    waiting.steps(2)
    assert len(waiting.held()) == 1
    assert "has not given its first rows" in next(iter(waiting.held().values()))
    assert waiting.to_end() == Watched(joined(slow, fast), UNLIMITED).to_end()


def test_a_source_that_waits_for_rules_is_not_let_go_by_those_it_meets() -> None:
    slow, fast = paced(20, 4_000), paced(1_000, 4_000)
    rules = us.scan(ListSource(SCHEMA, [rows([n]) for n in range(5)]))  # one a tick, and without a time
    watched = Watched(slow.union(fast), also=[ruled(slow, rules)])
    waiting = "held back: list-3 has not given its first rows"
    for _ in range(4):
        watched.steps(1)
        assert list(watched.held().values()) == [waiting]
    assert len(watched.to_end()) == 8_000


def test_with_reader_threads_a_held_source_fills_its_queue_and_goes_on() -> None:
    seen: list[pl.DataFrame] = []
    settings = us.Settings(whole_query=False, max_drift="10m", queue_chunks=2, tick_rows=500)
    query = joined(paced(100), paced(50))
    query.sink_batches(seen.append).run(settings=settings, progress=False)
    assert sorted(pl.concat(seen).rows()) == Watched(query, UNLIMITED).to_end()
