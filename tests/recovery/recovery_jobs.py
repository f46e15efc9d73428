"""The job of the recovery tests: files to a running aggregate, a dedup, windows; and what must come out."""

from __future__ import annotations

import contextlib
import sqlite3
from datetime import datetime
from pathlib import Path

import duckdb
import numpy as np
import polars as pl

import unistream as us

RESULTS = ("changes", "firsts", "windows")
KEYS = 7
SPREAD_SECONDS = 3
NEAR_SECONDS = 20
SCHEMA = pl.Schema(
    {"row": pl.Int64, "key": pl.Int64, "user": pl.Int64, "ts": pl.Datetime("us"), "value": pl.Int64}
)


def make_rows(rows: int, seed: int) -> pl.DataFrame:
    """Numbered rows, a second apart, a little out of order."""
    rng = np.random.default_rng(seed)
    seconds = np.arange(rows) - rng.integers(0, SPREAD_SECONDS, rows)
    return pl.DataFrame(
        {
            "row": np.arange(rows),
            "key": rng.integers(0, KEYS, rows),
            "user": rng.integers(0, max(rows // 3, 1), rows),
            "ts": np.datetime64(datetime(2026, 1, 1), "us") + seconds.astype("timedelta64[s]"),
            "value": rng.integers(-50, 50, rows),
        },
        schema=SCHEMA,
    )


def write_input(folder: Path, rows: pl.DataFrame, files: int) -> None:
    """The rows in order, cut into files whose names keep it."""
    folder.mkdir(parents=True, exist_ok=True)
    size = -(-rows.height // files)
    for number, part in enumerate(rows.iter_slices(size)):
        part.write_parquet(folder / f"{number:04}.parquet")


def results(source: us.Stream) -> dict[str, us.Stream]:
    """Three answers, each with state of its own."""
    timed = source.with_event_time("ts", delay=f"{SPREAD_SECONDS}s")
    return {
        "changes": totals(source).changes(),
        "firsts": source.unique("user").select("row", "user"),
        "windows": timed.group_by("key")
        .window(us.tumbling("10s"))
        .agg(n=pl.len(), total=pl.col("value").sum()),
    }


def totals(source: us.Stream) -> us.Stream:
    """The running aggregate."""
    return source.group_by("key").agg(n=pl.len(), total=pl.col("value").sum())


def to_parquet(source: us.Stream, output: Path) -> us.Job:
    """All three answers as one job that reads its input once."""
    return us.job(*(stream.sink_parquet(output / name) for name, stream in results(source).items()))


def to_tables(source: us.Stream, folder: Path, kind: str) -> us.Job:
    """The same in a database, where the running aggregate keeps one row for each key."""
    answers = results(source) | {"changes": totals(source)}
    url = kind if "://" in kind else f"{kind}:///{folder}/answers.db"
    return us.job(*(stream.sink_table(url, name) for name, stream in answers.items()))


def run_to_the_end(source: str, folder: str, every: str, tick_rows: int) -> int:
    """What a process does that may be killed: go on from the newest checkpoint."""
    settings = us.Settings(tick_rows=tick_rows, queue_chunks=4, whole_query=False)
    job = to_parquet(us.scan_parquet(Path(source) / "*.parquet"), Path(folder) / "out")
    progress = job.run(checkpoint=Path(folder) / "ckpt", every=every, settings=settings, progress=False)
    return progress.rows_in


def pairs(source: us.Stream) -> us.Stream:
    """Each gain beside the losses of its key that are near in time, or alone."""
    timed = source.with_event_time("ts", delay=f"{SPREAD_SECONDS}s")
    gains, losses = timed.filter(pl.col("value") > 0), timed.filter(pl.col("value") < 0)
    near = gains.join(losses, on="key", how="left", within=("-5s", f"{NEAR_SECONDS}s"), suffix="_loss")
    return near.select("row", "row_loss", "key", "value", "value_loss")


def join_to_the_end(source: str, folder: str, every: str, tick_rows: int) -> int:
    """The job that joins its input with itself."""
    settings = us.Settings(tick_rows=tick_rows, queue_chunks=4, whole_query=False)
    job = pairs(us.scan_parquet(Path(source) / "*.parquet")).sink_parquet(Path(folder) / "out" / "pairs")
    return job.run(checkpoint=Path(folder) / "ckpt", every=every, settings=settings, progress=False).rows_in


def check_pairs(rows: pl.DataFrame, found: pl.DataFrame) -> None:
    """Compared with all rows beside all others."""
    losses = rows.filter(pl.col("value") < 0).select("key", at="ts", row_loss="row", value_loss="value")
    gains = rows.filter(pl.col("value") > 0)
    later = pl.col("at") - pl.col("ts")
    near = later.is_between(pl.duration(seconds=-5), pl.duration(seconds=NEAR_SECONDS))
    met = gains.join(losses, on="key").filter(near)
    alone = gains.join(met, on="row", how="anti")
    names = ["row", "row_loss", "key", "value", "value_loss"]
    expected = pl.concat([met.select(names), alone.select("row", "key", "value")], how="diagonal")
    assert_equal("pairs", found.sort("row", "row_loss"), expected.select(names).sort("row", "row_loss"))


def with_checkpoints_at(url: str, source: str, folder: str) -> int:
    """The job with its checkpoints somewhere else."""
    job = to_parquet(us.scan_parquet(Path(source) / "*.parquet"), Path(folder) / "out")
    settings = us.Settings(tick_rows=25, queue_chunks=4)
    return job.run(checkpoint=url, every="20ms", settings=settings, progress=False).rows_in


def into_tables(source: str, folder: str, every: str, tick_rows: int, kind: str) -> int:
    """The job that writes to a database."""
    settings = us.Settings(tick_rows=tick_rows, queue_chunks=4, whole_query=False)
    job = to_tables(us.scan_parquet(Path(source) / "*.parquet"), Path(folder), kind)
    return job.run(checkpoint=Path(folder) / "ckpt", every=every, settings=settings, progress=False).rows_in


def in_tables(folder: Path, kind: str) -> dict[str, pl.DataFrame]:
    """What a reader of the database sees."""
    database = str(folder / "answers.db")
    found = {}
    for name in RESULTS:
        if "://" in kind:
            found[name] = in_postgres(kind, name)
        elif kind == "duckdb":
            with duckdb.connect(database, read_only=True) as connection:
                found[name] = pl.DataFrame(connection.sql(f"SELECT * FROM {name}").to_arrow_table())
        else:
            with contextlib.closing(sqlite3.connect(database)) as connection:
                cursor = connection.execute(f"SELECT * FROM {name}")
                columns = [column[0] for column in cursor.description]
                found[name] = pl.DataFrame(cursor.fetchall(), schema=columns, orient="row")
    start = pl.col("window_start")
    if found["windows"].schema["window_start"] == pl.String:
        found["windows"] = found["windows"].with_columns(start.str.to_datetime(time_unit="us"))
    return found


def in_postgres(url: str, name: str) -> pl.DataFrame:
    """The rows of a table of a server."""
    import psycopg

    with psycopg.connect(url) as connection:
        cursor = connection.execute(f"SELECT * FROM {name}".encode())
        columns = [column.name for column in cursor.description or ()]
        return pl.DataFrame(cursor.fetchall(), schema=columns, orient="row")


def clear_postgres(url: str) -> None:
    """As before the first job."""
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        for name in RESULTS:
            connection.execute(f"DROP TABLE IF EXISTS {name}".encode())


def check_tables(rows: pl.DataFrame, found: dict[str, pl.DataFrame]) -> None:
    """As `check_all`, with the last state of the running aggregate in place of its changes."""
    check_firsts_and_windows(rows, found)
    expected = rows.group_by("key").agg(n=pl.len().cast(pl.Int64), total=pl.col("value").sum())
    seen = found["changes"].select("key", pl.col("n").cast(pl.Int64), "total")
    assert_equal("totals", seen.sort("key"), expected.sort("key"))


def written(output: Path, name: str) -> pl.DataFrame:
    """What a reader of the folder sees."""
    files = sorted((output / name).glob("*.parquet"))
    return pl.concat([pl.read_parquet(file) for file in files]) if files else pl.DataFrame()


def check_all(rows: pl.DataFrame, found: dict[str, pl.DataFrame]) -> None:
    """Nothing lost, nothing twice, nothing wrong: compared with plain Polars, however input was cut."""
    check_firsts_and_windows(rows, found)
    check_changes(rows, found["changes"])


def check_firsts_and_windows(rows: pl.DataFrame, found: dict[str, pl.DataFrame]) -> None:
    """What does not depend on how input was cut."""
    firsts = rows.unique("user", keep="first", maintain_order=True).select("row", "user")
    assert_equal("firsts", found["firsts"].sort("row"), firsts.sort("row"))
    start = pl.col("ts").dt.truncate("10s").alias("window_start")
    windows = rows.group_by("key", start).agg(n=pl.len().cast(pl.Int64), total=pl.col("value").sum())
    order = ["key", "window_start", "n", "total"]
    seen = found["windows"].select("key", "window_start", pl.col("n").cast(pl.Int64), "total")
    assert_equal("windows", seen.sort(order), windows.select(order).sort(order))


def check_changes(rows: pl.DataFrame, changes: pl.DataFrame) -> None:
    """Each change is true of the first `n` rows of its key, and taken back once: when the next one comes."""
    of_key = pl.int_range(1, pl.len() + 1).over("key").alias("n")
    truth = rows.select("key", of_key, pl.col("value").cum_sum().over("key").alias("total"))
    seen = changes.with_columns(pl.col("n").cast(pl.Int64)).sort("key", "n")
    wrong = seen.join(truth, on=["key", "n", "total"], how="anti")
    assert wrong.is_empty(), f"changes that were never true: {wrong}"
    comes = seen.filter(pl.col("op").is_in(["+I", "+U"]))
    assert not comes.select("key", "n").is_duplicated().any(), "a change was written twice"
    first = comes.group_by("key", maintain_order=True).first().select("key", "n")
    inserts = comes.filter(pl.col("op") == "+I").select("key", "n")
    assert_equal("first changes", inserts, first)
    last = truth.group_by("key").agg(pl.col("n").max()).sort("key")
    assert_equal("last changes", comes.group_by("key").agg(pl.col("n").max()).sort("key"), last)
    gone = seen.filter(pl.col("op") == "-U").select("key", "n")
    assert_equal("changes taken back", gone, comes.select("key", "n").join(last, on=["key", "n"], how="anti"))


def assert_equal(what: str, found: pl.DataFrame, expected: pl.DataFrame) -> None:
    """The same rows in the same order."""
    if not found.equals(expected):
        missing = expected.join(found, on=expected.columns, how="anti", nulls_equal=True)
        extra = found.join(expected, on=expected.columns, how="anti", nulls_equal=True)
        raise AssertionError(
            f"{what}: {expected.height} expected, {found.height} found; missing {missing}, extra {extra}"
        )
