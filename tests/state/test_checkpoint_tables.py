"""Checkpoints as frames, compared with what was put into them."""

from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from unistream.clock import Random
from unistream.state.checkpoint_reader import CheckpointReader
from unistream.state.checkpoint_store import CheckpointStore
from unistream.state.checkpoint_tables import diff, inspect, listing
from unistream.state.manifest import Manifest, SinkToken, SubtaskState
from unistream.state.memory import MemoryBackend
from unistream.state.ownership import own
from unistream.state.storage import storage_for
from unistream.testing import VirtualClock


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two checkpoints of a job that counted two users, then three."""
    root, clock = tmp_path / "ckpt", VirtualClock(1_000_000)
    keys, values = pl.Schema({"user": pl.String}), pl.Schema({"n": pl.Int64})
    backend = MemoryBackend(tmp_path / "state")
    table = backend.store("count").keyed("seen", keys, values)
    backend.store("count").cell("last").set(5)
    with own(storage_for(root), "shop", clock, Random(1)) as lease:
        store = CheckpointStore(root, lease, clock=clock)
        for number, users in ((1, ["ada", "bob"]), (2, ["cyd"])):
            table.upsert(pl.DataFrame({"user": users}))
            snapshot = backend.snapshot(number).finish()
            store.publish(
                Manifest(
                    id=number,
                    states=(SubtaskState(files=store.upload(snapshot.files), tables=snapshot.tables),),
                    positions={"orders": {"a.csv": 10 * number}},
                    watermarks={"orders": {"a.csv": number, "b.csv": None}},
                    tokens=(SinkToken(vertex="out", token={"part": number}),),
                    program="p",
                    settings=f"s{number}",
                )
            )
            snapshot.release()
            clock.advance("1s")
    backend.close()
    return root


def test_listing_has_a_row_per_checkpoint(root: Path) -> None:
    frame = listing(CheckpointReader(root))
    first, second = frame.iter_rows(named=True)
    sizes = [sum(entry.length for entry in item.files) for item in CheckpointReader(root).list()]
    assert (first["id"], first["kind"], first["job"], first["epoch"], first["rows"]) == (
        1,
        "checkpoint",
        "shop",
        1,
        2,
    )
    assert first["created"] == datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)
    assert (second["id"], second["rows"], second["subtasks"], second["files"]) == (2, 3, 1, 1)
    assert frame["bytes"].to_list() == frame["new_bytes"].to_list() == sizes
    assert frame["problem"].null_count() == 2


def test_listing_shows_damage(root: Path) -> None:
    (root / "checkpoints/00000001.json").write_bytes(b"?")
    frame = listing(CheckpointReader(root))
    assert frame["id"].to_list() == [1, 2]
    assert "00000001.json is damaged" in frame["problem"][0] and frame["problem"][1] is None


def test_inspect_tells_what_is_in_it(root: Path) -> None:
    parts = inspect(CheckpointReader(root).load(2))
    assert parts["summary"].select("id", "parent", "program", "settings").rows() == [(2, 1, "p", "s2")]
    tables = parts["tables"].sort("table")
    assert tables.select("operator", "table", "kind", "rows", "files").rows() == [
        ("count", "last", "cell", 0, 0),
        ("count", "seen", "keyed", 3, 1),
    ]
    assert '"user"' in tables["described"][1] and '"n"' in tables["described"][1]
    assert parts["positions"].rows() == [("orders", "a.csv", "20")]
    assert parts["watermarks"].rows() == [("orders", "a.csv", 2), ("orders", "b.csv", None)]
    assert parts["tokens"].rows() == [("out", 0, '{"part":2}')]
    (entry,) = CheckpointReader(root).load(2).files
    assert parts["files"].rows() == [(0, entry.name, entry.length, entry.sha256, entry.stored_name)]


def test_inspect_of_nothing_has_the_same_columns(root: Path) -> None:
    full, empty = inspect(CheckpointReader(root).load(1)), inspect(Manifest(id=9))
    assert {name: frame.columns for name, frame in full.items()} == {
        name: frame.columns for name, frame in empty.items()
    }


def test_diff_tells_what_changed(root: Path) -> None:
    before, after = CheckpointReader(root).list()
    rows = {(what, name): (old, new) for what, name, old, new in diff(before, after).rows()}
    assert rows.pop(("settings", "")) == ("s1", "s2")
    assert rows.pop(("position", "orders/a.csv")) == ("10", "20")
    assert rows.pop(("watermark", "orders/a.csv")) == ("1", "2")
    old, new = rows.pop(("table", "count/seen#0"))
    assert old is not None and old.startswith("keyed, 2 rows") and new is not None and "3 rows" in new
    assert sorted(rows) == sorted(
        ("file", entry.stored_name) for manifest in (before, after) for entry in manifest.files
    )
    assert rows["file", before.files[0].stored_name][1] is None
    assert diff(after, after).height == 0
