"""A job that sends to a server that is away, or does not read, can be stopped."""

from __future__ import annotations

import socket

import polars as pl

import unistream as us

ENOUGH = 20.0
"""Seconds; below the sink's own patience of 30."""


def test_a_server_that_is_away() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    run = us.scan_rate(10_000).sink_socket(f"127.0.0.1:{port}").start()
    assert run.stop(timeout=ENOUGH)
    assert run.status == "stopped"


def test_a_server_that_does_not_read() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        wide = us.scan_rate(1_000_000).with_columns(text=pl.lit("x" * 1000))
        run = wide.sink_socket(f"127.0.0.1:{port}").start()
        peer, _ = server.accept()
        with peer:
            assert run.stop(timeout=ENOUGH)
        assert run.status == "stopped"
