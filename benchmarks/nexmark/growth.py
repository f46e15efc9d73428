"""Whether a query slows down as its input grows: the same events, and ten times as many.

python -m benchmarks.nexmark.growth [events] [query ...] [--rounds 1]

Both in ticks with a checkpoint every ten seconds, from Parquet files, each run a process of its own.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path

from benchmarks.nexmark.kernels import MODES, asked
from unistream.nexmark.files import generate_events

BOUNDED = ("q0", "q1", "q2", "q5", "q7", "q8", "q10", "q11", "q12", "q13", "q14", "q20", "q21", "q22")
"""Queries whose state does not grow for ever: without any, or in windows."""

TIMES = 10


def main(events: int, queries: list[str], rounds: int) -> None:
    """Print the table."""
    sizes = (events, TIMES * events)
    print(f"{'':4} {events:>12,} {sizes[1]:>12,}  of it   peak MB")
    with tempfile.TemporaryDirectory() as temporary:
        folders = [Path(temporary, str(size)) for size in sizes]
        for size, folder in zip(sizes, folders, strict=True):
            for _ in generate_events(folder, size, progress=False):
                pass
        for query in queries:
            rates: dict[int, list[float]] = {size: [] for size in sizes}
            peaks: dict[int, list[float]] = {size: [] for size in sizes}
            for _ in range(rounds):
                for size, folder in zip(sizes, folders, strict=True):
                    run = MODES["ckpt"](query, size, folder)
                    rates[size].append(size / run.seconds / 1e6)
                    peaks[size].append(run.peak_mb)
            small, large = (statistics.median(rates[size]) for size in sizes)
            memory = " ".join(f"{statistics.median(peaks[size]):6.0f}" for size in sizes)
            print(f"{query:>4} {small:10.2f} M {large:10.2f} M {large / small:6.2f} {memory}", flush=True)


if __name__ == "__main__":
    main(*asked(sys.argv[1:], events=5_000_000, queries=BOUNDED, rounds=1))
