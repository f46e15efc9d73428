"""Every kind of join over random pairs of sequences, against nested loops over rows and against SQL."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from join_reference import Event, Pair, Row, plain_rows
from join_reference_kinds import Expected, Interval, Regular, Versioned, Window
from join_reference_lookup import Enriched
from join_reference_runs import Runs, difference, shown
from join_reference_sql import can_be_asked, met

import unistream as us
from unistream.expressions.schema import CHANGE
from unistream.operators import join_buffer, join_matching
from unistream.testing.shrink import shrink

KINDS: dict[str, type[Pair]] = {kind.kind: kind for kind in (Interval, Window, Regular, Versioned, Enriched)}
PER_KIND = 400
BY_NIGHT = 4_000
AT_ONCE = 1_000
"""So many pairs of sequences are in one run of a test by night."""


@pytest.fixture(autouse=True)
def few_frames_in_a_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kept rows are merged all the time, and between two checkpoints."""
    monkeypatch.setattr(join_buffer, "MOST_PIECES", 2)


def check(pair: Pair, events: list[Event], expected: Expected, runs: Runs) -> str | None:
    """What is wrong, or None."""
    try:
        out, metrics = runs(pair, events)
        wrong = difference(out.rows(), expected.rows)
        late = difference(out.rows("late"), expected.late)
    except Exception as error:
        return f"  {type(error).__name__}: {error}"
    types = list(out.schema.columns.items())
    if types != list(pair.types_of_result().items()):
        return f"  columns {types}, not {pair.types_of_result()}"
    if late or int(metrics.get("late")) != len(expected.late):
        wrong = f"{wrong or ''}\n  late rows:\n{late}"
    return wrong


def possible(events: list[Event]) -> list[Event]:
    """Without rows that are taken back and were never given."""
    given: set[int] = set()
    found: list[Event] = []
    for event in events:
        if isinstance(event, Row):
            if event.gone and event.number not in given:
                continue
            (given.discard if event.gone else given.add)(event.number)
        found.append(event)
    return found


def check_seeds(kind: type[Pair], seeds: Sequence[int], folder: Path) -> None:
    """Each pair of sequences through the operator; then all of them through SQL."""
    runs = Runs(folder)
    asked = []
    for seed in seeds:
        pair = made(kind, seed, folder)
        events = pair.events()
        expected = pair.expected(events)
        if can_be_asked(pair):
            asked.append((pair, events, expected))
        if check(pair, events, expected, runs) is not None:
            raise AssertionError(f"seed {seed}: {pair.describe()}\n{smallest(pair, events, runs)}")
    found = met([(pair, events) for pair, events, _ in asked])
    for place, (pair, events, expected) in enumerate(asked):
        wrong = difference(list(found[place].elements()), expected.numbers)
        assert wrong is None, f"SQL, seed {pair.seed}: {pair.describe()}\n{shown(events)}\n{wrong}"


def made(kind: type[Pair], seed: int, folder: Path) -> Pair:
    pair = kind(seed)
    if isinstance(pair, Enriched):
        pair.folder = folder
    return pair


def smallest(pair: Pair, events: list[Event], runs: Runs) -> str | None:
    """The failure with as few rows as can be."""
    folder = getattr(pair, "folder", Path())

    def shows(part: list[Event]) -> str | None:
        rest, again = possible(part), made(type(pair), pair.seed, folder)
        wrong = check(again, rest, again.expected(rest), runs)
        return None if wrong is None else f"{shown(rest)}\n{wrong}"

    return shrink(events, shows, 200)


@pytest.mark.parametrize("kind", KINDS)
def test_random_sequences(kind: str, tmp_path: Path) -> None:
    check_seeds(KINDS[kind], range(PER_KIND), tmp_path)


@pytest.mark.parametrize("kind", ["interval", "window", "regular"])
def test_few_pairs_at_a_time(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(join_matching, "MOST_PAIRS", 3)
    monkeypatch.setattr(join_matching, "MOST_ROWS", 2)
    check_seeds(KINDS[kind], range(10**6, 10**6 + 40), tmp_path)


@pytest.mark.parametrize("kind", ["regular", "lookup"])
def test_bounded_joins_as_one_query(kind: str, tmp_path: Path) -> None:
    """What is handed to Polars as a whole gives the same rows."""
    asked = 0
    for seed in range(10**6, 10**6 + PER_KIND):
        pair = made(KINDS[kind], seed, tmp_path)
        events = [event for event in pair.events() if isinstance(event, Row) and not event.gone]
        frames = [side.frame([row for row in events if row.port == side.port]) for side in pair.inputs]
        joined = pair.joined(*(us.from_frame(frame.drop(CHANGE, strict=False)) for frame in frames))
        if "one Polars streaming query" in joined.explain():
            asked += 1
            wrong = difference(plain_rows(joined.collect()), pair.expected(list(events)).rows)
            assert wrong is None, f"seed {seed}: {pair.describe()}\n{shown(events)}\n{wrong}"
    assert asked > PER_KIND // 10


@pytest.mark.nightly
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("first", range(0, BY_NIGHT, AT_ONCE))
def test_many_random_sequences(kind: str, first: int, tmp_path: Path) -> None:
    check_seeds(KINDS[kind], range(PER_KIND + first, PER_KIND + first + AT_ONCE), tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_the_sequences_try_what_they_should(kind: str) -> None:
    """An oracle that never sees a late row or a pair says little."""
    seen: Counter[str] = Counter()
    for seed in range(PER_KIND):
        pair = KINDS[kind](seed)
        events = pair.events()
        expected = pair.expected(events)
        both = sum(left is not None and right is not None for left, right, *_ in expected.numbers)
        seen["pairs"] += both > 0
        seen["rows without partner"] += both < len(expected.numbers)
        seen["late"] += bool(expected.late)
        seen["equal rows"] += len(set(expected.rows)) < len(expected.rows)
        seen[f"how {pair.how}"] += 1
        seen["two keys"] += pair.two_keys
        seen["predicate"] += bool(pair.predicate)
        seen["null key"] += any(isinstance(row, Row) and row.values[0] is None for row in events)
        seen["taken back"] += any(isinstance(row, Row) and row.gone for row in events)
    never = {
        "lookup": {"late", "taken back", "predicate"},
        "versioned": {"taken back", "predicate"},
        "regular": {"late"},
    }.get(kind, {"taken back"})
    often = [f"how {how}" for how in KINDS[kind].hows]
    often += ["pairs", "rows without partner", "equal rows", "two keys", "null key"]
    for what in (*often, "late", "predicate", "taken back"):
        assert seen[what] == 0 if what in never else seen[what] >= PER_KIND // 20, (what, seen)
