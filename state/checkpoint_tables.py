"""Checkpoints as frames: what there is, what is in one, and what changed between two."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import polars as pl

from unistream.errors import UnistreamError
from unistream.state.checkpoint_reader import CheckpointReader
from unistream.state.manifest import Manifest
from unistream.state.ownership import sequence

_LISTING = pl.Schema(
    {
        "id": pl.Int64,
        "kind": pl.String,
        "created": pl.Int64,
        "job": pl.String,
        "epoch": pl.Int64,
        "subtasks": pl.Int64,
        "rows": pl.Int64,
        "files": pl.Int64,
        "bytes": pl.Int64,
        "new_bytes": pl.Int64,
        "problem": pl.String,
    }
)
_FILES = pl.Schema(
    {"subtask": pl.Int64, "file": pl.String, "bytes": pl.Int64, "sha256": pl.String, "stored": pl.String}
)
_TABLES = pl.Schema(
    {
        "subtask": pl.Int64,
        "operator": pl.String,
        "table": pl.String,
        "kind": pl.String,
        "rows": pl.Int64,
        "files": pl.Int64,
        "described": pl.String,
    }
)
_POSITIONS = pl.Schema({"vertex": pl.String, "split": pl.String, "position": pl.String})
_WATERMARKS = pl.Schema({"vertex": pl.String, "split": pl.String, "watermark": pl.Int64})
_TOKENS = pl.Schema({"vertex": pl.String, "subtask": pl.Int64, "token": pl.String})
_DIFFERENCE = pl.Schema({"what": pl.String, "name": pl.String, "before": pl.String, "after": pl.String})


def listing(reader: CheckpointReader) -> pl.DataFrame:
    """One row per checkpoint, oldest first; a damaged one says so in `problem` instead of raising.

    `bytes` is what a restore reads, `new_bytes` what the checkpoint added to the one listed before.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     listing(CheckpointReader(folder)).height
    0
    """
    rows: list[dict[str, Any]] = []
    before: frozenset[str] = frozenset()
    for number in sequence(reader.storage):
        try:
            record = reader.record(number)
        except UnistreamError as error:
            rows.append({"id": number, "problem": error.message})
            continue
        if isinstance(record, Manifest):
            rows.append(_summary(record, before))
            before = record.stored_names
    frame = pl.DataFrame(rows, schema=_LISTING)
    return frame.with_columns(pl.from_epoch("created", "us").dt.replace_time_zone("UTC"))


def inspect(manifest: Manifest) -> dict[str, pl.DataFrame]:
    """What is in a checkpoint: frames `summary`, `tables`, `files`, `positions`, `watermarks`, `tokens`."""
    summary = {
        **_summary(manifest, frozenset()),
        "parent": manifest.parent,
        "engine": manifest.engine,
        "program": manifest.program,
        "settings": manifest.settings,
        "key_groups": manifest.key_groups,
    }
    del summary["new_bytes"]
    files = [
        (state.subtask, entry.name, entry.length, entry.sha256, entry.stored_name)
        for state in manifest.states
        for entry in state.files
    ]
    tokens = [(item.vertex, item.subtask, _text(item.token)) for item in manifest.tokens]
    return {
        "summary": pl.DataFrame([summary]).with_columns(
            pl.from_epoch("created", "us").dt.replace_time_zone("UTC")
        ),
        "tables": pl.DataFrame(list(_tables(manifest)), schema=_TABLES, orient="row"),
        "files": pl.DataFrame(files, schema=_FILES, orient="row"),
        "positions": pl.DataFrame(_by_split(manifest.positions, _text), schema=_POSITIONS, orient="row"),
        "watermarks": pl.DataFrame(_by_split(manifest.watermarks), schema=_WATERMARKS, orient="row"),
        "tokens": pl.DataFrame(tokens, schema=_TOKENS, orient="row"),
    }


def diff(before: Manifest, after: Manifest) -> pl.DataFrame:
    """What differs between two checkpoints, one row each; `before` or `after` is null where it is absent.

    `what` is program, settings, key_groups, position, watermark, table or file.
    """
    old, new = dict(_facts(before)), dict(_facts(after))
    rows = [(*key, old.get(key), new.get(key)) for key in {**old, **new} if old.get(key) != new.get(key)]
    return pl.DataFrame(rows, schema=_DIFFERENCE, orient="row")


def _summary(manifest: Manifest, before: frozenset[str]) -> dict[str, Any]:
    lengths = {entry.stored_name: entry.length for entry in manifest.files}
    return {
        "id": manifest.id,
        "kind": manifest.kind,
        "created": manifest.created,
        "job": manifest.job_id,
        "epoch": manifest.epoch,
        "subtasks": len(manifest.states),
        "rows": sum(row[4] for row in _tables(manifest)),
        "files": len(lengths),
        "bytes": sum(lengths.values()),
        "new_bytes": sum(length for name, length in lengths.items() if name not in before),
        "problem": None,
    }


def _tables(manifest: Manifest) -> Iterator[tuple[int, str, str, str, int, int, str]]:
    """Subtask, operator, name, kind, rows, number of files and description of each table."""
    for state in manifest.states:
        for operator, described in state.tables.get("operators", {}).items():
            for name, table in described.get("tables", {}).items():
                parts = [*table.get("changes", ()), *table.get("runs", ())]
                files = len({part["file"] for part in parts})
                schema = {key: table[key] for key in ("keys", "values", "schema", "value") if key in table}
                kind, rows = table.get("kind", ""), table.get("rows", 0)
                yield state.subtask, operator, name, kind, rows, files, _text(schema)


def _facts(manifest: Manifest) -> Iterator[tuple[tuple[str, str], str]]:
    """All that is worth comparing, as text under (what, name)."""
    yield ("program", ""), manifest.program
    yield ("settings", ""), manifest.settings
    yield ("key_groups", ""), str(manifest.key_groups)
    for vertex, split, position in _by_split(manifest.positions, _text):
        yield ("position", f"{vertex}/{split}"), position
    for vertex, split, watermark in _by_split(manifest.watermarks):
        yield ("watermark", f"{vertex}/{split}"), str(watermark)
    for subtask, operator, name, kind, rows, _, schema in _tables(manifest):
        yield ("table", f"{operator}/{name}#{subtask}"), f"{kind}, {rows} rows, {schema}"
    for entry in manifest.files:
        yield ("file", entry.stored_name), f"{entry.length} bytes"


def _by_split(by_vertex: dict[str, dict[str, Any]], convert: Any = lambda value: value) -> list[Any]:
    return [
        (vertex, split, convert(value))
        for vertex, splits in by_vertex.items()
        for split, value in splits.items()
    ]


def _text(value: Any) -> str:
    return msgspec.json.encode(value).decode()
