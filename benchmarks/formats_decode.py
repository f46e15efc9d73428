"""Speed of `Format.decode` beside the bare Polars parser: `python benchmarks/formats_decode.py`.

Prints million rows per second for each and the ratio, at several chunk sizes, for clean data, for typed
columns, and with one bad line in a million.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime

import polars as pl

from unistream.io.formats import CsvFormat, Format, NdjsonFormat

PLAIN = {"id": pl.Int64, "user": pl.String, "amount": pl.Float64, "ok": pl.Boolean}
TIMED = {"id": pl.Int64, "user": pl.String, "ts": pl.Datetime("us")}
NESTED = {"id": pl.Int64, "tags": pl.List(pl.String), "at": pl.Struct({"x": pl.Int64, "y": pl.Float64})}


def rows(count: int) -> pl.DataFrame:
    number = pl.int_range(count)
    start = pl.lit(datetime(2024, 1, 1))
    return pl.select(
        id=number,
        user=pl.concat_str(pl.lit("user"), number * 7919 % 1000),
        amount=(number * 104729 % 10007) / 100,
        ok=number % 3 == 0,
        ts=start + pl.duration(milliseconds=number),
        tags=pl.concat_list(pl.lit("a"), pl.lit("bc")),
        at=pl.struct(x=number % 100, y=number / 7),
    )


def chunks(data: bytes, size: int) -> list[bytes]:
    """Whole lines of about `size` bytes."""
    found, start = [], 0
    while start < len(data):
        end = data.find(b"\n", start + size) + 1 or len(data)
        found.append(data[start:end])
        start = end
    return found


def in_turn(*runs: Callable[[], object], repeats: int = 7) -> list[float]:
    """Seconds of the best of some runs of each, in turn, so that a busy moment hits all alike."""
    best = [float("inf")] * len(runs)
    for _ in range(repeats):
        for index, run in enumerate(runs):
            begin = time.perf_counter()
            run()
            best[index] = min(best[index], time.perf_counter() - begin)
    return best


def compare(what: str, format: Format, data: bytes, count: int, bare: Callable[[bytes], object]) -> None:
    for kib in (64, 256, 1024, 8192):
        parts = chunks(data, kib << 10)
        ours, theirs = in_turn(
            lambda parts=parts: [format.decode(part, first_line=2) for part in parts],
            lambda parts=parts: [bare(part) for part in parts],
        )
        print(
            f"{what:32} {kib:5} KiB   decode {count / ours / 1e6:6.2f} M rows/s   "
            f"bare {count / theirs / 1e6:6.2f}   ratio {theirs / ours:5.2f}"
        )


def one_bad_line(what: str, format: Format, data: bytes, bad: bytes) -> None:
    """What one unreadable line in a million rows costs."""
    for kib in (64, 256, 1024, 8192):
        parts = chunks(data, kib << 10)
        middle = len(parts) // 2
        cut = parts[middle].find(b"\n", len(parts[middle]) // 2) + 1
        spoiled = [*parts[:middle], parts[middle][:cut] + bad + parts[middle][cut:], *parts[middle + 1 :]]
        clean_seconds, bad_seconds = in_turn(
            lambda parts=parts: [format.decode(part, first_line=2) for part in parts],
            lambda parts=spoiled: [format.decode(part, first_line=2) for part in parts],
        )
        cost = 100 * (bad_seconds / clean_seconds - 1)
        print(f"{what:32} {kib:5} KiB   one bad line in 1 M rows costs {cost:5.1f} %")


def main() -> None:
    count = 250_000
    frame = rows(count)
    for what, schema in (("plain", PLAIN), ("datetime", TIMED), ("nested", NESTED)):
        data = frame.select(list(schema)).write_ndjson().encode()
        bare = {name: pl.String if dtype == pl.Datetime else dtype for name, dtype in schema.items()}
        compare(
            f"ndjson {what}",
            NdjsonFormat(pl.Schema(schema)),
            data,
            count,
            lambda d, s=bare: pl.read_ndjson(d, schema=s),
        )
    quoted = frame.select(id="id", user=pl.col("user") + ', "x"', amount="amount", ok="ok")
    for what, source, schema in (
        ("plain", frame, PLAIN),
        ("datetime", frame, TIMED),
        ("quoted", quoted, PLAIN),
    ):
        data = source.select(list(schema)).write_csv(include_header=False).encode()
        bare = {name: pl.String if dtype == pl.Datetime else dtype for name, dtype in schema.items()}
        compare(
            f"csv {what}",
            CsvFormat(pl.Schema(schema)),
            data,
            count,
            lambda d, s=bare: pl.read_csv(d, schema=s, has_header=False),
        )
    million = rows(1_000_000).select(list(PLAIN))
    json_lines, csv_lines = million.write_ndjson().encode(), million.write_csv(include_header=False).encode()
    one_bad_line("ndjson", NdjsonFormat(pl.Schema(PLAIN)), json_lines, b'{"id": "x"}\n')
    one_bad_line("csv", CsvFormat(pl.Schema(PLAIN)), csv_lines, b"x,y\n")


if __name__ == "__main__":
    main()
