"""The tables of one operator: opened by name, restored when first asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl

from unistream.errors import StateError
from unistream.state.array_space import IN_MEMORY
from unistream.state.backend import Cell, KeyedTable, LogTable, StateStore
from unistream.state.cell import JsonCell
from unistream.state.hot_table import HotTable
from unistream.state.log_table import FrameLog
from unistream.state.records import CellRecord, Image, KeyedRecord, LogRecord, Record, SnapshotWriter
from unistream.state.schemas import same_schema
from unistream.state.spill import MemoryBudget
from unistream.state.stored_tables import StoredTable


class TableStore(StateStore):
    """Tables in memory, each with its record of what checkpoints hold of it."""

    def __init__(
        self, operator_id: str, partition_by: Sequence[str] = (), budget: MemoryBudget | None = None
    ) -> None:
        self.operator_id = operator_id
        self._budget = budget
        self.partition_by = tuple(partition_by)
        self._records: dict[str, Record] = {}
        self._stored: dict[str, list[StoredTable]] = {}

    def keyed(self, name: str, keys: pl.Schema, values: pl.Schema) -> KeyedTable:
        record = self._records.get(name)
        if record is None:
            record = self._records[name] = self._open_keyed(name, self._new_table(keys, values))
        if not isinstance(record, KeyedRecord):
            raise self._another_kind(name)
        self._check_same(name, record.table.key_schema, keys)
        self._check_same(name, record.table.value_schema, values)
        return record.table

    def log(self, name: str, schema: pl.Schema) -> LogTable:
        record = self._records.get(name)
        if record is None:
            log = FrameLog(schema, self._budget)
            for part in self._take(name, "log"):
                part.load_log(log)
            record = self._records[name] = LogRecord(log)
        if not isinstance(record, LogRecord):
            raise self._another_kind(name)
        self._check_same(name, record.log.schema, schema)
        return record.log

    def cell(self, name: str) -> Cell:
        record = self._records.get(name)
        if record is None:
            record = self._records[name] = self._open_cell(name)
        if not isinstance(record, CellRecord):
            raise self._another_kind(name)
        return record.cell

    def add_stored(self, table: StoredTable) -> None:
        """A restored table (or one subtask's part of it) that waits to be opened."""
        self._stored.setdefault(table.name, []).append(table)

    @property
    def records(self) -> Mapping[str, Record]:
        """The tables that were opened, by name."""
        return self._records

    @property
    def unclaimed(self) -> Sequence[str]:
        """Restored tables that were not opened."""
        return sorted(self._stored)

    def capture(self, writer: SnapshotWriter) -> dict[str, Image]:
        """All tables as they are now, also those that nobody has opened."""
        for name in self.unclaimed:
            parts = self._stored[name]
            if len(parts) > 1 or parts[0].ownership is not None:
                self._open_as_stored(parts[0])
        images = {name: parts[0].image() for name, parts in self._stored.items()}
        return images | {name: record.capture(writer) for name, record in self._records.items()}

    def _open_keyed(self, name: str, table: HotTable) -> KeyedRecord:
        parts = self._take(name, "keyed")
        if not parts:
            return KeyedRecord(table)
        adapted = parts[0].load_keyed(table)
        for part in parts[1:]:
            self._merge(part, table)
        if adapted or len(parts) > 1 or parts[0].ownership is not None:
            table.forget_stored()
            return KeyedRecord(table)
        return KeyedRecord(table, parts[0].changes())

    def _merge(self, part: StoredTable, table: HotTable) -> None:
        """Add another subtask's part, which must not share a key with those before."""
        other = self._new_table(table.key_schema, table.value_schema)
        part.load_keyed(other)
        frame = other.scan()
        if (table.find(frame.select(table.key_schema.names())) >= 0).any():
            raise self._cannot_merge(part.name, "they hold the same keys")
        table.load(frame, new=True)

    def _new_table(self, keys: pl.Schema, values: pl.Schema) -> HotTable:
        return HotTable(keys, values, IN_MEMORY if self._budget is None else self._budget.arrays)

    def _open_cell(self, name: str) -> CellRecord:
        cell = JsonCell(name)
        parts = self._take(name, "cell")
        for part in parts:
            if cell.text not in (None, part.described["value"]):
                raise self._cannot_merge(name, "they hold different values")
            part.load_cell(cell)
        return CellRecord(cell)

    def _open_as_stored(self, part: StoredTable) -> None:
        match part.kind:
            case "keyed":
                self.keyed(part.name, part.key_schema, part.value_schema)
            case "log":
                self.log(part.name, part.schema)
            case _:
                self.cell(part.name)

    def _take(self, name: str, kind: str) -> list[StoredTable]:
        parts = self._stored.get(name, [])
        if any(part.kind != kind for part in parts):
            raise self._another_kind(name)
        self._stored.pop(name, None)
        return parts

    def _check_same(self, name: str, has: pl.Schema, asked: pl.Schema) -> None:
        if not same_schema(has, asked):
            raise StateError(
                f"State table {name!r} of {self.operator_id!r} is {dict(has)}, asked for {dict(asked)}",
                hint="open a table with one schema, or use two names",
            )

    def _another_kind(self, name: str) -> StateError:
        return StateError(
            f"State table {name!r} of {self.operator_id!r} is of another kind",
            hint="a table keeps its kind; use another name for something new",
        )

    def _cannot_merge(self, name: str, why: str) -> StateError:
        return StateError(
            f"The parts of state table {name!r} of {self.operator_id!r} cannot be joined: {why}",
            hint="this operator cannot be restored with fewer subtasks; keep the parallelism",
        )
