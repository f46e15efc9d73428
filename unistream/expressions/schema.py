"""What is known about the rows on an edge before the first one flows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from enum import IntEnum, StrEnum
from typing import Any

import polars as pl

from unistream.errors import InvalidQuery
from unistream.location import user_location

CHANGE = "__change"
"""Name of the Int8 column that tells what each row of an updating edge does; see `Change`."""


class Change(IntEnum):
    """What a row of a changelog does to the table it describes; the values are stored and never change."""

    INSERT = 0
    UPDATE_BEFORE = 1
    UPDATE_AFTER = 2
    DELETE = 3


OPERATION = "op"
"""Name of the column that shows users what a row of a changelog does."""

SPELLING = {Change.INSERT: "+I", Change.UPDATE_BEFORE: "-U", Change.UPDATE_AFTER: "+U", Change.DELETE: "-D"}
"""What that column holds."""


class Changes(StrEnum):
    """What an edge carries.

    APPEND: rows are only ever added. UPSERT: a row replaces the earlier one with the same key, or deletes
    it. RETRACT: an earlier row is taken back by an equal one with the opposite sign.
    """

    APPEND = "append"
    UPSERT = "upsert"
    RETRACT = "retract"


@dataclass(frozen=True, slots=True)
class EventTime:
    """The column that says when a row happened; `unit` is that of an integer column ("s ms us ns").

    `offset`, in the column's own smallest unit, is added to the column: a window's result happened one
    unit before its `window_end`, which is the first moment that is no longer part of the window.
    """

    column: str
    unit: str = "us"
    offset: int = 0


@dataclass(frozen=True, slots=True)
class StreamSchema:
    """Columns, time, changelog mode and boundedness of a stream.

    `columns` are the user's; on edges that are not append-only frames carry `CHANGE` beside them.
    """

    columns: pl.Schema
    event_time: EventTime | None = None
    changes: Changes = Changes.APPEND
    key: tuple[str, ...] = ()
    bounded: bool = True
    side_outputs: Mapping[str, pl.Schema] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.columns:
            if name == CHANGE or name == "*" or (name[:1] == "^" and name[-1:] == "$"):
                kind = (
                    "is reserved for changelogs" if name == CHANGE else "stands for several columns in Polars"
                )
                hint = "rename the column before it comes here"
                raise InvalidQuery(f"A column cannot be called {name!r}, which {kind}", user_location(), hint)

    @property
    def physical(self) -> pl.Schema:
        """The columns of the frames that really travel."""
        if self.changes is Changes.APPEND:
            return self.columns
        return pl.Schema([*self.columns.items(), (CHANGE, pl.Int8())])

    def with_columns(self, columns: pl.Schema) -> StreamSchema:
        """The same stream with other columns; event time and key go when their columns go."""
        time = self.event_time
        if time is not None and columns.get(time.column) != self.columns.get(time.column):
            time = None
        key = self.key if all(name in columns for name in self.key) else ()
        return replace(self, columns=columns, event_time=time, key=key, side_outputs={})

    def empty(self) -> pl.DataFrame:
        """A frame of these columns without rows."""
        return pl.DataFrame(schema=self.physical)


_DEFAULTS: dict[Any, pl.DataType] = {
    pl.Datetime: pl.Datetime("us"),
    pl.Duration: pl.Duration("us"),
    pl.Categorical: pl.Categorical(),
}
"""What Polars takes when a type is named without its parameters."""

_WRITTEN_OUT = {
    pl.Decimal: "pl.Decimal(38, 2)",
    pl.List: "pl.List(pl.Int64)",
    pl.Array: "pl.Array(pl.Int64, 3)",
    pl.Struct: 'pl.Struct({"field": pl.Int64})',
    pl.Enum: 'pl.Enum(["first", "second"])',
    Decimal: "pl.Decimal(38, 2)",
    list: "pl.List(pl.Int64)",
}
"""How types are written whose parameters nobody can guess."""


def typed(columns: Any) -> pl.Schema:
    """Names and types as users write them: Python types are understood, missing parameters those of Polars.

    >>> typed({"n": int, "at": pl.Datetime})
    Schema([('n', Int64), ('at', Datetime(time_unit='us', time_zone=None))])
    """
    hint = 'write {"column": pl.Int64, ...} with Polars or Python types as values'
    try:
        given = pl.Schema(columns, check_dtypes=False)
        for name, dtype in given.items():
            if isinstance(dtype, type) and dtype in _WRITTEN_OUT:
                hint = f"write the whole type, as in {_WRITTEN_OUT[dtype]}"
                raise TypeError(f"{dtype.__name__} says too little of column {name!r}")
        filled = {name: _with_parameters(dtype) for name, dtype in given.items()}
        return pl.Schema(filled).to_frame().schema
    except (TypeError, AttributeError, ValueError) as error:
        raise InvalidQuery(f"Schema {columns!r} cannot be read: {error}", user_location(), hint) from error


def _with_parameters(dtype: Any) -> Any:
    return _DEFAULTS.get(dtype, dtype) if isinstance(dtype, type) else dtype


_WORDS = pl.Series(OPERATION, [SPELLING[change] for change in sorted(Change)])


def spell_changes(frame: pl.DataFrame) -> pl.DataFrame:
    """The rows with a first column `op` of "+I -U +U -D" where they carry the engine's own column.

    >>> spell_changes(pl.DataFrame({"n": [1], CHANGE: [3]}, schema_overrides={CHANGE: pl.Int8})).row(0)
    ('-D', 1)
    """
    if CHANGE not in frame.columns:
        return frame
    # Words are taken by their numbers: small frames come often, and a query would cost more than all else.
    shown = frame.clone()
    operation = _WORDS[shown.drop_in_place(CHANGE).cast(pl.UInt32)]
    return shown.insert_column(0, operation)
