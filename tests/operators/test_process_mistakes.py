"""What a `ProcessFunction` is told when it is written otherwise than it has to be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

import unistream as us

ROWS = us.from_frame({"k": ["a", "a", "b"], "t": [1, 2, 3], "v": [1, 2, 5]}).with_event_time("t", unit="s")
SECOND = 1_000_000


class Counts(us.ProcessFunction):
    """Has each kind of state; a test says what it does with them."""

    output = {"k": pl.String, "n": pl.Int64}
    n = us.ValueState(pl.Int64)
    total = us.ReducingState(pl.Int64, max)
    items = us.ListState(pl.Int64)
    pages = us.MapState(pl.Int64, pl.Int64)


def made_by(function: us.ProcessFunction) -> list[tuple[Any, ...]]:
    return ROWS.group_by("k").process(function).collect().rows()


def error_of(function: us.ProcessFunction) -> us.UnistreamError:
    with pytest.raises(us.UnistreamError) as caught:
        made_by(function)
    error = caught.value
    return error.__cause__ if isinstance(error.__cause__, us.UnistreamError) else error


# State


@pytest.mark.parametrize(
    ("name", "way_out"),
    [
        ("n", "self.n.value = ..."),
        ("total", "self.total.add(...)"),
        ("items", "self.items.set([...])"),
        ("pages", "self.pages[...] = ..."),
    ],
)
def test_state_is_not_assigned_to(name: str, way_out: str) -> None:
    class Forgets(Counts):
        def process(self, key: Any, row: dict[str, Any], ctx: us.ProcessContext) -> None:
            setattr(self, name, row["v"])

    error = error_of(Forgets())
    assert f"{name!r} is state" in error.message
    assert error.hint is not None
    assert way_out in error.hint


def test_other_state_cannot_take_the_place_of_what_is_declared() -> None:
    class Longer(Counts):
        def __init__(self) -> None:
            self.n = us.ValueState(pl.Int64, ttl="1h")

        def process(self, key: Any, row: dict[str, Any], ctx: us.ProcessContext) -> None: ...

    with pytest.raises(us.InvalidQuery, match="'n' is state"):
        Longer()


def test_state_may_be_a_field_of_a_data_class() -> None:
    @dataclass
    class Sums(us.ProcessFunction):
        output = {"n": pl.Int64}
        n: us.ValueState = us.ValueState(pl.Int64)  # noqa: RUF009
        from_: int = 10

        def process(self, key: Any, row: dict[str, Any], ctx: us.ProcessContext) -> Iterator[Any]:
            self.n.value = (self.n.value or self.from_) + row["v"]
            yield {"n": self.n.value}

    assert made_by(Sums()) == [(11,), (13,), (15,)]


def test_what_is_no_state_is_set_as_ever() -> None:
    class Numbered(Counts):
        seen = 0

        def process(self, key: Any, row: dict[str, Any], ctx: us.ProcessContext) -> Iterator[Any]:
            self.seen += 1
            self.n.value = (self.n.value or 0) + 1
            yield {"k": key, "n": 10 * self.seen + self.n.value}

    assert made_by(Numbered()) == [("a", 11), ("a", 22), ("b", 31)]


def test_what_a_function_is_handed_has_a_public_name() -> None:
    class Looks(Counts):
        def process(self, key: Any, row: dict[str, Any], ctx: us.ProcessContext) -> Iterator[Any]:
            yield {"k": type(ctx).__name__, "n": int(isinstance(ctx, us.ProcessContext))}

    assert made_by(Looks()) == [("ProcessContext", 1)] * 3


@pytest.mark.parametrize("place", ["__init__", "open"])
def test_state_belongs_into_the_class_body(place: str) -> None:
    class Habit(us.ProcessFunction):
        output = {"k": pl.String}

        def __init__(self) -> None:
            if place == "__init__":
                self.last = us.ValueState(pl.Int64)

        def open(self, ctx: us.ProcessContext) -> None:
            if place == "open":
                self.last = us.ValueState(pl.Int64)

        def process(self, key: Any, row: dict[str, Any], ctx: us.ProcessContext) -> None:
            self.last.value = 1

    error = error_of(Habit())
    assert "not declared" in error.message
    assert error.hint is not None
    assert "class body" in error.hint
    assert "= us.ValueState(...)" in error.hint


@pytest.mark.parametrize("place", ["__init__", "open"])
def test_declared_state_has_no_key_before_the_first_row(place: str) -> None:
    class Early(Counts):
        def __init__(self) -> None:
            if place == "__init__":
                self.n.value = 0

        def open(self, ctx: us.ProcessContext) -> None:
            self.n.value = 0

        def process(self, key: Any, row: dict[str, Any], ctx: us.ProcessContext) -> None: ...

    with pytest.raises(us.UnistreamError, match="belongs to a key") as caught:
        made_by(Early())
    assert "process and on_timer" in (caught.value.hint or "")


# Timers


class Sets(us.ProcessFunction):
    """Sets one timer for each row and gives the times that came."""

    output = {"k": pl.String, "n": pl.Int64}

    def __init__(self, time: Any, clock: Any = "event") -> None:
        self.time = time
        self.clock = clock

    def process(self, key: Any, row: dict[str, Any], ctx: us.ProcessContext) -> None:
        ctx.set_timer(self.time, self.clock)

    def on_timer(self, key: Any, time: int, ctx: us.ProcessContext) -> Iterator[Any]:
        yield {"k": key, "n": time}


@pytest.mark.parametrize(
    "time",
    [
        7 * SECOND,
        np.int64(7 * SECOND),
        datetime(1970, 1, 1, 0, 0, 7),
        datetime(1970, 1, 1, 0, 0, 7, tzinfo=UTC),
    ],
    ids=["int", "numpy", "naive", "UTC"],
)
def test_a_timer_is_set_by_microseconds_or_a_moment(time: Any) -> None:
    assert made_by(Sets(time)) == [("a", 7 * SECOND), ("b", 7 * SECOND)]


@pytest.mark.parametrize("time", [timedelta(minutes=1), "1m", 7e6, None, "2026-01-01"])
def test_a_timer_is_not_set_by_anything_else(time: Any) -> None:
    class Cancels(Sets):
        def process(self, key: Any, row: dict[str, Any], ctx: us.ProcessContext) -> None:
            ctx.cancel_timer(self.time)

    for function in (Sets(time), Cancels(time)):
        error = error_of(function)
        assert repr(time) in error.message
        assert error.hint is not None
        assert "microseconds" in error.hint


def test_a_timer_has_one_of_two_clocks() -> None:
    class Cancels(Sets):
        def process(self, key: Any, row: dict[str, Any], ctx: us.ProcessContext) -> None:
            ctx.cancel_timer(1, self.clock)

    for function in (Sets(1, "bogus"), Cancels(1, "bogus")):
        error = error_of(function)
        assert "'bogus'" in error.message
        assert error.hint is not None
        assert '"processing"' in error.hint


def test_a_timer_is_not_set_where_there_is_no_key() -> None:
    class Early(Sets):
        def open(self, ctx: us.ProcessContext) -> None:
            ctx.set_timer(1)

    assert "belongs to a key" in error_of(Early(1)).message


# Rows


@pytest.mark.parametrize(
    "given",
    [{"k": "a", "n": 1}, [("a", 1)], ["text"], [None], 5, True, [{"k": "a", 1: 2}]],
    ids=["one row", "tuple", "text", "nothing", "number", "flag", "odd names"],
)
@pytest.mark.parametrize("place", ["process", "on_timer"])
def test_rows_are_mappings(given: Any, place: str) -> None:
    class Gives(us.ProcessFunction):
        output = {"k": pl.String, "n": pl.Int64}

        def process(self, key: Any, row: dict[str, Any], ctx: us.ProcessContext) -> Any:
            ctx.set_timer(ctx.time or 0)
            return given if place == "process" else None

        def on_timer(self, key: Any, time: int, ctx: us.ProcessContext) -> Any:
            return given

    error = error_of(Gives())
    assert isinstance(error, us.DataError)
    assert error.hint


def test_one_row_that_is_returned_is_told_how() -> None:
    class Gives(us.ProcessFunction):
        output = {"k": pl.String}

        def process(self, key: Any, row: dict[str, Any], ctx: us.ProcessContext) -> Any:
            return {"k": key}

    error = error_of(Gives())
    assert error.hint is not None
    assert "yield {" in error.hint
    assert "return [{" in error.hint


def test_rows_for_a_side_output_are_mappings() -> None:
    class Gives(us.ProcessFunction):
        output = {"k": pl.String}
        side_outputs = {"large": {"k": pl.String}}

        def process(self, key: Any, row: dict[str, Any], ctx: us.ProcessContext) -> None:
            ctx.emit_to("large", (key,))  # type: ignore[arg-type]

    assert "side output 'large'" in error_of(Gives()).message


def test_a_mistake_within_the_function_stays_its_own() -> None:
    class Breaks(us.ProcessFunction):
        output = {"k": pl.String}

        def __init__(self, kind: type[Exception]) -> None:
            self.kind = kind

        def process(self, key: Any, row: dict[str, Any], ctx: us.ProcessContext) -> Iterator[Any]:
            yield {"k": key}
            raise self.kind("of the function")

    for kind in (TypeError, AttributeError):
        with pytest.raises(us.JobFailed, match="of the function") as caught:
            made_by(Breaks(kind))
        assert isinstance(caught.value.__cause__, kind)


@pytest.mark.parametrize("tag", ["late", "rejected", ""])
def test_names_of_the_engines_own_outputs_are_taken(tag: str) -> None:
    class Gives(us.ProcessFunction):
        output = {"k": pl.String}
        side_outputs = {tag: {"k": pl.String}}

        def process(self, key: Any, row: dict[str, Any], ctx: us.ProcessContext) -> None: ...

    with pytest.raises(us.InvalidQuery, match="side output"):
        ROWS.group_by("k").process(Gives())
