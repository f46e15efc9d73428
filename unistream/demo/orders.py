"""Generated orders and the one question that is asked of them."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl

import unistream as us

START = datetime(2026, 1, 1, 9)
MINUTES = 60
ITEMS = 50
DISORDER_SECONDS = 4
SCHEMA = pl.Schema(
    {
        "order": pl.Int64(),
        "ts": pl.Datetime("us"),
        "item": pl.String(),
        "status": pl.String(),
        "amount": pl.Float64(),
    }
)


def make_orders(rows: int, seed: int = 7) -> pl.DataFrame:
    """Orders of one hour, numbered, up to a few seconds out of order; the same for the same seed."""
    rng = np.random.default_rng(seed)
    span = MINUTES * 60 * 1_000_000
    moments = np.sort(rng.integers(0, span, rows))
    arrival = np.argsort(moments + rng.integers(0, DISORDER_SECONDS * 1_000_000, rows))
    times = np.datetime64(START, "us") + moments[arrival].astype("timedelta64[us]")
    return pl.DataFrame(
        {
            "order": np.arange(rows),
            "ts": times,
            "item": pl.Series(rng.zipf(1.3, rows) % ITEMS).cast(pl.String).str.zfill(2),
            "status": pl.Series(np.where(rng.random(rows) < 0.8, "paid", "open")),
            "amount": np.round(rng.gamma(2.0, 20.0, rows), 2),
        },
        schema=SCHEMA,
    )


def revenue(orders: us.Stream) -> us.Stream:
    """Paid orders and their worth, per item and minute."""
    return (
        orders.filter(pl.col("status") == "paid")
        .group_by("item")
        .window(us.tumbling("1m"))
        .agg(
            orders=pl.len(),
            cents=(pl.col("amount") * 100).round().cast(pl.Int64).sum(),
            largest=pl.col("amount").max(),
        )
    )


def with_time(orders: us.Stream) -> us.Stream:
    """Orders may come a few seconds late."""
    return orders.with_event_time("ts", delay=f"{DISORDER_SECONDS + 1}s")


def files(folder: Path) -> us.Stream:
    """All orders, from files."""
    return with_time(us.scan_parquet(folder / "*.parquet"))


def live(folder: Path, address: str) -> us.Stream:
    """Orders from files that appear in a folder and from a server.

    A server that is connected to again sends again what it sent before: a socket cannot be read twice.
    Orders are therefore known by their number; ten minutes are enough to remember one.
    """
    watched = with_time(us.scan_parquet(folder, watch=True, poll="100ms"))
    received = with_time(us.scan_socket(address, schema=SCHEMA))
    return watched.union(received).unique("order", within="10m")
