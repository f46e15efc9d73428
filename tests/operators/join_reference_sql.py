"""The same joins as SQL: which rows meet which, for many pairs of sequences in one query."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import duckdb
import polars as pl
from join_reference import SECOND, Event, Pair, same
from join_reference_kinds import Interval, Regular, Versioned, Window, with_marks
from join_reference_lookup import Enriched

from unistream.elements import MIN_TIME

ROWS = {
    "pair": pl.Int64(),
    "number": pl.Int64(),
    "tick": pl.Int64(),
    "mark": pl.Int64(),
    "sign": pl.Int64(),
    "k": pl.String(),
    "j": pl.Int64(),
    "amount": pl.Int64(),
    "note": pl.String(),
}
OPTIONS = {
    "pair": pl.Int64(),
    "two": pl.Boolean(),
    "predicate": pl.String(),
    "low": pl.Int64(),
    "high": pl.Int64(),
}
WINDOWS = {"pair": pl.Int64(), "opens": pl.Int64(), "closes": pl.Int64()}

# Keys are equal (null equals nothing), and the predicate is true.
FITS = """
    l.pair = r.pair AND l.k = r.k AND (NOT l.two OR l.j = r.j)
    AND CASE l.predicate
        WHEN 'odd' THEN (l.amount + r.amount) % 2 = 1 WHEN 'same note' THEN l.note = r.note ELSE true
    END
"""
IN_TIME = "tick >= mark"
WITH_OPTIONS = "SELECT rows.*, two, predicate, low, high FROM {0} AS rows JOIN options USING (pair)"

INTERVAL = f"""
    WITH l AS (SELECT * FROM lefts WHERE {IN_TIME}), r AS (SELECT * FROM rights WHERE {IN_TIME})
    SELECT {{columns}} FROM l {{how}} JOIN r ON {FITS} AND r.tick BETWEEN l.tick + l.low AND l.tick + l.high
"""
REGULAR = f"""
    WITH l AS (SELECT * FROM lefts WHERE number IN (SELECT number FROM lefts AS o
        WHERE o.pair = lefts.pair GROUP BY number HAVING sum(sign) > 0) AND sign > 0),
    r AS (SELECT * FROM rights WHERE number IN (SELECT number FROM rights AS o
        WHERE o.pair = rights.pair GROUP BY number HAVING sum(sign) > 0) AND sign > 0)
    SELECT {{columns}} FROM l {{how}} JOIN r ON {FITS}
"""
LOOKUP = f"SELECT {{columns}} FROM lefts AS l {{how}} JOIN rights AS r ON {FITS}"
WINDOW = f"""
    WITH l AS (SELECT * FROM lefts JOIN windows AS w USING (pair)
        WHERE tick >= opens AND tick < closes AND closes > mark),
    r AS (SELECT * FROM rights JOIN windows AS w USING (pair)
        WHERE tick >= opens AND tick < closes AND closes > mark)
    SELECT {{columns}}, {{opens}}, {{closes}} FROM l {{how}} JOIN r
        ON {FITS} AND l.opens = r.opens AND l.closes = r.closes
"""
VERSIONS = """
    l AS (SELECT * FROM lefts WHERE tick >= mark),
    r AS (SELECT * FROM rights WHERE tick >= mark AND k IS NOT NULL AND (NOT two OR j IS NOT NULL)
        QUALIFY number = max(number) OVER (PARTITION BY pair, k, CASE WHEN two THEN j END, tick)),
    ll AS (SELECT *, CASE WHEN two THEN j ELSE 0 END AS j2 FROM l),
    rr AS (SELECT *, CASE WHEN two THEN j ELSE 0 END AS j2 FROM r)
"""
ASOF = """
    SELECT l.pair, l.number AS mine, r.number AS theirs, l.tick AS t, r.tick AS u, l.high AS far
    FROM ll AS l ASOF LEFT JOIN rr AS r
        ON l.pair = r.pair AND l.k = r.k AND l.j2 = r.j2 AND l.tick {sign} r.tick
"""
NEAR = "SELECT pair, mine, CASE WHEN abs(t - u) <= far THEN theirs END FROM ({0})"
VERSIONED = {
    "backward": f"WITH {VERSIONS} {NEAR.format(ASOF.format(sign='>='))}",
    "forward": f"WITH {VERSIONS} {NEAR.format(ASOF.format(sign='<='))}",
    "nearest": f"""WITH {VERSIONS}, back AS ({ASOF.format(sign=">=")}), ahead AS ({ASOF.format(sign="<=")})
        SELECT pair, mine, CASE WHEN least(abs(b.t - b.u), abs(a.t - a.u)) > b.far THEN NULL
            WHEN b.theirs IS NULL THEN a.theirs WHEN a.theirs IS NULL THEN b.theirs
            WHEN b.t - b.u <= a.u - a.t THEN b.theirs ELSE a.theirs END
        FROM back AS b JOIN ahead AS a USING (pair, mine)""",
}
QUERIES = {Interval.kind: INTERVAL, Window.kind: WINDOW, Regular.kind: REGULAR, Enriched.kind: LOOKUP}


def can_be_asked(pair: Pair) -> bool:
    """Whether SQL knows such a thing: not results of forgotten rows, nor tables that change meanwhile."""
    return not (isinstance(pair, Regular) and pair.ttl is not None) and not (
        isinstance(pair, Enriched) and pair.changes
    )


def met(pairs: Sequence[tuple[Pair, Sequence[Event]]]) -> dict[int, Counter[tuple[Any, ...]]]:
    """For each pair of sequences of one kind (by its place) the numbers of rows that make its result."""
    by_how: dict[str, list[int]] = defaultdict(list)
    for place, (pair, _) in enumerate(pairs):
        by_how[pair.how].append(place)
    found: dict[int, Counter[tuple[Any, ...]]] = {place: Counter() for place in range(len(pairs))}
    for how, places in by_how.items():
        with duckdb.connect() as connection:
            _load(connection, [(place, *pairs[place]) for place in places])
            query = _query(pairs[places[0]][0], how)
            for place, *numbers in connection.execute(query).fetchall():
                found[place][tuple(numbers)] += 1
    return found


def _query(pair: Pair, how: str) -> str:
    if isinstance(pair, Versioned):
        return VERSIONED[how]
    columns = {
        "right": "r.pair, l.number, r.number",
        "full": "coalesce(l.pair, r.pair), l.number, r.number",
        "semi": "l.pair, l.number, NULL",
        "anti": "l.pair, l.number, NULL",
    }.get(how, "l.pair, l.number, r.number")
    bounds = {}
    for name in ("opens", "closes"):
        one = {"right": f"r.{name}", "full": f"coalesce(l.{name}, r.{name})"}.get(how, f"l.{name}")
        bounds[name] = one
    return QUERIES[pair.kind].format(columns=columns, how=how, **bounds)


def _load(connection: duckdb.DuckDBPyConnection, pairs: Sequence[tuple[int, Pair, Sequence[Event]]]) -> None:
    sides: list[list[tuple[Any, ...]]] = [[], []]
    options, windows = [], []
    for place, pair, events in pairs:
        options.append((place, pair.two_keys, pair.predicate, *_reach(pair)))
        table = pair.tables[0] or [] if isinstance(pair, Enriched) else []
        for row, mark in [*with_marks(events), *((row, MIN_TIME) for row in table)]:
            key, second, *values = row.values
            text = None if key is None else str(same(key))
            sides[row.port].append(
                (place, row.number, row.at, mark, -1 if row.gone else 1, text, second, *values)
            )
        if isinstance(pair, Window):
            windows += [(place, start * SECOND, end * SECOND) for start, end in _all_windows(pair)]
    connection.register("some_options", pl.DataFrame(options, schema=OPTIONS, orient="row").to_arrow())
    connection.execute("CREATE TABLE options AS SELECT * FROM some_options")
    connection.register("some_windows", pl.DataFrame(windows, schema=WINDOWS, orient="row").to_arrow())
    connection.execute("CREATE TABLE windows AS SELECT * FROM some_windows")
    for name, rows in zip(("lefts", "rights"), sides, strict=True):
        connection.register(f"some_{name}", pl.DataFrame(rows, schema=ROWS, orient="row").to_arrow())
        connection.execute(f"CREATE TABLE {name} AS {WITH_OPTIONS.format(f'some_{name}')}")


def _reach(pair: Pair) -> tuple[int, int]:
    if isinstance(pair, Interval):
        return pair.low, pair.high
    if isinstance(pair, Versioned):
        return 0, 10**18 if pair.tolerance is None else pair.tolerance
    return 0, 0


def _all_windows(pair: Window) -> list[tuple[int, int]]:
    """Every window of a time longer than that of any sequence, by counting on from one long before it."""
    step = pair.step if pair.shape == "sliding" else pair.size
    first = pair.offset - 200 * step
    starts = range(first, 2000, step)
    if pair.shape == "cumulating":
        lengths = range(pair.step, pair.size + 1, pair.step)
        return [(start, start + length) for start in starts for length in lengths]
    return [(start, start + pair.size) for start in starts]
