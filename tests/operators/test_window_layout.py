"""Where windows lie: against `dt.truncate`, `group_by_dynamic` and plain counting."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest

from unistream.elements import MAX_TIME, MIN_TIME
from unistream.errors import InvalidQuery, InvalidSettings
from unistream.operators.clock_changes import clock_changes
from unistream.operators.time_axis import TimeAxis
from unistream.operators.time_grid import FixedGrid, make_grid
from unistream.operators.window_layout import END, PANE, START, make_layout
from unistream.operators.windows import Cumulating, Sliding, Span, Tumbling

HOUR = 3_600_000_000
MICROS = TimeAxis("t", pl.Datetime("us"), "us")


def axis_of(zone: str | None, unit: str = "us") -> TimeAxis:
    return TimeAxis("t", pl.Datetime(unit, zone), unit)  # type: ignore[arg-type]


def moments(start: datetime, end: datetime, step: str) -> pl.Series:
    return pl.datetime_range(start, end, step, time_zone="UTC", eager=True).alias("t")


SPRING = moments(datetime(2024, 3, 29), datetime(2024, 4, 2), "13m")
AUTUMN = moments(datetime(2024, 10, 25), datetime(2024, 10, 29), "13m")
YEARS = moments(datetime(1969, 11, 1), datetime(1973, 5, 1), "31h")
SAMOA = moments(datetime(2011, 12, 27), datetime(2012, 1, 3), "47m")  # it left out 30 December


@pytest.mark.parametrize(
    "every", ["15m", "20m", "1h", "90m", "2h", "6h", "1d", "3d", "1w", "2w", "1mo", "1q", "1y"]
)
@pytest.mark.parametrize(
    ("times", "zone"),
    [
        (SPRING, "Europe/Berlin"),
        (AUTUMN, "Europe/Berlin"),
        (AUTUMN, "Australia/Lord_Howe"),
        (SPRING, "Asia/Kathmandu"),
        (SAMOA, "Pacific/Apia"),
        (YEARS, "America/New_York"),
        (YEARS, "UTC"),
        (YEARS, None),
    ],
    ids=str,
)
def test_panes_begin_where_polars_truncates(every: str, times: pl.Series, zone: str | None) -> None:
    local = times.dt.convert_time_zone(zone) if zone else times.dt.replace_time_zone(None)
    grid = make_grid(Span.parse(every, "every"), 0, zone, axis_of(zone), None)
    ticks = local.to_physical()
    assert grid.floor(ticks).equals(local.dt.truncate(every).to_physical())


ZONES = ["Europe/Berlin", "Asia/Kathmandu", "Australia/Lord_Howe", "America/St_Johns", "Pacific/Apia", "UTC"]
SIZES = ["2s", "7s", "40s", "2m", "4m", "7m", "10m", "12m", "20m", "25m", "50m", "1h", "100m", "5h", "12h"]


def around_changes(zone: str, width: int) -> np.ndarray:
    """Moments of four years, most of them near a change of the clock."""
    rng = np.random.default_rng(7)
    low, high = (int(datetime(year, 1, 1).timestamp()) * 1_000_000 for year in (2009, 2013))
    changes = clock_changes(zone)[0]
    changes = changes[(changes > low) & (changes < high)]
    found = [rng.integers(low, high, 300), changes, changes - 1]
    if len(changes):
        found.append(rng.choice(changes, 600) + rng.integers(-3 * width - HOUR, 3 * width + HOUR, 600))
    return np.sort(np.concatenate(found))


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("every", SIZES)
def test_short_panes_begin_where_polars_truncates(every: str, zone: str) -> None:
    """But for the first piece after a change of the clock, where Polars may even give a later moment."""
    width = Span.parse(every, "every").micros
    ticks = around_changes(zone, width)
    changes = np.append(0, clock_changes(zone)[0])
    settled = ticks - changes[np.searchsorted(changes, ticks, side="right") - 1] >= width
    times = pl.Series(ticks[settled])
    grid = make_grid(Span.parse(every, "every"), 0, zone, axis_of(zone), None)
    expected = times.cast(pl.Datetime("us", zone)).dt.truncate(every).to_physical()
    assert grid.floor(times).equals(expected)


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("every", SIZES)
def test_short_panes_are_whole_whatever_rows_come_together(every: str, zone: str) -> None:
    width = Span.parse(every, "every").micros
    ticks = around_changes(zone, width)
    grid = make_grid(Span.parse(every, "every"), 0, zone, axis_of(zone), None)
    starts = grid.floor(pl.Series(ticks))
    ends = grid.next(starts)
    assert ((starts <= pl.Series(ticks)) & (pl.Series(ticks) < ends)).all()
    assert (ends - starts < 2 * width).all()
    assert grid.floor(starts).equals(starts)
    assert grid.floor(ends).equals(ends)
    assert grid.floor(ends - 1).equals(starts)
    for tick, start, end in list(zip(ticks.tolist(), starts, ends, strict=True))[::60]:
        assert (grid.floor_one(tick), grid.next_one(tick)) == (start, end)
        assert grid.edges(start, end - 1).tolist() == [start, end]
    for low in ticks[::150].tolist():
        walked = [grid.floor_one(low)]
        while walked[-1] <= low + 5 * width:
            walked.append(grid.next_one(walked[-1]))
        assert grid.edges(low, low + 5 * width).tolist() == walked


def test_a_piece_that_would_begin_while_the_clock_is_set_begins_then() -> None:
    """In Berlin there was no 02:20 on that day: windows of 100 and of 50 minutes begin at 03:00."""
    axis = axis_of("Europe/Berlin")
    change = int(datetime.fromisoformat("2024-03-31T01:00:00+00:00").timestamp()) * 1_000_000
    for every in ("100m", "50m", "2h"):
        grid = make_grid(Span.parse(every, "every"), 0, "Europe/Berlin", axis, None)
        assert grid.floor_one(change) == grid.floor_one(change + HOUR // 6) == change
        assert grid.next_one(change - 1) == change


def test_a_moved_grid_is_the_grid_moved() -> None:
    ticks = around_changes("Europe/Berlin", 420_000_000)
    plain, moved = (
        make_grid(Span.parse("7m", "every"), offset, "Europe/Berlin", axis_of("Europe/Berlin"), None)
        for offset in (0, 5_000_000)
    )
    expected = plain.floor(pl.Series(ticks - 5_000_000)) + 5_000_000
    assert moved.floor(pl.Series(ticks)).equals(expected)


@pytest.mark.parametrize("unit", ["ms", "ns"])
def test_other_units_of_time(unit: str) -> None:
    local = AUTUMN.dt.cast_time_unit(unit).dt.convert_time_zone("Europe/Berlin")  # type: ignore[arg-type]
    grid = make_grid(Span.parse("1d", "every"), 0, "Europe/Berlin", axis_of("Europe/Berlin", unit), None)
    assert grid.floor(local.to_physical()).equals(local.dt.truncate("1d").to_physical())


def test_dates_and_seconds() -> None:
    dates = pl.Series("t", [timedelta(days=n) + datetime(2024, 1, 30) for n in range(70)]).cast(pl.Date)
    axis = TimeAxis("t", pl.Date(), "d")
    for every in ("1d", "2d", "1w", "1mo"):
        grid = make_grid(Span.parse(every, "every"), 0, None, axis, None)
        expected = dates.dt.truncate(every).to_physical().cast(pl.Int64)
        assert grid.floor(dates.to_physical().cast(pl.Int64)).equals(expected)
    seconds = TimeAxis("t", pl.Int64(), "s")
    month = make_grid(Span.parse("1mo", "every"), 0, None, seconds, None)
    assert month.floor_one(40 * 86_400) == 31 * 86_400
    with pytest.raises(InvalidQuery, match="no whole number"):
        make_grid(Span.parse("1h", "every"), 0, None, axis, None)


@pytest.mark.parametrize("every", ["1d", "6h", "1mo"])
def test_every_pane_ends_where_the_next_begins(every: str) -> None:
    zone = "Europe/Berlin"
    grid = make_grid(Span.parse(every, "every"), 2 * HOUR, zone, axis_of(zone), None)
    ticks = AUTUMN.to_physical()
    starts = grid.floor(ticks)
    ends = grid.next(starts)
    assert ((starts <= ticks) & (ticks < ends)).all()
    assert starts.unique().sort()[1:].is_in(ends.implode()).all()
    assert grid.next_one(int(starts[0])) == ends[0]


def test_a_day_in_a_time_zone_has_as_many_hours_as_it_had() -> None:
    layout = make_layout(Tumbling(size=Span.parse("1d", "size")), axis_of("Europe/Berlin"))
    for times, hours in ((SPRING, {23, 24}), (AUTUMN, {24, 25})):
        starts = layout.panes.floor(times.to_physical()).unique()
        lengths = (layout.panes.next(starts) - starts) // HOUR
        assert set(lengths.to_list()) == hours


def test_far_apart_rows_are_looked_up_one_by_one() -> None:
    """A batch over centuries asks the calendar about its rows and not about every quarter of an hour."""
    times = pl.Series([datetime(1950, 1, 1, 1), datetime(2024, 7, 1, 2, 30), datetime(2100, 1, 1)])
    local = times.dt.replace_time_zone("UTC").dt.convert_time_zone("Europe/Berlin")
    grid = make_grid(Span.parse("2h", "every"), 0, "Europe/Berlin", axis_of("Europe/Berlin"), None)
    ticks = local.dt.cast_time_unit("us").to_physical()
    assert grid.floor(ticks).equals(local.dt.cast_time_unit("us").dt.truncate("2h").to_physical())


@pytest.mark.parametrize(
    ("size", "every", "offset", "zone"),
    [
        ("10s", "5s", "0s", None),
        ("10s", "4s", "1s", None),
        ("7s", "7s", "-2s", None),
        ("1d", "6h", "0s", "Europe/Berlin"),
        ("2d", "1d", "3h", "Europe/Berlin"),
        ("1mo", "1d", "0s", None),
        ("1mo", "1w", "0s", None),
        ("2mo", "1mo", "0s", "Europe/Berlin"),
        ("1w", "1d", "0s", None),
    ],
)
def test_sliding_windows_are_what_offset_by_says(
    size: str, every: str, offset: str, zone: str | None
) -> None:
    """Every window that begins on the grid, its end by `offset_by`, and the moments within, one by one."""
    from unistream.durations import microseconds

    fine = size.endswith("s")
    times = moments(datetime(2024, 3, 31), datetime(2024, 3, 31, 0, 1), "1s") if fine else SPRING
    times = times.dt.convert_time_zone(zone or "UTC")
    axis = axis_of(zone)
    shift = microseconds(offset)
    window = Sliding(size=Span.parse(size, "size"), every=Span.parse(every, "every"), offset=shift)
    layout = make_layout(window, axis)
    panes = layout.panes.floor(times.to_physical())
    found = layout.windows(panes.unique().sort().to_numpy(), MIN_TIME, MAX_TIME)
    got = pl.DataFrame({"t": times.to_physical(), PANE: panes}).join(found, on=PANE)
    around = pl.datetime_range(
        times.min() - timedelta(days=70),
        times.max(),
        "5m" if not fine else "1h",
        eager=True,  # type: ignore[operator, arg-type]
    )
    if fine:
        around = pl.datetime_range(times[0] - timedelta(seconds=30), times[-1], "1s", eager=True)
    begins = around.dt.offset_by(f"{-shift}us").dt.truncate(every).unique().sort()
    starts, ends = (each.dt.offset_by(f"{shift}us") for each in (begins, begins.dt.offset_by(size)))
    bounds = pl.DataFrame({START: starts.to_physical(), END: ends.to_physical()})
    inside = (pl.col(START) <= pl.col("t")) & (pl.col("t") < pl.col(END))
    expected = got.select("t").unique().join(bounds, how="cross").filter(inside)
    order = ["t", START, END]
    assert got.select(order).sort(order).equals(expected.select(order).sort(order))


@pytest.mark.parametrize(
    "window",
    [
        Tumbling(size=Span.parse("10s", "size"), offset=3_000_000),
        Sliding(size=Span.parse("10s", "size"), every=Span.parse("4s", "every")),
        Cumulating(size=Span.parse("12s", "size"), step=Span.parse("4s", "step")),
        Tumbling(size=Span.parse("1d", "size"), time_zone="Europe/Berlin"),
        Sliding(size=Span.parse("2d", "size"), every=Span.parse("1d", "every"), time_zone="Europe/Berlin"),
        Cumulating(size=Span.parse("1d", "size"), step=Span.parse("6h", "step"), time_zone="Europe/Berlin"),
    ],
    ids=lambda window: window.text,
)
def test_last_end_and_horizon_agree_with_the_windows(window: Tumbling) -> None:
    layout = make_layout(window, MICROS)
    unit = 1_000_000 if (window.size.fixed or 0) < HOUR else HOUR
    origin = 1_711_700_000_000_000 // unit * unit
    ticks = origin + np.arange(200) * unit
    panes = layout.panes.floor(pl.Series(ticks)).to_numpy()
    windows = layout.windows(np.unique(panes), MIN_TIME, MAX_TIME)
    ends = np.unique(windows[END].to_numpy())
    last_ends = dict(windows.group_by(PANE).agg(pl.col(END).max()).rows())
    for tick in ticks[60:140].tolist():
        assert layout.last_end(tick) == ends[ends <= tick].max()
        alive = [t for t, pane in zip(ticks.tolist(), panes.tolist(), strict=True) if last_ends[pane] > tick]
        assert layout.panes.floor_one(layout.horizon(tick)) == layout.horizon(tick)
        assert min(alive) - unit < layout.horizon(tick) <= min(alive)
    assert layout.last_end(MAX_TIME) == layout.horizon(MAX_TIME) == MAX_TIME
    assert layout.last_end(MIN_TIME) == layout.horizon(MIN_TIME) == MIN_TIME


def test_what_cannot_be_laid_is_refused() -> None:
    dates = TimeAxis("t", pl.Date(), "d")
    refused = [
        (Sliding(size=Span.parse("1m", "size"), every=Span.parse("2m", "every")), MICROS, "leave out rows"),
        (Cumulating(size=Span.parse("10s", "size"), step=Span.parse("3s", "step")), MICROS, "do not divide"),
        (Cumulating(size=Span.parse("1mo", "size"), step=Span.parse("1w", "step")), MICROS, "do not divide"),
        (Tumbling(size=Span.parse("1d", "size"), time_zone="Asia/Tokyo"), dates, "whole days"),
        (Tumbling(size=Span.parse("1500ms", "size")), TimeAxis("t", pl.Int64(), "s"), "no whole number"),
    ]
    for window, axis, message in refused:
        with pytest.raises(InvalidQuery, match=message):
            make_layout(window, axis)
    for size in ("0s", "-5s", "1mo2d"):
        with pytest.raises(InvalidSettings):
            Span.parse(size, "size")
    with pytest.raises(InvalidSettings, match="time zone"):
        Tumbling(size=Span.parse("1d", "size"), time_zone="Mars/Olympus")


def test_a_fixed_grid_before_the_epoch() -> None:
    grid = FixedGrid(10, 3)
    assert grid.floor(pl.Series([-8, -7, 2, 3, 12])).to_list() == [-17, -7, -7, 3, 3]
    assert grid.edges(-8, 3).tolist() == [-17, -7, 3, 13]
