"""What is said between the benchmark and the process of an engine: a request and an answer, as JSON files."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.host import Taken

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Request:
    """One run: a query over the files in `folder`, after a warm-up over those in `warm` when there is one.

    With `rows`, a path with `{query}` in it, the rows of each of the queries in `query`, with spaces between,
    go there as lines of JSON; without it rows are thrown away and the time is taken.
    """

    query: str
    variant: str
    folder: str
    scratch: str
    warm: str | None = None
    rows: str | None = None

    def files(self, table: str, layout: str = "whole", folder: str | None = None) -> Path:
        """The folder of one table: `whole` is one file in order, `lanes` are its rows dealt over two."""
        return Path(folder or self.folder) / layout / table


@dataclass
class Answer:
    """How a run went."""

    seconds: float = 0.0
    """Of the query; where an engine says how long its job took, without planning and submission."""
    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_mb: float = 0.0
    stolen: float = 0.0
    """The part of the processors' time that the host gave to others meanwhile."""
    version: str = ""
    unable: str = ""
    """Why the engine cannot do it."""
    extra: dict[str, Any] = field(default_factory=dict)


class Unable(Exception):
    """The engine has no words for this query; the message says which are missing."""


def processes(root: int) -> list[int]:
    """This process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue  # it ended meanwhile
            children.setdefault(parent, []).append(int(entry.name))
    found = [root]
    for process in found:
        found += children.get(process, [])
    return found


def cpu_seconds(root: int) -> float:
    """Processor time of a process, its descendants, and those of them that have ended."""
    ticks = 0
    for process in processes(root):
        try:
            stat = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += sum(int(number) for number in stat[11:15])
    return ticks / _TICKS


def peak_mb(root: int, *, client: bool) -> float:
    """Most resident memory of a process and its descendants; `client`: without the process itself."""
    total = 0
    for process in processes(root)[1 if client else 0 :]:
        try:
            lines = Path(f"/proc/{process}/status").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    return total / 1024


@contextmanager
def measured(answer: Answer, *, client: bool = False) -> Iterator[None]:
    """Put the time, the processor time and the memory of the block into an answer."""
    cpu, taken, began = cpu_seconds(os.getpid()), Taken(), time.perf_counter()
    yield
    answer.seconds = answer.wall_seconds = time.perf_counter() - began
    answer.stolen = taken.part()
    answer.cpu_seconds = cpu_seconds(os.getpid()) - cpu
    answer.peak_mb = peak_mb(os.getpid(), client=client)


def write_rows(path: str, names: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    """The result of a query, for the benchmark to compare: a line with the names, a line for each row."""
    with Path(path).open("w") as file:
        file.write(json.dumps(list(names)) + "\n")
        for row in rows:
            file.write(json.dumps(list(row), default=_spelled) + "\n")


def _spelled(value: Any) -> Any:
    """Values that JSON has no words for: moments, and numbers with a fixed point."""
    if hasattr(value, "isoformat"):
        return value.isoformat(timespec="microseconds")
    return float(value)


def serve(run: Callable[[Request, Answer], None]) -> None:
    """The main function of an engine's process: read the request, run it, write the answer."""
    parser = argparse.ArgumentParser()
    parser.add_argument("request", type=Path)
    parser.add_argument("answer", type=Path)
    given = parser.parse_args()
    request, answer = Request(**json.loads(given.request.read_text())), Answer()
    if request.rows is None:
        answer.unable = _attempt(run, request, answer)
    else:
        for query in request.query.split():
            one = replace(request, query=query, rows=request.rows.format(query=query))
            try:
                answer.extra[query] = _attempt(run, one, answer)
            except Exception as error:  # the others may do better
                answer.extra[query] = f"failed: {error}"[:2000]
    given.answer.write_text(json.dumps(asdict(answer)))


def _attempt(run: Callable[[Request, Answer], None], request: Request, answer: Answer) -> str:
    """Run a query; gives why the engine has no words for it, if so."""
    try:
        run(request, answer)
    except Unable as error:
        return str(error)
    return ""
