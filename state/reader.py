"""The tables of a snapshot as Polars frames, without starting anything."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from unistream.errors import StateError, nearest
from unistream.state.hot_table import HotTable
from unistream.state.segment_files import SegmentFile
from unistream.state.shown import is_shown, shown, shown_name
from unistream.state.snapshot import Description
from unistream.state.stored_tables import StoredTable

BUCKET = "__bucket"
"""Column of `read_table` that tells the bucket of each row of a log."""


@dataclass(frozen=True, slots=True)
class TableInfo:
    """One table of a snapshot: kind is "keyed", "log" or "cell"."""

    operator_id: str
    name: str
    kind: str
    rows: int
    schema: pl.Schema
    keys: tuple[str, ...] = ()


def list_tables(tables: Description) -> list[TableInfo]:
    """What a snapshot holds, by operator and name; `tables` is `Snapshot.tables`."""
    return [
        _info(operator_id, StoredTable(name, described, {}))
        for operator_id, operator in sorted(tables["operators"].items())
        for name, described in sorted(operator["tables"].items())
        if not is_shown(name)
    ]


def read_table(
    tables: Description, files: Mapping[str, Path], operator_id: str, name: str, raw: bool = True
) -> pl.DataFrame:
    """All rows of a table: keys and values, a log with its `BUCKET`, or a cell's JSON text as `value`.

    Unless they are wanted `raw`, as the operator wants them seen.

    `files` tells where each logical name lies. Checksums are verified. A checkpoint of several subtasks has
    one description for each; read them one by one and concatenate.
    """
    table = _find(tables, files, operator_id, name)
    if table.kind == "cell":
        return pl.DataFrame({"value": [table.described["value"]]}, schema={"value": pl.String})
    if table.kind == "keyed":
        rows = HotTable(table.key_schema, table.value_schema)
        table.load_keyed(rows)
        seen = tables["operators"][operator_id]["tables"].get(shown_name(name))
        return rows.scan() if raw or seen is None else shown(rows.scan(), json.loads(seen["value"]))
    frames = [
        frame.select(pl.lit(run.bucket, dtype=pl.Int64).alias(BUCKET), pl.all())
        for run, frames in table.runs()
        for frame in frames.values()
    ]
    return pl.concat([pl.DataFrame(schema={BUCKET: pl.Int64, **table.schema}), *frames])


def _find(tables: Description, files: Mapping[str, Path], operator_id: str, name: str) -> StoredTable:
    try:
        described = tables["operators"][operator_id]["tables"][name]
    except KeyError:
        known = [f"{info.operator_id}/{info.name}" for info in list_tables(tables)]
        near = nearest(f"{operator_id}/{name}", known)
        raise StateError(
            f"The checkpoint has no table {name!r} of operator {operator_id!r}. Tables: {known}",
            hint=f"did you mean {near!r}?" if near else None,
        ) from None
    table = StoredTable(name, described, {})
    opened = {file: SegmentFile.at(files[file], tables["files"][file]) for file in table.file_names}
    return StoredTable(name, described, opened)


def _info(operator_id: str, table: StoredTable) -> TableInfo:
    if table.kind == "cell":
        return TableInfo(operator_id, table.name, table.kind, 1, pl.Schema({"value": pl.String}))
    keys = tuple(table.key_schema) if table.kind == "keyed" else ()
    return TableInfo(operator_id, table.name, table.kind, table.rows, table.schema, keys)
