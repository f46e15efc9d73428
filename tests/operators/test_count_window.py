"""Windows of so many rows against a list per key, under random cuts and restores."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from unistream.elements import Batch
from unistream.errors import InvalidQuery, InvalidSettings
from unistream.expressions.analysis import expand
from unistream.expressions.schema import StreamSchema
from unistream.operators.count_window import CountingWindowSpec
from unistream.operators.window_contents import Aggregation
from unistream.operators.windows import Counting
from unistream.testing.bench import OperatorBench
from unistream.testing.harness import OperatorHarness

SCHEMA = StreamSchema(pl.Schema({"k": pl.String, "v": pl.Int64}))
AGGREGATES = {
    "n": pl.len(),
    "total": pl.col("v").sum(),
    "first": pl.col("v").first(),
    "last": pl.col("v").last(),
}
ALL_ROWS = {"median": pl.col("v").median(), "values": pl.col("v").implode()}


def spec(
    n: int, every: int, aggregates: dict[str, pl.Expr], by: tuple[str, ...] = ("k",)
) -> CountingWindowSpec:
    exprs = expand([], aggregates, SCHEMA.columns, "agg", None, by)
    return CountingWindowSpec(window=Counting(n=n, every=every), by=by, calculation=Aggregation.of(exprs))


def reference(
    rows: pl.DataFrame, n: int, every: int, aggregates: dict[str, pl.Expr], by: tuple[str, ...] = ("k",)
) -> pl.DataFrame:
    names = [*by, "window_start", "window_end"]
    found: list[pl.DataFrame] = []
    for _, group in rows.group_by(by or pl.lit(0), maintain_order=True):
        for start in range(0, group.height, every):
            marks = {"window_start": pl.lit(start, pl.Int64), "window_end": pl.lit(start + n, pl.Int64)}
            found.append(group.slice(start, n).with_columns(**marks))
    return pl.concat(found).group_by(names).agg(**aggregates).select(*names, *aggregates)


def random_rows(seed: int, count: int) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    keys = rng.choice(["a", "b", "c", None], count, p=[0.6, 0.2, 0.1, 0.1]).tolist()
    return pl.DataFrame({"k": keys, "v": rng.integers(0, 100, count)}, schema=SCHEMA.columns)


@pytest.mark.parametrize("aggregates", [AGGREGATES, ALL_ROWS], ids=["folded", "all rows"])
@pytest.mark.parametrize(("n", "every"), [(3, 3), (4, 2), (5, 3)])
def test_windows_equal_the_reference(n: int, every: int, aggregates: dict[str, pl.Expr]) -> None:
    rows = random_rows(1, 25)
    harness = OperatorHarness(spec(n, every, aggregates), SCHEMA)
    harness.feeds(rows[:11], rows[11:]).expects(reference(rows, n, every, aggregates))


@pytest.mark.parametrize("seed", range(30))
def test_random_sizes_in_random_parts(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 12))
    every = int(rng.integers(1, n + 1))
    by: Any = ("k",) if seed % 3 else ()
    rows = random_rows(seed, 150)
    aggregates = AGGREGATES if seed % 2 else ALL_ROWS
    with OperatorBench(spec(n, every, aggregates, by), [SCHEMA]) as bench:
        for part in rows.iter_slices(1 + seed):
            bench.process(Batch(part))
        bench.finish()
        got = pl.concat(bench.frames[""])
    order = [*by, "window_start"]
    assert got.sort(order).equals(reference(rows, n, every, aggregates, by).sort(order))


def test_full_windows_are_given_at_once_and_forgotten() -> None:
    with OperatorBench(spec(100, 100, AGGREGATES, ()), [SCHEMA]) as bench:
        for part in random_rows(1, 350).iter_slices(70):
            bench.process(Batch(part))
        assert pl.concat(bench.frames[""])["window_end"].to_list() == [100, 200, 300]
        assert bench.metrics.get("panes_kept") == 1


def test_what_cannot_be_counted_is_refused() -> None:
    for n, every in ((0, 1), (2, 3), (True, 1), (2, 0)):
        with pytest.raises(InvalidSettings):
            Counting(n=n, every=every)
    with pytest.raises(InvalidQuery, match="no row is late"):
        exprs = expand([], AGGREGATES, SCHEMA.columns, "agg", None, ())
        window = Counting(n=2, every=2)
        CountingWindowSpec(window=window, by=(), calculation=Aggregation.of(exprs), lateness=1).schema(
            [SCHEMA]
        )
