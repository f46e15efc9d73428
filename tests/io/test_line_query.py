"""CSV within one query gives what the source's own reader gives in ticks: rows, rejections and errors."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import unistream as us
from unistream.errors import UnistreamError
from unistream.io import csv_query
from unistream.io.csv_look import LOOK_BYTES

SCHEMA = {"a": pl.Int64, "t": pl.Datetime("ms"), "f": pl.Float64, "s": pl.String}
START = 1_700_000_000_000
ODD_LINES = [
    b"", b"\r", b"1", b"1,2", b"1,2,3,4,5", b"x,2,3,s", b'1,2,3,"s"', b'1,2,3,"a,b"', b'1,2,3,"open',
    b"1,2,3,", b",,,", b" 7,2,3,s", b"1,2,inf,s", b"1,2,1e999,s", b"1,2024-01-01,3,s", b"1,2024-13-01,3,s",
    b"1,2,3,\xff", b"\xef\xbb\xbf1,2,3,s", b"99999999999999999999,2,3,s", b"1,2,3,s\r", b"1,2,3,s,", b",2,3",
    b"NA,2,3,s",
]  # fmt: skip


@pytest.fixture
def hopeful(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are long enough to be read as if there were no quotes, to begin with."""
    monkeypatch.setattr(csv_query, "LEAST_PLAIN", 0)


def line(number: int) -> bytes:
    return f"{number},{START + number},{number / 2},text {number}".encode()


def outcome(stream: us.Stream, whole: bool) -> object:
    """The rows in order, or what the error says."""
    try:
        return stream.collect(settings=us.Settings(whole_query=whole)).rows()
    except UnistreamError as error:
        return str(error).partition("\n")[0].partition(" failed: ")[2]  # who failed is not the same


def both(stream: us.Stream) -> object:
    """What came out, the same either way; the explanation says that it was begun as one query."""
    assert "one Polars streaming query" in stream.explain()
    one, ticks = outcome(stream, True), outcome(stream, False)
    assert one == ticks
    return one


def views(scan: us.Stream) -> list[us.Stream]:
    timed = scan.with_event_time("t", unit="ms") if isinstance(scan.schema["t"], pl.Int64) else scan
    return [
        scan,
        scan.select("a", "s"),
        scan.select("s").filter(pl.col("s") != "text 3"),
        timed.with_event_time("t", unit="ms", delay="5ms").select("a"),
        scan.filter(pl.col("a") % 2 == 0).select(b=pl.col("a") + 1),
    ]


@pytest.mark.parametrize("odd", ODD_LINES, ids=range(len(ODD_LINES)))
@pytest.mark.parametrize(("place", "end"), [(0, b"\n"), (11, b"\n"), (20, b"")])
def test_odd_lines(
    tmp_path: Path, odd: bytes, place: int, end: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_query, "LEAST_PLAIN", 0 if place == 11 else 1 << 30)
    lines = [line(number) for number in range(20)]
    (tmp_path / "0.csv").write_bytes(b"\n".join(lines) + b"\n")
    (tmp_path / "1.csv").write_bytes(b"\n".join([*lines[:place], odd, *lines[place:]]) + end)
    options: dict[str, Any] = {"null_values": ["NA"]} if odd.startswith(b"NA") else {}
    for on_error in ("fail", "skip"):
        scan = us.scan_csv(tmp_path, schema=SCHEMA, has_header=False, on_error=on_error, **options)
        for view in views(scan):
            both(view)


def test_random_files(tmp_path: Path, hopeful: None) -> None:
    draw = random.Random(7)
    for _ in range(30):
        lines = [line(number) for number in range(draw.randrange(1, 60))]
        for _ in range(draw.randrange(4)):
            lines.insert(draw.randrange(len(lines) + 1), draw.choice(ODD_LINES))
        (tmp_path / "x.csv").write_bytes(draw.choice([b"\n", b"\r\n"]).join(lines))
        for view in views(us.scan_csv(tmp_path, schema=SCHEMA, has_header=False, on_error="skip")):
            both(view)


@pytest.mark.parametrize(
    "header", ["a,t,f,s", "s,f,t,a", "a,t,f,s,more", "a,t,s", "a,a,t,f,s", '"a",t,f,s', "A,t,f,s", ""]
)
def test_headers(tmp_path: Path, header: str) -> None:
    order = header.replace('"', "").split(",")
    values = {"a": "1", "t": str(START), "f": "0.5", "s": "x", "more": "y", "A": "1", "": ""}
    row = ",".join(values[name] for name in order)
    (tmp_path / "0.csv").write_text(f"a,t,f,s\n1,{START},0.5,x\n")
    for name in ("1.csv", ".hidden.csv"):
        (tmp_path / name).write_text(f"{header}\n{row}\n{row}\n")
    for stream in (
        us.scan_csv(tmp_path, schema=SCHEMA),
        us.scan_csv(tmp_path / "1.csv", schema=SCHEMA),
        us.scan_csv(tmp_path, schema={"s": pl.String, "a": pl.Int64}),
        us.scan_csv(tmp_path / "1.csv", schema={"s": pl.String, "a": pl.Int64}).select("a"),
    ):
        both(stream)


@pytest.mark.parametrize("length", [LOOK_BYTES - 20, LOOK_BYTES, 3 * LOOK_BYTES])
@pytest.mark.parametrize("last", [True, False])
def test_long_lines(tmp_path: Path, length: int, last: bool) -> None:
    lines = [line(0), b"1,2,3," + b"x" * (length - 6), *([] if last else [line(1)])]
    (tmp_path / "x.csv").write_bytes(b"\n".join(lines))
    scan = us.scan_csv(tmp_path, schema=SCHEMA, has_header=False, on_error="skip", max_line_bytes=LOOK_BYTES)
    rows = both(scan.select("a"))
    assert rows == [(number,) for number in ([0] if last else [0, 1])] or length <= LOOK_BYTES


def test_what_is_wrong_far_behind_is_found(tmp_path: Path, hopeful: None) -> None:
    good = b"".join(line(number) + b"\n" for number in range(60_000))
    scan = us.scan_csv(tmp_path, schema=SCHEMA, has_header=False)
    for bad in (b"1,2,3\n", b"1,2,3,4,5\n", b"x,2,3,4\n", b'1,2,3,"\n'):
        (tmp_path / "x.csv").write_bytes(good + bad + line(1))
        assert "line 60001" in str(both(scan.select("a")))
    (tmp_path / "x.csv").write_bytes(good + b'1,2,3,"quoted, ""as"" allowed"\n')
    assert both(scan.select("s").filter(pl.col("s").str.contains(","))) == [('quoted, "as" allowed',)]


@pytest.mark.parametrize(("delay", "counted"), [("2s", 30_000), ("1h", 30_001)])
def test_rows_that_come_late_are_late(tmp_path: Path, delay: str, counted: int) -> None:
    lines = [f"{number},{number * 10}" for number in range(30_000)]
    (tmp_path / "x.csv").write_text("\n".join([*lines[:29_000], "-1,1500", *lines[29_000:]]))
    timed = us.scan_csv(tmp_path, schema={"a": pl.Int64, "t": pl.Int64}, has_header=False)
    timed = timed.with_event_time("t", unit="ms", delay=delay)
    windows = timed.window(us.tumbling("10s")).agg(n=pl.len(), least=pl.col("a").min())
    assert "one Polars streaming query" in windows.explain()
    one, ticks = (windows.collect(settings=us.Settings(whole_query=whole)) for whole in (True, False))
    assert one.equals(ticks)
    assert one["n"].sum() == counted


def test_nothing_shows_of_a_query_that_was_given_up(tmp_path: Path, hopeful: None) -> None:
    lines = [line(number) for number in range(50_000)]
    (tmp_path / "x.csv").write_bytes(b"\n".join([*lines, b'1,2,3,"a quote"']))
    job = us.scan_csv(tmp_path / "x.csv", schema=SCHEMA, has_header=False).sink_parquet(tmp_path / "out")
    progress = job.run(progress=False)
    rows = pl.read_parquet(tmp_path / "out" / "*.parquet")
    assert rows.height == progress.rows_out == 50_001
    assert rows["a"].to_list() == [*range(50_000), 1]


def test_a_file_that_goes_while_the_plan_is_built_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(line(0))
    scan = us.scan_csv(path, schema=SCHEMA, has_header=False)
    opened = Path.open

    def gone(self: Path, *args: Any, **options: Any) -> Any:
        path.unlink(missing_ok=True)
        return opened(self, *args, **options)

    monkeypatch.setattr(Path, "open", gone)
    with pytest.raises(UnistreamError, match=r"Cannot read .*x\.csv|No such file"):
        scan.collect()
