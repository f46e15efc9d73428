"""State of one key at a time, for functions that are called row by row: values, lists, maps, reductions.

A handle is declared in the body of a class and works on the key of the row at hand. Between ticks everything
lies in one keyed table; a tick loads its keys as columns and writes back the entries that were changed.
"""

from __future__ import annotations

import copy
from abc import ABC
from collections.abc import Callable, ItemsView, Iterable, Iterator, Mapping
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import polars as pl

from unistream.durations import Duration, microseconds
from unistream.errors import DataError, InvalidQuery, InvalidSettings, StateError
from unistream.expressions.schema import typed
from unistream.state.backend import RowIds, StateStore
from unistream.state.entry_lives import EntryLives, written_column

_NOWHERE = 1 << 62


class Cursor:
    """Which of the loaded keys is worked on."""

    __slots__ = ("at",)

    def __init__(self) -> None:
        self.at = _NOWHERE

    def leave(self) -> None:
        """No key is worked on."""
        self.at = _NOWHERE


class State(ABC):
    """What the kinds of state share. With `ttl` an entry is forgotten so long (processing time) after it
    was last written. A job that is started again with another one holds the entries that are there to it;
    where there was none, they count as written when that run began."""

    dtype: pl.DataType
    _written_by: ClassVar[str]

    def __init__(self, dtype: pl.DataType, ttl: Duration | None) -> None:
        self.dtype = dtype
        self.ttl = None if ttl is None else microseconds(ttl, "ttl")
        if self.ttl is not None and self.ttl <= 0:
            raise InvalidSettings(f"ttl={ttl!r} is not longer than nothing")
        self._entries: list[Any] = []
        self._changed = bytearray()
        self._cursor: Cursor | None = None
        self._name: str | None = None

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __set__(self, function: object, value: Self) -> None:
        """A plain attribute in its place would be shared by all keys and lost in a crash."""
        if value is not self:
            hint = f"write `{self._written_by.format(name=self._name)}`, or choose another name"
            raise InvalidQuery(f"{self._name!r} is state: it cannot be assigned to", hint=hint)

    def bound(self, cursor: Cursor) -> Self:
        """A handle of its own for one operator."""
        handle = copy.copy(self)
        handle._entries, handle._changed, handle._cursor = [], bytearray(), cursor
        return handle

    def load(self, values: pl.Series) -> None:
        """The entries of the keys to come."""
        self._entries = self._from_stored(values.to_list())
        self._changed = bytearray(len(self._entries))

    def forget(self, places: Iterable[int]) -> None:
        """Clear the entries at these places."""
        for place in places:
            self._entries[place] = None
            self._changed[place] = 1

    def changed(self) -> list[int]:
        """The places of entries that were written."""
        places: list[int] = np.flatnonzero(np.frombuffer(self._changed, dtype=np.uint8)).tolist()
        return places

    def absent(self) -> npt.NDArray[np.bool_]:
        """Where there is no entry."""
        return np.array([entry is None for entry in self._entries], dtype=np.bool_)

    def stored(self, name: str, places: Iterable[int]) -> pl.Series:
        """The entries at these places, as they are kept."""
        values = self._to_stored([self._entries[place] for place in places])
        try:
            return pl.Series(name, values, dtype=self.dtype, strict=True)
        except (TypeError, pl.exceptions.PolarsError) as error:
            wrong = next((value for value in values if not _fits(value, self.dtype)), None)
            raise DataError(
                f"State {name!r} holds {self.dtype} and was given {wrong!r}",
                hint="declare another type, or convert the value before",
            ) from error

    def clear(self) -> None:
        """Forget the entry of this key."""
        self._put(None)

    @property
    def _entry(self) -> Any:
        try:
            return self._entries[self._cursor.at]  # type: ignore[union-attr]
        except (AttributeError, IndexError):
            raise self._homeless() from None

    def _put(self, entry: Any) -> None:
        try:
            at = self._cursor.at  # type: ignore[union-attr]
            self._entries[at] = entry
            self._changed[at] = 1
        except (AttributeError, IndexError):
            raise self._homeless() from None

    def _homeless(self) -> StateError:
        kind = type(self).__name__
        if self._name is None:
            hint = f"declare it in the class body: `last = us.{kind}(...)`"
            return StateError(f"This {kind} was not declared by a class, so it has no keys", hint=hint)
        hint = "use it in process and on_timer, where there is one"
        return StateError(f"{kind} belongs to a key", hint=hint)

    def _from_stored(self, values: list[Any]) -> list[Any]:
        return values

    def _to_stored(self, entries: list[Any]) -> list[Any]:
        """As the column has them, None where there is nothing to keep."""
        return entries


class ValueState(State):
    """One value per key, None (or `default`) until it is set.

    With `ttl="1h"` the value is forgotten an hour of processing time (the job's clock) after it was set.

    >>> import polars as pl, unistream as us
    >>> class Steps(us.ProcessFunction):
    ...     output = {"k": pl.String, "step": pl.Int64}
    ...     last = us.ValueState(pl.Int64, default=0)
    ...     def process(self, key, row, ctx):
    ...         yield {"k": key, "step": row["n"] - self.last.value}
    ...         self.last.value = row["n"]
    >>> rows = us.from_frame({"k": ["a", "b", "a"], "n": [1, 5, 4]})
    >>> rows.group_by("k").process(Steps()).collect().rows()
    [('a', 1), ('b', 5), ('a', 3)]
    """

    _written_by = "self.{name}.value = ..."

    def __init__(self, dtype: Any, *, default: Any = None, ttl: Duration | None = None) -> None:
        super().__init__(_dtype(dtype), ttl)
        self.default = default

    @property
    def value(self) -> Any:
        """The value of this key; set it to replace it, to None to forget it."""
        try:
            entry = self._entries[self._cursor.at]  # type: ignore[union-attr]
        except (AttributeError, IndexError):
            raise self._homeless() from None
        return self.default if entry is None else entry

    @value.setter
    def value(self, value: Any) -> None:
        self._put(value)


class ReducingState(State):
    """One value per key that new values are put into by a function, such as a sum or a maximum.

    With `ttl="1h"` the value is forgotten an hour of processing time (the job's clock) after the last `add`.

    >>> import polars as pl, unistream as us
    >>> class Highest(us.ProcessFunction):
    ...     output = {"k": pl.String, "most": pl.Int64}
    ...     most = us.ReducingState(pl.Int64, max)
    ...     def process(self, key, row, ctx):
    ...         self.most.add(row["n"])
    ...         yield {"k": key, "most": self.most.value}
    >>> rows = us.from_frame({"k": ["a", "a", "a"], "n": [2, 5, 4]})
    >>> rows.group_by("k").process(Highest()).collect()["most"].to_list()
    [2, 5, 5]
    """

    _written_by = "self.{name}.add(...)"

    def __init__(
        self, dtype: Any, function: Callable[[Any, Any], Any], *, ttl: Duration | None = None
    ) -> None:
        super().__init__(_dtype(dtype), ttl)
        self._function = function

    @property
    def value(self) -> Any:
        """What the values of this key came to, None before the first."""
        return self._entry

    def add(self, value: Any) -> None:
        """Put one more value in."""
        entry = self._entry
        self._put(value if entry is None else self._function(entry, value))


class ListState(State):
    """A list per key, which is read and written as a whole with its key: for tens of values, not thousands.

    With `ttl="1h"` the list is forgotten an hour of processing time (the job's clock) after its last change.

    >>> import polars as pl, unistream as us
    >>> class Pairs(us.ProcessFunction):
    ...     output = {"pair": pl.List(pl.Int64)}
    ...     waiting = us.ListState(pl.Int64)
    ...     def process(self, key, row, ctx):
    ...         self.waiting.append(row["n"])
    ...         if len(self.waiting) == 2:
    ...             yield {"pair": list(self.waiting)}
    ...             self.waiting.clear()
    >>> rows = us.from_frame({"k": ["a", "b", "a"], "n": [1, 2, 3]})
    >>> rows.group_by("k").process(Pairs()).collect().rows()
    [([1, 3],)]
    """

    _written_by = "self.{name}.set([...])"

    def __init__(self, dtype: Any, *, ttl: Duration | None = None) -> None:
        super().__init__(pl.List(_dtype(dtype)), ttl)

    def append(self, value: Any) -> None:
        """Add one value at the end."""
        self.extend([value])

    def extend(self, values: Iterable[Any]) -> None:
        """Add values at the end."""
        self._put([*(self._entry or ()), *values])

    def set(self, values: Iterable[Any]) -> None:
        """Put these values in the place of the others."""
        self._put(list(values))

    def __iter__(self) -> Iterator[Any]:
        return iter(self._entry or ())

    def __len__(self) -> int:
        return len(self._entry or ())

    def __getitem__(self, index: Any) -> Any:
        return (self._entry or [])[index]

    def absent(self) -> npt.NDArray[np.bool_]:
        return np.array([not entry for entry in self._entries], dtype=np.bool_)

    def _to_stored(self, entries: list[Any]) -> list[Any]:
        return [entry or None for entry in entries]


class MapState(State):
    """A mapping per key, which is read and written as a whole with its key.

    For mappings of thousands of entries make the inner key part of `group_by`.

    With `ttl="1h"` it is forgotten an hour of processing time (the job's clock) after its last change.

    >>> import polars as pl, unistream as us
    >>> class Seen(us.ProcessFunction):
    ...     output = {"k": pl.String, "page": pl.String, "times": pl.Int64}
    ...     pages = us.MapState(pl.String, pl.Int64)
    ...     def process(self, key, row, ctx):
    ...         self.pages[row["page"]] = self.pages.get(row["page"], 0) + 1
    ...         yield {"k": key, "page": row["page"], "times": self.pages[row["page"]]}
    >>> rows = us.from_frame({"k": ["a", "b", "a"], "page": ["x", "x", "x"]})
    >>> rows.group_by("k").process(Seen()).collect()["times"].to_list()
    [1, 1, 2]
    """

    _written_by = "self.{name}[...] = ..."

    def __init__(self, key: Any, value: Any, *, ttl: Duration | None = None) -> None:
        fields = [pl.Field("key", _dtype(key)), pl.Field("value", _dtype(value))]
        super().__init__(pl.List(pl.Struct(fields)), ttl)

    def get(self, key: Any, default: Any = None) -> Any:
        """The value under `key`, or `default`."""
        return (self._entry or {}).get(key, default)

    def items(self) -> ItemsView[Any, Any]:
        """All keys and values, in order of insertion."""
        return (self._entry or {}).items()

    def __getitem__(self, key: Any) -> Any:
        return (self._entry or {})[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        entry = self._entry or {}
        entry[key] = value
        self._put(entry)

    def __delitem__(self, key: Any) -> None:
        entry = self._entry or {}
        del entry[key]
        self._put(entry)

    def __contains__(self, key: object) -> bool:
        return key in (self._entry or {})

    def __iter__(self) -> Iterator[Any]:
        return iter(self._entry or {})

    def __len__(self) -> int:
        return len(self._entry or {})

    def absent(self) -> npt.NDArray[np.bool_]:
        return np.array([not entry for entry in self._entries], dtype=np.bool_)

    def _from_stored(self, values: list[Any]) -> list[Any]:
        return [None if value is None else {item["key"]: item["value"] for item in value} for value in values]

    def _to_stored(self, entries: list[Any]) -> list[Any]:
        return [
            [{"key": key, "value": value} for key, value in entry.items()] if entry else None
            for entry in entries
        ]


class KeyedStates:
    """The handles of a function over one keyed table."""

    def __init__(self, store: StateStore, keys: pl.Schema, handles: Mapping[str, State]) -> None:
        self._handles = handles
        lives = {name: handle.ttl for name, handle in handles.items() if handle.ttl is not None}
        values: dict[str, pl.DataType] = {name: handle.dtype for name, handle in handles.items()}
        values |= {written_column(name): pl.Int64() for name in lives}
        self._table = store.keyed("states", keys, pl.Schema(values))
        self._lives = EntryLives(store, self._table, keys, lives)
        self._keys = pl.DataFrame(schema=keys)
        self._rows: RowIds = np.empty(0, dtype=np.int64)

    def load(self, keys: pl.DataFrame, now: int) -> None:
        """Make these distinct keys the ones at hand, in this order."""
        self._keys = keys
        if not self._handles:
            return
        self._lives.begin(now)
        self._rows, _ = self._table.upsert(keys)
        stored = self._table.read(self._rows)
        for name, handle in self._handles.items():
            handle.load(stored[name])
            if name in self._lives:
                over = self._lives.over(name, self._rows, now) & stored[name].is_not_null().to_numpy()
                handle.forget(np.flatnonzero(over).tolist())

    def save(self, now: int) -> None:
        """Write what was changed; keys without any state are forgotten."""
        for name, handle in self._handles.items():
            places = handle.changed()
            if places:
                rows = self._rows[places]
                self._table.write(rows, handle.stored(name, places).to_frame())
                if name in self._lives:
                    there = ~handle.absent()[places]
                    written = self._keys[np.array(places)[there].tolist()]
                    self._lives.renew(name, rows[there], written, now)
        if self._handles:
            empty = np.logical_and.reduce([handle.absent() for handle in self._handles.values()])
            self._table.delete(self._rows[empty])

    def next_expiry(self) -> int | None:
        """When `expire` is wanted."""
        return self._lives.next_time()

    def expire(self, now: int) -> None:
        """Remove entries whose time is over."""
        self._lives.begin(now)
        due = self._lives.due(now)
        if due.height:
            self.load(due, now)
            self.save(now)


def _dtype(dtype: Any) -> pl.DataType:
    return typed({"value": dtype})["value"]


def _fits(value: Any, dtype: pl.DataType) -> bool:
    try:
        pl.Series([value], dtype=dtype, strict=True)
    except (TypeError, pl.exceptions.PolarsError):
        return False
    return True
