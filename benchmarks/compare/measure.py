"""The comparison itself: answers checked on a small input, then all engines in turn, round by round."""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl

from benchmarks.compare import check, inputs
from benchmarks.compare.environments import cache, interpreter
from benchmarks.compare.protocol import Answer, Unable
from benchmarks.compare.runs import CONTENDERS, Contender, Failed, attempt
from benchmarks.compare.table import Measured
from benchmarks.host import DISTURBED

CHECK_RATE = 1_000
"""Events in a second of event time where answers are checked: few events fill several windows."""

PATIENCE = (6, 60.0)
"""Runs until a disturbed one is kept, and the seconds that they may take together before another is begun."""

Document = dict[str, Any]
Tell = Callable[[str], None]
Save = Callable[[], None]


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    processor = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    memory = next(
        int(line.split()[1])
        for line in Path("/proc/meminfo").read_text().splitlines()
        if line.startswith("MemTotal")
    )
    return {
        "processor": processor,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": memory / 2**20,
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
    }


def available(names: Sequence[str], document: Document, tell: Tell) -> list[str]:
    """The contenders whose engine is installed now; the reasons of the others are noted."""
    found = []
    for name in names:
        try:
            tell(f"{name}: environment")
            interpreter(CONTENDERS[name].engine)
            found.append(name)
        except Unable as error:
            document["skipped"][name] = str(error)
            tell(f"{name} is left out: {error}")
    return found


def check_all(names: Sequence[str], queries: Sequence[str], document: Document, tell: Tell) -> None:
    """Compare the rows of each contender, over few events, with those of the reference."""
    folder = inputs.prepared(cache(), document["check_events"], CHECK_RATE)
    expected = {query: check.expected(query, folder) for query in queries}
    for name in names:
        verdicts = document["checks"].setdefault(name, {})
        open_queries = [
            query for query in queries if verdicts.get(query, {}).get("verdict") in (None, "failed")
        ]
        if not open_queries:
            continue
        with tempfile.TemporaryDirectory(dir=cache(), prefix="rows-") as rows:
            wanted = f"{rows}/{{query}}.json"
            try:
                answer = attempt(CONTENDERS[name], " ".join(open_queries), folder, rows=wanted)
            except Failed as error:
                answer = Answer(extra=dict.fromkeys(open_queries, f"failed: {error}"))
            document["versions"].update({CONTENDERS[name].engine: answer.version} if answer.version else {})
            for query in open_queries:
                told = answer.extra.get(query, "failed: no answer")
                file = Path(wanted.format(query=query))
                verdicts[query] = verdict(CONTENDERS[name], query, told, file, folder, expected[query])
                tell(f"{name} {query}: {' '.join(verdicts[query].values())}")


def verdict(
    contender: Contender, query: str, told: str, file: Path, folder: Path, reference: pl.DataFrame
) -> dict[str, str]:
    """Whether an answer is right, and if not, or if it cannot be compared, why."""
    if told:
        failed = told.startswith("failed: ")
        return {
            "verdict": "failed" if failed else "unable",
            "why": " ".join(told.removeprefix("failed: ").split())[:300],
        }
    if why := check.UNCHECKED.get((contender.engine, query)):
        return {"verdict": "unchecked", "why": why}
    if (contender.engine, query) in check.LEFT_OPEN:
        reference = check.closed(query, folder, reference)
    wrong = check.difference(query, check.received(file, reference), reference)
    return {"verdict": "wrong" if wrong else "right", "why": wrong}


def credited(name: str, query: str, document: Document) -> bool:
    """Whether a contender is measured: not where it gave wrong rows, or none."""
    found = document["checks"].get(name, {}).get(query, {"verdict": "unchecked"})
    return found["verdict"] in ("right", "unchecked")


def measure_all(
    names: Sequence[str], queries: Sequence[str], document: Document, tell: Tell, save: Save
) -> None:
    """All rounds; runs that a former start has measured are kept."""
    folder = inputs.prepared(cache(), document["events"])
    warm = inputs.prepared(cache(), document["warm"])
    done = {(run["contender"], run["query"], run["round"]) for run in document["runs"]}
    first = document["first_round"]
    for number in range(first, first + document["rounds"]):
        for query in queries:
            inputs.brought_into_memory(folder)  # or the first to run would read from the disk for all others
            for name in names:
                if (name, query, number) in done or not credited(name, query, document):
                    continue
                try:
                    answer = undisturbed(CONTENDERS[name], query, folder, warm)
                except Failed as error:
                    tell(f"{name} {query}: failed: {error}")
                    document["checks"].setdefault(name, {})[query] = {
                        "verdict": "failed",
                        "why": " ".join(str(error).split())[-300:],
                    }
                    continue
                if answer.unable:
                    document["checks"].setdefault(name, {})[query] = {
                        "verdict": "unable",
                        "why": answer.unable,
                    }
                    continue
                document["versions"].update(
                    {CONTENDERS[name].engine: answer.version} if answer.version else {}
                )
                run = measured(name, query, number, answer)
                document["runs"].append(asdict(run))
                save()
                rate = document["events"] / run.seconds / 1e6
                tell(
                    f"{number - first + 1}/{document['rounds']} {query:>8} {name:<18} {rate:7.3f} M/s"
                    f" {run.cores:4.1f} cores {run.peak_mb:6.0f} MB {answer.stolen:4.0%} stolen"
                )


def undisturbed(contender: Contender, query: str, folder: Path, warm: Path) -> Answer:
    """A run while the host left the machine alone; where there was none, the one it disturbed least."""
    found: list[Answer] = []
    most, seconds = PATIENCE
    while len(found) < most and sum(answer.wall_seconds for answer in found) < seconds:
        inputs.fetch_pages()
        found.append(attempt(contender, query, folder, warm=warm))
        if found[-1].stolen <= DISTURBED:
            break
    return min(found, key=lambda answer: answer.stolen)


def measured(name: str, query: str, number: int, answer: Answer) -> Measured:
    """A run as it is kept."""
    return Measured(
        name,
        query,
        number,
        answer.seconds,
        answer.wall_seconds,
        answer.cpu_seconds,
        answer.peak_mb,
        answer.stolen,
    )
