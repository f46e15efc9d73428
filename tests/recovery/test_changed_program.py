"""A program that changed between two runs: what it keeps, what is new, and what it may not drop by itself."""

from __future__ import annotations

from pathlib import Path

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
