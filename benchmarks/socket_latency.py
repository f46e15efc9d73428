"""How long a row takes from `send` in another process to a frame, at several rates.

Run: python benchmarks/socket_latency.py [seconds per rate]
"""

from __future__ import annotations

import multiprocessing
import socket
import sys
import time

import polars as pl

from unistream.io.base import Chunk, Request
from unistream.io.tcp import TcpReader, TcpSource

SCHEMA = pl.Schema({"sent": pl.Int64, "user": pl.String})
RATES = (100, 10_000, 100_000)


def send(port: int, rate: int, seconds: float) -> None:
    """Rows in bursts of a millisecond, or one by one at low rates; each carries the time it was sent."""
    burst = max(1, rate // 1_000)
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        begun = time.perf_counter()
        for number in range(int(rate * seconds) // burst):
            time.sleep(max(0.0, begun + number * burst / rate - time.perf_counter()))
            row = b'{"sent": %d, "user": "user-%d"}\n' % (time.perf_counter_ns(), number)
            sock.sendall(row * burst)


def receive(reader: TcpReader) -> tuple[pl.Series, int]:
    """Age of every row in milliseconds when its frame is there, and the number of frames."""
    ages: list[pl.Series] = []
    while True:
        polled = reader.poll(250_000)
        if isinstance(polled, Chunk):
            ages.append((time.perf_counter_ns() - polled.frame["sent"]) / 1e6)
            if polled.ended:
                return pl.concat(ages), len(ages)


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 3.0
    context = multiprocessing.get_context("spawn")
    for rate in RATES:
        reader = TcpSource("127.0.0.1:0", SCHEMA, listen=True).open({}, Request())
        sender = context.Process(target=send, args=(reader.address.port, rate, seconds), daemon=True)
        sender.start()
        try:
            ages, frames = receive(reader)
        finally:
            reader.close()
            sender.join(10)
            sender.kill()
        p50, p99 = ages.quantile(0.5), ages.quantile(0.99)
        print(
            f"{rate:>9,} rows/s: p50 {p50:.2f} ms, p99 {p99:.2f} ms, {ages.len() / frames:,.1f} rows a frame"
        )


if __name__ == "__main__":
    main()
