"""Tables of a snapshot read as frames."""

from pathlib import Path

import polars as pl
import pytest

from unistream.errors import StateError
from unistream.state.reader import BUCKET, list_tables, read_table
from unistream.state.segment_backend import SegmentBackend


def test_reads_every_kind_of_table(tmp_path: Path) -> None:
    backend = SegmentBackend(tmp_path / "live")
    store = backend.store("count", ["user"])
    table = store.keyed("seen", pl.Schema({"user": pl.String}), pl.Schema({"n": pl.Int64}))
    rows, _ = table.upsert(pl.DataFrame({"user": [f"user {i}" for i in range(3000)]}))
    table.write(rows, pl.DataFrame({"n": range(3000)}))
    log = store.log("late", pl.Schema({"x": pl.Int64}))
    log.append(7, pl.DataFrame({"x": [1, 2]}))
    log.append(3, pl.DataFrame({"x": [3]}))
    store.log("empty", pl.Schema({"x": pl.Int64}))
    store.cell("position").set({"at": 5})
    backend.snapshot(1).finish()
    table.delete(rows[:10])
    log.append(7, pl.DataFrame({"x": [4]}))
    snapshot = backend.snapshot(2).finish()
    files = {file.logical_name: file.path for file in snapshot.files}
    infos = {info.name: info for info in list_tables(snapshot.tables)}
    assert {name: (info.kind, info.rows) for name, info in infos.items()} == {
        "empty": ("log", 0),
        "late": ("log", 4),
        "position": ("cell", 1),
        "seen": ("keyed", 2990),
    }
    assert infos["seen"].keys == ("user",) and infos["seen"].schema["n"] == pl.Int64
    seen = read_table(snapshot.tables, files, "count", "seen").sort("n")
    assert seen.rows()[0] == ("user 10", 10) and seen.height == 2990
    late = read_table(snapshot.tables, files, "count", "late")
    assert late.rows() == [(3, 3), (7, 1), (7, 2), (7, 4)] and late.columns == [BUCKET, "x"]
    assert read_table(snapshot.tables, files, "count", "empty").rows() == []
    assert read_table(snapshot.tables, files, "count", "position").rows() == [('{"at":5}',)]
    with pytest.raises(StateError, match=r"no table 'sen'.*\n.*did you mean 'count/seen'"):
        read_table(snapshot.tables, files, "count", "sen")
