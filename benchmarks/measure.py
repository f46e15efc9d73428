"""Runs kernels in processes of their own, in turn, and prints medians and ratios."""

from __future__ import annotations

import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl


@dataclass(frozen=True)
class Run:
    """One run of a kernel in its own process."""

    seconds: float
    peak_mb: float
    result: Any


def _child(pipe: Any, kernel: Callable[..., Any], args: tuple[Any, ...]) -> None:
    began = time.perf_counter()
    result = kernel(*args)
    seconds = time.perf_counter() - began
    pipe.send(Run(seconds, _peak_mb(), result))


def _peak_mb() -> float:
    """Peak resident memory of this process; `ru_maxrss` would count that of its parent, too."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def in_child(kernel: Callable[..., Any], *args: Any) -> Run:
    """Run `kernel(*args)` in a fresh interpreter; by returning {"seconds": ...} it leaves set-up out."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_child, args=(theirs, kernel, args))
    process.start()
    theirs.close()
    try:
        run = ours.recv()
    except EOFError:
        raise SystemExit(f"{kernel.__name__} died") from None
    process.join()
    if isinstance(run.result, Mapping) and "seconds" in run.result:
        return Run(run.result["seconds"], run.peak_mb, run.result)
    return run


def compare(
    kernels: Mapping[str, Callable[..., Any]], *args: Any, rows: int, repeats: int = 5, title: str = ""
) -> pl.DataFrame:
    """Run the kernels in turn, round by round; ratios are to the first one, round by round, as medians."""
    runs: dict[str, list[Run]] = {name: [] for name in kernels}
    for _ in range(repeats + 1):
        for name, kernel in kernels.items():
            runs[name].append(in_child(kernel, *args))
    measured = {name: all_runs[1:] for name, all_runs in runs.items()}  # the first round warms caches
    base = next(iter(measured.values()))
    table = []
    for name, mine in measured.items():
        speed = [b.seconds / m.seconds for b, m in zip(base, mine, strict=True)]
        memory = [m.peak_mb / b.peak_mb for b, m in zip(base, mine, strict=True)]
        table.append(
            {
                "form": name,
                "rows/s (M)": rows / statistics.median(run.seconds for run in mine) / 1e6,
                "speed ratio": statistics.median(speed),
                "least": min(speed),
                "most": max(speed),
                "peak MB": statistics.median(run.peak_mb for run in mine),
                "memory ratio": statistics.median(memory),
            }
        )
    frame = pl.DataFrame(table)
    with pl.Config(
        tbl_rows=-1, tbl_cols=-1, tbl_width_chars=160, float_precision=3, tbl_hide_dataframe_shape=True
    ):
        sys.stdout.write(f"\n{title} ({rows:,} rows, {repeats} rounds)\n{frame}\n")
        sys.stdout.flush()
    return frame
