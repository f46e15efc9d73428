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
from typing import Any

import polars as pl

from unistream.io.base import Chunk, Request, Wait
from unistream.io.tcp import TcpReader, TcpSource

SCHEMA = pl.Schema({"user": pl.String, "item": pl.Int64, "amount": pl.Float64, "ts": pl.Int64})
ROUNDS = 7

Cost = tuple[float, float]


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


def send(port: int, rows: int, go: Any, begun: Any) -> None:
    data = lines(rows)
    for _ in range(ROUNDS):
        with socket.create_connection(("127.0.0.1", port)) as sock:
            go.wait()
            go.clear()
            begun.value = time.perf_counter()  # one clock for all processes of a machine
            sock.sendall(data)


def receive(reader: TcpReader, rows: int, begun: Any, chunks: list[int]) -> Cost:
    """Seconds from the first byte sent to the last row in a frame, and of the processor in this process."""
    processor = time.process_time()
    seen = 0
    while seen < rows:
        polled = reader.poll(250_000)
        if isinstance(polled, Chunk):
            seen += polled.frame.height
            chunks.append(polled.frame.height)
        else:
            assert isinstance(polled, Wait)
    return time.perf_counter() - float(begun.value), time.process_time() - processor


def parse(data: bytes) -> Cost:
    begun, processor = time.perf_counter(), time.process_time()
    pl.read_ndjson(data, schema=SCHEMA)
    return time.perf_counter() - begun, time.process_time() - processor


def main() -> None:
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    data = lines(rows)
    print(f"{rows:,} rows, {len(data) / 1e6:.0f} MB of NDJSON, {pl.thread_pool_size()} Polars threads")
    source = TcpSource("127.0.0.1:0", SCHEMA, listen=True)
    context = multiprocessing.get_context("spawn")
    go, begun = context.Event(), context.Value("d", 0.0)
    reader = source.open({}, Request())
    sender = context.Process(target=send, args=(reader.address.port, rows, go, begun), daemon=True)
    sender.start()
    over_socket, in_memory, chunks = [], [], []
    try:
        for _ in range(ROUNDS):
            in_memory.append(parse(data))
            go.set()
            over_socket.append(receive(reader, rows, begun, chunks))
    finally:
        reader.close()
        sender.join(10)
        sender.kill()
    report(rows, over_socket, in_memory, chunks)


def report(rows: int, over_socket: list[Cost], in_memory: list[Cost], chunks: list[int]) -> None:
    for what, costs in (("over the socket", over_socket), ("in memory", in_memory)):
        walls, processors = zip(*costs, strict=True)
        median, best = rows / statistics.median(walls) / 1e6, rows / min(walls) / 1e6
        each = statistics.median(processors) / rows * 1e9
        print(f"{what:<16} {median:6.2f} M rows/s, best {best:.2f}; {each:4.0f} ns of processor per row")
    print(f"rows per chunk   {statistics.median(chunks):,.0f}")
    ratios = [memory[0] / sent[0] for sent, memory in zip(over_socket, in_memory, strict=True)]
    work = [memory[1] / sent[1] for sent, memory in zip(over_socket, in_memory, strict=True)]
    print(
        f"ratio            {statistics.median(ratios):6.2f}, in processor time {statistics.median(work):.2f}"
    )
    print("wanted: at least 0.50, better 0.70")


if __name__ == "__main__":
    main()
