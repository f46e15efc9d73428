"""Settings: refused where they are written when they mean nothing, the same from code, text and TOML."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import unistream as us
from unistream.cli import load_settings
from unistream.durations import microseconds
from unistream.errors import InvalidSettings

COUNTS = (
    "tick_rows",
    "tick_bytes",
    "queue_chunks",
    "queue_bytes",
    "checkpoints_kept",
    "key_groups",
    "memory_budget_bytes",
)


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("value", [0, -1, 1.0, True, None, "4GB", 2**63, 10**20])
def test_counts_are_whole_numbers_that_fit(name: str, value: Any) -> None:
    with pytest.raises(
        InvalidSettings, match=f"'{name}' must be a whole number from 1.*, not {value!r}"
    ) as told:
        us.Settings(**{name: value})
    assert told.value.hint is not None
    assert ("in bytes" in told.value.hint) == name.endswith("_bytes")


def test_the_smallest_and_the_largest_count_are_taken() -> None:
    for name in COUNTS:
        for value in (1, 2**63 - 1):
            assert getattr(us.Settings(**{name: value}), name) == value


@pytest.mark.parametrize("name", ["whole_query", "debug"])
@pytest.mark.parametrize("value", ["no", "false", "", 0, 1, None])
def test_switches_are_booleans(name: str, value: Any) -> None:
    with pytest.raises(InvalidSettings, match=f"{name!r} must be True or False, not {value!r}"):
        us.Settings(**{name: value})


@pytest.mark.parametrize("name", ["whole_query", "debug"])
@pytest.mark.parametrize(
    ("text", "meant"),
    [(text, True) for text in ("true", "True", "YES", "on", "1")]
    + [(text, False) for text in ("false", "FALSE", "False", "no", "Off", " off ", "0")],
)
def test_switches_in_text(name: str, text: str, meant: bool) -> None:
    loaded = us.Settings.load(environment={f"UNISTREAM_{name.upper()}": text})
    assert getattr(loaded, name) is meant
    assert getattr(load_settings((f"{name}={text}",)), name) is meant


@pytest.mark.parametrize("text", ["maybe", "", "2", "1.0", "[true]"])
def test_other_words_are_no_switches(text: str) -> None:
    for load in (
        lambda: us.Settings.load(environment={"UNISTREAM_WHOLE_QUERY": text}),
        lambda: load_settings((f"whole_query={text}",)),
    ):
        with pytest.raises(InvalidSettings, match="'whole_query' must be True or False") as told:
            load()
        assert "yes" in str(told.value.hint)


def test_words_and_digits_stay_what_they_are_elsewhere() -> None:
    loaded = us.Settings.load({"queue_chunks": 1}, {"UNISTREAM_TICK_ROWS": "1", "UNISTREAM_MAX_DRIFT": "0"})
    assert (loaded.queue_chunks, loaded.tick_rows, loaded.max_drift) == (1, 1, 0.0)
    with pytest.raises(InvalidSettings, match="'tick_rows' must be a whole number from 1, not 'yes'"):
        us.Settings.load({}, {"UNISTREAM_TICK_ROWS": "yes"})
    with pytest.raises(InvalidSettings, match="'tick_rows' must be a whole number"):
        load_settings(("tick_rows=99999999999999999999",))


def test_the_file_knows_booleans(tmp_path: Path) -> None:
    file = tmp_path / "unistream.toml"
    file.write_text("whole_query = false\n")
    assert us.Settings.load({}, {}, tmp_path).whole_query is False
    file.write_text('whole_query = "no"\n')
    with pytest.raises(InvalidSettings, match="'whole_query' must be True or False, not 'no'"):
        us.Settings.load({}, {}, tmp_path)


@pytest.mark.parametrize("name", ["checkpoint_interval", "progress_interval", "max_drift"])
@pytest.mark.parametrize(
    "value", [-1, "-5s", timedelta(seconds=-1), float("-inf"), float("inf"), float("nan")]
)
def test_intervals_are_finite_and_not_negative(name: str, value: Any) -> None:
    with pytest.raises(InvalidSettings, match=name) as told:
        us.Settings(**{name: value})
    assert repr(value) in str(told.value)
    assert told.value.hint
    assert getattr(us.Settings(**{name: 0}), name) == 0.0


def test_any_drift_may_be_allowed() -> None:
    assert us.Settings(max_drift=None).max_drift is None


@pytest.mark.parametrize("value", [float("inf"), float("nan"), 1e300, 10**30, "9" * 400 + "d", timedelta.max])
def test_a_duration_can_be_counted_in_microseconds(value: Any) -> None:
    with pytest.raises(InvalidSettings, match=r"^delay .* is longer than can be counted"):
        microseconds(value, "delay")


def test_the_longest_durations() -> None:
    assert microseconds("106751991d") == 106751991 * 86_400_000_000
    assert microseconds(timedelta(days=-106751991)) == -106751991 * 86_400_000_000
