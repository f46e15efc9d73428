"""The file with checksums is the file without them, and every flipped bit of a page is found."""

from __future__ import annotations

import io
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from unistream.io.parquet_checksums import ChecksumFile


def written(frame: pl.DataFrame, **options: object) -> bytes:
    buffer = io.BytesIO()
    frame.write_parquet(buffer, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def passed_through(original: bytes, path: Path, step: int) -> ChecksumFile:
    file = ChecksumFile(path.open("wb", buffering=0))
    for start in range(0, len(original), step):
        file.write(original[start : start + step])
    return file


def frame(rows: int) -> pl.DataFrame:
    return pl.DataFrame({"n": range(rows)}).with_columns(
        text=pl.format("text {}", pl.col("n") % 97),
        maybe=pl.when(pl.col("n") % 3 == 0).then(pl.col("n") / 7),
        list=pl.concat_list(pl.col("n"), pl.lit(1)),
        pair=pl.struct(a="n", b=pl.lit("x")),
    )


@settings(max_examples=40, deadline=None)
@given(
    rows=st.sampled_from([0, 1, 100, 5000]),
    step=st.sampled_from([7, 100, 4096, 10**9]),
    group=st.sampled_from([50, 1000, 10**6]),
    page=st.sampled_from([512, 1 << 20]),
    codec=st.sampled_from(["zstd", "lz4", "uncompressed", "snappy"]),
)
def test_nothing_but_the_checksums_is_added(
    tmp_path_factory: pytest.TempPathFactory, rows: int, step: int, group: int, page: int, codec: str
) -> None:
    rows = min(rows, 100 if group == 50 or step == 7 else rows)
    path = tmp_path_factory.getbasetemp() / "checked.parquet"
    original = written(frame(rows), compression=codec, row_group_size=group, data_page_size=page)
    file = passed_through(original, path, step)
    assert file.complete and file.rows == rows and file.error is None
    assert_frame_equal(pl.read_parquet(path), frame(rows))
    checked = pq.ParquetFile(path, page_checksum_verification=True)
    assert_frame_equal(pl.DataFrame(pl.from_arrow(checked.read())), frame(rows))
    assert_sizes_agree(pq.ParquetFile(io.BytesIO(original)).metadata, checked.metadata)


def assert_sizes_agree(before: pq.FileMetaData, after: pq.FileMetaData) -> None:
    """Chunks follow each other as before, each grown by what its pages grew."""
    grown = 0
    for group in range(before.num_row_groups):
        for column in range(before.num_columns):
            old, new = before.row_group(group).column(column), after.row_group(group).column(column)
            assert new.statistics == old.statistics
            assert new.data_page_offset - old.data_page_offset >= grown
            grown += new.total_compressed_size - old.total_compressed_size
            assert new.total_uncompressed_size - old.total_uncompressed_size == (
                new.total_compressed_size - old.total_compressed_size
            )
    assert (grown > 0) == (before.num_rows > 0)


def test_filters_still_find_their_pages(tmp_path: Path) -> None:
    rows = frame(20_000)
    passed_through(written(rows, row_group_size=1000, data_page_size=512), tmp_path / "x.parquet", 10**9)
    wanted = pl.col("n").is_between(7_300, 7_310)
    assert_frame_equal(pl.scan_parquet(tmp_path / "x.parquet").filter(wanted).collect(), rows.filter(wanted))


def test_every_flipped_bit_of_a_page_is_found(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    passed_through(written(pl.DataFrame({"n": range(64)}), compression="uncompressed"), path, 10**9)
    whole = path.read_bytes()
    chunk = pq.ParquetFile(path).metadata.row_group(0).column(0)
    dictionary_end, end = chunk.data_page_offset, chunk.dictionary_page_offset + chunk.total_compressed_size
    for position in (*range(dictionary_end - 64 * 8, dictionary_end), *range(end - 48, end)):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position % 8
        with pytest.raises(OSError):
            pq.ParquetFile(io.BytesIO(damaged), page_checksum_verification=True).read()


def test_a_file_cut_short_stays_incomplete(tmp_path: Path) -> None:
    original = written(frame(1000))
    file = passed_through(original[:-20], tmp_path / "x.parquet", 100)
    file.close()
    assert not file.complete
    with pytest.raises(pa.ArrowInvalid, match="magic bytes"):
        pq.ParquetFile(tmp_path / "x.parquet")


def test_an_error_of_the_target_is_kept(tmp_path: Path) -> None:
    class Full(io.RawIOBase):
        def write(self, data: object) -> int:
            raise OSError(28, "No space left on device")

    file = ChecksumFile(Full())  # type: ignore[arg-type]
    with pytest.raises(OSError):
        file.write(written(frame(10)))
    assert isinstance(file.error, OSError)


def test_a_file_that_has_checksums_stays_as_it_is(tmp_path: Path) -> None:
    once, twice = tmp_path / "once.parquet", tmp_path / "twice.parquet"
    passed_through(written(frame(5000), row_group_size=500), once, 10**9)
    passed_through(once.read_bytes(), twice, 10**9)
    assert once.read_bytes() == twice.read_bytes()
