"""Rows come back from Parquet files as they went in, once, whatever happens on the way."""

from __future__ import annotations

import datetime as dt
import itertools
import json
import pickle
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from unistream.errors import ConnectorError, InvalidQuery, InvalidSettings
from unistream.expressions.schema import CHANGE, StreamSchema
from unistream.io.base import Cancelled, WriterContext
from unistream.io.listing import Listing
from unistream.io.parquet_sink import ParquetSink

ROWS = pl.DataFrame(
    {
        "id": pl.Series(range(1000), dtype=pl.Int64),
        "day": [dt.date(2024, 1, 1 + i % 3) for i in range(1000)],
        "name": [f"name-{i}" if i % 7 else None for i in range(1000)],
    }
)

TYPES = pl.DataFrame(
    {
        "i8": pl.Series([1, None], dtype=pl.Int8),
        "u64": pl.Series([2**63, None], dtype=pl.UInt64),
        "f32": pl.Series([1.5, None], dtype=pl.Float32),
        "text": ["a", None],
        "bytes": [b"\x00", None],
        "bool": [True, None],
        "date": [dt.date(2024, 1, 1), None],
        "time": [dt.time(1, 2, 3, 4), None],
        "span": pl.Series([dt.timedelta(seconds=1), None], dtype=pl.Duration("ms")),
        "zoned": pl.Series([dt.datetime(2024, 1, 1), None], dtype=pl.Datetime("us", "Europe/Berlin")),
        "nano": pl.Series([dt.datetime(2024, 1, 1), None], dtype=pl.Datetime("ns")),
        "category": pl.Series(["a", None], dtype=pl.Categorical),
        "enum": pl.Series(["a", None], dtype=pl.Enum(["a", "b"])),
        "decimal": pl.Series(["1.23", None]).cast(pl.Decimal(10, 2)),
        "nothing": pl.Series([None, None]),
        "list": [[1, 2], None],
        "array": pl.Series([[1, 2], None], dtype=pl.Array(pl.Int64, 2)),
        "struct": [{"x": 1, "y": ["a"]}, None],
        "structs": [[{"a": 1}], None],
    }
)


def context(frame: pl.DataFrame, **more: Any) -> WriterContext:
    return WriterContext("job", StreamSchema(frame.schema), **more)


def write(sink: ParquetSink, frames: list[pl.DataFrame], **more: Any) -> None:
    writer = sink.open(context(frames[0], **more))
    for frame in frames:
        writer.write(frame)
    sink.commit([writer.prepare(1)])
    writer.close()


def write_query(sink: ParquetSink, frames: list[pl.DataFrame]) -> None:
    sink.commit([sink.lazy(pl.concat(frames).lazy(), context(frames[0])).run()])


@pytest.fixture(params=[write, write_query], ids=["writer", "query"])
def way(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture(autouse=True)
def no_thread_stays() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        if thread.name.startswith("parquet-"):
            thread.join(20)
            assert not thread.is_alive()


def files(out: Path) -> list[str]:
    return [entry.split for entry in Listing.of(out).find(required=False)]


def read_checked(out: Path) -> pl.DataFrame:
    """All rows by another reader, which verifies every page's checksum."""
    tables = [pq.ParquetFile(out / name, page_checksum_verification=True).read() for name in files(out)]
    return pl.concat([pl.DataFrame(pl.from_arrow(table)) for table in tables])


def test_every_type_comes_back(out: Path, way: Any) -> None:
    sink = ParquetSink(out)
    sink.check(StreamSchema(TYPES.schema))
    sink.prepare_target(restored=False)
    way(sink, [TYPES, TYPES])
    back = pl.read_parquet(out)
    assert back.schema == TYPES.schema
    assert_frame_equal(back, pl.concat([TYPES, TYPES]))


def test_every_page_carries_a_checksum(out: Path, way: Any) -> None:
    sink = ParquetSink(out, row_group_rows=100)
    sink.prepare_target(restored=False)
    way(sink, [ROWS])
    assert_frame_equal(read_checked(out).sort("id"), ROWS)
    (name,) = files(out)[:1]
    whole = bytearray((out / name).read_bytes())
    (damaged := out.parent / "damaged.parquet").write_bytes(_flipped(whole))
    with pytest.raises(OSError, match="CRC"):
        pq.ParquetFile(damaged, page_checksum_verification=True).read()


def _flipped(whole: bytearray) -> bytes:
    """One bit changed near the end of the first column's last page."""
    column = pq.ParquetFile(pa.BufferReader(bytes(whole))).metadata.row_group(0).column(0)
    start = column.dictionary_page_offset or column.data_page_offset
    whole[start + column.total_compressed_size - 20] ^= 1
    return bytes(whole)


def test_files_are_full_at_max_file_rows(out: Path, way: Any) -> None:
    sink = ParquetSink(out, max_file_rows=300)
    sink.prepare_target(restored=False)
    way(sink, [ROWS.slice(i, 250) for i in range(0, 1000, 250)])
    sizes = [pq.ParquetFile(out / name).metadata.num_rows for name in files(out)]
    assert sum(sizes) == 1000
    assert max(sizes) <= 300
    assert len(sizes) <= 5
    assert_frame_equal(pl.read_parquet(out).sort("id"), ROWS)


def test_one_small_transaction_makes_one_file(out: Path, way: Any) -> None:
    sink = ParquetSink(out)
    sink.prepare_target(restored=False)
    way(sink, [ROWS.slice(i, 10) for i in range(0, 1000, 10)])
    assert files(out) == ["part-0-00000001-0000.parquet"]
    assert_frame_equal(pl.read_parquet(out), ROWS)


HOSTILE = ["../../evil", "a/b", "", None, ".", "..", "a=b", "é", "a b", "100%", "a%2Fb", "x:y", "*?[", "\n"]


def test_partition_values_come_back_and_stay_in_the_folder(out: Path, way: Any) -> None:
    rows = pl.DataFrame({"id": range(len(HOSTILE)), "key": HOSTILE})
    sink = ParquetSink(out, partition_by="key")
    sink.prepare_target(restored=False)
    way(sink, [rows])
    back = pl.read_parquet(out, hive_partitioning=True, hive_schema={"key": pl.String})
    assert_frame_equal(back.sort("id"), rows)
    assert sorted(path.name for path in out.parent.iterdir()) == ["out"]
    assert all(len(name.split("/")) == 2 for name in files(out))


def test_several_partition_columns_of_several_types(out: Path, way: Any) -> None:
    rows = ROWS.with_columns(even=pl.col("id") % 2 == 0, hour=pl.col("day").cast(pl.Datetime))
    sink = ParquetSink(out, partition_by=["day", "even", "hour"])
    sink.check(StreamSchema(rows.schema))
    sink.prepare_target(restored=False)
    way(sink, [rows.head(500), rows.tail(500)])
    assert len(files(out)) == 6
    back = pl.read_parquet(out, hive_partitioning=True, hive_schema=rows.select("day", "even", "hour").schema)
    assert_frame_equal(back.sort("id"), rows, check_column_order=False)


def test_no_rows_can_be_read_back(out: Path, way: Any) -> None:
    sink = ParquetSink(out)
    sink.prepare_target(restored=False)
    way(sink, [ROWS.clear()])
    assert_frame_equal(pl.read_parquet(out), ROWS.clear())


def test_no_rows_make_no_partition(out: Path) -> None:
    sink = ParquetSink(out, partition_by="day")
    sink.prepare_target(restored=False)
    writer = sink.open(context(ROWS))
    assert writer.prepare(1) is None
    writer.close()


def test_more_partitions_than_open_files(out: Path) -> None:
    rows = pl.DataFrame({"id": range(900), "key": [i % 300 for i in range(900)]})
    sink = ParquetSink(out, partition_by="key", row_group_rows=1)
    sink.prepare_target(restored=False)
    write(sink, [rows])
    assert_frame_equal(pl.read_parquet(out, hive_partitioning=True).sort("id"), rows)


@settings(max_examples=20, deadline=None)
@given(
    cuts=st.lists(st.integers(0, 1000), max_size=6),
    file_rows=st.integers(1, 1200),
    group_rows=st.integers(50, 1200),
    partitioned=st.booleans(),
)
def test_any_cut_gives_the_same_rows(
    tmp_path_factory: pytest.TempPathFactory,
    cuts: list[int],
    file_rows: int,
    group_rows: int,
    partitioned: bool,
) -> None:
    out = tmp_path_factory.mktemp("cut")
    sink = ParquetSink(
        out,
        max_file_rows=max(20, file_rows),
        row_group_rows=group_rows,
        partition_by="day" if partitioned else (),
    )
    sink.prepare_target(restored=False)
    edges = sorted({0, 1000, *cuts})
    write(sink, [ROWS.slice(a, b - a) for a, b in itertools.pairwise(edges)])
    back = pl.read_parquet(out, hive_partitioning=True)
    assert_frame_equal(back.sort("id"), ROWS, check_column_order=False)
    shutil.rmtree(out)


def test_the_same_cuts_give_the_same_bytes(tmp_path: Path) -> None:
    written = []
    for name in ("a", "b"):
        sink = ParquetSink(tmp_path / name, row_group_rows=100)
        sink.prepare_target(restored=False)
        write(sink, [ROWS.slice(i, 130) for i in range(0, 1000, 130)])
        written.append({file: (tmp_path / name / file).read_bytes() for file in files(tmp_path / name)})
    assert written[0] == written[1]
    assert len(written[0]) == 2


def test_each_transaction_holds_its_own_rows_and_only_committed_ones_are_seen(out: Path) -> None:
    sink = ParquetSink(out)
    sink.prepare_target(restored=False)
    writer = sink.open(context(ROWS, checkpoints=True, bounded=False))
    tokens = []
    for checkpoint in range(1, 4):
        writer.write(ROWS.slice(100 * checkpoint, 100))
        tokens.append(json.loads(json.dumps(writer.prepare(checkpoint))))
        assert files(out) == [f"part-0-{i:08}-0000.parquet" for i in range(1, checkpoint)]
        sink.commit(tokens[-1:])
    assert writer.prepare(4) is None
    writer.write(ROWS)
    writer.close()
    assert_frame_equal(pl.read_parquet(out), ROWS.slice(100, 300))
    sink.abort(context(ROWS))
    assert sorted(path.name for path in out.iterdir()) == files(out)


def test_recover_commits_the_checkpoint_and_drops_what_came_later(out: Path) -> None:
    sink = ParquetSink(out)
    sink.prepare_target(restored=False)
    writer = sink.open(context(ROWS, checkpoints=True))
    writer.write(ROWS.head(10))
    first = writer.prepare(1)
    writer.write(ROWS.slice(10, 10))
    writer.prepare(2)
    writer.write(ROWS.slice(20, 10))
    shutil.copytree(out, out.parent / "crashed")
    writer.close()

    again = ParquetSink(out.parent / "crashed")
    again.prepare_target(restored=True)
    again.recover([first], context(ROWS, checkpoints=True))
    writer = again.open(context(ROWS, checkpoints=True))
    writer.write(ROWS.slice(10, 20))
    again.commit([writer.prepare(2)])
    writer.close()
    assert_frame_equal(pl.read_parquet(out.parent / "crashed"), ROWS.head(30))


def test_the_change_column_never_reaches_a_file(out: Path, way: Any) -> None:
    sink = ParquetSink(out)
    sink.prepare_target(restored=False)
    frame = ROWS.with_columns(pl.lit(0, pl.Int8).alias(CHANGE))
    writer_context = context(ROWS)
    if way is write:
        writer = sink.open(writer_context)
        writer.write(frame)
        sink.commit([writer.prepare(1)])
        writer.close()
    else:
        sink.commit([sink.lazy(frame.lazy(), writer_context).run()])
    assert pl.read_parquet_schema(out / files(out)[0]) == ROWS.schema


def test_due_by_rows_and_by_age(out: Path) -> None:
    sink = ParquetSink(out, max_file_rows=100, max_file_age="10s")
    sink.prepare_target(restored=False)
    writer = sink.open(context(ROWS, bounded=False))
    assert not writer.due(0)
    writer.write(ROWS.head(50))
    assert [writer.due(now * 1_000_000) for now in (100, 105, 110)] == [False, False, True]
    writer.prepare(1)
    assert not writer.due(200_000_000)
    writer.write(ROWS.head(100))
    assert writer.due(200_000_000)
    writer.close()
    bounded = sink.open(context(ROWS))
    bounded.write(ROWS)
    assert not bounded.due(10**15)
    bounded.close()


def test_age_is_counted_anew_when_the_clock_is_put_back(out: Path) -> None:
    sink = ParquetSink(out, max_file_age="10s")
    sink.prepare_target(restored=False)
    writer = sink.open(context(ROWS, bounded=False))
    writer.write(ROWS)
    seconds = (5_000, 5_009, 1_000, 1_009, 1_010)
    assert [writer.due(second * 1_000_000) for second in seconds] == [False, False, False, False, True]
    writer.close()


def test_a_writer_that_cannot_write_says_so_and_leaves_no_thread(out: Path) -> None:
    sink = ParquetSink(out, row_group_rows=10)
    sink.prepare_target(restored=False)
    writer = sink.open(context(ROWS))
    writer.write(ROWS.head(5))
    shutil.rmtree(out)
    out.write_text("a file where the folder was")
    with pytest.raises((ConnectorError, OSError)):
        writer.write(ROWS)
        writer.prepare(1)
    writer.close()


class TestQuery:
    def test_cancel_before_and_during_the_run(self, out: Path) -> None:
        sink = ParquetSink(out)
        sink.prepare_target(restored=False)
        run = sink.lazy(ROWS.lazy(), context(ROWS))
        run.cancel()
        with pytest.raises(Cancelled):
            run.run()
        reached, go_on = threading.Event(), threading.Event()

        def hold(frame: pl.DataFrame) -> pl.DataFrame:
            reached.set()
            go_on.wait(20)
            return frame

        held = sink.lazy(ROWS.lazy().map_batches(hold, schema=ROWS.schema), context(ROWS))
        canceller = threading.Thread(target=lambda: (reached.wait(20), held.cancel()))
        canceller.start()
        with pytest.raises(Cancelled):
            held.run()
        canceller.join()
        go_on.set()
        assert files(out) == []

    def test_an_error_of_the_query_is_raised_as_it_is(self, out: Path) -> None:
        sink = ParquetSink(out)
        sink.prepare_target(restored=False)
        bad = ROWS.lazy().with_columns(pl.col("name").cast(pl.Int64))
        with pytest.raises(pl.exceptions.InvalidOperationError):
            sink.lazy(bad, context(ROWS)).run()
        sink.abort(context(ROWS))
        assert list(out.iterdir()) == []

    def test_an_error_of_the_disk_is_not_hidden(self, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(file: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("unistream.io.parquet_query.sync_file", full)
        sink = ParquetSink(out)
        sink.prepare_target(restored=False)
        with pytest.raises(ConnectorError, match="No space left"):
            sink.lazy(ROWS.lazy(), context(ROWS)).run()

    def test_progress_counts_rows(self, out: Path) -> None:
        sink = ParquetSink(out, partition_by="day", max_file_rows=100)
        sink.prepare_target(restored=False)
        run = sink.lazy(ROWS.lazy(), context(ROWS))
        assert run.progress() == 0
        run.run()
        assert run.progress() == 1000


def test_check_refuses_what_cannot_be(out: Path) -> None:
    schema = StreamSchema(pl.Schema({"a": pl.Int64, "big": pl.Int128, "list": pl.List(pl.Int64)}))
    with pytest.raises(InvalidQuery, match="Int128"):
        ParquetSink(out).check(schema)
    with pytest.raises(InvalidQuery, match="not found in partition_by"):
        ParquetSink(out, partition_by="b").check(schema)
    with pytest.raises(InvalidQuery, match="cannot name folders"):
        ParquetSink(out, partition_by="list").check(schema)
    with pytest.raises(InvalidQuery, match="none is left"):
        ParquetSink(out, partition_by="a").check(StreamSchema(pl.Schema({"a": pl.Int64})))


@pytest.mark.parametrize("wrong", [{"compression": "zip"}, {"mode": "replace"}, {"max_file_rows": 0}])
def test_wrong_options(out: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidSettings):
        ParquetSink(out, **wrong)


def test_a_folder_with_data_is_refused(out: Path, way: Any) -> None:
    for mode, rows in (("error", 1000), ("append", 2000), ("overwrite", 1000)):
        sink = ParquetSink(out, mode=mode)
        sink.prepare_target(restored=False)
        if mode == "append":
            writer = sink.open(WriterContext("second", StreamSchema(ROWS.schema)))
            writer.write(ROWS)
            sink.commit([writer.prepare(1)])
            writer.close()
        else:
            way(sink, [ROWS])
        assert pl.read_parquet(out).height == rows
    with pytest.raises(ConnectorError, match="is not empty"):
        ParquetSink(out).prepare_target(restored=False)


def test_configuration_is_plain_data(out: Path) -> None:
    sink = ParquetSink(out, partition_by=["day"])
    assert pickle.loads(pickle.dumps(sink)) == sink
    assert hash(sink) == hash(ParquetSink(str(out), partition_by="day"))
    assert sink.describe()["partition_by"] == "day"
