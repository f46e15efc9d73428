"""The share of a bounded job that is done never goes back and is 1 at its end; no row is left uncounted."""

import polars as pl
import pytest

import unistream as us
from unistream.io.memory import MemorySink

ROWS = 5_000
FRAME = pl.DataFrame({"a": range(ROWS), "s": ["x"] * ROWS})


@pytest.fixture
def sources(tmp_path):
    FRAME.write_parquet(tmp_path / "x.parquet", row_group_size=700)
    FRAME.write_csv(tmp_path / "x.csv")
    bad = "".join(f'{{"a": {row}}}\n' if row % 7 else "{bad\n" for row in range(ROWS))
    (tmp_path / "x.ndjson").write_text(bad)
    schema = {"a": pl.Int64}
    return {
        "frame": us.from_frame(FRAME),
        "parquet": us.scan_parquet(tmp_path / "x.parquet"),
        "csv": us.scan_csv(tmp_path / "x.csv"),
        "rejecting": us.scan_ndjson(tmp_path / "x.ndjson", schema=schema, on_error="collect"),
        "skipping": us.scan_ndjson(tmp_path / "x.ndjson", schema=schema, on_error="skip"),
        "list": us.scan_iterable([{"a": row} for row in range(ROWS)], schema=schema),
        "rate": us.scan_rate(1e6, total_rows=ROWS).select(a="value"),
        "union": us.scan_parquet(tmp_path / "x.parquet").union(us.scan_csv(tmp_path / "x.csv")),
    }


NAMES = ["frame", "parquet", "csv", "rejecting", "skipping", "list", "rate", "union"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("predicate", [pl.col("a") % 3 == 0, pl.lit(True), pl.col("a") < 0])
def test_each_tick_counts_on(sources, name, predicate):
    job = sources[name].filter(predicate).sink_batches(lambda frame: None)
    runtime = job.runtime(settings=us.Settings(tick_rows=500, whole_query=False), threads=False)
    runtime.open()
    try:
        seen = [runtime.progress("running")]
        while runtime.step():
            seen.append(runtime.progress("running"))
        seen.append(runtime.progress("finished"))
    finally:
        runtime.close()
    shares = [progress.done for progress in seen]
    assert None not in shares
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert shares[0] < 1.0
    last = seen[-1]
    assert last.rows_in == last.rows_out + last.filtered + last.late + last.rejected


def test_a_list_of_frames_does_not_pretend_to_know_its_rows():
    job = us.scan_iterable([FRAME, FRAME], schema=FRAME.schema).sink_batches(lambda frame: None)
    runtime = job.runtime(threads=False)
    runtime.open()
    assert runtime.progress("running").done is None
    runtime.close()


@pytest.mark.parametrize("whole", [True, False])
def test_rows_that_go_two_ways_are_not_counted_as_filtered(whole):
    rows, settings = us.from_frame(FRAME), us.Settings(whole_query=whole)
    twice = rows.union(rows).sink(MemorySink()).run(progress=False, settings=settings)
    assert (twice.rows_in, twice.rows_out, twice.filtered) == (ROWS, 2 * ROWS, 0)
    some = rows.filter(pl.col("a") < 10).sink(MemorySink()).run(progress=False, settings=settings)
    assert (some.rows_in, some.rows_out, some.filtered) == (ROWS, 10, ROWS - 10)
