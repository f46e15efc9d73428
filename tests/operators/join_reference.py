"""Random pairs of sequences for joins: rows of two sides in disorder, and the marks of time between them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar

import polars as pl

import unistream as us
from unistream.clock import Random
from unistream.elements import MIN_TIME
from unistream.expressions.schema import CHANGE, Changes, StreamSchema
from unistream.testing.clock import VirtualClock

SECOND = 1_000_000
HOWS = ("inner", "left", "right", "full", "semi", "anti")
TIMES: dict[str, Any] = {
    "s": pl.Int64(),
    "ms": pl.Datetime("ms"),
    "us": pl.Datetime("us", "UTC"),
    "ns": pl.Datetime("ns"),
}
HIDDEN = ("random", "sides", "standing", "tables", "folder")
SUFFIX = "_2"
SMALL = pl.Int16()
KEYS: dict[str, tuple[Any, list[Any]]] = {
    "text": (pl.String(), ["x", "x", "x", "y", "y", "z", "", None]),
    "number": (pl.Int64(), [1, 1, 1, -7, 2**62, None]),
    "small": (pl.UInt8(), [0, 0, 255, None]),
    "float": (pl.Float64(), [0.0, -0.0, 1.5, 1.5, float("nan"), None]),
}
PREDICATES: dict[str, pl.Expr | None] = {
    "": None,
    "odd": (pl.col("a") + pl.col("b")) % 2 == 1,
    "same note": pl.col("note") == pl.col(f"note{SUFFIX}"),
}


@dataclass(frozen=True, slots=True)
class Mark:
    """Time has come to this moment (microseconds)."""

    at: int


@dataclass(frozen=True, slots=True)
class Row:
    """A row of one side; `at` is its event time, `gone` says that an equal row is taken back."""

    port: int
    number: int
    at: int | None
    values: tuple[Any, ...]
    gone: bool = False


Event = Row | Mark


def same(value: Any) -> Any:
    """A value that equals itself: NaN does, and zero has no sign."""
    if isinstance(value, float):
        return "NaN" if value != value else value + 0.0
    return value


@dataclass(frozen=True)
class Side:
    """The columns of one input: time, key, second key, a number and a note."""

    port: int
    time: str
    unit: str
    key: str
    kind: str
    changes: Changes = Changes.APPEND
    timed: bool = True
    second: Any = SMALL

    @cached_property
    def columns(self) -> dict[str, Any]:
        number = "ab"[self.port]
        types = [TIMES[self.unit], KEYS[self.kind][0], self.second, pl.Int64(), pl.String()]
        return dict(zip([self.time, self.key, "j", number, "note"], types, strict=True))

    def physical(self, micros: int | None) -> int | None:
        """A moment as the column of time holds it."""
        factor = {"s": (1, SECOND), "ms": (1, 1000), "us": (1, 1), "ns": (1000, 1)}[self.unit]
        return None if micros is None else micros * factor[0] // factor[1]

    def frame(self, rows: Sequence[Row]) -> pl.DataFrame:
        """Rows as the stream has them."""
        plain = {**self.columns, self.time: pl.Int64()}
        values = [(self.physical(row.at), *row.values) for row in rows]
        frame = pl.DataFrame(values, schema=plain, orient="row")
        if self.unit != "s":
            frame = frame.with_columns(pl.col(self.time).cast(TIMES[self.unit]))
        if self.changes is Changes.APPEND:
            return frame
        return frame.with_columns(pl.Series(CHANGE, [3 if row.gone else 0 for row in rows], pl.Int8))

    def stream(self) -> us.Stream:
        """A stream with these columns."""
        stream = us.from_frame(pl.DataFrame(schema=self.columns))
        return stream.with_event_time(self.time, unit=self.unit) if self.timed else stream


@dataclass
class Pair(ABC):
    """Two sequences and how they are joined; `seed` decides all of it.

    Subclasses are the kinds of joins. They say how a user asks for it (`joined`), what the result is
    (`expected`), and which rows of the sequences make it up (`numbers`), for a comparison with SQL.
    """

    seed: int
    kind: ClassVar[str] = ""
    hows: ClassVar[Sequence[str]] = HOWS
    predicates: ClassVar[Sequence[str]] = tuple(PREDICATES)
    mixed_times: ClassVar[bool] = False
    may_crash: bool = field(init=False, default=True)
    random: Random = field(init=False, repr=False)
    null_times: bool = field(init=False, default=True)
    distinct: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        random = self.random = Random(self.seed)
        self.how = self.hows[self.seed % len(self.hows)]
        self.predicate = random.choice(("", "", *self.predicates))
        self.two_keys = random.random() < 0.3
        kind = random.choice(tuple(KEYS))
        units = [random.choice(tuple(TIMES))] * 2
        if self.mixed_times and random.random() < 0.4:
            units[1] = random.choice(tuple(TIMES))
        names = random.choice((("t", "t"), ("t", "u")))
        keys = random.choice((("k", "k"), ("k", "key")))
        self.sides = [Side(port, names[port], units[port], keys[port], kind) for port in (0, 1)]
        self.disorder = random.randint(0, 9)
        self.delay = max(0, self.disorder - random.randint(-2, 6))
        self.options()

    def options(self) -> None:
        """What is particular to the kind."""

    @property
    def on(self) -> dict[str, Any]:
        """The keys as a user says them."""
        names = [[side.key, "j"] if self.two_keys else [side.key] for side in self.sides]
        return {"left_on": names[0], "right_on": names[1]}

    @property
    def inputs(self) -> Sequence[Side]:
        """The sides that are streams."""
        return self.sides

    @abstractmethod
    def joined(self, *sides: us.Stream) -> us.Stream:
        """The join of these streams."""

    def passed(self, at: int, clock: VirtualClock) -> None:
        """Time has come to a mark."""

    def types_of_result(self) -> dict[str, Any]:
        """Columns of the result with their types."""
        return self.types()

    def describe(self) -> str:
        """Everything that was chosen, for a failure."""
        chosen = {name: value for name, value in vars(self).items() if name not in HIDDEN}
        return f"{self.kind}: {chosen}\n  left {self.sides[0].columns}\n  right {self.sides[1].columns}"

    @property
    def condition(self) -> pl.Expr | None:
        """The predicate as a user says it."""
        return PREDICATES[self.predicate]

    # Sequences

    def events(self) -> list[Event]:
        """Rows of both sides in disorder, and marks; what is behind a mark is late."""
        random, found = self.random, list[Event]()
        at, newest, mark = random.randint(-30, 30), -(10**6), MIN_TIME
        number = 0
        for _ in range(random.randint(1, 9)):
            for _ in range(random.randint(1, 7)):
                port = random.randint(0, 1)
                number += 1
                row = self.row(port, number, at - random.randint(0, self.disorder), mark)
                row = self.perhaps_again(row, found)
                found += self.with_changes(row, found, mark)
                newest = max(newest, at)
                at += random.choice((0, 0, 1, 2, 4))
            at += random.randint(10, 40) if random.random() < 0.1 else 0
            if random.random() < 0.7 and (newest - self.delay) * SECOND > mark:
                mark = (newest - self.delay) * SECOND + random.choice((0, 0, SECOND // 2, 1))
                found.append(Mark(mark))
        return found

    def row(self, port: int, number: int, second: int, mark: int) -> Row:
        """A random row; few values, so that equal rows are not rare."""
        random, side = self.random, self.sides[port]
        at: int | None = second * SECOND + self.fraction(side.unit)
        if mark != MIN_TIME and random.random() < 0.1:
            step = {"s": SECOND, "ms": 1_000}.get(side.unit, 1)
            at = -(-mark // step) * step  # the first moment that has not passed
        if self.null_times and random.random() < 0.03:
            at = None
        key = random.choice(KEYS[side.kind][1])
        second_key = random.choice((1, 1, 1, 2, None))
        amount = number if self.distinct else random.randint(0, 3)
        return Row(port, number, at, (key, second_key, amount, random.choice(("n", "m", None))))

    def fraction(self, unit: str) -> int:
        """Mostly none: rows are often exactly as far apart as bounds say, and sometimes just not."""
        if unit == "s" or self.random.random() > 0.4:
            return 0
        return self.random.choice((SECOND // 2, SECOND // 2, *((1, -1, 1, -1) if unit != "ms" else ())))

    def perhaps_again(self, row: Row, before: Sequence[Event]) -> Row:
        """The row, or now and then one that equals the last of its side."""
        if self.distinct or self.random.random() > 0.15:
            return row
        own = [one for one in before[-6:] if isinstance(one, Row) and one.port == row.port and not one.gone]
        return replace(row, at=own[-1].at, values=own[-1].values) if own else row

    def with_changes(self, row: Row, before: Sequence[Event], mark: int) -> Iterable[Event]:
        """The row, and perhaps one that is taken back."""
        return [row]

    # What rows mean

    def key_of(self, row: Row) -> tuple[Any, ...] | None:
        """What is compared; None matches nothing."""
        key = row.values[:2] if self.two_keys else row.values[:1]
        return None if None in key else tuple(map(same, key))

    def fits(self, left: Row, right: Row) -> bool:
        """Whether keys are equal and the predicate is true."""
        key = self.key_of(left)
        if key is None or key != self.key_of(right):
            return False
        match self.predicate:
            case "odd":
                return bool((left.values[2] + right.values[2]) % 2 == 1)
            case "same note":
                return left.values[3] is not None and left.values[3] == right.values[3]
        return True

    def names(self) -> tuple[list[str], list[str]]:
        """The columns of a pair: those of the left, and those that the right adds."""
        left, right = (side.columns for side in self.sides)
        keys = {self.sides[1].key} | ({"j"} if self.two_keys else set())
        added = [f"{name}{SUFFIX}" if name in left else name for name in right if name not in keys]
        return list(left), added

    def types(self) -> dict[str, Any]:
        """The columns of a pair with their types."""
        left, right = (side.columns for side in self.sides)
        keys = {self.sides[1].key} | ({"j"} if self.two_keys else set())
        names = self.names()
        added = [dtype for name, dtype in right.items() if name not in keys]
        return {**left, **dict(zip(names[1], added, strict=True))}

    def beside(self, left: Row | None, right: Row | None) -> tuple[Any, ...]:
        """The values of a pair; of one row when the other is missing."""
        mine = self.of_left(left) if left is not None else None
        theirs = None
        if right is not None:
            values = right.values[2:] if self.two_keys else right.values[1:]
            theirs = (self.sides[1].physical(right.at), *values)
        names = self.names()
        if mine is None:
            assert right is not None
            width = len(names[0])
            keys = (right.values[0], right.values[1] if self.two_keys else None)
            mine = (None, *map(same, keys), *([None] * (width - 3)))
        return (*mine, *(theirs or [None] * len(names[1])))

    def of_left(self, row: Row) -> tuple[Any, ...]:
        """The values of a left row."""
        return (self.sides[0].physical(row.at), *map(same, row.values))


def plain_rows(frame: pl.DataFrame) -> list[tuple[Any, ...]]:
    """Rows with moments as the numbers they are stored as, and values that equal themselves."""
    times = [pl.col(name).to_physical() for name, dtype in frame.schema.items() if dtype.is_temporal()]
    plain = frame.with_columns(times) if times else frame
    floats = any(dtype.is_float() for dtype in plain.dtypes)
    return [tuple(map(same, row)) for row in plain.rows()] if floats else plain.rows()


def schemas_of(stream: us.Stream, sides: Sequence[Side]) -> tuple[Any, list[StreamSchema]]:
    """The spec behind the last step of a plan, and its inputs; sides that update do from here on."""
    node: Any = stream._node
    inputs = [one.schema for one in node.inputs]
    changed = [replace(one, changes=side.changes) for one, side in zip(inputs, sides, strict=False)]
    return node.spec, changed
