"""From the row that closes a window, sent through a socket, to the window's results at the sink.

python -m benchmarks.window_latency [rows_per_second ...]
"""

from __future__ import annotations

import multiprocessing
import socket
import sys
import threading
import time
from multiprocessing.connection import Connection

import numpy as np
import polars as pl

import unistream as us

SECONDS = 20
WARM_UP = 2
WINDOW_MS = 50
KEYS = 1_000
SCHEMA = {"at": pl.Int64, "key": pl.Int64, "amount": pl.Int64}


def send(port: int, rate: int, seconds: float, answer: Connection) -> None:
    """Rows at an even pace, whose event time is their due time; then when each window's last row was sent."""
    closed: dict[int, int] = {}
    with socket.create_connection(("127.0.0.1", port)) as peer:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        began = time.perf_counter()
        row, window = 0, 0
        while (elapsed := time.perf_counter() - began) < seconds:
            due = int(elapsed * rate)
            if due > row:
                times = [n * 1_000_000 // rate for n in range(row, due)]
                lines = "".join(f'{{"at":{at},"key":{at * 7 % KEYS},"amount":{at % 97}}}\n' for at in times)
                now = time.time_ns()
                peer.sendall(lines.encode())
                while (window + 1) * WINDOW_MS * 1000 <= times[-1]:
                    window += 1
                    closed[window * WINDOW_MS * 1000] = now
                row = due
            time.sleep(0.001)
    answer.send(closed)


def measure(rate: int) -> dict[str, float]:
    """Latencies in milliseconds after the warm-up, one for each window: that of its last result."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    arrived: dict[int, int] = {}

    def take(frame: pl.DataFrame) -> None:
        now = time.time_ns()
        arrived.update(dict.fromkeys(frame["window_end"].unique().to_list(), now))

    rows = us.scan_socket(f"127.0.0.1:{port}", schema=SCHEMA, listen=True).with_event_time("at", unit="us")
    windows = rows.group_by("key").window(us.tumbling(f"{WINDOW_MS}ms"))
    results = windows.agg(n=pl.len(), total=pl.col("amount").sum(), most=pl.col("amount").max())
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    sender = context.Process(target=send, args=(port, rate, SECONDS, theirs))
    with results.sink_batches(take).start() as run:
        sender.start()
        closed = ours.recv()
        sender.join()
        threading.Event().wait(0.3)
        rows_in = run.progress.rows_in
    late = [
        (arrived[end] - sent) / 1e6 for end, sent in closed.items() if end in arrived and end > WARM_UP * 1e6
    ]
    p50, p99 = np.percentile(late, [50, 99])
    found = {"rows/s": rate, "rows": rows_in, "windows": len(late), "p50 ms": p50, "p99 ms": p99}
    return found | {"worst ms": max(late)}


def main(rates: list[int]) -> None:
    table = pl.DataFrame([measure(rate) for rate in rates], strict=False)
    with pl.Config(tbl_hide_dataframe_shape=True, float_precision=2):
        sys.stdout.write(f"Window of {WINDOW_MS} ms: from the row that closes it to its results\n{table}\n")


if __name__ == "__main__":
    main([int(arg) for arg in sys.argv[1:]] or [10_000])
