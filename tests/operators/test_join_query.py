"""Joins by time as parts of one Polars query against ticks and against nested loops over all rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from itertools import product
from typing import Any

import numpy as np
import polars as pl
import pytest

import unistream as us
from unistream.expressions.schema import EventTime, StreamSchema
from unistream.operators import join_query
from unistream.operators.interval_join import IntervalJoin
from unistream.operators.join_layout import HOWS, LEFT, RIGHT, PairAxis
from unistream.testing import assert_same_rows

TICKS = us.Settings(whole_query=False)
SECOND = 1_000_000
ODD_SUM = (pl.col("a") + pl.col("b")) % 2 == 1
KEYS: dict[str, tuple[Any, list[Any]]] = {
    "text": (pl.String, ["x", "y", "zz", None]),
    "numbers": (pl.Int32, [1, 2, 3, None]),
    "floats": (pl.Float64, [1.5, float("nan"), 0.0, -0.0, None]),
    "categories": (pl.Categorical, ["x", "y", None]),
    "many": (pl.Int64, list(range(200))),
}
INTERVALS = [("-7s", "3s"), ("0s", "20s"), ("-40s", "-10s"), ("0s", "0s"), ("-365d", "1d")]
Join = Callable[[us.Stream, us.Stream], us.Stream]


@pytest.fixture(params=["as it is", "pieces for all keys", "short pieces"])
def pieces(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few rows would hardly ever meet by piece."""
    if request.param != "as it is":
        monkeypatch.setattr(join_query, "FEW", 0)
    if request.param == "short pieces":
        monkeypatch.setattr(join_query, "LEAST_PIECE", 1)
        monkeypatch.setattr(join_query, "SPANS_PER_PIECE", 1)


def rows(
    rng: np.random.Generator,
    names: Sequence[str],
    key: str,
    time: Callable[[pl.Series], pl.Series],
    most: int = 60,
) -> pl.DataFrame:
    """Random rows in disorder, with ties and duplicates."""
    count = int(rng.integers(0, most))
    dtype, values = KEYS[key]
    picked = [values[at] for at in rng.integers(0, len(values), count)]
    seconds = pl.Series(names[0], rng.integers(-100, 100, count), pl.Int64)
    return pl.DataFrame(
        [
            time(seconds),
            pl.Series("k", picked, dtype),
            pl.Series(names[1], rng.integers(0, 5, count), pl.Int64),
        ]
    )


def moments(dtype: Any) -> Callable[[pl.Series], pl.Series]:
    return lambda seconds: (seconds * SECOND).cast(pl.Datetime("us", dtype.time_zone)).cast(dtype)


def same_as_ticks(
    left: pl.DataFrame, right: pl.DataFrame, join: Join, unit: tuple[str, str] = ("us", "us")
) -> pl.DataFrame:
    """The result of the one query, after it was compared with that of ticks."""
    streams = [
        us.from_frame(frame).with_event_time(frame.columns[0], delay="100d", unit=unit[side])
        for side, frame in enumerate((left, right))
    ]
    joined = join(*streams)
    assert "one Polars streaming query" in joined.explain()
    got, expected = joined.collect(), joined.collect(settings=TICKS)
    assert got.schema == expected.schema
    assert_same_rows(got, expected)
    return got


def joined_by(**options: Any) -> Join:
    return lambda one, other: one.join(other, **options)


def between(low: timedelta, high: timedelta) -> Callable[[Any, Any], bool]:
    return lambda t, u: low <= u - t <= high


def nested_loops(
    left: pl.DataFrame, right: pl.DataFrame, how: str, near: Callable[[Any, Any], bool], odd: bool
) -> list[tuple[Any, ...]]:
    """Rows (time, key, a, time, b) of every left row with every right row."""
    pairs = [
        (x, y)
        for x, one in enumerate(left.rows())
        for y, other in enumerate(right.rows())
        if one[1] is not None
        and one[1] == other[1]
        and near(one[0], other[0])
        and (not odd or (one[2] + other[2]) % 2 == 1)
    ]
    met = {x for x, _ in pairs}, {y for _, y in pairs}
    lefts, rights = left.rows(), right.rows()
    if how in ("semi", "anti"):
        return [row for x, row in enumerate(lefts) if (x in met[0]) == (how == "semi")]
    found = [(*lefts[x], rights[y][0], rights[y][2]) for x, y in pairs]
    if how in ("left", "full"):
        found += [(*row, None, None) for x, row in enumerate(lefts) if x not in met[0]]
    if how in ("right", "full"):
        found += [(None, key, None, time, b) for y, (time, key, b) in enumerate(rights) if y not in met[1]]
    return found


def bag(found: Sequence[tuple[Any, ...]]) -> list[str]:
    return sorted(map(repr, found))


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize("how", HOWS)
def test_intervals_equal_nested_loops(how: Any) -> None:
    for seed in range(8):
        rng = np.random.default_rng(seed)
        time = moments(pl.Datetime("us"))
        left, right = rows(rng, "ta", "numbers", time), rows(rng, "ub", "numbers", time)
        within = tuple(timedelta(seconds=int(bound)) for bound in sorted(rng.integers(-30, 30, 2)))
        odd = seed % 2 == 1
        join = joined_by(on="k", how=how, within=within, predicate=ODD_SUM if odd else None)
        got = same_as_ticks(left, right, join)
        expected = nested_loops(left, right, how, between(*within), odd)
        assert bag(got.drop("join_time", strict=False).rows()) == bag(expected)
        if "join_time" in got.columns:
            assert got["join_time"].equals(got.select(pl.max_horizontal("t", "u")).to_series())


TIMES = [
    (pl.Datetime("us"), pl.Datetime("us")),
    (pl.Datetime("ms", "UTC"), pl.Datetime("ms", "UTC")),
    (pl.Datetime("ns"), pl.Datetime("ns")),
    (pl.Datetime("ns"), pl.Datetime("ms")),
    (pl.Datetime("us", "Europe/Berlin"), pl.Datetime("ns", "UTC")),
]


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize("dtypes", TIMES, ids=str)
def test_intervals_over_times_and_keys_of_all_types(dtypes: tuple[Any, Any]) -> None:
    for seed, (how, key) in enumerate(product(HOWS, KEYS)):
        rng = np.random.default_rng(seed)
        left = rows(rng, "ta", key, moments(dtypes[0]), 40)
        right = rows(rng, "ub", key, moments(dtypes[1]), 40)
        within = [("-7s", "3s"), ("0s", "20s"), ("-40s", "-10s"), ("0s", "0s"), ("-365d", "1d")][
            seed * 6 // 5 % 5
        ]
        same_as_ticks(left, right, joined_by(on="k", how=how, within=within))


@pytest.mark.usefixtures("pieces")
def test_intervals_over_days_and_counted_units() -> None:
    def days(seconds: pl.Series) -> pl.Series:
        return seconds.cast(pl.Int32).cast(pl.Date)

    def counted(seconds: pl.Series) -> pl.Series:
        return seconds.cast(pl.Int32)

    cases = [
        (days, days, "us", "us"),
        (counted, counted, "s", "ms"),
        (days, moments(pl.Datetime("us")), "us", "us"),
    ]
    for seed, (one_time, other_time, *units) in enumerate(cases):
        rng = np.random.default_rng(seed)
        left, right = rows(rng, "ta", "text", one_time, 30), rows(rng, "ub", "text", other_time, 30)
        for how in HOWS:
            join = joined_by(on="k", how=how, within=("-3d", "5d"))
            same_as_ticks(left, right, join, (units[0], units[1]))


@pytest.mark.usefixtures("pieces")
def test_several_keys_and_joins_of_joins() -> None:
    time = moments(pl.Datetime("us"))
    for seed in range(6):
        rng = np.random.default_rng(seed)
        left, right, third = (rows(rng, names, "text", time, 40) for names in ("ta", "ub", "vc"))
        left, right = (frame.rename({name: "n"}) for frame, name in ((left, "a"), (right, "b")))
        how: Any = HOWS[seed]
        got = same_as_ticks(left, right, joined_by(on=["k", "n"], how=how, within="9s"))
        assert got.columns[:3] == ["t", "k", "n"]

        def both(one: us.Stream, other: us.Stream, third: pl.DataFrame = third, how: Any = how) -> us.Stream:
            last = us.from_frame(third).with_event_time("v", delay="100d")
            return one.join(other, on=["k", "n"], within="9s").join(
                last, on="k", how=how, within=("-2s", "9s")
            )

        same_as_ticks(left, right, both)


def test_times_among_the_keys_need_no_pieces() -> None:
    time = moments(pl.Datetime("us"))
    for seed, how in enumerate(HOWS):
        rng = np.random.default_rng(seed)
        left, right = rows(rng, "ta", "numbers", time), rows(rng, "tb", "numbers", time)
        for within in ("0s", ("1s", "2s")):
            same_as_ticks(left, right, joined_by(on=["k", "t"], how=how, within=within))


def test_keys_made_of_parts_are_left_to_ticks() -> None:
    frame = pl.DataFrame({"t": [1], "k": [[1]]})
    stream = us.from_frame(frame).with_event_time("t", delay=0, unit="us")
    joined = stream.join(stream.rename({"t": "u"}), on="k", within="1s")
    assert "one Polars streaming query" not in joined.explain()


def one_busy_key(count: int, seed: int) -> pl.DataFrame:
    """A long history of one key, a row a second."""
    jitter = np.random.default_rng(seed).integers(0, SECOND, count)
    times = pl.Series("t", np.arange(count) * SECOND + jitter).cast(pl.Datetime("us"))
    return pl.DataFrame([times, pl.repeat(7, count, eager=True).alias("k")])


@pytest.mark.parametrize("within", [(0, 5), (-5, 0), (-3, 2), (0, 0)])
def test_a_busy_key_meets_by_piece_of_time(within: tuple[int, int]) -> None:
    count = 20_000
    left, right = one_busy_key(count, 1), one_busy_key(count, 2).rename({"t": "u"})
    schemas = [
        StreamSchema(left.schema, event_time=EventTime("t")),
        StreamSchema(right.schema, event_time=EventTime("u")),
    ]
    low, high = (bound * SECOND for bound in within)
    join = IntervalJoin(by=("k",), low=low, high=high)
    sides = [left.lazy(), right.lazy()]
    looked_at = (
        join_query.candidates(join, sides, schemas, PairAxis(schemas)).select(pl.len()).collect().item()
    )
    spans = join_query.SPANS_PER_PIECE
    assert looked_at <= (2 * spans * 6 + 2) * count
    t, u = (frame.get_column(frame.columns[0]).cast(pl.Int64).to_numpy() for frame in (left, right))
    near = np.searchsorted(u, t + high, side="right") - np.searchsorted(u, t + low, side="left")
    query = join.lazy(sides, schemas)
    assert query is not None
    assert query.select(pl.len()).collect(engine="streaming").item() == near.sum()


@pytest.mark.parametrize("how", HOWS)
def test_long_histories_of_one_key(how: Any) -> None:
    count = 200_000
    left, right = one_busy_key(count, 1), one_busy_key(count, 2).rename({"t": "u"})
    streams = [us.from_frame(left).with_event_time("t"), us.from_frame(right).with_event_time("u")]
    joined = streams[LEFT].join(streams[RIGHT], on="k", how=how, within=("-0.5s", "3s"))
    t, u = (frame.get_column(frame.columns[0]).cast(pl.Int64).to_numpy() for frame in (left, right))
    near = np.searchsorted(u, t + 3 * SECOND, side="right") - np.searchsorted(u, t - SECOND // 2, side="left")
    back = np.searchsorted(t, u + SECOND // 2, side="right") - np.searchsorted(t, u - 3 * SECOND, side="left")
    alone = (near == 0).sum(), (back == 0).sum()
    expected = {"semi": count - alone[0], "anti": alone[0]}.get(how)
    if expected is None:
        expected = near.sum() + alone[0] * (how in ("left", "full")) + alone[1] * (how in ("right", "full"))
    assert joined.collect().height == expected


@pytest.mark.parametrize("shared", [0.0, 0.5, 1.0])
def test_busy_and_rare_keys_together(shared: float) -> None:
    for seed, how in enumerate(HOWS):
        rng = np.random.default_rng(seed)
        frames = []
        for name in "tu":
            keys = np.where(rng.random(500) < shared, 0, rng.integers(1, 300, 500))
            times = pl.Series(name, np.sort(rng.integers(0, 1_000, 500)) * SECOND).cast(pl.Datetime("us"))
            frames.append(pl.DataFrame([times, pl.Series("k", keys)]).with_row_index(f"row_{name}"))
        left, right = (frame.select(frame.columns[1], "k", frame.columns[0]) for frame in frames)
        same_as_ticks(left, right, joined_by(on="k", how=how, within=("-1s", "20s")))


WINDOWS = [
    us.tumbling("10s"),
    us.tumbling("1h", offset="7s"),
    us.sliding("20s", every="10s"),
    us.sliding("25s", every="10s", offset="3s"),
    us.tumbling("1d"),
]


@pytest.mark.parametrize("dtypes", TIMES[:3] + TIMES[4:], ids=str)
def test_windows_over_times_and_keys_of_all_types(dtypes: tuple[Any, Any]) -> None:
    dtype = dtypes[0] if dtypes[0].time_zone != "Europe/Berlin" else pl.Datetime("us", "UTC")
    for seed, (how, key) in enumerate(product(HOWS, KEYS)):
        rng = np.random.default_rng(seed)
        left, right = rows(rng, "ta", key, moments(dtype), 40), rows(rng, "ub", key, moments(dtype), 40)
        predicate = ODD_SUM if seed % 3 == 0 else None
        window = WINDOWS[seed * 6 // 5 % 5]
        same_as_ticks(left, right, joined_by(on="k", how=how, window=window, predicate=predicate))


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("odd", [False, True])
def test_windows_equal_nested_loops(how: Any, odd: bool) -> None:
    for seed in range(4):
        rng = np.random.default_rng(seed)
        time = moments(pl.Datetime("us"))
        left, right = rows(rng, "ta", "numbers", time), rows(rng, "ub", "numbers", time)
        join = joined_by(on="k", how=how, window=us.tumbling("30s"), predicate=ODD_SUM if odd else None)
        got = same_as_ticks(left, right, join)
        expected = nested_loops(left, right, how, same_half_minute, odd)
        assert bag(got.drop("window_start", "window_end").rows()) == bag(expected)
        time_of = pl.coalesce("t", "u") if "u" in got.columns else pl.col("t")
        start = got.select(time_of.dt.truncate("30s")).to_series()
        assert got["window_start"].equals(start)
        assert got["window_end"].equals(start.dt.offset_by("30s"))


def same_half_minute(t: Any, u: Any) -> bool:
    epoch = datetime(1970, 1, 1)
    return bool((t - epoch) // timedelta(seconds=30) == (u - epoch) // timedelta(seconds=30))


def test_windows_over_days_and_several_keys() -> None:
    for seed, how in enumerate(HOWS):
        rng = np.random.default_rng(seed)
        left, right = (
            rows(rng, names, "text", lambda seconds: seconds.cast(pl.Int32).cast(pl.Date))
            for names in ("ta", "ub")
        )
        for window in (us.tumbling("5d"), us.sliding("6d", every="4d"), us.tumbling("1w")):
            same_as_ticks(left, right, joined_by(on="k", how=how, window=window))
        left, right = (frame.rename({name: "n"}) for frame, name in ((left, "a"), (right, "b")))
        same_as_ticks(left, right, joined_by(on=["k", "n"], how=how, window=us.tumbling("9d")))


@pytest.mark.parametrize(
    "window", [us.tumbling("1mo"), us.cumulating("1m", step="10s"), us.sliding("1h", every="1m")]
)
def test_windows_of_many_lengths_or_copies_are_left_to_ticks(window: Any) -> None:
    frame = pl.DataFrame({"t": [1], "k": [1]})
    stream = us.from_frame(frame).with_event_time("t", delay=0, unit="us")
    joined = stream.join(stream.rename({"t": "u"}), on="k", window=window)
    assert "one Polars streaming query" not in joined.explain()
