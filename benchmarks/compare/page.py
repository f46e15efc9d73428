"""The page of results: what was measured, on what, and where others are faster."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from benchmarks.compare.chart import chart
from benchmarks.compare.measure import PATIENCE
from benchmarks.compare.runs import CONTENDERS
from benchmarks.compare.table import GOALS, Measured, Runs, geometric_mean, losses, misses
from benchmarks.host import DISTURBED

TITLES = {name: contender.title for name, contender in CONTENDERS.items()}
STREAMING = [name for name, contender in CONTENDERS.items() if not contender.bounded]
BOUNDED = [name for name, contender in CONTENDERS.items() if contender.bounded]
OURS = ["unistream", "unistream-bounded"]
PAIRS = [
    *(("unistream", other) for other in STREAMING if other != "unistream"),
    ("unistream", "polars"),
    *(("unistream-bounded", other) for other in BOUNDED if other not in OURS),
]
CHARTS = {".svg": ("Streams", STREAMING), ".bounded.svg": ("All rows at once", BOUNDED)}

HOW = """\
Every engine reads the same rows from CSV files and throws its results away. Runs are processes of their
own, one at a time, round by round, so that all engines see the same state of the machine. Before the
measured run each process runs the same query over {warm:,} events; for Bytewax, which compiles nothing,
there is no such run. Events of all kinds are counted, whether a query reads them or not.
"""
HOW_EACH = {
    "unistream": """\
- **unistream**: ticks, state in columns, a checkpoint every ten seconds. **Bounded**: one job over all
  rows, as `collect()` runs it; rows are gathered in memory, as in Polars and DuckDB.
- Joins that Nexmark leaves without bounds have one here in unistream, which no pair exceeds (see `unistream
  bench`); the others keep all rows of a join.
""",
    "flink": """\
- **Flink**: SQL, parallelism 2, one process, exactly once every ten seconds, state in RocksDB with
  incremental checkpoints, or on the heap; `blackhole` takes the rows. *Mini-batches*: with the settings
  that Nexmark's own set-up makes for Flink. Time is that of the job, without planning and submission. At
  most 2 GB of heap beside 1 GB of RocksDB; 4 GB for state on the heap. It reads the rows from two files that
  advance together, so that both cores have work.
- Flink plans q9 as rows that are only added: a bid that is outbid is not taken back, the last row of an
  auction is the answer. It is compared and measured so.
""",
    "spark": """\
- **Spark**: Structured Streaming, `local[2]`, state in RocksDB, `availableNow`; `noop` takes the rows. All
  rows are one micro-batch, which spares it all work between batches. It reads two files, as Flink does.
""",
    "bytewax": """\
- **Bytewax**: flows in plain Python, two processes, state saved every ten seconds. It reads two files, but
  one where it has windows.
""",
    "polars": """\
- **Polars**: one query over all rows. It holds no state and gives no results on the way.
""",
    "duckdb": """\
- **DuckDB**: one query over all rows. It holds no state and gives no results on the way.
""",
}
HOW_FIGURES = """\
Memory is the peak of resident memory of an engine's processes, without the Python that only submits a job
to a JVM. Cores are processor time by time.
"""


TAKEN = f"""\
## What others took of the processors

The host of a virtual machine may give its processors to other machines while a run lasts. Runs that lost more
than {DISTURBED:.0%} were made again, up to {PATIENCE[0]} of them or {PATIENCE[1]:.0f} seconds together; the
one that lost least is kept.
"""


def page(document: Mapping[str, Any], stem: str = "comparison") -> str:
    """The whole page, from the raw figures; its pictures and figures have the same stem."""
    runs = Runs(document["events"], document["runs"])
    contenders = [name for name in CONTENDERS if any(runs.has(name, query) for query in runs.queries)]
    engines = {CONTENDERS[name].engine for name in contenders}
    sections = [
        "# unistream beside other engines",
        _intro(document, stem),
        f"![Events a second of streams]({stem}.svg)",
        f"![Events a second over all rows at once]({stem}.bounded.svg)",
        "## In short",
        _summary(runs),
        "## Where we lose",
        _where_we_lose(runs),
        "## Millions of events a second",
        _rounds(
            document, "Medians; in brackets how far the slowest and the fastest run lie apart, in percent."
        ),
        _matrix(runs, contenders, lambda name, query: _rate(runs, name, query)),
        "## How many times as fast",
        _rounds(document, "Medians of the ratios of each round."),
        _ratios(runs),
        "## Memory, MB",
        _matrix(runs, contenders, lambda name, query: f"{_median(runs, name, query, 'peak_mb'):,.0f}"),
        "## Cores in use",
        _matrix(runs, contenders, lambda name, query: f"{_median(runs, name, query, 'cores'):.1f}"),
        _taken(runs, contenders),
        "## Whether the answers are right",
        _checked(document),
        "## How it was measured",
        HOW.format(warm=document["warm"]),
        "".join(text for engine, text in HOW_EACH.items() if engine in engines),
        HOW_FIGURES,
    ]
    return "\n\n".join(section.strip() for section in sections if section) + "\n"


def charts(document: Mapping[str, Any], stem: str = "comparison") -> dict[str, str]:
    """The pictures of the page, by file name."""
    runs = Runs(document["events"], document["runs"])
    drawn = {}
    for ending, (title, names) in CHARTS.items():
        rates = {
            name: {query: runs.rate(name, query) for query in runs.queries if runs.has(name, query)}
            for name in names
        }
        rates = {name: of for name, of in rates.items() if of}
        if rates:
            queries = [query for query in runs.queries if any(query in of for of in rates.values())]
            drawn[stem + ending] = chart(f"{title}: {document['events']:,} events", rates, queries, TITLES)
    return drawn


def _intro(document: Mapping[str, Any], stem: str) -> str:
    machine, versions = document["machine"], document["versions"]
    named = ", ".join(f"{name} {version}" for name, version in versions.items())
    return (
        f"{document['events']:,} events of Nexmark, or as many rows for `count` and `tumbling`;"
        f" {_made(document)}, on {machine['cores']} cores ({machine['processor']}) with"
        f" {machine['memory_gb']:.0f} GB, {machine['system']}. {named}.\n\n"
        f"```sh\n{document['command']}\n```\n\nRaw figures: [{stem}.json]({stem}.json)."
    )


def _rounds(document: Mapping[str, Any], several: str) -> str:
    """What figures are where several runs were made; of one run it says what is not known."""
    least, most = _times(document)
    unknown = "so how far runs lie apart is not known; ratios near a goal may fall on either side."
    if most == 1:
        return f"One run of each, {unknown}"
    return several if least > 1 else f"{several} Some were run once, {unknown}"


def _made(document: Mapping[str, Any]) -> str:
    least, most = _times(document)
    return f"rounds: {most}" if least == most else f"rounds: {least} to {most}, as the commands say"


def _times(document: Mapping[str, Any]) -> tuple[int, int]:
    """How often each was run: the least, and the most."""
    times = Counter((run["contender"], run["query"]) for run in document["runs"]).values()
    return min(times, default=0), max(times, default=0)


def _median(runs: Runs, name: str, query: str, figure: str) -> float:
    def of(run: Measured) -> float:
        return float(getattr(run, figure))

    return runs.median(name, query, of)


def _rate(runs: Runs, name: str, query: str) -> str:
    rate = runs.rate(name, query)
    shown = f"{rate:.{2 if rate >= 0.1 else 3}f}"
    if len(runs.of(name, query)) == 1:
        return shown
    return f"{shown} ({runs.spread(name, query):.0%})".replace("%)", ")")


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _grid(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join([_row(head), _row(["--", *["--:"] * (len(head) - 1)]), *map(_row, rows)])


def _matrix(runs: Runs, contenders: Sequence[str], cell: Callable[[str, str], str]) -> str:
    rows = [
        [query, *(cell(name, query) if runs.has(name, query) else "-" for name in contenders)]
        for query in runs.queries
    ]
    return _grid(["", *(TITLES[name] for name in contenders)], rows)


def _pairs(runs: Runs) -> list[tuple[str, str]]:
    return [pair for pair in PAIRS if runs.ratios(*pair)]


def _summary(runs: Runs) -> str:
    rows = []
    for ours, theirs in _pairs(runs):
        ratios = runs.ratios(ours, theirs)
        least, most = min(ratios, key=ratios.__getitem__), max(ratios, key=ratios.__getitem__)
        mean = geometric_mean(list(ratios.values()))
        ends = [f"{ratios[query]:.2f} ({query})" for query in (least, most)]
        rows.append([f"{TITLES[ours]} / {TITLES[theirs]}", str(len(ratios)), f"{mean:.2f}", *ends])
    return _grid(["times as fast", "queries", "geometric mean", "least", "most"], rows)


def _ratios(runs: Runs) -> str:
    pairs = _pairs(runs)
    rows = []
    for query in runs.queries:
        found = [runs.ratio(*pair, query) for pair in pairs]
        rows.append([query, *("-" if ratio is None else f"{ratio:.2f}" for ratio in found)])
    return _grid(["", *(f"{TITLES[ours]} / {TITLES[theirs]}" for ours, theirs in pairs)], rows)


def _taken(runs: Runs, contenders: Sequence[str]) -> str:
    """Nothing for figures of a time when this was not counted."""
    if any(run.stolen is None for run in runs.measured):
        return ""
    grid = _matrix(runs, contenders, lambda name, query: f"{_median(runs, name, query, 'stolen'):.0%}")
    return f"{TAKEN}\n{grid}"


def _where_we_lose(runs: Runs) -> str:
    others = [name for name in CONTENDERS if name not in OURS]
    lines = []
    for theirs in others:
        slower = [one for one in losses(runs, OURS, [theirs]) if (one[0], theirs) in PAIRS]
        for ours in dict.fromkeys(one[0] for one in slower):
            found = ", ".join(f"{query} {ratio:.2f}" for mine, _, query, ratio in slower if mine == ours)
            lines.append(f"- {TITLES[ours]} is slower than {TITLES[theirs]} in {found} (times as fast).")
    lines = lines or ["No engine was faster in any query."]
    missed = [
        [f"{TITLES[miss.ours]} / {TITLES[miss.theirs]}", miss.what, f"{miss.wanted:.2f}", f"{miss.found:.2f}"]
        for miss in misses(runs)
    ]
    held = [pair for pair in dict.fromkeys((goal.ours, goal.theirs) for goal in GOALS) if runs.ratios(*pair)]
    if missed:
        told = "Goals that are missed:\n\n" + _grid(["", "in", "wanted", "found"], missed)
    else:
        told = f"Of the goals for {len(held)} pairs of engines none is missed." if held else ""
    return "\n".join(lines) + "\n\n" + told


def _checked(document: Mapping[str, Any]) -> str:
    """What was compared with the reference, and the reason of each dash."""
    lines = [
        f"Before the measurement each engine ran each query over {document['check_events']:,} events, and its"
        " rows, updates folded, were compared with those of DuckDB over all rows. A figure of an engine whose"
        " rows differ is not shown."
    ]
    for name, reason in document["skipped"].items():
        lines.append(f"- {TITLES[name]} is left out: {reason}.")
    for name, verdicts in document["checks"].items():
        right = [query for query, verdict in verdicts.items() if verdict["verdict"] == "right"]
        lines.append(f"- {TITLES[name]}: {len(right)} of {len(verdicts)} answers compared and right.")
        reasons: dict[tuple[str, str], list[str]] = {}
        for query, verdict in verdicts.items():
            if verdict["verdict"] != "right":
                reasons.setdefault((verdict["verdict"], verdict["why"]), []).append(query)
        for (verdict, why), queries in reasons.items():
            lines.append(f"  - {', '.join(queries)}: {WORDS[verdict]}: {why}.")
    return "\n".join([lines[0], "", *lines[1:]])


WORDS = {
    "unable": "cannot be stated",
    "unchecked": "not compared",
    "wrong": "**wrong**",
    "failed": "**failed**",
}
