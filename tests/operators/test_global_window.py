"""One window per key: what each trigger gives, and that it adds up."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from unistream.elements import Batch
from unistream.errors import InvalidQuery, InvalidSettings
from unistream.expressions.analysis import expand
from unistream.expressions.schema import CHANGE, Changes, StreamSchema
from unistream.operators.global_window import GlobalWindowSpec
from unistream.operators.window_contents import Aggregation, Top
from unistream.operators.windows import Emit, GlobalWindow
from unistream.testing.bench import OperatorBench
from unistream.testing.harness import OperatorHarness

SECOND = 1_000_000
SCHEMA = StreamSchema(pl.Schema({"k": pl.String, "v": pl.Int64}))
AGGREGATES = {"total": pl.col("v").sum(), "last": pl.col("v").last()}
ALL_ROWS = {"median": pl.col("v").median(), "values": pl.col("v").implode()}
ROWS = pl.DataFrame({"k": ["a", "b", None, "a", "a", "b", None], "v": [1, 2, 3, 4, 5, 6, 7]})


def spec(
    aggregates: dict[str, pl.Expr] = AGGREGATES,
    by: tuple[str, ...] = ("k",),
    emit: Emit | None = None,
    **options: Any,
) -> GlobalWindowSpec:
    exprs = expand([], aggregates, SCHEMA.columns, "agg", None, by)
    calculation = Aggregation.of(exprs)
    return GlobalWindowSpec(
        window=GlobalWindow(**options), by=by, calculation=calculation, emit=emit or Emit()
    )


def reference(aggregates: dict[str, pl.Expr]) -> pl.DataFrame:
    bounds = {"window_start": pl.lit(0, pl.Int64), "window_end": pl.len().cast(pl.Int64)}
    return ROWS.group_by("k").agg(**bounds, **aggregates)


@pytest.mark.parametrize("aggregates", [AGGREGATES, ALL_ROWS], ids=["folded", "all rows"])
@pytest.mark.parametrize(
    "options",
    [{}, {"emit": Emit(when="change")}, {"emit": Emit(when="every", every=SECOND)}, {"every": 2}],
    ids=["at the end", "at change", "by the clock", "by rows"],
)
def test_every_trigger_adds_up_to_one_group_by(
    options: dict[str, Any], aggregates: dict[str, pl.Expr]
) -> None:
    harness = OperatorHarness(spec(aggregates, **options), SCHEMA)
    harness.feeds(ROWS[:3], ROWS[3:]).expects(reference(aggregates))


def test_what_is_given_when() -> None:
    with OperatorBench(spec({"n": pl.len()}, every=2), [SCHEMA]) as bench:
        for row in ROWS.iter_slices(1):
            bench.process(Batch(row))
        bench.finish()
        changes = pl.concat(bench.frames[""]).select(CHANGE, "k", "window_end", "n").rows()
    assert changes == [(0, "a", 2, 2), (0, "b", 2, 2), (0, None, 2, 2), (2, "a", 3, 3)]


def test_what_was_given_is_forgotten_with_purge() -> None:
    emit = Emit(when="every", every=5 * SECOND)
    asked = spec({"values": pl.col("v").implode()}, (), emit, purge=True)
    assert asked.schema([SCHEMA]).changes is Changes.APPEND
    with OperatorBench(asked, [SCHEMA]) as bench:
        bench.process(Batch(ROWS[:2]))
        bench.process(Batch(ROWS[2:3]))
        bench.pass_time("5s")
        bench.pass_time("5s")
        bench.process(Batch(ROWS[3:]))
        bench.finish()
        assert pl.concat(bench.frames[""]).rows() == [(0, 3, [1, 2, 3]), (3, 7, [4, 5, 6, 7])]


def test_refusals() -> None:
    with pytest.raises(InvalidSettings, match="every so many rows"):
        GlobalWindow(every=3, purge=True)
    with pytest.raises(InvalidSettings, match="whole number of rows"):
        GlobalWindow(every="5s")  # type: ignore[arg-type]
    top = Top(frozenset(SCHEMA.columns), 2, (pl.col("v"),), (False,))
    asked = GlobalWindowSpec(window=GlobalWindow(every=2), by=("k",), calculation=top)
    with pytest.raises(InvalidQuery, match="updates of aggregates"):
        asked.schema([SCHEMA])
