"""What sinks that write folders of files have in common: options, checks, commit by renaming."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import polars as pl

from unistream.durations import Duration, microseconds
from unistream.errors import InvalidQuery, InvalidSettings
from unistream.expressions.schema import StreamSchema
from unistream.io.base import Sink, Token, WriterContext
from unistream.io.staging import Mode, StagedFolder, partition_folder
from unistream.location import user_location


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How rows are laid out in files, checked by the sink."""

    partition_by: tuple[str, ...]
    file_rows: int
    file_bytes: int
    file_age_micros: int


@dataclass(frozen=True)
class FileSink(Sink):
    """Writes rows to `path`, a folder, as `part-<subtask>-<checkpoint>-<number>` and the format's suffix.

    Files appear whole when the checkpoint that covers their rows is complete, in a bounded job without
    checkpoints at its end. `partition_by` makes Hive folders (`day=2024-01-01/`); its columns are not in
    the files. A file is full at `max_file_rows` or `max_file_bytes`; an unbounded job without checkpoints
    shows rows at the latest after `max_file_age`. `mode` says what to do with a folder that holds data:
    refuse ("error"), add to it ("append") or replace it with the first commit ("overwrite").
    """

    path: str | os.PathLike[str]
    partition_by: str | Sequence[str] = ()
    mode: Mode = "error"
    max_file_rows: int = 5_000_000
    max_file_bytes: int = 1 << 30
    max_file_age: Duration = "60s"

    suffix: ClassVar[str]
    label: ClassVar[str]
    """What the format is called in messages."""

    way_out: ClassVar[str] = "cast or drop it, or write Parquet"
    """What to do with a column the format cannot hold."""

    def __post_init__(self) -> None:
        given = (self.partition_by,) if isinstance(self.partition_by, str) else tuple(self.partition_by)
        object.__setattr__(self, "partition_by", given)
        path = os.path.abspath(Path(self.path).expanduser())  # noqa: PTH100 (no symlinks resolved)
        object.__setattr__(self, "path", path)
        for option in ("max_file_rows", "max_file_bytes"):
            self._check_least(option)
        _ = self._folder, self._layout  # both check what they are given

    def _check_least(self, option: str) -> None:
        value = getattr(self, option)
        if value is not None and (not isinstance(value, int) or value < 1):
            hint = f"as in {option}=10_000_000, or leave it out for the default"
            problem = f"{option} must be a whole number from 1, not {value!r}"
            raise InvalidSettings(problem, user_location(), hint)

    @abstractmethod
    def _holds(self, dtype: Any) -> bool:
        """Whether the format can write this type."""

    @property
    def promise(self) -> str:
        """Files are named by a checkpoint and renamed into place once it is complete."""
        return "exactly once"

    @property
    def folders(self) -> tuple[str, ...]:
        """The folder it fills."""
        return (str(self.path),)

    @property
    def example(self) -> str:
        """The first file of the first checkpoint."""
        return self._folder.example(partition_folder(dict.fromkeys(self.partition_by, "0")))

    def replaced(self) -> list[str]:
        """With `mode` "overwrite" what the folder holds."""
        return self._folder.replaced()

    def check(self, schema: StreamSchema) -> None:
        """Refuse what the format or a folder name cannot hold."""
        for name in self.partition_by:
            if name not in schema.columns:
                raise InvalidQuery.from_missing_column(name, schema.columns, "partition_by", user_location())
            if not name:
                hint = "give it a name first, as in `.rename({'': 'day'})`"
                raise InvalidQuery("A column without a name cannot name folders", user_location(), hint)
            if not _makes_folders(schema.columns[name]):
                raise InvalidQuery(
                    f"Column {name!r} of type {schema.columns[name]} cannot name folders",
                    user_location(),
                    "partition by text, integer, date, datetime or boolean columns",
                )
        rest = self._file_columns(schema)
        if not rest:
            problem = "All columns are in partition_by; none is left for the files"
            raise InvalidQuery(problem, user_location(), "partition by fewer columns")
        for name, dtype in rest.items():
            if not self._holds(dtype):
                problem = f"{self.label} cannot hold column {name!r} of type {dtype}"
                raise InvalidQuery(problem, user_location(), self.way_out.format(name=name))

    def _file_columns(self, schema: StreamSchema) -> pl.Schema:
        return pl.Schema({n: t for n, t in schema.columns.items() if n not in self.partition_by})

    def prepare_target(self, restored: bool) -> None:
        """Make the folder, or refuse one that holds data."""
        self._folder.prepare_target(restored)

    def commit(self, tokens: Sequence[Token]) -> None:
        """Rename the files of these tokens into place."""
        self._folder.commit(tokens)

    def abort(self, context: WriterContext) -> None:
        """Remove the staged files of this job."""
        self._folder.abort(context)

    def recover(self, tokens: Sequence[Token], context: WriterContext) -> None:
        """Both, also in the folder that the restored checkpoint was made for."""
        self._folder.recover(tokens, context)

    def describe(self) -> dict[str, str]:
        """What `explain` prints of it."""
        shown = {"path": str(self.path), "mode": self.mode}
        if self.partition_by:
            shown["partition_by"] = ", ".join(self.partition_by)
        return shown

    @property
    def _folder(self) -> StagedFolder:
        return StagedFolder(str(self.path), self.suffix, self.mode)

    @property
    def _layout(self) -> Layout:
        return Layout(
            partition_by=tuple(self.partition_by),
            file_rows=self.max_file_rows,
            file_bytes=self.max_file_bytes,
            file_age_micros=microseconds(self.max_file_age, "max_file_age"),
        )


def final_names(
    folder: StagedFolder, context: WriterContext, checkpoint_id: int, files: Sequence[tuple[Path, str]]
) -> Token | None:
    """The token that commits these staged files (each with its partition), numbered per partition."""
    numbers: dict[str, int] = {}
    named = []
    for path, partition in files:
        number = numbers.setdefault(partition, 0)
        numbers[partition] += 1
        named.append((str(path), folder.final_name(context, checkpoint_id, number, partition)))
    return folder.token(named)


def _makes_folders(kind: pl.DataType) -> bool:
    text = kind in (pl.String, pl.Categorical, pl.Enum)
    return text or kind.is_integer() or kind in (pl.Date, pl.Datetime, pl.Boolean)
