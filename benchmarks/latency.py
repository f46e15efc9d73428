"""From a socket to a sink at a steady rate, checkpoints every ten seconds: how late rows and updates are.

python -m benchmarks.latency [rows_per_second ...] [--seconds 25]

Two queries: five stateless steps, and a running count over 100,000 keys with its state in checkpoints. A row
is timed from its sending, in another process, to the sink; of an update the newest row that it counts. Beside
them stands a loop that only receives, which is what the machine allows, and how much of its processors the
host of a virtual machine gave to others meanwhile.
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
from benchmarks.host import Taken

WARM_UP = 2
SETTLE_SECONDS = 0.5
KEYS = 100_000
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


Arrival = tuple[int, np.ndarray]
"""When rows came, and when each was sent."""


def received(rate: int, seconds: float) -> list[Arrival]:
    """What comes through a socket when nothing is done with it: of each piece the last line is read."""
    came: list[Arrival] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        process = multiprocessing.get_context("spawn").Process(target=send, args=(port, rate, seconds))
        process.start()
        peer, _ = server.accept()
        with peer:
            cut = b""
            while piece := peer.recv(1 << 18):
                now = time.time_ns()
                lines, ended, cut = (cut + piece).rpartition(b"\n")
                if ended:
                    sent = int(lines[lines.rindex(b'"sent":') + 7 :].split(b",", 1)[0])
                    came.append((now, np.full(lines.count(b"\n") + 1, sent)))
        process.join()
    return came


def queried(query: Callable[[us.Stream], us.Stream], rate: int, seconds: float) -> list[Arrival]:
    """What comes to the sink of a query."""
    came: list[Arrival] = []
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]

    def arrived(frame: pl.DataFrame) -> None:
        came.append((time.time_ns(), frame["sent"].to_numpy()))

    rows = us.scan_socket(f"127.0.0.1:{port}", schema=SCHEMA, listen=True)
    process = multiprocessing.get_context("spawn").Process(target=send, args=(port, rate, seconds))
    with tempfile.TemporaryDirectory() as kept:
        job = query(rows).sink_batches(arrived)
        with job.start(checkpoint=f"{kept}/checkpoints", every="10s"):
            process.start()
            process.join()
            time.sleep(SETTLE_SECONDS)
    return came


def measure(name: str, rate: int, seconds: float) -> dict[str, object]:
    """Latencies in milliseconds after the warm-up."""
    taken = Taken()
    came = queried(QUERIES[name], rate, seconds) if name in QUERIES else received(rate, seconds)
    stolen = taken.part()
    sent = np.concatenate([sent for _, sent in came])
    late = np.concatenate([now - sent for now, sent in came])[sent > sent[0] + WARM_UP * 10**9] / 1e6
    p50, p99, most = np.percentile(late, [50, 99, 100])
    figures = {"p50 ms": p50, "p99 ms": p99, "worst ms": most, "stolen %": 100 * stolen}
    return {"query": name, "rows/s": rate, "rows": len(sent), **figures}


def main(given: list[str]) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.latency")
    parser.add_argument("rates", nargs="*", type=int, default=[50_000])
    parser.add_argument("--seconds", type=float, default=25)
    asked = parser.parse_args(given)
    names = ["received only", *QUERIES]
    table = [measure(name, rate, asked.seconds) for rate in asked.rates for name in names]
    with pl.Config(tbl_hide_dataframe_shape=True, float_precision=2, tbl_width_chars=120):
        sys.stdout.write(f"Socket to sink, checkpoints every 10 s\n{pl.DataFrame(table)}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
