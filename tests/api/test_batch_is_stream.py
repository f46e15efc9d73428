"""The property of the whole engine: batch and stream give the same rows, however the input arrives."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl
import pytest

import unistream as us
from unistream.clock import Random
from unistream.testing import ListSource, verify

AGGREGATES = {
    "n": pl.len(),
    "known": pl.col("i").count(),
    "sum": pl.col("i").sum(),
    "highest": pl.col("v").max(),
    "mean": pl.col("i").mean(),
    "spread": pl.col("i").std(),
    "middle": pl.col("i").median(),
    "kinds": pl.col("i").n_unique(),
}


def rows(random: Random, count: int = 90) -> pl.DataFrame:
    """Rows up to four seconds out of order, with nulls, NaN and ties."""
    return pl.DataFrame(
        {
            "k": [random.choice(["a", "b", None, "c"]) for _ in range(count)],
            "t": [i // 3 + random.randint(0, 4) for i in range(count)],
            "v": [random.choice([None, float("nan"), 1.5, 2.0, -3.0]) for _ in range(count)],
            "i": [random.choice([None, 0, 1, 2, 3]) for _ in range(count)],
        }
    )


def events(seed: int) -> us.Stream:
    random = Random(seed)
    first, second = rows(random), rows(random)
    source = us.scan(ListSource(first.schema, {"x": [first], "y": [second]}))
    return source.with_event_time("t", delay="5s", unit="s")


QUERIES: dict[str, Callable[[us.Stream], us.Stream]] = {
    "tumbling": lambda s: s.group_by("k").window(us.tumbling("7s", offset="2s")).agg(**AGGREGATES),
    "sliding": lambda s: s.group_by("k").window(us.sliding("9s", every="3s")).agg(**AGGREGATES),
    "session": lambda s: s.group_by("k").window(us.session("1s")).agg(**AGGREGATES),
    "cumulating": lambda s: s.group_by("k").window(us.cumulating("12s", step="4s")).agg(**AGGREGATES),
    "no key": lambda s: s.window(us.tumbling("5s")).agg(**AGGREGATES),
    "running": lambda s: s.group_by("k").agg(**AGGREGATES),
    "two windows": lambda s: (
        s.group_by("k")
        .window(us.tumbling("4s"))
        .agg(n=pl.len())
        .group_by("n")
        .window(us.tumbling("12s"))
        .agg(m=pl.len())
    ),
    "running over windows": lambda s: (
        s.group_by("k").window(us.tumbling("7s")).agg(n=pl.len()).group_by("n").agg(m=pl.len())
    ),
    "filtered updates": lambda s: s.group_by("k").agg(n=pl.len()).filter(pl.col("n") > 20),
    "keys": lambda s: s.select("k").unique("k"),
    "nothing is late": lambda s: s.window(us.tumbling("7s")).agg(n=pl.len()).late(),
}


@pytest.mark.parametrize("name", QUERIES)
def test_a_batch_is_a_finite_stream(name: str) -> None:
    certificate = verify(QUERIES[name](events(1)), seeds=4, crashes=2)
    assert certificate.rows == 180
    assert (certificate.result_rows == 0) == (name == "nothing is late")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 10))
@pytest.mark.parametrize("name", QUERIES)
def test_more_seeds(name: str, seed: int) -> None:
    verify(QUERIES[name](events(seed)), seeds=20, crashes=10)
