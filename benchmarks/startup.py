"""What it costs before any work is done: import, and a query over one row.

python -m benchmarks.startup
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

IMPORT = """
import resource, time
began = time.perf_counter()
import {module}
print(time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def importing(module: str, repeats: int = 7) -> tuple[float, float]:
    """Median seconds and megabytes in a fresh interpreter."""
    runs = []
    for _ in range(repeats):
        printed = subprocess.run(
            [sys.executable, "-c", IMPORT.format(module=module)], capture_output=True, text=True, check=True
        ).stdout
        runs.append(tuple(float(value) for value in printed.split()))
    return statistics.median(run[0] for run in runs), statistics.median(run[1] for run in runs)


def one_row(repeats: int = 200) -> tuple[float, float]:
    """Median and worst milliseconds of a one-row collect."""
    import polars as pl

    import unistream as us

    taken = []
    for _ in range(repeats):
        began = time.perf_counter()
        us.from_frame({"a": [1]}).filter(pl.col("a") > 0).select(b=pl.col("a") + 1).collect()
        taken.append((time.perf_counter() - began) * 1e3)
    return statistics.median(taken), max(taken)


def main() -> None:
    for module in ("polars", "unistream"):
        seconds, megabytes = importing(module)
        sys.stdout.write(f"import {module}: {seconds:.3f} s, {megabytes:.0f} MB\n")
    median, worst = one_row()
    sys.stdout.write(f"one-row collect: {median:.2f} ms median, {worst:.2f} ms worst of 200\n")


if __name__ == "__main__":
    main()
