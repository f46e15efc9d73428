"""Profiles of queries: whose time the time of libraries is."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from benchmarks.compare import inputs
from benchmarks.compare.profiles import SHARES, Owners, Profiled, line, pool_seconds, profiled, room, spread
from unistream.io.byte_counts import count_byte
from unistream.of_columns import in_one_piece
from unistream.operators import stateless
from unistream.operators.row_places import runs_of
from unistream.state.gather import taken

ROWS = 200_000


def test_the_time_of_libraries_is_that_of_the_room_that_calls_them() -> None:
    frame, order = pl.DataFrame({"a": np.arange(ROWS)}), np.arange(ROWS)[::-1].copy()
    reader = threading.Thread(target=lambda: [count_byte(b"a,b\n" * ROWS, 44) for _ in range(20)])
    with Profiled() as found:
        reader.start()
        for _ in range(20):
            taken(frame, order)
        reader.join()
    owners = Owners(found.profiles)
    shares, functions = spread(owners)
    assert len(found.profiles) == 2
    assert shares["state"] > 0 and shares["reading"] > 0
    assert shares["kernels"] == 0
    assert functions["taken"] > 0 and "count_byte" not in functions  # what reads is not named
    assert sum(shares.values()) <= sum(owners.own.values()) + 1e-6


def test_numpy_in_an_operator_is_a_kernel_when_it_is_called_by_name() -> None:
    rows = np.arange(ROWS)[::-1].copy()
    with Profiled() as found:
        for _ in range(20):
            runs_of(rows)
    shares, functions = spread(Owners(found.profiles))
    assert shares["kernels"] > 0  # `sort`, `arange` and `flatnonzero`
    assert functions["runs_of"] > 0.5 * sum(functions.values())


def test_calls_in_a_ring_end() -> None:
    def ping(times: int) -> None:
        if times:
            pong(times - 1)

    def pong(times: int) -> None:
        if times:
            ping(times - 1)

    with Profiled() as found:
        ping(50)
    shares, _ = spread(Owners(found.profiles))
    assert room(ping.__code__) is None and sum(shares.values()) == 0
    assert room(in_one_piece.__code__) is not None and room("<built-in method sum>") is None


def test_threads_that_end_while_they_are_counted_are_passed_over() -> None:
    def short_lives() -> None:
        for _ in range(2_000):
            threading.Thread(target=int).start()

    many = threading.Thread(target=short_lives)
    many.start()
    while many.is_alive():
        assert pool_seconds() >= 0


@pytest.mark.parametrize("query", ["q0", "q4"])
def test_a_query_is_profiled(query: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stateless, "SMALL_FRAME", stateless.SMALL_FRAME)  # it is set for the process
    folder = str(inputs.prepared(tmp_path, 5_000))
    found = profiled(query, folder, folder)
    total = sum(found["shares"].values())
    assert 0.3 * found["cpu"] < total < 1.2 * found["cpu"]
    assert set(found["shares"]) <= {*SHARES} and found["shares"]["reading"] > 0
    assert line(query, found).count("|") == 5 + len(SHARES) + 1
