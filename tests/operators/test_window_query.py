"""Windows as one Polars query give what ticks give, and what plain Python finds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

import unistream as us
from unistream.expressions.order_shape import Shape, asks_for_order, shape_of
from unistream.operators.windows import Window
from unistream.testing import assert_same_rows

TICKS = us.Settings(whole_query=False)
MOST = pl.col("x").filter(pl.col("v") == pl.col("v").max())
FOLDED = {
    "n": pl.len(),
    "known": pl.col("v").count(),
    "total": pl.col("x").sum(),
    "mean": pl.col("v").mean(),
    "spread": pl.col("x").std(),
    "least": pl.col("v").min(),
    "most": pl.col("x").filter(pl.col("v") > 0).max() - 1,
    "narrow": pl.col("f").sum(),
}
ORDERED = {"first": pl.col("x").first(), "last": pl.col("v").last(), "at": pl.col("x").arg_max()}
HOLISTIC = {
    "middle": pl.col("v").median(),
    "different": pl.col("x").n_unique(),
    "sorted": pl.col("x").sort().head(3),
    "best": MOST,
    "rows": pl.struct("x", "v").filter(pl.col("x") >= pl.col("x").mean()),
}
BEST = {
    "best": MOST,
    "all": pl.struct("x", "k").filter(pl.col("v").max() == pl.col("v")),
    "v": pl.col("v").max(),
}
AGGREGATES = {"best": BEST, "folded": FOLDED, "ordered": ORDERED, "holistic": HOLISTIC}
FIXED: dict[str, Callable[[], Window]] = {
    "tumbling": lambda: us.tumbling("10s"),
    "tumbling with offset": lambda: us.tumbling("7s", offset="3s"),
    "sliding": lambda: us.sliding("10s", every="2s"),
    "sliding, not a multiple": lambda: us.sliding("7s", every="3s", offset="-5s"),
    "cumulating": lambda: us.cumulating("20s", step="4s"),
}
CALENDAR: dict[str, Callable[[], Window]] = {
    "weeks": lambda: us.tumbling("1w"),
    "months": lambda: us.tumbling("1mo"),
    "days in a zone": lambda: us.tumbling("1d", time_zone="Europe/Berlin"),
    "months, sliding": lambda: us.sliding("3mo", every="1mo"),
    "months with gaps between them": lambda: us.sliding("1mo", every="30d"),
    "days in a zone, sliding": lambda: us.sliding("2d", every="1d", time_zone="Europe/Berlin"),
    "days in a zone, cumulating": lambda: us.cumulating("1d", step="6h", time_zone="Europe/Berlin"),
    "months, cumulating": lambda: us.cumulating("2mo", step="1mo"),
}
SECONDS, HOURS = timedelta(seconds=1), timedelta(hours=1)


def rows_at(times: Sequence[Any], dtype: pl.DataType, seed: int) -> pl.DataFrame:
    """Rows with ties, nulls and NaN in keys and values."""
    rng, n = np.random.default_rng(seed), len(times)
    return pl.DataFrame(
        {
            "t": pl.Series(times, dtype=dtype),
            "k": rng.choice(["a", "b", None], n).tolist(),
            "j": rng.choice([1, 2, None], n).tolist(),
            "v": rng.choice([1.0, 2.5, -3.0, float("nan"), None], n).tolist(),
            "x": rng.integers(-5, 5, n),
            "f": pl.Series(rng.choice([0.1, 1e6, 3.0], n), dtype=pl.Float32),
        },
        schema_overrides={"j": pl.Int32},
    )


def rows_every(step: timedelta, n: int, seed: int, dtype: pl.DataType | None = None) -> pl.DataFrame:
    """Rows up to six steps apart, from before 1970."""
    rng = np.random.default_rng(seed)
    steps = np.cumsum(rng.integers(0, 7, n))
    begin = datetime(1969, 12, 31, 23, 59, 30)
    return rows_at([begin + int(count) * step for count in steps], dtype or pl.Datetime("us"), seed)


def shuffled(frame: pl.DataFrame, seed: int) -> pl.DataFrame:
    """The same rows, some places away from where they were."""
    at = np.argsort(np.arange(frame.height) + np.random.default_rng(seed).integers(0, 8, frame.height))
    return frame[at]


def windowed(
    frame: pl.DataFrame,
    window: Window,
    by: Sequence[str],
    delay: str = "0s",
    unit: str = "us",
    **options: Any,
) -> Any:
    stream = us.from_frame(frame).with_event_time("t", delay=delay, unit=unit)
    return (stream.group_by(*by) if by else stream).window(window, **options)


def assert_same_both_ways(stream: us.Stream) -> pl.DataFrame:
    assert "one Polars streaming query" in stream.explain()
    made = stream.collect()
    assert_same_rows(made, stream.collect(settings=TICKS))
    return made


@pytest.mark.parametrize("by", [(), ("k",), ("k", "j")], ids=str)
@pytest.mark.parametrize("aggregates", AGGREGATES)
@pytest.mark.parametrize("window", FIXED)
def test_windows_on_fixed_grids(window: str, aggregates: str, by: tuple[str, ...]) -> None:
    for seed in range(3):
        frame = shuffled(rows_every(SECONDS, 300, seed), seed)
        made = windowed(frame, FIXED[window](), by, "1h").agg(**AGGREGATES[aggregates])
        found = assert_same_both_ways(made)
        assert found.height and found.equals(found.sort("window_end", "window_start", maintain_order=True))


@pytest.mark.parametrize("by", [(), ("k",)], ids=str)
@pytest.mark.parametrize("aggregates", AGGREGATES)
@pytest.mark.parametrize("window", CALENDAR)
def test_windows_of_the_calendar(window: str, aggregates: str, by: tuple[str, ...]) -> None:
    frame = rows_every(HOURS, 1_500, 5)
    assert assert_same_both_ways(windowed(frame, CALENDAR[window](), by).agg(**AGGREGATES[aggregates])).height


@pytest.mark.parametrize(
    "dtype",
    [pl.Datetime("ms"), pl.Datetime("ns"), pl.Datetime("us", "UTC"), pl.Datetime("ms", "America/New_York")],
    ids=str,
)
@pytest.mark.parametrize("window", [us.tumbling("1d"), us.sliding("6h", every="2h"), us.tumbling("1mo")])
def test_types_of_time(dtype: pl.DataType, window: Window) -> None:
    times = rows_every(HOURS, 500, 3)["t"].cast(pl.Datetime("us", getattr(dtype, "time_zone", None)))
    frame = rows_at(times.to_list(), dtype, 3)
    made = assert_same_both_ways(windowed(frame, window, ("k",)).agg(**FOLDED))
    assert made.schema["window_start"] == made.schema["window_end"] == dtype


@pytest.mark.parametrize("window", [us.tumbling("1d"), us.sliding("3d", every="1d"), us.tumbling("1mo")])
def test_dates(window: Window) -> None:
    days = np.sort(np.random.default_rng(0).integers(-50, 50, 200)).tolist()
    frame = rows_at([date(1970, 1, 1) + timedelta(days=day) for day in days], pl.Date(), 0)
    made = assert_same_both_ways(windowed(frame, window, ("k",)).agg(**FOLDED))
    assert made.schema["window_end"] == pl.Date


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("dtype", [pl.Int64(), pl.Int32()], ids=str)
def test_whole_numbers_as_time(unit: str, dtype: pl.DataType) -> None:
    times = np.sort(np.random.default_rng(0).integers(-100, 100, 200)).tolist()
    frame = rows_at(times, dtype, 0)
    size = {"s": "10s", "ms": "10ms", "us": "10us", "ns": "1us"}[unit]
    made = assert_same_both_ways(windowed(frame, us.tumbling(size), ("k",), unit=unit).agg(**FOLDED))
    assert made.schema["window_end"] == dtype


@pytest.mark.parametrize("window", FIXED)
@pytest.mark.parametrize("aggregates", AGGREGATES)
def test_no_rows(window: str, aggregates: str) -> None:
    for by in ((), ("k",)):
        frame = rows_every(SECONDS, 0, 0)
        assert not assert_same_both_ways(
            windowed(frame, FIXED[window](), by).agg(**AGGREGATES[aggregates])
        ).height


@pytest.mark.parametrize("window", FIXED)
@pytest.mark.parametrize(
    "options", [{"emit": "change"}, {"allowed_lateness": "5s"}, {"emit": us.every("1s")}], ids=str
)
def test_windows_that_update_end_with_the_same_table(window: str, options: dict[str, Any]) -> None:
    for aggregates in (FOLDED, HOLISTIC):
        made = windowed(rows_every(SECONDS, 300, 1), FIXED[window](), ("k",), **options).agg(**aggregates)
        assert_same_both_ways(made)


def test_many_rows_in_order_of_arrival() -> None:
    """So many that several threads group them: lists, first and last stay in the order of the source."""
    n = 400_000
    rng = np.random.default_rng(7)
    times = np.sort(rng.integers(0, 100_000_000, n))
    frame = pl.DataFrame({"t": times, "k": rng.integers(0, 300, n), "x": np.arange(n)})
    stream = us.from_frame(frame).with_event_time("t", unit="us")
    asked = {
        "first": pl.col("x").first(),
        "last": pl.col("x").last(),
        "all": pl.col("x").filter(pl.col("x") % 2 == 0),
    }
    for window in (us.tumbling("10s"), us.sliding("20s", every="10s")):
        made = stream.group_by("k").window(window).agg(**asked).filter(pl.col("k") < 20)
        assert "one Polars streaming query" in made.explain()
        found = made.collect()
        assert (found["first"] <= found["all"].list.first()).all()
        assert (found["last"] >= found["all"].list.last()).all()
        assert found["all"].list.eval(pl.element().diff().min() > 0).list.all().all()


def test_beside_plain_polars() -> None:
    frame = rows_every(SECONDS, 2_000, 9)
    made = windowed(frame, us.tumbling("10s"), ("k",)).agg(n=pl.len(), x=pl.col("x").sum()).collect()
    start = pl.col("t").dt.truncate("10s").alias("window_start")
    expected = frame.group_by("k", start).agg(n=pl.len(), x=pl.col("x").sum())
    assert_same_rows(made.drop("window_end"), expected.select("k", "window_start", "n", "x"))
    assert (made["window_end"] - made["window_start"] == timedelta(seconds=10)).all()


def test_windows_of_windows() -> None:
    frame = rows_every(SECONDS, 400, 2).with_columns(i=pl.col("x") % 7)
    counts = windowed(frame, us.sliding("30s", every="10s"), ("i",)).agg(n=pl.len())
    most = pl.col("n") == pl.col("n").max()
    best = assert_same_both_ways(counts.window().agg(pl.col("i").filter(most), n=pl.col("n").max()))
    assert best["i"].to_list() == best["i"].list.sort().to_list()
    words = windowed(frame, us.tumbling("30s"), ("k", "j")).agg(n=pl.len())
    assert_same_both_ways(words.window().agg(pl.struct("k", "j").filter(most), pl.col("n").alias("all")))
    assert_same_both_ways(counts.window().agg(pl.col("n").median(), of=pl.len()))
    assert_same_both_ways(counts.group_by("n").window().agg(pl.len().alias("how_often")))


def test_results_of_windows_have_no_order_of_their_own() -> None:
    frame = rows_every(SECONDS, 100, 2)
    counts = windowed(frame, us.tumbling("10s"), ("k",)).agg(n=pl.len())
    for asked in (pl.col("n").first(), pl.col("n").arg_max()):
        assert "one Polars streaming query" not in counts.window().agg(asked).explain()


def test_order_that_the_query_does_not_keep() -> None:
    left = us.from_frame(rows_every(SECONDS, 10, 0)).with_event_time("t")
    both = left.union(us.from_frame(rows_every(SECONDS, 10, 1)).with_event_time("t")).group_by("k")
    assert "one Polars" in both.window(us.tumbling("10s")).agg(pl.col("x").sum()).explain()
    assert "one Polars" not in both.window(us.tumbling("10s")).agg(pl.col("x").first()).explain()


@pytest.mark.parametrize("aggregates", AGGREGATES)
def test_global_windows(aggregates: str) -> None:
    frame = rows_every(SECONDS, 300, 4)
    for by in ((), ("k", "j")):
        for made in (frame, frame.clear()):
            for options in ({}, {"emit": "change"}):
                stream = us.from_frame(made)
                grouped = stream.group_by(*by) if by else stream
                windows = grouped.window(us.global_window(), **options)
                assert_same_both_ways(windows.agg(**AGGREGATES[aggregates]))


def test_windows_that_ticks_are_for() -> None:
    frame = rows_every(SECONDS, 50, 0)
    wide = us.sliding("10m", every="1s")
    for made in (
        windowed(frame, wide, ("k",)).agg(pl.len().alias("n")),
        windowed(frame, us.sliding("20s", every="1s"), ("k",)).agg(pl.col("v").median()),
        windowed(frame, us.tumbling("10s"), ("k",)).apply(lambda rows: rows.head(1), schema=frame.schema),
    ):
        assert "one Polars streaming query" not in made.explain()
        assert made.collect().height


@pytest.mark.parametrize(
    ("expr", "shape"),
    [
        (pl.col("a").sum() / pl.len(), Shape.VALUE),
        (pl.col("a").filter(pl.col("b") > 1).quantile(0.5), Shape.VALUE),
        ((pl.col("a") - pl.col("a").mean()).abs().max(), Shape.VALUE),
        (pl.col("a").sort().first(), Shape.VALUE),
        (pl.col("a").sort(descending=True).head(3), Shape.SEQUENCE),
        (pl.col("a") + 1, Shape.ROWS),
        (pl.struct("a", "b").filter(pl.col("b") == pl.col("b").min()), Shape.SOME),
        (pl.col("a").drop_nulls() * 2, Shape.SOME),
        (pl.col("a").first(), Shape.UNKNOWN),
        (pl.col("a") - pl.col("a").sort(), Shape.UNKNOWN),
        ((pl.col("a").filter(pl.col("b") > 1) - pl.col("b").filter(pl.col("a") > 1)).sum(), Shape.UNKNOWN),
        (pl.col("a").sort_by("b").first(), Shape.UNKNOWN),
        (pl.col("a").cum_sum().max(), Shape.UNKNOWN),
        (pl.col("a").implode(), Shape.UNKNOWN),
    ],
    ids=str,
)
def test_what_the_order_of_rows_leaves_open(expr: pl.Expr, shape: Shape) -> None:
    assert shape_of(expr) is shape
    assert asks_for_order([expr]) is (shape not in (Shape.VALUE, Shape.SEQUENCE))
