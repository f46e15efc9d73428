"""Tables whose commits are too large for memory: rows come in pieces and mean the same as all at once."""

from __future__ import annotations

from pathlib import Path
from random import Random

import polars as pl
import pytest
from test_table_sink import Place, duckdb_at, frame, run, sqlite_at

import unistream as us
from unistream.expressions.schema import CHANGE, Changes, StreamSchema
from unistream.io import table_sink
from unistream.io.base import WriterContext
from unistream.io.table_sink import TableSink
from unistream.testing import ListSource

CHANGES = {"k": pl.Int64, "v": pl.Int64, CHANGE: pl.Int8}

EACH_TICK = us.Settings(tick_rows=1, whole_query=False)


@pytest.fixture(params=["sqlite", "duckdb"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A database whose commits have a piece for each tick."""
    monkeypatch.setattr(table_sink, "BUFFER_BYTES", 1)
    return {"sqlite": sqlite_at, "duckdb": duckdb_at}[request.param](tmp_path)


def totals(seed: int) -> us.Stream:
    """The running total of each key, which goes to and fro between the branches of a union."""
    random = Random(seed)
    rows = [(random.choice([None, 0, 1, 2]), random.randrange(-2, 3)) for _ in range(12)]
    source = us.scan(ListSource({"k": pl.Int64, "v": pl.Int64}, rows))
    now = source.group_by("k").agg(n=pl.col("v").sum())
    return now.filter(pl.col("n") > 0).union(now.filter(pl.col("n") <= 0))


@pytest.mark.parametrize("seed", [1, 3])
@pytest.mark.parametrize("checkpoints", [False, True])
def test_rows_that_go_to_and_fro_end_where_they_do_in_memory(
    place: Place, tmp_path: Path, seed: int, checkpoints: bool
) -> None:
    stream = totals(seed)
    job = stream.sink_table(place.url, "t", key="k")
    job.run(progress=False, settings=EACH_TICK, checkpoint=tmp_path / "ckpt" if checkpoints else None)
    assert place.rows() == sorted(stream.collect().rows(), key=repr)


@pytest.mark.parametrize("seed", range(4))
def test_pieces_of_a_random_changelog_in_any_order(place: Place, seed: int) -> None:
    """Each key has some values one after the other; their pairs come in any order, each row a piece."""
    random = Random(seed)
    before = {k: random.randrange(3) for k in range(3)}
    after, log = dict(before), []
    for _ in range(10):
        k, v = random.randrange(5), random.randrange(3)
        if k in after:
            log.append((k, after.pop(k), 1))
        if random.random() < 0.7:
            log.append((k, v, 2))
            after[k] = v
    random.shuffle(log)
    run(frame(*before.items()).cast({"v": pl.Int64}), place)
    changes = pl.DataFrame(log, CHANGES, orient="row")
    apply(place, changes)
    assert place.rows() == sorted(after.items(), key=repr)


def apply(place: Place, changes: pl.DataFrame) -> None:
    columns = pl.Schema({name: kind for name, kind in changes.schema.items() if name != CHANGE})
    sink = TableSink(place.url, "t", key="k")
    writer = sink.open(WriterContext("job", StreamSchema(columns, changes=Changes.RETRACT), checkpoints=True))
    for row in changes.iter_slices(1):
        writer.write(row)
    token = writer.prepare(1)
    assert token is not None and len(token["rows"]) == changes.height
    sink.commit([token])


def test_other_columns_of_the_table_keep_their_values(place: Place) -> None:
    place.ask("CREATE TABLE t (k BIGINT, v BIGINT, note TEXT)")
    place.ask("INSERT INTO t VALUES (1, 5, 'mine')")
    apply(place, pl.DataFrame({"k": [1, 1], "v": [6, 5], CHANGE: [2, 1]}, CHANGES))
    assert place.rows() == [(1, 6, "mine")]


def test_no_number_and_null_are_one_key_where_they_are_stored_as_one(place: Place) -> None:
    nan = float("nan")
    changes = pl.DataFrame({"k": [nan, None], "v": [6, 5], CHANGE: [2, 1]}, CHANGES | {"k": pl.Float64})
    run(us.from_frame(pl.DataFrame({"k": [None], "v": [5]}, {"k": pl.Float64, "v": pl.Int64})), place)
    apply(place, changes)
    assert [v for _, v in place.rows()] == [6]
