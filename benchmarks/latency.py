"""From a socket to a sink through five stateless steps: how late rows are, at a steady rate.

python -m benchmarks.latency [rows_per_second ...]
"""

from __future__ import annotations

import multiprocessing
import socket
import sys
import threading
import time

import numpy as np
import polars as pl

import unistream as us

SECONDS = 8
WARM_UP = 2
SCHEMA = {"id": pl.Int64, "sent": pl.Int64, "item": pl.String, "amount": pl.Float64}


def line(number: int, sent: int) -> str:
    """One row as JSON."""
    return f'{{"id":{number},"sent":{sent},"item":"i{number % 1000}","amount":{number % 97}.5}}\n'


def send(port: int, rate: int, seconds: float) -> None:
    """Rows at an even pace, each with the time of its sending; one small write per millisecond."""
    with socket.create_connection(("127.0.0.1", port)) as peer:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        began = time.perf_counter()
        row = 0
        while (elapsed := time.perf_counter() - began) < seconds:
            due = int(elapsed * rate)
            if due > row:
                now = time.time_ns()
                peer.sendall("".join(line(n, now) for n in range(row, due)).encode())
                row = due
            time.sleep(0.001)


def measure(rate: int) -> dict[str, float]:
    """Latencies in milliseconds after the warm-up."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    late: list[np.ndarray] = []
    began = time.time_ns() + WARM_UP * 10**9

    def arrived(frame: pl.DataFrame) -> None:
        now = time.time_ns()
        sent = frame["sent"].to_numpy()
        late.append((now - sent[sent > began]) / 1e6)

    stream = (
        us.scan_socket(f"127.0.0.1:{port}", schema=SCHEMA, listen=True)
        .filter(pl.col("amount") >= 0)
        .with_columns(gross=pl.col("amount") * 1.19)
        .with_columns(label=pl.col("item").str.to_uppercase())
        .filter(pl.col("label").str.len_chars() > 0)
        .select("id", "sent", "label", "gross")
    )
    sender = multiprocessing.get_context("spawn").Process(target=send, args=(port, rate, SECONDS))
    with stream.sink_batches(arrived).start() as run:
        sender.start()
        sender.join()
        threading.Event().wait(0.3)
        rows = run.progress.rows_out
    all_late = np.concatenate(late)
    p50, p99 = np.percentile(all_late, [50, 99])
    return {"rows/s": rate, "rows": rows, "p50 ms": p50, "p99 ms": p99, "worst ms": all_late.max()}


def main(rates: list[int]) -> None:
    table = pl.DataFrame([measure(rate) for rate in rates], strict=False)
    with pl.Config(tbl_hide_dataframe_shape=True, float_precision=2):
        sys.stdout.write(f"Socket to sink, five stateless steps\n{table}\n")


if __name__ == "__main__":
    main([int(arg) for arg in sys.argv[1:]] or [10_000, 50_000, 100_000])
