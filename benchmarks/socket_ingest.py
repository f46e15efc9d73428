"""NDJSON over a local socket into frames, against `pl.read_ndjson` on the same bytes in memory.

Run: python benchmarks/socket_ingest.py [rows]
The sender is a process of its own; both figures come from the same run, the median of several.
"""

from __future__ import annotations

import multiprocessing
import socket
import statistics
import sys
import time

import polars as pl

from unistream.io.base import Chunk, Request, Wait
from unistream.io.tcp import TcpReader, TcpSource

SCHEMA = pl.Schema({"user": pl.String, "item": pl.Int64, "amount": pl.Float64, "ts": pl.Int64})
ROUNDS = 5


def lines(rows: int) -> bytes:
    number = pl.int_range(rows, eager=True)
    frame = pl.DataFrame(
        {
            "user": "user-" + (number % 10_000).cast(pl.String),
            "item": number % 977,
            "amount": (number % 100_000) / 100,
            "ts": 1_700_000_000_000 + number,
        }
    )
    return frame.write_ndjson().encode()


def send(port: int, rows: int, go: multiprocessing.synchronize.Event) -> None:  # type: ignore[name-defined]
    data = lines(rows)
    for _ in range(ROUNDS):
        with socket.create_connection(("127.0.0.1", port)) as sock:
            go.wait()
            go.clear()
            sock.sendall(data)


def receive(reader: TcpReader, rows: int, chunks: list[int]) -> float:
    """Seconds from the first byte to the last row."""
    begun = time.perf_counter()
    seen = 0
    while seen < rows:
        polled = reader.poll(250_000)
        if isinstance(polled, Chunk):
            seen += polled.frame.height
            chunks.append(polled.frame.height)
        else:
            assert isinstance(polled, Wait)
    return time.perf_counter() - begun


def parse(data: bytes) -> float:
    begun = time.perf_counter()
    pl.read_ndjson(data, schema=SCHEMA)
    return time.perf_counter() - begun


def main() -> None:
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    data = lines(rows)
    print(f"{rows:,} rows, {len(data) / 1e6:.0f} MB of NDJSON, {pl.thread_pool_size()} Polars threads")
    source = TcpSource("127.0.0.1:0", SCHEMA, listen=True)
    context = multiprocessing.get_context("spawn")
    go = context.Event()
    reader = source.open({}, Request())
    sender = context.Process(target=send, args=(reader.address.port, rows, go), daemon=True)
    sender.start()
    over_socket, in_memory, chunks = [], [], []
    try:
        for _ in range(ROUNDS):
            in_memory.append(parse(data))
            go.set()
            over_socket.append(receive(reader, rows, chunks))
    finally:
        reader.close()
        sender.join(10)
        sender.kill()
    best, median = rows / min(over_socket) / 1e6, rows / statistics.median(over_socket) / 1e6
    memory = rows / statistics.median(in_memory) / 1e6
    print(
        f"socket    {median:6.2f} M rows/s (best {best:.2f}), {statistics.median(chunks):,.0f} rows per chunk"
    )
    print(f"in memory {memory:6.2f} M rows/s (pl.read_ndjson)")
    print(f"ratio     {median / memory:6.2f} (wanted: at least 0.50)")


if __name__ == "__main__":
    main()
