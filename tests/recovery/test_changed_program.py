"""A program that changed between two runs: what it keeps, what is new, and what it may not drop by itself."""

from __future__ import annotations

from pathlib import Path

import duckdb
import polars as pl
import pytest

import unistream as us
from unistream.testing import ListSource

ROWS = {"a": [(1, 10), (2, 20), (1, 30)], "b": [(3, 40), (2, 50), (4, 60)]}
SCHEMA = {"k": pl.Int64, "v": pl.Int64}


def source(splits: str) -> us.Stream:
    """Rows of the first run, or also those that came later."""
    return us.scan(ListSource(SCHEMA, {split: ROWS[split] for split in splits})).named("rows")


def run(stream: us.Stream, checkpoint: Path, **options: bool) -> pl.DataFrame:
    frames: list[pl.DataFrame] = []
    stream.sink_batches(frames.append).run(
        checkpoint=checkpoint,
        progress=False,
        **options,  # type: ignore[arg-type]
    )
    return pl.concat([pl.DataFrame(schema=stream.schema), *frames])


def distinct(splits: str) -> us.Stream:
    return source(splits).unique("k").named("first")


def test_steps_that_keep_their_names_keep_their_state(tmp_path: Path) -> None:
    assert run(distinct("a"), tmp_path)["k"].to_list() == [1, 2]
    changed = source("ab").filter(pl.col("v") < 60).unique("k").named("first").with_columns(new=pl.lit(True))
    assert sorted(run(changed, tmp_path)["k"].to_list()) == [3], "1 and 2 were known, 4 is filtered"


def test_a_new_step_begins_empty(tmp_path: Path) -> None:
    assert run(distinct("a"), tmp_path).height == 2
    counted = distinct("ab").group_by("k").agg(n=pl.len()).named("count").changes()
    found = run(counted, tmp_path)
    assert sorted(found.rows()) == [("+I", 3, 1), ("+I", 4, 1)]


def test_a_dropped_step_is_refused_before_the_first_row(tmp_path: Path) -> None:
    run(distinct("a"), tmp_path)
    with pytest.raises(us.StateError, match=r"no longer has.*'first'") as caught:
        run(source("ab"), tmp_path)
    assert "allow_dropped_state=True" in str(caught.value)
    assert "named" in str(caught.value)


def test_a_dropped_step_may_go_when_asked_for(tmp_path: Path) -> None:
    run(distinct("a"), tmp_path)
    assert run(source("ab"), tmp_path, allow_dropped_state=True)["v"].to_list() == [40, 50, 60]


def test_a_renamed_step_is_a_dropped_one(tmp_path: Path) -> None:
    run(distinct("a"), tmp_path)
    with pytest.raises(us.StateError, match="'first'"):
        run(source("ab").unique("k").named("other"), tmp_path)
    with pytest.raises(us.StateError, match="positions of source 'rows'"):
        renamed = us.scan(ListSource(SCHEMA, ROWS)).named("others").unique("k").named("first")
        run(renamed, tmp_path)


def test_a_refusal_leaves_the_checkpoints_as_they_were(tmp_path: Path) -> None:
    run(distinct("a"), tmp_path)
    for _ in range(3):
        with pytest.raises(us.StateError):
            run(source("ab"), tmp_path)
    assert sorted(run(distinct("ab"), tmp_path)["k"].to_list()) == [3, 4]


def test_a_table_of_another_type_is_refused_with_the_difference(tmp_path: Path) -> None:
    run(distinct("a"), tmp_path)
    text = source("ab").with_columns(pl.col("k").cast(pl.String)).unique("k").named("first")
    with pytest.raises(us.StateError, match=r"(?s)k.*Int64.*String|k.*String.*Int64"):
        run(text, tmp_path)


def sums(splits: str, **aggregates: pl.Expr) -> us.Stream:
    return source(splits).group_by("k").agg(**aggregates).named("sums").changes()


def test_aggregates_are_known_by_what_they_are_not_by_their_place(tmp_path: Path) -> None:
    total, most = pl.col("v").sum(), pl.col("v").max()
    run(sums("a", most=most, n=pl.len(), total=total), tmp_path)
    found = run(sums("ab", total=total, top=most), tmp_path).filter(pl.col("op") != "-U")
    assert sorted(found.select("k", "total", "top").rows()) == [(2, 70, 50), (3, 40, 40), (4, 60, 60)]


def test_an_aggregate_that_was_not_kept_is_refused(tmp_path: Path) -> None:
    run(sums("a", total=pl.col("v").sum()), tmp_path)
    with pytest.raises(us.StateError, match=r"min\(\).* is new, and the rows it is made of are gone"):
        run(sums("ab", least=pl.col("v").min(), total=pl.col("v").sum()), tmp_path)


def test_a_window_knows_its_aggregates_by_what_they_are(tmp_path: Path) -> None:
    def windows(aggregate: pl.Expr) -> us.Job:
        endless = us.scan(ListSource(SCHEMA, {"a": ROWS["a"]}, bounded=False)).named("rows")
        timed = endless.with_event_time("v", unit="s", delay="1h")
        found = timed.group_by("k").window(us.session("1h")).agg(found=aggregate).named("sessions")
        return found.sink_batches(lambda frame: None)

    for _ in range(2):
        with windows(pl.col("v").sum()).start(checkpoint=tmp_path) as job:
            while job.progress.watermark is None:
                assert not job.wait(0.005)
    with pytest.raises(us.StateError, match="is new"):
        windows(pl.col("v").min()).run(checkpoint=tmp_path, progress=False)


def test_what_is_kept_new_and_dropped_is_said_before_it_starts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(distinct("a"), tmp_path)
    with caplog.at_level("INFO", "unistream"):
        run(distinct("ab").group_by("k").agg(n=pl.len()).named("count").changes(), tmp_path)
        run(source("ab"), tmp_path, allow_dropped_state=True)
    said = [record.getMessage() for record in caplog.records if record.getMessage().startswith("checkpoint ")]
    assert [text.split(", ", 1)[1] for text in said] == [
        "kept: first",
        "new, begins empty: count, retractions-1",
        "dropped: table 'groups' of 'count', table 'latest' of 'retractions-1', table 'seen' of 'first', "
        "table 'watermark' of 'first'",
    ]
    assert [record.levelname for record in caplog.records if "dropped" in record.getMessage()] == ["WARNING"]


def test_running_aggregates_show_their_results_live_and_in_a_checkpoint(tmp_path: Path) -> None:
    stream = sums("a", n=pl.len(), mean=pl.col("v").mean(), middle=pl.col("v").median())
    run(stream, tmp_path)
    found = us.read_state(tmp_path, "sums").sort("k")
    assert found.rows() == [(1, 2, 20.0, 20.0), (2, 1, 20.0, 20.0)]
    assert found.columns == ["k", "n", "mean", "middle"]
    assert "groups.shown" not in us.read_state(tmp_path)["table"]
    assert us.read_state(tmp_path, "sums", raw=True).columns != found.columns
    assert duckdb.sql("SELECT sum(mean) FROM found").fetchall() == [(40.0,)]
    endless = us.scan(ListSource(SCHEMA, ROWS, bounded=False)).group_by("k").agg(mean=pl.col("v").mean())
    with endless.named("live").sink_batches(lambda frame: None).start() as job:
        while job.progress.rows_in < 6:
            assert not job.wait(0.005)
        live = job.state("live").scan(where=pl.col("k") == 2)
        assert live.rows() == [(2, 35.0)]
