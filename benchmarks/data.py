"""Generated orders, kept under benchmarks/.data between runs."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl

FOLDER = Path(__file__).parent / ".data"
STATUSES = ["paid", "open", "returned", "cancelled"]


def orders(rows: int, seed: int = 1) -> pl.DataFrame:
    """Orders of one day in time order: id, ts, user, item, status, amount, note."""
    rng = np.random.default_rng(seed)
    start = np.datetime64(datetime(2026, 1, 1), "us")
    offsets = np.sort(rng.integers(0, 86_400_000_000, rows))
    return pl.DataFrame(
        {
            "id": np.arange(rows),
            "ts": start + offsets.astype("timedelta64[us]"),
            "user": rng.integers(0, 900_000, rows),
            "item": rng.integers(0, 10_000, rows),
            "status": pl.Series(rng.integers(0, 4, rows)).replace_strict(
                dict(enumerate(STATUSES)), return_dtype=pl.String
            ),
            "amount": np.round(rng.gamma(2.0, 20.0, rows), 2),
            "note": pl.Series(rng.integers(0, 50_000, rows)).cast(pl.String).str.zfill(12),
        }
    )


def order_files(rows: int, files: int) -> Path:
    """A folder of Parquet files with `rows` orders in all; made once."""
    folder = FOLDER / f"orders-{rows}-{files}"
    if not (folder / "done").exists():
        folder.mkdir(parents=True, exist_ok=True)
        each = rows // files
        for number in range(files):
            orders(each, number).write_parquet(folder / f"{number:03}.parquet", row_group_size=125_000)
        (folder / "done").touch()
    return folder
