"""Every row of every file comes once, in order, from wherever reading goes on."""

from __future__ import annotations

import datetime as dt
import json
import os
import pickle
import shutil
import threading
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from unistream.clock import Clock
from unistream.elements import MAX_TIME
from unistream.errors import ConnectorError, DataError, InvalidSettings
from unistream.io.base import Chunk, Exhausted, Reader, Request, Wait
from unistream.io.parquet_source import ParquetSource
from unistream.one_query import Terms


class HandClock(Clock):
    """Moves only when a test says so."""

    def __init__(self) -> None:
        self.micros = 0

    def now(self) -> int:
        return self.micros

    def steady(self) -> float:
        return self.micros / 1_000_000

    def wait(self, event: threading.Event, seconds: float) -> bool:
        self.micros += round(seconds * 1_000_000)
        return event.is_set()


def rows(start: int, count: int) -> pl.DataFrame:
    return pl.DataFrame({"id": pl.Series(range(start, start + count), dtype=pl.Int64)}).with_columns(
        ts=(pl.col("id") * 1_000_000).cast(pl.Datetime("us")),
        name=pl.format("name {}", pl.col("id") % 10),
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four files of 1000 rows in row groups of 100, one of them empty."""
    base = tmp_path / "in"
    (base / "sub").mkdir(parents=True)
    for start, name in ((0, "a"), (1000, "b"), (2000, "sub/c")):
        rows(start, 1000).write_parquet(base / f"{name}.parquet", row_group_size=100)
    rows(0, 0).write_parquet(base / "d.parquet")
    return base


def polls(reader: Reader, max_rows: int = 10**6) -> list[Chunk]:
    """All chunks up to the first time there is nothing."""
    chunks = []
    while isinstance(chunk := reader.poll(max_rows), Chunk):
        chunks.append(chunk)
    return chunks


def read(source: ParquetSource, max_rows: int = 10**6, **request: Any) -> pl.DataFrame:
    return pl.concat([chunk.frame for chunk in polls(source.open({}, Request(**request)), max_rows)])


def test_all_rows_in_the_order_of_names(folder: Path) -> None:
    source = ParquetSource(folder)
    assert source.bounded and source.schema() == rows(0, 1).schema
    assert_frame_equal(read(source), rows(0, 3000))
    chunks = polls(source.open({}, Request()))
    assert [(c.split, c.frame.height, c.ended) for c in chunks] == [
        ("a.parquet", 1000, True),
        ("b.parquet", 1000, True),
        ("d.parquet", 0, True),
        ("sub/c.parquet", 1000, True),
    ]


def test_slices_end_with_row_groups_where_they_can(folder: Path) -> None:
    heights = [c.frame.height for c in polls(ParquetSource(folder / "a.parquet").open({}, Request()), 350)]
    assert heights == [300, 300, 300, 100]
    heights = [c.frame.height for c in polls(ParquetSource(folder / "a.parquet").open({}, Request()), 70)]
    assert max(heights) == 70 and sum(heights) == 1000


def test_columns_and_filter_are_pushed(folder: Path) -> None:
    source = ParquetSource(folder)
    assert source.pushes == {"columns", "predicate"}
    wanted = pl.col("id").is_between(1950, 2049)
    got = read(source, 100, columns=("name", "id"), predicate=wanted & (pl.col("ts").dt.year() == 1970))
    assert_frame_equal(got, rows(1950, 100).select("name", "id"))
    chunks = polls(source.open({}, Request(columns=("name",), predicate=wanted)), 100)
    assert sum(c.scanned_rows or 0 for c in chunks) == 3000
    assert {name for c in chunks for name in c.frame.columns} == {"name"}


@settings(max_examples=30, deadline=None)
@given(sizes=st.lists(st.integers(1, 400), min_size=1, max_size=8), stop=st.integers(0, 30), data=st.data())
def test_reading_goes_on_where_it_stopped(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], stop: int, data: st.DataObject
) -> None:
    base = tmp_path_factory.mktemp("resume")
    for start, name in ((0, "a"), (500, "b")):
        rows(start, 500).write_parquet(base / f"{name}.parquet", row_group_size=120)
    predicate = data.draw(st.sampled_from([None, pl.col("id") % 7 != 0]))
    source, request = ParquetSource(base), Request(predicate=predicate)
    positions: dict[str, Any] = {}
    frames = []
    reader = source.open({}, request)
    for turn in range(stop):
        chunk = reader.poll(sizes[turn % len(sizes)])
        if isinstance(chunk, Exhausted):
            break
        assert isinstance(chunk, Chunk)
        frames.append(chunk.frame)
        positions[chunk.split] = json.loads(json.dumps(chunk.position))
    again = pickle.loads(pickle.dumps(source)).open(positions, request)
    frames += [chunk.frame for chunk in polls(again, 333)]
    expected = rows(0, 1000) if predicate is None else rows(0, 1000).filter(predicate)
    assert_frame_equal(pl.concat(frames), expected)
    shutil.rmtree(base)


def test_the_whole_query_gives_the_same_rows(folder: Path) -> None:
    query = ParquetSource(folder).lazy(Terms())
    assert query is not None
    assert_frame_equal(query.collect(), read(ParquetSource(folder)))
    assert ParquetSource(folder, watch=True).lazy(Terms()) is None
    assert ParquetSource(folder, on_error="skip").lazy(Terms()) is None


class TestHive:
    @pytest.fixture
    def base(self, tmp_path: Path) -> Path:
        for number, (day, shop, zone) in enumerate(
            [("2024-01-01", "7", "a%2Fb"), ("2024-01-02", "08", "__HIVE_DEFAULT_PARTITION__")]
        ):
            path = tmp_path / f"day={day}" / f"shop={shop}" / f"zone={zone}" / "x.parquet"
            path.parent.mkdir(parents=True)
            rows(number * 10, 10).write_parquet(path)
        return tmp_path

    def expected(self) -> pl.DataFrame:
        first = rows(0, 20)["id"] < 10
        return rows(0, 20).with_columns(
            day=pl.when(first).then(dt.date(2024, 1, 1)).otherwise(dt.date(2024, 1, 2)),
            shop=pl.when(first).then(7).otherwise(8).cast(pl.Int64),
            zone=pl.when(first).then(pl.lit("a/b")),
        )

    def test_folders_are_typed_columns(self, base: Path) -> None:
        source = ParquetSource(base)
        assert source.schema() == self.expected().schema
        assert_frame_equal(read(source), self.expected())
        query = source.lazy(Terms())
        assert query is not None
        assert_frame_equal(query.collect(), self.expected())

    def test_they_can_be_filtered_and_left_out(self, base: Path) -> None:
        source = ParquetSource(base)
        wanted = (pl.col("day") == dt.date(2024, 1, 2)) & (pl.col("id") > 15)
        got = read(source, predicate=wanted, columns=("shop", "id"))
        assert_frame_equal(got, self.expected().filter(wanted).select("shop", "id"))
        assert ParquetSource(base, hive=False).schema() == rows(0, 1).schema
        assert_frame_equal(read(ParquetSource(base, hive=False)), rows(0, 20))

    def test_a_folder_time_holds_the_watermark_back(self, base: Path) -> None:
        pending = ParquetSource(base).open({}, Request(time_column="day")).pending()
        assert sorted(pending.values()) == [1704067200_000_000, 1704153600_000_000]  # type: ignore[type-var]

    def test_a_file_at_another_depth(self, base: Path) -> None:
        source = ParquetSource(base, hive=True)
        rows(0, 1).write_parquet(base / "day=2024-01-02" / "y.parquet")
        with pytest.raises(DataError, match="lies in folders for"):
            read(source)


class TestOtherColumns:
    @pytest.mark.parametrize(
        ("frame", "said"),
        [
            (rows(0, 1).drop("name"), "lacks 'name'"),
            (rows(0, 1).with_columns(more=1), "has also 'more'"),
            (rows(0, 1).with_columns(pl.col("id").cast(pl.Int32)), "has 'id' as Int32, not Int64"),
        ],
    )
    def test_both_files_are_named(self, folder: Path, frame: pl.DataFrame, said: str) -> None:
        frame.write_parquet(folder / "b.parquet")
        for run in (lambda: read(ParquetSource(folder)), lambda: ParquetSource(folder).lazy(Terms())):
            with pytest.raises(DataError) as caught:
                run()
            message = caught.value.message
            assert said in message and "in/b.parquet" in message and "in/a.parquet" in message

    def test_another_order_of_columns_is_no_difference(self, folder: Path) -> None:
        rows(1000, 1000).select("name", "id", "ts").write_parquet(folder / "b.parquet")
        assert_frame_equal(read(ParquetSource(folder)), rows(0, 3000))
        query = ParquetSource(folder).lazy(Terms())
        assert query is not None
        assert_frame_equal(query.collect(), rows(0, 3000))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def zeroed(path: Path) -> None:
    """Pages overwritten, the footer still there."""
    whole = path.read_bytes()
    path.write_bytes(whole[:4] + bytes(len(whole) // 2) + whole[4 + len(whole) // 2 :])


def foreign(path: Path) -> None:
    path.write_text("id,ts\n1,2\n")


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [cut, zeroed, foreign, empty])
class TestBroken:
    def test_fail_names_the_file(self, folder: Path, damage: Any) -> None:
        source = ParquetSource(folder)
        damage(folder / "b.parquet")
        with pytest.raises(DataError) as caught:
            read(source)
        assert "in/b.parquet is not a readable Parquet file" in caught.value.message
        assert 'on_error="skip"' in (caught.value.hint or "")

    def test_skip_reads_the_others(self, folder: Path, damage: Any) -> None:
        source = ParquetSource(folder, on_error="skip")
        assert source.schema()
        damage(folder / "b.parquet")
        got = read(source).filter(~pl.col("id").is_between(1000, 1999))
        assert_frame_equal(got, rows(0, 3000).filter(~pl.col("id").is_between(1000, 1999)))

    def test_collect_tells_the_reason_once(self, folder: Path, damage: Any) -> None:
        source = ParquetSource(folder, on_error="collect")
        damage(folder / "b.parquet")
        chunks = polls(source.open({}, Request()))
        rejected = pl.concat([c.rejected for c in chunks if c.rejected is not None])
        assert rejected["split"].to_list() == ["b.parquet"]
        assert "not a readable Parquet file" in rejected["reason"][0]
        positions = {c.split: c.position for c in chunks}
        assert isinstance(source.open(positions, Request()).poll(1), Exhausted)


def test_a_filter_that_fails_is_not_blamed_on_the_file(folder: Path) -> None:
    source = ParquetSource(folder, on_error="skip")
    with pytest.raises(pl.exceptions.InvalidOperationError):
        read(source, predicate=pl.col("name").cast(pl.Int64) > 1)


class TestTime:
    def test_waiting_files_tell_their_least_time(self, folder: Path) -> None:
        reader = ParquetSource(folder).open({}, Request(time_column="ts"))
        second = 1_000_000
        expected = {
            "a.parquet": 0,
            "b.parquet": 1000 * second,
            "d.parquet": MAX_TIME,
            "sub/c.parquet": 2000 * second,
        }
        assert reader.pending() == expected
        kept = reader.pending()
        reader.poll(10)
        assert reader.pending() == {split: t for split, t in expected.items() if split != "a.parquet"}
        assert kept == expected
        polls(reader)
        assert reader.pending() == {}

    def test_unknown_where_the_footer_says_nothing(self, tmp_path: Path) -> None:
        rows(5, 5).write_parquet(tmp_path / "a.parquet", statistics=False)
        nothing = rows(5, 5).with_columns(ts=pl.lit(None, pl.Datetime("us")))
        nothing.write_parquet(tmp_path / "b.parquet")
        source = ParquetSource(tmp_path)
        assert source.open({}, Request(time_column="ts")).pending() == {
            "a.parquet": None,
            "b.parquet": MAX_TIME,
        }
        assert source.open({}, Request()).pending() == {"a.parquet": None, "b.parquet": None}
        assert source.open({}, Request(time_column="name")).pending()["b.parquet"] is None

    @pytest.mark.parametrize(
        ("kind", "least"),
        [
            (pl.Datetime("ns"), 5_000_000),
            (pl.Datetime("ms"), 5_000_000),
            (pl.Datetime("us", "Europe/Berlin"), 5_000_000),
            (pl.Date, 0),
        ],
    )
    def test_every_type_of_time(self, tmp_path: Path, kind: Any, least: int) -> None:
        frame = rows(5, 5)
        zoned = isinstance(kind, pl.Datetime) and kind.time_zone is not None
        ts = (
            frame["ts"].dt.replace_time_zone("UTC").dt.convert_time_zone("Europe/Berlin")
            if zoned
            else frame["ts"]
        )
        frame.with_columns(ts.cast(kind)).write_parquet(tmp_path / "a.parquet")
        pending = ParquetSource(tmp_path).open({}, Request(time_column="ts")).pending()
        assert pending == {"a.parquet": least}


class TestWatch:
    def next_look(self, reader: Reader, clock: HandClock) -> list[str]:
        clock.micros += 1_000_000
        return [chunk.split for chunk in polls(reader)]

    def test_each_new_file_once_when_it_is_whole(self, folder: Path) -> None:
        clock = HandClock()
        source = ParquetSource(folder, watch=True)
        assert not source.bounded
        reader = source.open({}, Request(clock=clock))
        first = polls(reader), self.next_look(reader, clock)
        assert first[0] == [] and sorted(first[1]) == ["a.parquet", "b.parquet", "d.parquet", "sub/c.parquet"]
        whole = (folder / "a.parquet").read_bytes()
        half = folder / "e.parquet"
        half.write_bytes(whole[: len(whole) // 2])
        assert [self.next_look(reader, clock) for _ in range(4)] == [[]] * 4
        waiting = reader.poll(1)
        assert isinstance(waiting, Wait) and "e.parquet" in waiting.reason
        half.write_bytes(whole)
        assert [self.next_look(reader, clock) for _ in range(3)] == [[], ["e.parquet"], []]

    def test_after_a_restart_begun_files_go_on_and_read_ones_stay_read(self, folder: Path) -> None:
        clock = HandClock()
        source = ParquetSource(folder, watch=True)
        reader = source.open({}, Request(clock=clock))
        self.next_look(reader, clock)
        rows(3000, 1000).write_parquet(folder / "z.parquet", row_group_size=100)
        reader = source.open({}, Request(clock=clock))
        reader.poll(1)
        clock.micros += 1_000_000
        chunks = [reader.poll(200) for _ in range(7)]
        positions = {c.split: c.position for c in chunks if isinstance(c, Chunk)}
        seen = pl.concat([c.frame for c in chunks if isinstance(c, Chunk)])
        again = source.open(positions, Request(clock=clock))
        rest = [c.frame for c in polls(again)]
        clock.micros += 1_000_000
        rest += [c.frame for c in polls(again)]
        assert_frame_equal(pl.concat([seen, *rest]).sort("id"), rows(0, 4000))

    def test_a_file_replaced_after_reading_is_told_once(self, folder: Path) -> None:
        clock = HandClock()
        source = ParquetSource(folder, watch=True, on_error="collect")
        reader = source.open({}, Request(clock=clock))
        polls(reader), self.next_look(reader, clock)
        rows(7, 7).write_parquet(folder / "a.parquet")
        clock.micros += 1_000_000
        told = polls(reader)
        assert [c.split for c in told] == ["a.parquet"] and told[0].frame.is_empty()
        assert told[0].rejected is not None and "was changed after" in told[0].rejected["reason"][0]
        assert self.next_look(reader, clock) == []
        again = source.open({"a.parquet": told[0].position}, Request(clock=clock))
        polls(again)
        assert "a.parquet" not in self.next_look(again, clock)

    @pytest.mark.parametrize("fresh", [rows(5000, 1000), rows(5000, 10), rows(0, 5000)])
    def test_a_file_replaced_while_it_is_read_is_no_mixture(self, folder: Path, fresh: pl.DataFrame) -> None:
        reader = ParquetSource(folder / "a.parquet").open({}, Request())
        first = reader.poll(300)
        assert isinstance(first, Chunk) and first.frame["id"].to_list() == list(range(300))
        fresh.write_parquet(folder / "new", row_group_size=100)
        (folder / "new").replace(folder / "a.parquet")
        with pytest.raises(DataError, match="was changed while it was read"):
            polls(reader)

    def test_a_single_file_and_an_empty_folder(self, folder: Path, tmp_path: Path) -> None:
        with pytest.raises(InvalidSettings, match="watch=True needs"):
            ParquetSource(folder / "a.parquet", watch=True)
        (tmp_path / "none").mkdir()
        with pytest.raises(ConnectorError, match="columns are not known"):
            ParquetSource(tmp_path / "none", watch=True).schema()


def test_a_begun_file_that_changed_or_went_is_refused(folder: Path) -> None:
    source = ParquetSource(folder)
    chunk = source.open({}, Request()).poll(100)
    assert isinstance(chunk, Chunk)
    os.utime(folder / "a.parquet", (1, 1))
    with pytest.raises(DataError, match=r"a\.parquet was changed since"):
        source.open({chunk.split: chunk.position}, Request())
    (folder / "a.parquet").unlink()
    with pytest.raises(DataError, match=r"a\.parquet is gone since"):
        source.open({chunk.split: chunk.position}, Request())


def test_a_finished_file_that_changed_is_told_and_not_read_again(folder: Path) -> None:
    source = ParquetSource(folder, on_error="collect")
    positions = {c.split: c.position for c in polls(source.open({}, Request()))}
    rows(7, 7).write_parquet(folder / "a.parquet")
    chunks = polls(source.open(positions, Request()))
    assert [(c.split, c.frame.height) for c in chunks] == [("a.parquet", 0)]


def test_backlog_counts_down_to_nothing(folder: Path) -> None:
    reader = ParquetSource(folder).open({}, Request())
    total = sum(path.stat().st_size for path in folder.rglob("*.parquet"))
    assert reader.backlog().nbytes == reader.backlog().total_bytes == total
    left = []
    while isinstance(reader.poll(100), Chunk):
        left.append(reader.backlog().nbytes or 0)
    assert left == sorted(left, reverse=True)
    assert left[-1] <= (folder / "d.parquet").stat().st_size + 100


def test_configuration_is_plain_data(folder: Path) -> None:
    source = ParquetSource([folder, folder / "*.parquet"])
    assert pickle.loads(pickle.dumps(source)) == source
    assert source.identity() == ParquetSource((str(folder), str(folder / "*.parquet"))).identity()
    assert hash(source) == hash(ParquetSource((str(folder), str(folder / "*.parquet"))))
    assert ParquetSource(folder, watch=True).describe()["watch"] == "every 1 s"
    with pytest.raises(InvalidSettings, match="Unknown on_error"):
        ParquetSource(folder, on_error="ignore")  # type: ignore[arg-type]
