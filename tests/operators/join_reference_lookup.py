"""Look-ups in tables that may change while they are asked, and what each row finds."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
from join_reference import SECOND, SUFFIX, Event, Mark, Pair, Row, Side, same
from join_reference_kinds import Expected, micros, number

import unistream as us
from unistream.elements import MAX_TIME
from unistream.testing.clock import VirtualClock

Table = list[Row] | None
"""The rows of a table at some time; None while its file is damaged."""

CHANGING = ("file", "function", "async", "sqlite")


class Enriched(Pair):
    """`lookup`. Marks are moments of the clock; at each the table may become another."""

    kind = "lookup"
    hows = ("left", "inner")
    predicates = ("",)
    folder: Path

    def options(self) -> None:
        random = self.random
        # DuckDB is slow to open.
        weights = {"frame": 8, "stream": 2, "function": 8, "async": 6, "file": 10, "sqlite": 8, "duckdb": 1}
        (self.source,) = random.choices(tuple(weights), tuple(weights.values()))
        self.sides = [replace(side, timed=False) for side in self.sides]
        if self.source in ("sqlite", "duckdb"):
            self.for_database()
        self.changes = self.source in CHANGING and random.random() < 0.6
        self.may_crash = not self.changes
        self.length = random.choice((SECOND, 4 * SECOND, 30 * SECOND))
        self.keeps = self.source == "sqlite" or random.random() < 0.6
        self.most = 1000 if self.changes else random.choice((1, 2, 1000))
        self.tables: list[Table] = [self.table() for _ in range(12 if self.changes else 1)]
        if self.source == "file":
            self.tables[1:] = [None if random.random() < 0.2 else table for table in self.tables[1:]]

    def for_database(self) -> None:
        """Types that both databases hold as they are."""
        kind, self.two_keys = self.random.choice(("text", "number")), False
        self.sides = [replace(side, kind=kind, unit="s", second=pl.Int64()) for side in self.sides]

    def table(self) -> list[Row]:
        count = self.random.choice((0, 1, 4, 9))
        return [Pair.row(self, 1, number, self.random.randint(0, 9), 0) for number in range(count)]

    def row(self, port: int, number: int, second: int, mark: int) -> Row:
        return super().row(0, number, second, mark)

    @property
    def inputs(self) -> Sequence[Side]:
        return self.sides[:1]

    def describe(self) -> str:
        tables = [
            f"  table {at}: {table and [row.values for row in table]}" for at, table in enumerate(self.tables)
        ]
        return "\n".join([super().describe(), *tables])

    # The table

    def joined(self, *sides: us.Stream) -> us.Stream:
        self.version = 0
        options: dict[str, Any] = {}
        keep = micros(self.length) if self.keeps else None
        if self.source in ("function", "async"):
            parts = {"batch": self.random.randint(1, 3), "concurrency": 2, "cache_keys": self.most}
            options = {"schema": self.sides[1].columns, "cache": keep, **parts}
        elif self.source == "file":
            options = {"refresh": keep}
        elif self.source in ("sqlite", "duckdb"):
            options = {"table": "items", "cache": keep, "cache_keys": self.most}
        source = {
            "frame": lambda: self.now(),
            "stream": lambda: us.from_frame(self.now()),
            "function": lambda: self.answer,
            "async": lambda: self.answer_later,
        }.get(self.source, self.written)()
        return sides[0].lookup(source, **self.on, how=self.how, suffix=SUFFIX, **options)  # type: ignore[arg-type]

    def now(self) -> pl.DataFrame:
        return self.sides[1].frame(self.tables[self.version] or [])

    def answer(self, keys: pl.DataFrame) -> pl.DataFrame:
        wanted = {tuple(map(same, row)) for row in keys.rows()}
        rows = [row for row in self.tables[self.version] or [] if self.key_of(row) in wanted]
        return self.sides[1].frame(rows)

    async def answer_later(self, keys: pl.DataFrame) -> pl.DataFrame:
        return self.answer(keys)

    def written(self) -> str:
        """The table in a file of its own; the same again when it has changed."""
        path = self.folder / f"items.{self.source}"
        if self.source == "file" and self.tables[self.version] is None:
            path.write_bytes(b"no Parquet")
        elif self.source == "file":
            self.now().write_parquet(path)
        else:
            self.write_database(path)
        return str(path) if self.source == "file" else f"{self.source}:///{path}"

    def write_database(self, path: Path) -> None:
        if self.source == "duckdb":
            path.unlink(missing_ok=True)
        connection: Any = sqlite3.connect(path) if self.source == "sqlite" else duckdb.connect(str(path))
        names = ", ".join(
            f"{name} {'TEXT' if dtype == pl.String else 'BIGINT'}"
            for name, dtype in self.sides[1].columns.items()
        )
        connection.execute("DROP TABLE IF EXISTS items")
        connection.execute(f"CREATE TABLE items ({names})")
        rows = self.now().rows()
        if rows:
            connection.executemany("INSERT INTO items VALUES (?, ?, ?, ?, ?)", rows)
        connection.commit()
        connection.close()

    def passed(self, at: int, clock: VirtualClock) -> None:
        if at == MAX_TIME:
            return
        clock.advance(micros(max(0, self.clock_at(at) - (clock.now() - VirtualClock().now()))))
        if self.changes:
            self.version += 1
            if self.source in ("file", "sqlite"):
                self.written()

    def clock_at(self, mark: int) -> int:
        """Marks begin below zero; a clock does not."""
        return mark + 100 * SECOND

    # What rows find

    def expected(self, events: Sequence[Event]) -> Expected:
        found, known = Expected(), _Known(self)
        now, last = 0, None
        for event in events:
            if isinstance(event, Mark):
                if last is None or event.at > last:
                    now, last = self.clock_at(event.at), event.at
                    known.version += self.changes
                continue
            matches = [row for row in known.rows(self.key_of(event), now) if self.fits(event, row)]
            partners: list[Row | None] = [*matches] or ([None] if self.how == "left" else [])
            for row in partners:
                found.rows.append(self.beside(event, row))
                found.numbers.append((event.number, number(row)))
        return found


@dataclass
class _Known:
    """What is kept of the table, and for how long."""

    pair: Enriched
    version: int = 0
    loaded: int = 0
    kept: int = 0

    def __post_init__(self) -> None:
        self.answers: dict[Any, tuple[int, list[Row]]] = {}

    def rows(self, key: Any, now: int) -> list[Row]:
        pair = self.pair
        if pair.source == "file" and pair.keeps and now >= self.loaded + pair.length:
            self.loaded = now
            self.kept = self.kept if pair.tables[self.version] is None else self.version
        if key is None:
            return []
        if pair.source == "file":
            return pair.tables[self.kept] or []
        if pair.source in ("frame", "stream") or not pair.keeps:
            return pair.tables[self.version] or []
        since, rows = self.answers.get(key, (None, []))
        if since is None or since + pair.length <= now:
            rows = pair.tables[self.version] or []
            self.answers[key] = (now, rows)
        return rows
