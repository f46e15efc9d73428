"""Timers against a set, over jumps in time, snapshots and restores."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from unistream.elements import MAX_TIME, MIN_TIME
from unistream.state.memory import MemoryBackend
from unistream.state.segment_backend import SegmentBackend
from unistream.state.timers import TIME, Timers

KEYS = pl.Schema({"user": pl.String, "n": pl.Int64})
users = st.sampled_from([("ada", 1), ("bob", None), (None, 1)])
near, far = st.integers(-50, 200), st.integers(-(10**15), 10**17)
timers = st.lists(st.tuples(near | far, users), min_size=1, max_size=8)
steps = st.one_of(
    st.tuples(st.just("register"), timers),
    st.tuples(st.just("cancel"), timers),
    st.tuples(st.just("due"), near | far | st.just(MIN_TIME)),
    st.tuples(st.just("restore"), st.none()),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(steps, max_size=20), st.sampled_from([1, 10, 1_000_000]))
def test_fires_once_and_in_order(tmp_path_factory: Any, program: list[Any], width: int) -> None:
    folder = tmp_path_factory.mktemp("timers")
    backend = SegmentBackend(folder / "0")
    held = Timers(backend.store("op", ["user"]), "timers", KEYS, width)
    model: set[Any] = set()
    for number, (what, argument) in enumerate([*program, ("due", MAX_TIME)], start=1):
        if what == "restore":
            snapshot = backend.snapshot(number).finish()
            backend = SegmentBackend(folder / str(number))
            backend.restore(snapshot.tables, {file.logical_name: file.path for file in snapshot.files})
            held = Timers(backend.store("op", ["user"]), "timers", KEYS, width)
        elif what == "due":
            fired = held.due(argument)
            expected = sorted(time for time, _ in model if time <= argument)
            assert fired[TIME].to_list() == expected
            assert {(time, (user, n)) for time, user, n in fired.rows()} == {
                item for item in model if item[0] <= argument
            }
            model = {item for item in model if item[0] > argument}
        else:
            times = np.array([time for time, _ in argument])
            keys = pl.DataFrame([user for _, user in argument], schema=KEYS, orient="row")
            getattr(held, what)(times, keys)
            (model.update if what == "register" else model.difference_update)(argument)
        following = held.next_time()
        assert (following is None and not model) or following <= min(
            (time for time, _ in model), default=MAX_TIME
        )
    assert len(held) == 0


def test_a_wide_spread_takes_few_buckets() -> None:
    store = MemoryBackend().store("op")
    held = Timers(store, "timers", pl.Schema({"k": pl.Int64}))
    held.due(0)
    rng = np.random.default_rng(1)
    times = rng.integers(0, 10**13, 20_000)
    held.register(times, pl.DataFrame({"k": np.arange(20_000)}))
    log: Any = held._log
    assert len(log.buckets()) < 350
    fired = [held.due(int(until))[TIME].to_numpy() for until in np.linspace(0, 10**13, 300)]
    assert np.array_equal(np.concatenate(fired), np.sort(times))


def test_wakes_keys_after_a_crash(tmp_path: Path) -> None:
    backend = SegmentBackend(tmp_path / "one")
    held = Timers(backend.store("op"), "timers", pl.Schema({"k": pl.Int64}))
    held.register(np.array([30, 10]), pl.DataFrame({"k": [3, 1]}))
    snapshot = backend.snapshot(1).finish()
    again = SegmentBackend(tmp_path / "two")
    again.restore(snapshot.tables, {file.logical_name: file.path for file in snapshot.files})
    held = Timers(again.store("op"), "timers", pl.Schema({"k": pl.Int64}))
    assert held.next_time() == 10
    assert held.due(10).rows() == [(10, 1)] and held.due(29).rows() == [] and held.due(30).rows() == [(30, 3)]
