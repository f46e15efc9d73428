"""The kinds of joins, each as users ask for it and as nested loops over all rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import polars as pl
from join_reference import SECOND, SUFFIX, Event, Mark, Pair, Row

import unistream as us
from unistream.elements import MIN_TIME
from unistream.expressions.schema import Changes
from unistream.operators.join_arrivals import NO_TIME, PASSED
from unistream.operators.join_layout import SIDES
from unistream.operators.window_join import CLOSED

Values = tuple[Any, ...]


@dataclass
class Expected:
    """Rows of the result and late rows, by value; and which rows of the sequences made the result."""

    rows: list[Values] = field(default_factory=list)
    late: list[Values] = field(default_factory=list)
    numbers: list[Values] = field(default_factory=list)


def micros(length: int) -> str:
    """As users write it."""
    return f"{length}us" if length >= 0 else f"-{-length}us"


def with_marks(events: Sequence[Event]) -> Iterator[tuple[Row, int]]:
    """Each row with the mark it meets."""
    mark = MIN_TIME
    for event in events:
        if isinstance(event, Mark):
            mark = max(mark, event.at)
        else:
            yield event, mark


class Timed(Pair):
    """A kind that keeps rows by their time."""

    closed = PASSED

    def in_time(
        self, events: Sequence[Event], found: Expected, passed: Callable[[int, int], bool]
    ) -> list[list[Row]]:
        """The rows of each side that are in time; the others are noted as late."""
        sides: list[list[Row]] = [[], []]
        for row, mark in with_marks(events):
            if row.at is not None and not passed(row.at, mark):
                sides[row.port].append(row)
                continue
            reason = NO_TIME if row.at is None else self.closed
            found.late.append((*self.alone(row), SIDES[row.port], reason, None if mark == MIN_TIME else mark))
        return sides

    def alone(self, row: Row) -> Values:
        return self.beside(row, None) if row.port == 0 else self.beside(None, row)

    def types_of_result(self) -> dict[str, Any]:
        left = self.sides[0].columns
        return dict(left) if self.how in ("semi", "anti") else self.types()

    def paired(self, lefts: Sequence[Row], rights: Sequence[Row], near: Any) -> list[tuple[Any, Any]]:
        """The pairs and, as `how` says, the rows without a partner."""
        pairs = [(x, y) for x in lefts for y in rights if near(x, y) and self.fits(x, y)]
        met = {x.number for x, _ in pairs}, {y.number for _, y in pairs}
        if self.how in ("semi", "anti"):
            return [(x, None) for x in lefts if (x.number in met[0]) == (self.how == "semi")]
        if self.how in ("left", "full"):
            pairs += [(x, None) for x in lefts if x.number not in met[0]]  # type: ignore[misc]
        if self.how in ("right", "full"):
            pairs += [(None, y) for y in rights if y.number not in met[1]]  # type: ignore[misc]
        return pairs

    def values(self, left: Row | None, right: Row | None) -> Values:
        """What the result shows of a pair, without what the kind adds."""
        if self.how in ("semi", "anti"):
            assert left is not None
            return self.of_left(left)
        return self.beside(left, right)


def number(row: Row | None) -> int | None:
    return None if row is None else row.number


class Interval(Timed):
    """`join(within=)`."""

    kind = "interval"
    mixed_times = True

    def options(self) -> None:
        low = self.random.randint(-9, 6) * SECOND + self.random.choice((0, 0, SECOND // 2, 1))
        length = self.random.choice((0, SECOND, 3 * SECOND, 8 * SECOND, 30 * SECOND))
        self.low, self.high = low, low + length

    def joined(self, *sides: us.Stream) -> us.Stream:
        left, right = sides
        return left.join(
            right,
            **self.on,
            how=self.how,  # type: ignore[arg-type]
            within=(micros(self.low), micros(self.high)),
            predicate=self.condition,
            suffix=SUFFIX,
        )

    def types_of_result(self) -> dict[str, Any]:
        found = super().types_of_result()
        return found if self.how in ("semi", "anti") else {**found, "join_time": self.time_type}

    @property
    def time_type(self) -> Any:
        units = [side.unit for side in self.sides]
        own = self.sides[0].columns[self.sides[0].time]
        return own if units[0] == units[1] else pl.Datetime("us", "UTC" if "us" in units else None)

    def expected(self, events: Sequence[Event]) -> Expected:
        found = Expected()
        lefts, rights = self.in_time(events, found, lambda at, mark: at < mark)
        for x, y in self.paired(lefts, rights, self.near):
            times = [row.at for row in (x, y) if row is not None]
            values = self.values(x, y)
            if self.how not in ("semi", "anti"):
                alike = self.sides[0].unit == self.sides[1].unit
                later = max(times)
                values = (*values, self.sides[0].physical(later) if alike else later)
            found.rows.append(values)
            found.numbers.append((number(x), number(y)))
        return found

    def near(self, left: Row, right: Row) -> bool:
        assert left.at is not None and right.at is not None
        return self.low <= right.at - left.at <= self.high


class Window(Timed):
    """`join(window=)`."""

    kind = "window"
    closed = CLOSED

    def options(self) -> None:
        random = self.random
        step, times = random.randint(1, 6), random.randint(1, 4)
        self.offset = random.choice((0, 0, random.randint(-9, 9)))
        self.shape = random.choice(("tumbling", "tumbling", "sliding", "cumulating"))
        rest = random.randint(0, step) if self.shape == "sliding" and random.random() < 0.3 else 0
        self.step, self.size = step, step * times + rest

    def window(self) -> Any:
        size, step, offset = f"{self.size}s", f"{self.step}s", micros(self.offset * SECOND)
        if self.shape == "tumbling":
            return us.tumbling(size, offset=offset)
        if self.shape == "sliding":
            return us.sliding(size, every=step, offset=offset)
        return us.cumulating(size, step=step, offset=offset)

    def windows(self, at: int) -> list[tuple[int, int]]:
        """The windows a moment is in, in seconds."""
        size, step, second = self.size, self.step, at // SECOND
        begin = (second - self.offset) // size * size + self.offset
        if self.shape == "tumbling":
            return [(begin, begin + size)]
        if self.shape == "cumulating":
            return [(begin, end) for end in range(begin + step, begin + size + 1, step) if second < end]
        starts = range(second - size + 1, second + 1)
        return [(start, start + size) for start in starts if (start - self.offset) % step == 0]

    def open_windows(self, at: int, mark: int) -> list[tuple[int, int]]:
        return [window for window in self.windows(at) if window[1] * SECOND > mark]

    def joined(self, *sides: us.Stream) -> us.Stream:
        left, right = sides
        return left.join(
            right,
            **self.on,
            how=self.how,  # type: ignore[arg-type]
            window=self.window(),
            predicate=self.condition,
            suffix=SUFFIX,
        )

    def types_of_result(self) -> dict[str, Any]:
        time = self.sides[0].columns[self.sides[0].time]
        return {**super().types_of_result(), "window_start": time, "window_end": time}

    def expected(self, events: Sequence[Event]) -> Expected:
        found = Expected()
        self.in_time(events, found, lambda at, mark: not self.open_windows(at, mark))
        contents: dict[tuple[int, int], list[list[Row]]] = {}
        for row, mark in with_marks(events):
            for window in self.open_windows(row.at, mark) if row.at is not None else []:
                contents.setdefault(window, [[], []])[row.port].append(row)
        for (start, end), (lefts, rights) in contents.items():
            bounds = (start * SECOND, end * SECOND)
            shown = tuple(self.sides[0].physical(bound) for bound in bounds)
            for x, y in self.paired(lefts, rights, lambda x, y: True):
                found.rows.append((*self.values(x, y), *shown))
                found.numbers.append((number(x), number(y), *bounds))
        return found


class Versioned(Timed):
    """`join_asof`."""

    kind = "versioned"
    hows = ("backward", "forward", "nearest")
    predicates = ("",)
    mixed_times = True

    def options(self) -> None:
        self.tolerance = self.random.choice((None, 0, 1, 3 * SECOND, 20 * SECOND, 5 * SECOND // 2))

    def joined(self, *sides: us.Stream) -> us.Stream:
        left, right = sides
        keys = {name.replace("on", "by"): value for name, value in self.on.items()}
        far = None if self.tolerance is None else micros(self.tolerance)
        return left.join_asof(right, **keys, strategy=self.how, tolerance=far, suffix=SUFFIX)  # type: ignore[arg-type]

    def expected(self, events: Sequence[Event]) -> Expected:
        found = Expected()
        lefts, rights = self.in_time(events, found, lambda at, mark: at < mark)
        for left in lefts:
            right = self.version(left, rights)
            found.rows.append(self.beside(left, right))
            found.numbers.append((left.number, number(right)))
        return found

    def version(self, left: Row, rights: Sequence[Row]) -> Row | None:
        """By looking at all of them; of equals the last."""
        best: tuple[tuple[int, bool], Row] | None = None
        for right in rights:
            assert left.at is not None and right.at is not None
            apart = left.at - right.at
            if not self.fits(left, right) or (self.tolerance is not None and abs(apart) > self.tolerance):
                continue
            if (self.how == "backward" and apart < 0) or (self.how == "forward" and apart > 0):
                continue
            rank = (abs(apart), apart < 0)
            if best is None or rank <= best[0]:
                best = (rank, right)
        return None if best is None else best[1]


class Regular(Timed):
    """`join` without bounds, or with `ttl`; both sides may take rows back."""

    kind = "regular"

    def options(self) -> None:
        random = self.random
        self.ttl = random.choice((2, 5, 20)) * SECOND if random.random() < 0.3 else None
        timed = self.ttl is not None or random.random() < 0.3
        self.distinct, self.null_times = self.ttl is not None, not timed
        modes = [random.choice((Changes.APPEND, Changes.RETRACT)) for _ in self.sides]
        self.sides = [
            replace(side, changes=mode, timed=timed) for side, mode in zip(self.sides, modes, strict=True)
        ]
        self.standing: list[list[Row]] = [[], []]

    def row(self, port: int, number: int, second: int, mark: int) -> Row:
        row = super().row(port, number, second, mark)
        if self.ttl is None or row.at is None or mark == MIN_TIME:
            return row
        # A row that is forgotten as it comes may or may not meet those of its own batch.
        least = mark - self.ttl
        return row if row.at >= least else replace(row, at=-(-least // SECOND) * SECOND)

    def with_changes(self, row: Row, before: Sequence[Event], mark: int) -> Iterable[Event]:
        if not before:
            self.standing = [[], []]
        standing = self.standing[row.port]
        if self.sides[row.port].changes is Changes.RETRACT and standing and self.random.random() < 0.4:
            return [replace(standing.pop(self.random.randrange(len(standing))), gone=True)]
        standing.append(row)
        return [row]

    def joined(self, *sides: us.Stream) -> us.Stream:
        left, right = sides
        return left.join(
            right,
            **self.on,
            how=self.how,  # type: ignore[arg-type]
            ttl=None if self.ttl is None else micros(self.ttl),
            predicate=self.condition,
            suffix=SUFFIX,
        )

    def expected(self, events: Sequence[Event]) -> Expected:
        return self.by_and_by(events) if self.ttl is not None else self.at_the_end(events)

    def at_the_end(self, events: Sequence[Event]) -> Expected:
        """The join of the rows that are left."""
        left_over: dict[int, Row] = {}
        for row, _ in with_marks(events):
            if row.gone:
                left_over.pop(row.number, None)
            else:
                left_over[row.number] = row
        sides = [[row for row in left_over.values() if row.port == port] for port in (0, 1)]
        pairs = self.paired(*sides, lambda x, y: True)
        rows = [self.values(x, y) for x, y in pairs]
        return Expected(rows, numbers=[(number(x), number(y)) for x, y in pairs])

    def by_and_by(self, events: Sequence[Event]) -> Expected:
        """Row by row: results of forgotten rows stand, and nobody meets them any more."""
        assert self.ttl is not None
        kept: list[dict[int, Row]] = [{}, {}]
        partners: Counter[tuple[int, int]] = Counter()
        result: Counter[Values] = Counter()
        for row, mark in with_marks(events):
            for side in kept:
                for old in [one for one in side.values() if self.forgotten(one, mark - self.ttl)]:
                    del side[old.number]
            if row.gone and row.number not in kept[row.port]:
                continue
            if row.gone:
                del kept[row.port][row.number]
            change = -1 if row.gone else 1
            others = [one for one in kept[1 - row.port].values() if self.fits(*self.order(row, one))]
            for other in others:
                self.count(result, self.order(row, other), change)
                self.turn(result, partners, other, change)
            if not row.gone:
                kept[row.port][row.number] = row
                partners[row.port, row.number] = len(others)
            if not partners[row.port, row.number]:
                self.count(result, self.order(row, None), change)
            elif self.how == "semi" and row.port == 0:
                result[self.of_left(row)] += change
        return Expected(list(result.elements()))

    def forgotten(self, row: Row, before: int) -> bool:
        """Rows without a key are not kept, as they meet nobody: what is said of them is just handed on."""
        return row.at is not None and row.at < before and self.key_of(row) is not None

    def order(self, row: Row, other: Row | None) -> tuple[Any, Any]:
        return (row, other) if row.port == 0 else (other, row)

    def turn(self, result: Counter[Values], partners: Counter[Any], row: Row, change: int) -> None:
        """A kept row has one partner more or fewer."""
        was = partners[row.port, row.number]
        partners[row.port, row.number] = now = was + change
        if (was == 0) != (now == 0):
            self.count(result, self.order(row, None), -change)
            if self.how == "semi" and row.port == 0:
                result[self.of_left(row)] += change

    def count(self, result: Counter[Values], pair: tuple[Any, Any], change: int) -> None:
        """A pair, or a row without partner, as far as `how` has it in the result."""
        left, right = pair
        wanted = {
            (True, True): self.how in ("inner", "left", "right", "full"),
            (True, False): self.how in ("left", "full", "anti"),
            (False, True): self.how in ("right", "full"),
        }[left is not None, right is not None]
        if wanted:
            result[self.values(left, right)] += change
