"""From a socket to a sink at a steady rate, checkpoints every ten seconds: how late rows and updates are.

python -m benchmarks.latency_socket [rows_per_second ...] [--seconds 25]

Two queries: five stateless steps, and a running count over 100,000 keys with its state in checkpoints. A row
is timed from its sending, in another process, to the sink; of an update the newest row that it counts.
"""

from __future__ import annotations

import argparse
import multiprocessing
import socket
import sys
import tempfile
import time
from collections.abc import Callable

import numpy as np
import polars as pl

import unistream as us
from benchmarks.latency import SCHEMA, WARM_UP, send

KEYS = 100_000
SETTLE_SECONDS = 0.5


def stateless(rows: us.Stream) -> us.Stream:
    """Five steps without state."""
    return (
        rows.filter(pl.col("amount") >= 0)
        .with_columns(gross=pl.col("amount") * 1.19)
        .with_columns(label=pl.col("item").str.to_uppercase())
        .filter(pl.col("label").str.len_chars() > 0)
        .select("id", "sent", "label", "gross")
    )


def running_count(rows: us.Stream) -> us.Stream:
    """The rows of each key so far, with when the newest was sent."""
    keyed = rows.with_columns(key=pl.col("id") % KEYS).group_by("key")
    return keyed.agg(n=pl.len(), sent=pl.col("sent").max())


QUERIES: dict[str, Callable[[us.Stream], us.Stream]] = {
    "stateless chain": stateless,
    "running count": running_count,
}


def measure(name: str, rate: int, seconds: float) -> dict[str, object]:
    """Latencies in milliseconds after the warm-up."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    late: list[np.ndarray] = []
    begins = time.time_ns()

    def arrived(frame: pl.DataFrame) -> None:
        now, sent = time.time_ns(), frame["sent"].to_numpy()
        late.append((now - sent[sent > begins + WARM_UP * 10**9]) / 1e6)

    rows = us.scan_socket(f"127.0.0.1:{port}", schema=SCHEMA, listen=True)
    sender = multiprocessing.get_context("spawn").Process(target=send, args=(port, rate, seconds))
    with tempfile.TemporaryDirectory() as kept:
        job = QUERIES[name](rows).sink_batches(arrived)
        with job.start(checkpoint=f"{kept}/checkpoints", every="10s") as run:
            sender.start()
            begins = time.time_ns()
            sender.join()
            time.sleep(SETTLE_SECONDS)
            taken = run.progress.rows_in
    found = np.concatenate(late)
    p50, p99, most = np.percentile(found, [50, 99, 100])
    return {"query": name, "rows/s": rate, "rows": taken, "p50 ms": p50, "p99 ms": p99, "worst ms": most}


def main(given: list[str]) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.latency_socket")
    parser.add_argument("rates", nargs="*", type=int, default=[50_000])
    parser.add_argument("--seconds", type=float, default=25)
    asked = parser.parse_args(given)
    table = [measure(name, rate, asked.seconds) for rate in asked.rates for name in QUERIES]
    with pl.Config(tbl_hide_dataframe_shape=True, float_precision=2, tbl_width_chars=120):
        sys.stdout.write(f"Socket to sink, checkpoints every 10 s\n{pl.DataFrame(table)}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
