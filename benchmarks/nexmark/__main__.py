"""Events a second and memory of every Nexmark query, beside one Polars streaming query where there is one.

python -m benchmarks.nexmark [events] [query ...] [--rounds 3]

Events lie in Parquet files; each run is a process of its own and reads them, in turn: Polars, a bounded job
as one query, in ticks, and in ticks with a checkpoint every ten seconds. Events of all kinds are counted,
whether a query reads them or not. Ratios are to Polars in the same round, as medians.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path

from benchmarks.measure import Run, in_child
from benchmarks.nexmark.kernels import MODES, asked, generate
from benchmarks.nexmark.polars_queries import POLARS
from unistream.nexmark.files import generate_events
from unistream.nexmark.queries import QUERIES

BIDS = {"pushed": ("auction", "bidder", "price", "dateTime"), "all columns": None}


def measure(query: str, events: int, folder: Path, rounds: int) -> None:
    """Print one line."""
    modes = {name: run for name, run in MODES.items() if name != "Polars" or query in POLARS}
    runs: dict[str, list[Run]] = {name: [] for name in modes}
    for _ in range(rounds):
        for name, run in modes.items():
            runs[name].append(run(query, events, folder))
    cells = [f"{query:>4}"]
    for name in MODES:
        rate = [events / run.seconds / 1e6 for run in runs.get(name, [])]
        cells.append(f"{statistics.median(rate):8.2f}" if rate else f"{'-':>8}")
    for name in list(MODES)[1:]:
        pairs = zip(runs.get("Polars", []), runs[name], strict=False)
        ratios = [base.seconds / mine.seconds for base, mine in pairs]
        cells.append(f"{statistics.median(ratios):7.2f}" if ratios else f"{'-':>7}")
    for name in MODES:
        peaks = [run.peak_mb for run in runs.get(name, [])]
        cells.append(f"{statistics.median(peaks):7.0f}" if peaks else f"{'-':>7}")
    print(" ".join(cells), flush=True)


def main(events: int, queries: list[str], rounds: int) -> None:
    """Print the table."""
    for name, columns in BIDS.items():
        run = in_child(generate, max(events, 2_000_000), "bid", columns)
        rate = max(events, 2_000_000) / run.seconds / 1e6
        print(f"generator, bids, {name}: {rate:.1f} M events/s of one core")
    print(f"\n{events:,} events, {rounds} rounds; M events/s, ratio to Polars, peak MB")
    heads = [f"{name:>8}" for name in MODES] + [f"{name + '/P':>7}" for name in list(MODES)[1:]]
    print(" ".join(["    ", *heads, *(f"{name:>7}" for name in MODES)]), flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for _ in generate_events(folder, events, progress=False):
            pass
        for query in queries:
            measure(query, events, folder, rounds)


if __name__ == "__main__":
    main(*asked(sys.argv[1:], events=1_000_000, queries=QUERIES, rounds=3))
