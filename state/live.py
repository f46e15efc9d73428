"""The tables of a running operator as frames; for its own thread, between two ticks."""

from __future__ import annotations

import json

import polars as pl

from unistream.errors import StateError, nearest
from unistream.state.reader import BUCKET, TableInfo
from unistream.state.records import CellRecord, KeyedRecord, LogRecord, Record
from unistream.state.shown import is_shown, shown, shown_name
from unistream.state.store import TableStore


def live_tables(store: TableStore) -> list[TableInfo]:
    """What the operator has opened, by name."""
    return [
        _info(store.operator_id, name, record)
        for name, record in sorted(store.records.items())
        if not is_shown(name)
    ]


def read_live(store: TableStore, name: str, raw: bool = True) -> pl.DataFrame:
    """All rows of a table as they are now, in the form of `reader.read_table`."""
    record = store.records.get(name)
    if record is None:
        near = nearest(name, store.records)
        raise StateError(
            f"Operator {store.operator_id!r} has no table {name!r}. Tables: {sorted(store.records)}",
            hint=f"did you mean {near!r}?" if near else None,
        )
    if isinstance(record, KeyedRecord):
        rows = record.table.scan()
        seen = store.records.get(shown_name(name))
        if raw or not isinstance(seen, CellRecord) or not seen.cell.text:
            return rows
        return shown(rows, json.loads(seen.cell.text))
    if isinstance(record, LogRecord):
        log = record.log
        frames = [
            frame.select(pl.lit(bucket, dtype=pl.Int64).alias(BUCKET), pl.all())
            for bucket in log.buckets()
            for frame in log.frames(bucket)
        ]
        return pl.concat([pl.DataFrame(schema={BUCKET: pl.Int64, **log.schema}), *frames])
    assert isinstance(record, CellRecord)
    return pl.DataFrame({"value": [record.cell.text]}, schema={"value": pl.String})


def _info(operator: str, name: str, record: Record) -> TableInfo:
    if isinstance(record, KeyedRecord):
        table = record.table
        schema = pl.Schema({**table.key_schema, **table.value_schema})
        return TableInfo(operator, name, "keyed", len(table), schema, tuple(table.key_schema))
    if isinstance(record, LogRecord):
        return TableInfo(operator, name, "log", len(record.log), record.log.schema)
    return TableInfo(operator, name, "cell", 1, pl.Schema({"value": pl.String}))
