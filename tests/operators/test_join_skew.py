"""A key with most of the rows: other keys are served, and the pairs leave some at a time."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from unistream.elements import Batch
from unistream.expressions.schema import CHANGE, Changes, EventTime, StreamSchema
from unistream.operators import join_matching, regular_join, window_join
from unistream.operators.base import OperatorSpec
from unistream.operators.interval_join import IntervalJoin
from unistream.operators.regular_join import RegularJoin
from unistream.operators.window_join import WindowJoin
from unistream.operators.windows import Span, Tumbling
from unistream.testing.bench import OperatorBench

SECOND = 1_000_000
INPUTS = [
    StreamSchema(pl.Schema({name: pl.Int64, "k": pl.Int64, value: pl.Int64}), event_time=EventTime(name, "s"))
    for name, value in (("t", "a"), ("u", "b"))
]
SPECS: dict[str, OperatorSpec] = {
    "interval": IntervalJoin(by=("k",), low=-1000 * SECOND, high=1000 * SECOND),
    "window": WindowJoin(by=("k",), window=Tumbling(size=Span.parse("100s", "size"))),
    "regular": RegularJoin(by=("k",), unbounded=True),
}


def skewed(side: int, count: int) -> pl.DataFrame:
    """Rows of a hundred seconds; nine of ten have key 0, the others one of 200."""
    rng = np.random.default_rng(side)
    keys = np.where(rng.random(count) < 0.9, 0, rng.integers(1, 200, count))
    values = [np.sort(rng.integers(0, 100, count)), keys, np.arange(count)]
    return pl.DataFrame(values, schema=INPUTS[side].columns)


def pairs_of_keys(left: pl.DataFrame, right: pl.DataFrame) -> Counter[int]:
    mine, theirs = Counter(left["k"].to_list()), Counter(right["k"].to_list())
    return Counter({key: mine[key] * theirs[key] for key in mine if theirs[key]})


def few_at_a_time(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    for module in (join_matching, regular_join, window_join):
        for name in ("MOST_ROWS", "MOST_PAIRS"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, most)


@pytest.mark.parametrize("kind", SPECS)
def test_every_key_is_served_and_no_frame_is_large(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    most = 10_000
    few_at_a_time(monkeypatch, most)
    left, right = skewed(0, 600), skewed(1, 1500)
    with OperatorBench(SPECS[kind], INPUTS) as bench:
        bench.process(Batch(right, 1))
        bench.process(Batch(left, 0))
        bench.advance_watermark(101 * SECOND)
        frames = bench.frames[""]
        assert max(frame.height for frame in frames) <= most
        found = pl.concat(frames)["k"].value_counts()
        assert Counter(dict(found.rows())) == pairs_of_keys(left, right)


@pytest.mark.parametrize("kind", SPECS)
def test_a_key_met_by_ticks_of_few_rows(kind: str) -> None:
    """Nobody waits for the large key: the pairs of each tick come in it."""
    left, right = skewed(0, 300), skewed(1, 2000)
    expected = pairs_of_keys(left, right)
    with OperatorBench(SPECS[kind], INPUTS) as bench:
        for part in right.iter_slices(500):
            bench.process(Batch(part, 1))
        for part in left.iter_slices(20):
            bench.process(Batch(part, 0))
            if kind != "window":
                seen = Counter(dict(pl.concat(bench.frames[""])["k"].value_counts().rows()))
                assert all(seen[key] > 0 for key in part["k"] if expected[key])
        bench.advance_watermark(101 * SECOND)
        assert Counter(dict(pl.concat(bench.frames[""])["k"].value_counts().rows())) == expected


@pytest.mark.parametrize("how", ["inner", "left", "full", "semi", "anti"])
def test_equal_rows_that_are_kept_once_leave_some_at_a_time(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table keeps equal rows as one with a count: a thousand with a thousand are a million results."""
    few_at_a_time(monkeypatch, 7_000)
    count, schema = 300, StreamSchema(pl.Schema({"k": pl.Int64, "a": pl.Int64}), changes=Changes.RETRACT)
    other = StreamSchema(pl.Schema({"k": pl.Int64, "b": pl.Int64}))
    coming = pl.DataFrame([[1] * count, [2] * count, [0] * count], schema=schema.physical)
    going = coming.with_columns(pl.lit(3, pl.Int8).alias(CHANGE)).head(count - 1)
    with OperatorBench(RegularJoin(by=("k",), how=how), [schema, other]) as bench:  # type: ignore[arg-type]
        bench.process(Batch(coming, 0))
        bench.process(Batch(pl.DataFrame([[1] * count, [5] * count], schema=other.physical), 1))
        bench.process(Batch(going, 0))
        frames = bench.frames[""]
        assert max(frame.height for frame in frames) <= 7_000
        marked = [frame if CHANGE in frame.columns else frame.with_columns(__change=0) for frame in frames]
        net = Counter[int]()
        for frame in marked:
            net[0] += frame.filter(pl.col(CHANGE) == 0).height - frame.filter(pl.col(CHANGE) == 3).height
        assert net[0] == {"semi": 1, "anti": 0}.get(how, count)


PEAK = """
import sys
import resource
sys.path.insert(0, sys.argv[2])
from test_join_skew import INPUTS, SPECS, skewed
from unistream.elements import Batch
from unistream.testing.bench import OperatorBench

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

with OperatorBench(SPECS[sys.argv[1]], INPUTS) as bench:
    seen = [0, 0]

    def count(tag, frame, promised):
        seen[0], seen[1] = seen[0] + frame.height, max(seen[1], frame.height)

    bench._out._keep = count
    bench.process(Batch(skewed(1, 12_000), 1))
    bench.process(Batch(skewed(0, 4_000), 0))
    bench.advance_watermark(101_000_000)
    print(seen[0], seen[1], peak())
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", SPECS)
def test_forty_million_pairs_of_one_tick_need_little_memory(kind: str) -> None:
    here = str(Path(__file__).parent)
    done = subprocess.run(
        [sys.executable, "-c", PEAK, kind, here], capture_output=True, text=True, timeout=300, check=True
    )
    pairs, largest, peak = map(int, done.stdout.split())
    assert pairs == pairs_of_keys(skewed(0, 4_000), skewed(1, 12_000)).total()
    assert pairs * 5 * 8 > 1_500_000_000, "too few to say anything"
    assert largest <= join_matching.MOST_ROWS
    assert peak < 800_000_000
