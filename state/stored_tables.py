"""Tables as a checkpoint describes them, read back into memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from unistream.state.cell import JsonCell
from unistream.state.hot_table import HotTable
from unistream.state.key_groups import key_groups
from unistream.state.log_table import FrameLog
from unistream.state.records import Image, StoredChange, StoredRun
from unistream.state.schemas import adapted, check_evolution, schema_from_json
from unistream.state.segment_files import SegmentFile

Files = Mapping[str, SegmentFile]


@dataclass(frozen=True, slots=True)
class Ownership:
    """What this subtask takes of a stored table: all of it, or the rows of some key groups."""

    partition_by: tuple[str, ...]
    groups: int
    owned: range

    def keep(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The rows whose key group is owned."""
        group = key_groups(frame.select(self.partition_by), self.groups)
        mask = (group >= self.owned.start) & (group < self.owned.stop)
        return frame if mask.all() else frame.filter(pl.Series(mask))


@dataclass(frozen=True, slots=True)
class StoredTable:
    """One table of one subtask in a checkpoint. `ownership` is None when all of it is taken."""

    name: str
    described: Mapping[str, Any]
    files: Files
    ownership: Ownership | None = None

    @property
    def kind(self) -> str:
        """keyed, log or cell."""
        return str(self.described["kind"])

    @property
    def rows(self) -> int:
        """How many rows the table had."""
        return int(self.described.get("rows", 0))

    @property
    def schema(self) -> pl.Schema:
        """All columns of the table."""
        if self.kind == "log":
            return schema_from_json(self.described["schema"])
        return pl.Schema({**self.key_schema, **self.value_schema})

    @property
    def key_schema(self) -> pl.Schema:
        """Key columns of a keyed table."""
        return schema_from_json(self.described["keys"])

    @property
    def value_schema(self) -> pl.Schema:
        """Value columns of a keyed table."""
        return schema_from_json(self.described["values"])

    @property
    def file_names(self) -> frozenset[str]:
        """The files it lies in."""
        return frozenset(
            item["file"] for part in ("changes", "runs") for item in self.described.get(part, ())
        )

    def image(self) -> Image:
        """The table as it is, for a checkpoint that follows without anybody having opened it."""
        described = dict(self.described)
        for part in ("changes", "runs"):
            if part in described:
                described[part] = [
                    {**item, "file": self.files[item["file"]].name} for item in described[part]
                ]
        return Image(frozenset(self.files.values()), lambda: described)

    def changes(self) -> list[StoredChange]:
        """The chain of a keyed table."""
        return [
            StoredChange(
                self.files[item["file"]],
                tuple(item["rows"]),
                tuple(item["deleted"]),
                item["count"],
                item["whole"],
            )
            for item in self.described["changes"]
        ]

    def runs(self) -> Iterator[tuple[StoredRun, Mapping[int, pl.DataFrame]]]:
        """The runs of a log, in order, and those of their frames that it has, by number."""
        for item in self.described["runs"]:
            file, heights = self.files[item["file"]], tuple(item["heights"])
            run = StoredRun(file, item["bucket"], tuple(item["blocks"]), heights)
            frames = run.read()
            yield run, {part: frames[part] for part in item.get("parts", range(len(frames)))}

    def load_keyed(self, table: HotTable) -> bool:
        """Add the rows to a table; whether they had to be adapted to its schema."""
        keys, values = table.key_schema, table.value_schema
        changed = check_evolution(self.name, "keys", self.key_schema, keys, fixed=True)
        changed |= check_evolution(self.name, "values", self.value_schema, values)
        schema = pl.Schema({**keys, **values})
        if self.ownership is None:
            table.reserve(self.rows)
        for change in self.changes():
            for deleted in self._read(change.file, change.deleted, keys):
                table.unload(deleted)
            for rows in self._read(change.file, change.rows, schema):
                table.load(rows, new=change.whole)
        return changed

    def load_log(self, log: FrameLog) -> None:
        """Add the frames to a log; those that are as they were stored need not be written again."""
        adapt = check_evolution(self.name, "columns", self.schema, log.schema)
        untouched = not adapt and self.ownership is None
        for run, frames in self.runs():
            for part, frame in frames.items():
                frame = self._owned(adapted(frame, log.schema))
                log.load(run.bucket, frame, run if untouched else None, part)

    def load_cell(self, cell: JsonCell) -> None:
        """Set the value."""
        cell.text = self.described["value"]

    def _read(self, file: SegmentFile, blocks: Sequence[int], schema: pl.Schema) -> Iterator[pl.DataFrame]:
        """Block by block: the whole may not fit into memory twice."""
        for block in blocks:
            for frame in file.read([block]):
                yield self._owned(adapted(frame, schema))

    def _owned(self, frame: pl.DataFrame) -> pl.DataFrame:
        return frame if self.ownership is None else self.ownership.keep(frame)
