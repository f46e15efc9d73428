"""Where the processors' time of each query goes: the comparison's runs in ticks, under Python's profiler.

python -m benchmarks.compare.profiles [--events N] [query ...]

Each query runs in a process of its own, after a warm-up, with checkpoints every ten seconds; all its threads
are profiled by the processor time they take. Shares are of all processor time:

- reading: sources on any thread, and threads that are not Python's: Polars parses lines on them
- kernels: Polars, Arrow and NumPy when operators call them by name, and Polars' pool for queries in memory
- state: tables, their indexes, checkpoints
- Python: what is left to operators and the runtime themselves: Python, and NumPy's signs (`a + b` is no call)

`limit` is how fast the query would be if two processors did its reading and nothing else, as a part of what
the run takes; `heaviest` are the functions of unistream, without those that read, that take most with what
they call of others. Expressions over large frames are computed in memory here, else by the streaming engine,
on the threads that parse. The profiler makes calls dearer than they are, so Python's share is an upper bound.
"""

from __future__ import annotations

import argparse
import cProfile
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from types import CodeType
from typing import Any

import unistream
from benchmarks.compare import inputs
from benchmarks.compare.engines.unistream_run import discard
from benchmarks.compare.environments import cache
from benchmarks.compare.protocol import Request
from benchmarks.compare.tables import QUERIES
from benchmarks.measure import in_child
from unistream.operators import stateless

WARM_EVENTS = 200_000
HEAVIEST = 3
LEAST = 0.02
"""The part of the time from which on a function is named."""
PROCESSORS = 2
SHARES = ("reading", "kernels", "state", "Python")


class Room:
    """A folder of unistream, and what time is called there: of its own code, and of libraries it calls."""

    def __init__(self, folder: Iterable[str], own: str, called: str, inner: str = "") -> None:
        self.begins = f"{Path(next(iter(folder))).resolve() / inner}/"
        self.own = own
        self.called = called


ROOMS = [
    Room(unistream.io.__path__, "reading", "reading"),
    Room(unistream.state.__path__, "state", "state"),
    *(Room(unistream.__path__, "Python", "kernels", inner) for inner in ("operators", "expressions")),
    Room(unistream.__path__, "Python", "Python"),
]


def room(code: CodeType | str) -> Room | None:
    """Where a function stands; None for those of libraries."""
    file = "" if isinstance(code, str) else code.co_filename
    return next((room for room in ROOMS if file.startswith(room.begins)), None)


class Profiled:
    """Profiles this thread and all that begin meanwhile, by the processor time of each."""

    def __init__(self) -> None:
        self.profiles: list[cProfile.Profile] = []

    def __enter__(self) -> Profiled:
        threading.setprofile(self._profile)
        self._profile()
        return self

    def __exit__(self, *_: object) -> None:
        threading.setprofile(None)  # type: ignore[arg-type]
        self.profiles[0].disable()

    def _profile(self, *_: object) -> None:
        """Of the thread that calls: this one, or another that begins."""
        profile = cProfile.Profile(time.thread_time)
        self.profiles.append(profile)
        profile.enable()


class Owners:
    """Gives the time of libraries to the functions of unistream that called them."""

    def __init__(self, profiles: Iterable[cProfile.Profile]) -> None:
        self.own: Counter[Any] = Counter()
        self._callers: dict[Any, Counter[Any]] = defaultdict(Counter)
        self._known: dict[Any, Counter[Any]] = {}
        for profile in profiles:
            for entry in profile.getstats():
                self.own[entry.code] += entry.inlinetime
                for call in entry.calls or ():
                    self._callers[call.code][entry.code] += max(call.totaltime, 1e-9)

    def of(self, code: Any) -> Counter[Any]:
        """For which functions a function works, as parts of one: its callers, or theirs."""
        if code in self._known:
            return self._known[code]
        shares = self._known[code] = Counter()  # a ring of calls leads nowhere
        callers = self._callers[code]
        for caller, seconds in callers.items():
            for owner, part in ({caller: 1.0} if room(caller) else self.of(caller)).items():
                shares[owner] += part * seconds / sum(callers.values())
        return shares


def profiled(query: str, events: str, warm: str) -> dict[str, Any]:
    """Where the time of one run went."""
    stateless.SMALL_FRAME = sys.maxsize
    with tempfile.TemporaryDirectory() as scratch:
        request = Request(query, "", events, scratch)
        discard(request, warm, "warm")
        began, cpu, pool = time.perf_counter(), time.process_time(), pool_seconds()
        with Profiled() as found:
            discard(request, events, "kept")
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
        pool = pool_seconds() - pool
    owners = Owners(found.profiles)
    shares, heaviest = spread(owners)
    shares["kernels"] += pool
    shares["reading"] += max(0.0, cpu - pool - sum(owners.own.values()))
    return {"seconds": seconds, "cpu": cpu, "shares": shares, "heaviest": heaviest.most_common(HEAVIEST)}


def spread(owners: Owners) -> tuple[Counter[str], Counter[str]]:
    """Seconds by share, and by function."""
    shares: Counter[str] = Counter()
    functions: Counter[str] = Counter()
    for code, seconds in owners.own.items():
        here = room(code)
        for owner, part in ({code: 1.0} if here else owners.of(code)).items():
            place = room(owner)
            assert place is not None
            name = place.own if here else place.called
            shares[name] += part * seconds
            if name != "reading":
                functions[owner.co_qualname] += part * seconds
    return shares, functions


def pool_seconds() -> float:
    """Processor time of the threads on which Polars runs queries in memory; it parses lines on others."""
    return sum(map(_pool_nanoseconds, Path("/proc/self/task").iterdir())) / 1e9


def _pool_nanoseconds(task: Path) -> int:
    try:
        is_of_pool = (task / "comm").read_text().startswith("polars-")
        return int((task / "schedstat").read_text().split()[0]) if is_of_pool else 0
    except (FileNotFoundError, ProcessLookupError):  # it ended since the threads were listed
        return 0


def line(query: str, found: dict[str, Any]) -> str:
    """One line of the table."""
    cpu, seconds, shares = found["cpu"], found["seconds"], found["shares"]
    parts = [f"{shares[name] / cpu:.0%}" for name in SHARES]
    heavy = [f"{name} {took / cpu:.0%}" for name, took in found["heaviest"] if took >= LEAST * cpu]
    limit = shares["reading"] / PROCESSORS / seconds
    cells = [query, f"{seconds:.2f}", f"{cpu / seconds:.1f}", *parts, f"{limit:.2f}", ", ".join(heavy)]
    return f"| {' | '.join(cells)} |"


def main(given: list[str]) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare.profiles")
    parser.add_argument("queries", nargs="*", metavar="query")
    parser.add_argument("--events", type=int, default=2_000_000)
    asked = parser.parse_args(given)
    folder, warm = (str(inputs.prepared(cache(), size)) for size in (asked.events, WARM_EVENTS))
    columns = ["query", "seconds", "cores", *SHARES, "limit", "heaviest"]
    sys.stdout.write(f"| {' | '.join(columns)} |\n| -- | {' | '.join('--:' for _ in columns[1:-1])} | -- |\n")
    for query in asked.queries or QUERIES:
        sys.stdout.write(line(query, in_child(profiled, query, folder, warm).result) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
