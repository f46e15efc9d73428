"""A look-up over a stream that updates goes on only with the table that its rows were given with."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import unistream as us
from unistream.testing import ListSource

CLICKS = {"user": pl.Int64}
USERS = pl.DataFrame({"user": [1, 2, 3], "team": ["red", "red", "blue"], "age": [30, 40, 50]})
MOVED = USERS.with_columns(team=pl.Series(["blue", "red", "blue"]))


def teams(table: Any, parts: int) -> us.Stream:
    """Clicks by the team of their user: four in the first part, one more in the second."""
    clicks = [pl.DataFrame({"user": users}, schema=CLICKS) for users in ([1, 1, 2, 3], [1])]
    rows = us.scan(ListSource(CLICKS, clicks[:parts], bounded=False)).named("clicks")
    found = rows.group_by("user").agg(n=pl.len()).lookup(table, on="user").named("users")
    return found.group_by("team").agg(clicks=pl.col("n").sum(), users=pl.len())


def run(table: Any, parts: int, folder: Path) -> list[tuple[str, int, int]]:
    job = teams(table, parts).sink_table(f"sqlite:///{folder}/out.db", "teams")
    job.run(until="available", checkpoint=folder / "checkpoint", progress=False)
    with sqlite3.connect(folder / "out.db") as connection:
        return sorted(connection.execute("SELECT team, clicks, users FROM teams").fetchall())


def as_given(kind: str, table: pl.DataFrame, folder: Path) -> Any:
    if kind == "files":
        table.write_parquet(folder / "users.parquet")
        return str(folder / "users.parquet")
    return table if kind == "frame" else us.from_frame(table)


@pytest.mark.parametrize("kind", ["files", "frame", "stream"])
def test_a_table_that_changed_is_refused(kind: str, tmp_path: Path) -> None:
    assert run(as_given(kind, USERS, tmp_path), 1, tmp_path) == [("blue", 1, 1), ("red", 3, 2)]
    with pytest.raises(us.StateError, match="has changed since the checkpoint") as caught:
        run(as_given(kind, MOVED, tmp_path), 2, tmp_path)
    assert "join()" in str(caught.value)
    assert "new checkpoint" in str(caught.value)
    again = run(as_given(kind, USERS, tmp_path), 2, tmp_path)
    assert again == [("blue", 1, 1), ("red", 4, 2)], "the checkpoint is as it was"


@pytest.mark.parametrize(
    "table",
    [
        USERS.reverse(),
        USERS.select("age", "user", "team"),
        pl.concat(
            [USERS, pl.DataFrame({"user": [None], "team": ["green"], "age": [0]}, schema=USERS.schema)]
        ),
        USERS.with_columns(more=pl.lit(1)),
    ],
    ids=["other order", "other order of columns", "row without a key", "column that is new"],
)
def test_what_changes_no_answer_is_no_change(table: pl.DataFrame, tmp_path: Path) -> None:
    run(USERS, 1, tmp_path)
    assert run(table, 2, tmp_path) == [("blue", 1, 1), ("red", 4, 2)]


def test_rows_that_stay_may_be_looked_up_in_a_table_that_changes(tmp_path: Path) -> None:
    frames: list[pl.DataFrame] = []
    for parts, table in ((1, USERS), (2, MOVED)):
        clicks = [pl.DataFrame({"user": users}, schema=CLICKS) for users in ([1, 2], [1])]
        rows = us.scan(ListSource(CLICKS, clicks[:parts], bounded=False)).lookup(table, on="user")
        rows.sink_batches(frames.append).run(until="available", checkpoint=tmp_path, progress=False)
    assert pl.concat(frames)["team"].to_list() == ["red", "red", "blue"]


def test_a_column_may_be_used_or_go_while_the_others_stay(tmp_path: Path) -> None:
    run(USERS.select("user", "team"), 1, tmp_path)
    assert run(USERS, 2, tmp_path) == [("blue", 1, 1), ("red", 4, 2)]
    with pytest.raises(us.StateError, match="has changed"):
        run(USERS.select("user", "team"), 2, tmp_path)


def test_where_nothing_was_noted_the_table_is_taken_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("unistream.operators.lookup.check_steady", lambda *_: None)
        run(USERS, 1, tmp_path)
    run(MOVED, 1, tmp_path)
    with pytest.raises(us.StateError, match="has changed"):
        run(USERS, 2, tmp_path)
