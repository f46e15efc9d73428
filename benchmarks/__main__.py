"""All benchmarks that compare with an alternative in the same run: `make bench`."""

from __future__ import annotations

import subprocess
import sys

SCRIPTS = (
    ("benchmarks.startup",),
    ("benchmarks.etl", "10000000", "--flat"),
    ("benchmarks.latency",),
    ("benchmarks.socket_ndjson",),
    ("benchmarks.window_kernels",),
    ("benchmarks.window_end_to_end",),
    ("benchmarks.window_latency",),
    ("benchmarks.join_kernels",),
    ("benchmarks.join_end_to_end",),
    ("benchmarks.keyed_running",),
    ("benchmarks.state_checkpoint",),
)

for script in SCRIPTS:
    sys.stdout.write(f"\n== python -m {' '.join(script)}\n")
    sys.stdout.flush()
    subprocess.run([sys.executable, "-m", *script], check=True)
