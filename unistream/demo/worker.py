"""The live job of the demonstration, in a process of its own that can be killed.

Run as `python -m unistream.demo.worker WATCHED ADDRESS OUTPUT CHECKPOINTS`; prints its progress as JSON
lines. A termination signal closes what is open and ends it.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
from pathlib import Path

import unistream as us
from unistream.demo.orders import live, revenue

REPORT_SECONDS = 0.1


def start(watched: Path, address: str, output: Path, checkpoints: Path) -> us.Run:
    """The job as a user would start it."""
    job = revenue(live(watched, address)).sink_parquet(output)
    return job.start(checkpoint=checkpoints, every="500ms")


def main(arguments: list[str]) -> None:
    """Run until the termination signal, reporting all the while."""
    watched, address, output, checkpoints = arguments
    run = start(Path(watched), address, Path(output), Path(checkpoints))
    ending = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ending.set())
    while not ending.wait(REPORT_SECONDS) and run.status in ("running", "restarting"):
        _report(run)
    run.stop(drain=True, timeout=30)
    _report(run)
    run.wait(0)


def _report(run: us.Run) -> None:
    progress = run.progress
    fields = ("status", "rows_in", "rows_out", "rows_per_second", "watermark", "checkpoint")
    line = json.dumps({name: getattr(progress, name) for name in fields})
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
