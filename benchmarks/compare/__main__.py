"""unistream beside Flink, Spark, Bytewax, Polars and DuckDB on this machine.

python -m benchmarks.compare [--events N] [--rounds N] [--engines flink,spark,...] [query ...]

On first use an environment is made for each engine (Java 17 or 21 has to be there for Flink and Spark) and
the input is written, in ~/.cache/unistream/compare or where COMPARE_CACHE says. Answers are compared with
DuckDB's on a small input; then all engines run in turn. Figures are kept after each run: `--resume` goes on
with the same command, or adds the rounds of another.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.compare.environments import cache
from benchmarks.compare.measure import available, check_all, machine, measure_all
from benchmarks.compare.page import charts, page
from benchmarks.compare.runs import CONTENDERS
from benchmarks.compare.tables import QUERIES

PAGE = Path("docs/comparison.md")
WARM = (20_000, 300_000)
"""Least and most events of a warm-up, which is a tenth of the measured ones."""


def arguments(given: list[str]) -> argparse.Namespace:
    """What is asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__.split("\n")[0])
    parser.add_argument("queries", nargs="*", metavar="query", help=f"of {', '.join(QUERIES)}")
    parser.add_argument("--events", type=int, default=3_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--engines",
        default=",".join(CONTENDERS),
        help="with commas between; unistream is always there, `flink` brings its variants",
    )
    parser.add_argument("--leave-out", default="", help="engines or variants not to run, with commas")
    parser.add_argument("--check-events", type=int, default=100_000)
    parser.add_argument("--page", type=Path, default=PAGE, help="where the page is written")
    parser.add_argument("--resume", action="store_true", help="go on with the figures beside the page")
    parser.add_argument("--only-page", action="store_true", help="write the page from the figures beside it")
    asked = parser.parse_args(given)
    if unknown := set(asked.queries) - set(QUERIES):
        parser.error(f"unknown queries: {', '.join(sorted(unknown))}")
    engines, left_out = asked.engines.split(","), asked.leave_out.split(",") if asked.leave_out else []
    if unknown := {name for name in [*engines, *left_out] if name not in CONTENDERS}:
        parser.error(f"unknown engines: {', '.join(sorted(unknown))}; there are {', '.join(CONTENDERS)}")
    asked.names = [
        name
        for name, its in CONTENDERS.items()
        if name not in left_out and (its.engine == "unistream" or {name, its.engine} & {*engines})
    ]
    return asked


def begun(asked: argparse.Namespace, file: Path, command: str) -> dict[str, Any]:
    """The figures so far: none, or those of a former start with the same settings."""
    warm = min(max(asked.events // 10, WARM[0]), WARM[1])
    settings = {"events": asked.events, "warm": warm, "check_events": asked.check_events}
    if (asked.resume or asked.only_page) and file.exists():
        kept: dict[str, Any] = json.loads(file.read_text())
        if asked.only_page:
            return kept
        if {name: kept[name] for name in settings} == settings:
            return {**kept, **_added(kept, command), "rounds": asked.rounds, "skipped": {}}
        sys.exit(f"{file} holds figures of other settings: leave out --resume, or give the same")
    fresh = {"machine": machine(), "versions": {}, "skipped": {}, "checks": {}, "runs": []}
    return {**settings, "rounds": asked.rounds, "first_round": 0, "command": command, **fresh}


def _added(kept: dict[str, Any], command: str) -> dict[str, Any]:
    """Nothing when the last command goes on; another has rounds of its own, or its runs were not in turn."""
    going_on = f"{command} --resume"
    if kept["command"].splitlines()[-1] in (command, going_on):
        return {}
    first = 1 + max((run["round"] for run in kept["runs"]), default=-1)
    return {"command": f"{kept['command']}\n{going_on}", "first_round": first}


def main(given: list[str]) -> None:
    """Measure, and write the page."""
    asked = arguments(given)
    words = [word for word in given if word != "--resume"]
    file = asked.page.with_suffix(".json")
    document = begun(asked, file, " ".join(["python -m benchmarks.compare", *words]))
    file.parent.mkdir(parents=True, exist_ok=True)
    cache().mkdir(parents=True, exist_ok=True)

    def save() -> None:
        file.write_text(json.dumps(document, indent=1) + "\n")

    def tell(line: str) -> None:
        print(time.strftime("%H:%M:%S"), line, flush=True)

    if not asked.only_page:
        queries = asked.queries or list(QUERIES)
        names = available(asked.names, document, tell)
        check_all(names, queries, document, tell)
        save()
        measure_all(names, queries, document, tell, save)
        save()
    asked.page.write_text(page(document, asked.page.stem))
    for name, picture in charts(document, asked.page.stem).items():
        asked.page.with_name(name).write_text(picture)
    print(f"{asked.page} is written")


if __name__ == "__main__":
    main(sys.argv[1:])
