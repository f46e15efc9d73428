"""Sockets in whole jobs: restarts over a spool and a checkpoint, and from one job to another."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

import polars as pl

import unistream as us


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def connected(port: int) -> socket.socket:
    deadline = time.monotonic() + 20
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=20)
        except OSError:
            assert time.monotonic() < deadline
            threading.Event().wait(0.01)


def wait_until_spooled(folder: Path, rows: int) -> None:
    deadline = time.monotonic() + 20
    while sum(file.read_bytes().count(b'{"n"') for file in folder.glob("*.spool1")) < rows:
        assert time.monotonic() < deadline
        threading.Event().wait(0.005)


class Table:
    """Stores the rows of each checkpoint once."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.done: set[int] = set()
        self.arrived = threading.Condition()

    def store(self, frame: pl.DataFrame, checkpoint_id: int) -> None:
        with self.arrived:
            if checkpoint_id not in self.done:
                self.done.add(checkpoint_id)
                self.rows += frame["n"].to_list()
                self.arrived.notify_all()

    def wait_for(self, count: int) -> None:
        with self.arrived:
            assert self.arrived.wait_for(lambda: len(self.rows) >= count, 20), self.rows


def test_rows_over_a_spool_are_stored_once_across_restarts(tmp_path: Path) -> None:
    table, port = Table(), free_port()
    stream = us.scan_socket(f":{port}", schema={"n": pl.Int64}, listen=True, spool=tmp_path / "spool")
    for begin in range(0, 30, 10):
        run = stream.sink_batches(table.store).start(checkpoint=str(tmp_path / "kept"), every="20ms")
        with connected(port) as sock:
            for n in range(begin, begin + 10):
                sock.sendall(b'{"n": %d}\n' % n)
        wait_until_spooled(tmp_path / "spool", begin + 10)
        run.stop()  # perhaps before a checkpoint covers them
    with stream.sink_batches(table.store).start(checkpoint=str(tmp_path / "kept"), every="20ms"):
        table.wait_for(30)
    assert table.rows == list(range(30))


def test_rows_go_from_one_job_to_another() -> None:
    port, sent = free_port(), pl.DataFrame({"n": range(50_000)})
    received = us.scan_socket(f"127.0.0.1:{port}", schema={"n": pl.Int64}, on_close="end")
    results: list[pl.DataFrame] = []
    with socket.create_server(("127.0.0.1", port)) as listener:
        collecting = threading.Thread(target=lambda: results.append(received.collect()), daemon=True)
        collecting.start()
        listener.settimeout(20)
        there = listener.accept()[0]
        there.settimeout(20)
        with socket.create_server(("127.0.0.1", 0)) as relay:
            place = f"127.0.0.1:{relay.getsockname()[1]}"
            job = us.from_frame(sent).sink_socket(place)
            writing = threading.Thread(target=lambda: job.run(progress=False), daemon=True)
            writing.start()
            relay.settimeout(20)
            here = relay.accept()[0]
            here.settimeout(20)
            while data := here.recv(1 << 16):
                there.sendall(data)
            here.close()
            there.close()
            writing.join(20)
        collecting.join(20)
    assert results[0]["n"].to_list() == sent["n"].to_list()
