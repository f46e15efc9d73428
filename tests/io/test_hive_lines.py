"""Folders that our sinks of lines make are read back as columns."""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path

import polars as pl
import pytest

import unistream as us

ROWS = pl.DataFrame(
    {
        "n": [1, 2, 3, 4, 5],
        "day": [date(2026, 1, 1), date(2026, 1, 2), None, date(2026, 1, 1), date(2026, 1, 2)],
        "city": ["Köln", "a/b", "x=y", "", "a/b"],
    }
)


@pytest.mark.parametrize("form", ["csv", "ndjson", "parquet"])
def test_what_is_written_is_read(tmp_path: Path, form: str) -> None:
    stream = us.from_frame(ROWS)
    getattr(stream, f"sink_{form}")(tmp_path / "out", partition_by=["day", "city"]).run(progress=False)
    read = getattr(us, f"scan_{form}")(tmp_path / "out")
    assert read.schema == ROWS.schema
    assert read.collect().sort("n").equals(ROWS)
    assert read.select("city").collect().sort("city")["city"].to_list() == sorted(ROWS["city"])
    some = read.filter(pl.col("day") == date(2026, 1, 1)).select("n", "day").collect()
    assert sorted(some["n"]) == [1, 4]


KINDS = {
    "truth": pl.Series([True, False, None, True]),
    "large": pl.Series([0, 2**63, 2**64 - 1, None], dtype=pl.UInt64),
    "moment": pl.Series(
        [datetime(2026, 1, 2, 3, 4, 5, 6), datetime(1960, 1, 1), None, datetime(9999, 12, 31)]
    ),
    "in_utc": pl.Series([0, 1, 10**15, None]).cast(pl.Datetime("us", "UTC")),
}


@pytest.mark.parametrize("form", ["csv", "ndjson", "parquet"])
@pytest.mark.parametrize("name", KINDS)
def test_folders_of_every_type_are_read_as_it(tmp_path: Path, form: str, name: str) -> None:
    rows = pl.DataFrame({"n": [1, 2, 3, 4], name: KINDS[name]})
    getattr(us.from_frame(rows), f"sink_{form}")(tmp_path / "out", partition_by=name).run(progress=False)
    read = getattr(us, f"scan_{form}")(tmp_path / "out")
    assert read.schema == rows.schema
    assert read.collect().sort("n").equals(rows)
    value = rows[name][1]
    assert read.filter(pl.col(name) == value).select("n").collect()["n"].to_list() == [2]


MOMENT, OTHER = "2026-01-02 03:04:05", "2026-01-02T03:04:05.5"


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["true", "FALSE"], pl.Boolean()),
        (["true", "yes"], pl.String()),
        ([MOMENT, OTHER], pl.Datetime("us")),
        ([MOMENT + "Z", OTHER + "+02:00"], pl.Datetime("us", "UTC")),
        ([MOMENT, MOMENT + "Z"], pl.String()),
        ([MOMENT, "2026-01-02"], pl.String()),
        (["2026-01-02 24:04:05", "2026-13-02 03:04:05"], pl.String()),
        ([MOMENT + ".000000001"], pl.String()),
        (["9999-12-31 23:59:59-01:00"], pl.String()),
        ([str(2**64)], pl.String()),
        (["-1", str(2**63)], pl.String()),
    ],
)
@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_type_holds_all_values_of_a_column(
    tmp_path: Path, form: str, values: list[str], kind: pl.DataType
) -> None:
    for value in values:
        folder = tmp_path / f"p={value}"
        folder.mkdir()
        getattr(pl.DataFrame({"n": [1]}), f"write_{form}")(folder / f"x.{form}")
    read = getattr(us, f"scan_{form}")(tmp_path)
    assert read.schema == {"n": pl.Int64(), "p": kind}
    assert read.collect()["p"].n_unique() == len(values)


def test_folders_can_be_left_alone(tmp_path: Path) -> None:
    us.from_frame(ROWS).sink_ndjson(tmp_path / "out", partition_by="day").run(progress=False)
    assert us.scan_ndjson(tmp_path / "out", hive=False).columns == ["n", "city"]
    assert us.scan_ndjson(tmp_path / "out", tail=True).columns == ["n", "city"]


def test_a_column_of_the_file_wins(tmp_path: Path) -> None:
    folder = tmp_path / "n=7"
    folder.mkdir()
    (folder / "x.csv").write_text("n,m\n1,2\n")
    assert us.scan_csv(tmp_path).collect().rows() == [(1, 2)]


def test_a_watched_folder_gives_its_columns(tmp_path: Path) -> None:
    us.from_frame(ROWS).sink_csv(tmp_path / "out", partition_by="day").run(progress=False)
    found = us.scan_csv(tmp_path / "out", watch=True, poll="50ms").collect(until="available")
    assert found.select(ROWS.columns).sort("n").equals(ROWS)


def test_a_file_in_another_kind_of_folder_is_told(tmp_path: Path) -> None:
    for name in ("day=2026-01-01", "day=soon"):
        (tmp_path / name).mkdir()
    (tmp_path / "day=2026-01-01" / "x.csv").write_text("n\n1\n")
    stream = us.scan_csv(tmp_path)
    (tmp_path / "day=soon" / "x.csv").write_text("n\n1\n")
    with pytest.raises(us.JobFailed, match="'soon', which is no Date"):
        stream.collect()


def test_a_week_is_no_date(tmp_path: Path) -> None:
    for week in ("2026-W05", "2026-W06-1"):
        (tmp_path / f"week={week}").mkdir()
        (tmp_path / f"week={week}" / "x.csv").write_text("n\n1\n")
    read = us.scan_csv(tmp_path)
    assert read.schema["week"] == pl.String
    assert read.collect()["week"].to_list() == ["2026-W05", "2026-W06-1"]


@pytest.mark.parametrize("form", ["csv", "ndjson"])
def test_a_column_of_the_file_wins_beside_other_folders(tmp_path: Path, form: str) -> None:
    for month in ("01", "02"):
        folder = tmp_path / "year=2026" / f"month={month}"
        folder.mkdir(parents=True)
        rows = pl.DataFrame({"year": [2025], "n": [int(month)]})
        getattr(rows, f"write_{form}")(folder / f"x.{form}")
    read = getattr(us, f"scan_{form}")(tmp_path)
    rows = pl.DataFrame({"year": [2025, 2025], "n": [1, 2], "month": [1, 2]})
    assert read.collect().sort("n").equals(rows)
    assert read.select("month").collect().sort("month").equals(rows.select("month"))
    assert read.collect(settings=us.Settings(whole_query=False)).sort("n").equals(rows)


def test_folder_columns_need_a_file(tmp_path: Path) -> None:
    options = {"schema": {"n": pl.Int64}, "watch": True}
    with pytest.raises(us.InvalidQuery, match="no file yet to take the folder columns from") as caught:
        us.scan_ndjson(tmp_path, hive=True, **options)
    assert caught.value.hint
    assert us.scan_ndjson(tmp_path, **options).columns == ["n"]
    assert us.scan_ndjson(tmp_path, hive=False, **options).columns == ["n"]
