"""Frames that are kept hold about the memory that their rows use, whatever they were taken from."""

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from polars.testing import assert_frame_equal

from unistream.state.arrow_buffers import held_bytes
from unistream.state.detached import LEFT_OVER, WORTHWHILE, without_left_overs
from unistream.state.log_table import FrameLog

ROWS = 20_000


def frame(random: np.random.Generator) -> pl.DataFrame:
    texts = pl.Series([None if n % 7 == 0 else f"a text of some length, number {n}" for n in range(ROWS)])
    return pl.DataFrame(
        {
            "n": random.integers(0, 100, ROWS),
            "text": texts,
            "bytes": texts.cast(pl.Binary),
            "kind": pl.Series(["x", "y"] * (ROWS // 2), dtype=pl.Categorical),
            "short": pl.Series(["abc"] * ROWS),
        }
    ).with_columns(texts=pl.concat_list("text", "short"), both=pl.struct("n", "text"))


@pytest.mark.parametrize("seed", range(10))
def test_few_rows_hold_few_bytes(seed: int) -> None:
    random = np.random.default_rng(seed)
    whole = frame(random)
    if seed % 2:
        whole = pl.concat([whole, frame(random)], rechunk=False)
    few = whole.filter(pl.Series(random.random(whole.height) < 0.02 * (seed + 1)))
    kept = without_left_overs(few)
    assert_frame_equal(kept, few)
    for column in kept.get_columns():
        assert held_bytes(column) <= max(LEFT_OVER * column.estimated_size(), WORTHWHILE), column.name


@pytest.mark.parametrize("wide", [pl.Int128, pl.UInt128])
def test_numbers_that_arrow_does_not_know_beside_text(wide: type[pl.DataType]) -> None:
    numbers = pl.Series("n", range(ROWS)).cast(wide)
    whole = (
        frame(np.random.default_rng(0))
        .with_columns(numbers)
        .with_columns(both=pl.struct("n", "text"), lists=pl.concat_list(pl.struct("n", "text")))
    )
    few = whole.filter(pl.col("n") % 997 == 3).select("both", "lists")
    kept = without_left_overs(few)
    assert_frame_equal(kept, few)
    assert held_bytes(kept["both"]) < held_bytes(few["both"]) // 50


def test_what_is_used_is_not_copied() -> None:
    whole = frame(np.random.default_rng(0))
    assert without_left_overs(whole) is whole
    few = whole.head(50)  # of a frame that is small itself
    assert without_left_overs(few.select("n")).equals(few.select("n"))


def test_nothing_and_nulls() -> None:
    whole = frame(np.random.default_rng(0))
    assert_frame_equal(without_left_overs(whole.clear()), whole.clear())
    nulls = whole.filter(pl.col("text").is_null())
    assert_frame_equal(without_left_overs(nulls), nulls)


def test_a_log_holds_what_its_rows_use() -> None:
    random = np.random.default_rng(0)
    log = FrameLog(pl.Schema({"text": pl.String}))
    for number in range(50):
        rows = frame(random).select("text").filter(pl.Series(random.random(ROWS) < 0.05))
        log.append(number % 3, rows)
    used = sum(rows.estimated_size() for bucket in log.buckets() for rows in log.frames(bucket))
    held = sum(held_bytes(rows["text"]) for bucket in log.buckets() for rows in log.frames(bucket))
    assert held <= used * LEFT_OVER


def test_held_bytes_equal_what_pyarrow_tells() -> None:
    def buffers(array: pa.Array) -> dict[int, int]:
        if pa.types.is_string_view(array.type) or pa.types.is_binary_view(array.type):
            return {buffer.address: buffer.size for buffer in array.buffers()[2:]}
        if pa.types.is_struct(array.type):
            return {place: size for part in array.flatten() for place, size in buffers(part).items()}
        return buffers(array.values) if pa.types.is_nested(array.type) else {}

    whole = pl.concat([frame(np.random.default_rng(seed)) for seed in range(2)], rechunk=False)
    for rows in (whole, whole[ROWS - 5 : ROWS + 5], whole.filter(pl.col("n") < 5), whole.clear()):
        for column in rows.get_columns():
            chunks = [chunk.to_arrow(compat_level=pl.CompatLevel.newest()) for chunk in column.get_chunks()]
            told = {place: size for chunk in chunks for place, size in buffers(chunk).items()}
            assert held_bytes(column) == sum(told.values()), column.name
