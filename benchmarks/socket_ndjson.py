"""NDJSON over a socket through a whole job, against `pl.read_ndjson` on the same bytes in memory.

python -m benchmarks.socket_ndjson [rows]
"""

from __future__ import annotations

import io
import multiprocessing
import socket
import statistics
import sys
import time

import polars as pl

import unistream as us
from benchmarks.data import orders

ROUNDS = 7


def serve(data: bytes, port: int, connections: int) -> None:
    """Send everything to each of so many clients."""
    with socket.create_server(("127.0.0.1", port)) as server:
        for _ in range(connections):
            peer, _ = server.accept()
            with peer:
                peer.sendall(data)


def in_memory(data: bytes, schema: pl.Schema) -> float:
    """Seconds to parse what lies in memory."""
    began = time.perf_counter()
    pl.read_ndjson(io.BytesIO(data), schema=schema)
    return time.perf_counter() - began


def over_socket(port: int, schema: pl.Schema, rows: int) -> float:
    """Seconds from connecting to the last row at the sink."""
    seen = 0

    def count(frame: pl.DataFrame) -> None:
        nonlocal seen
        seen += frame.height

    job = us.scan_socket(f"127.0.0.1:{port}", schema=schema, on_close="end").sink_batches(count)
    began = time.perf_counter()
    job.run(progress=False)
    seconds = time.perf_counter() - began
    if seen != rows:
        raise SystemExit(f"{rows:,} rows were sent and {seen:,} came")
    return seconds


def main(rows: int) -> None:
    frame = orders(rows).select("id", "user", "item", "status", "amount")
    data = frame.write_ndjson().encode()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(data, port, ROUNDS + 1))
    server.start()
    time.sleep(2)
    ratios = []
    for round_number in range(ROUNDS + 1):
        bare, job = in_memory(data, frame.schema), over_socket(port, frame.schema, rows)
        if round_number:
            ratios.append(bare / job)
            sys.stdout.write(f"read_ndjson {rows / bare / 1e6:.2f}, socket {rows / job / 1e6:.2f} M rows/s\n")
    server.join()
    least, most = min(ratios), max(ratios)
    sys.stdout.write(
        f"socket to sink / read_ndjson: {statistics.median(ratios):.2f} ({least:.2f} to {most:.2f})\n"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2_000_000)
