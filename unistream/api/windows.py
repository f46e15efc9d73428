"""`us.tumbling` and its kin: what `window` takes."""

from __future__ import annotations

from datetime import tzinfo

from unistream.durations import Duration, microseconds
from unistream.errors import InvalidSettings
from unistream.location import user_location
from unistream.operators.windows import (
    Counting,
    Cumulating,
    Emit,
    GlobalWindow,
    Session,
    Sliding,
    Span,
    Tumbling,
)


def tumbling(size: Duration, *, offset: Duration = 0, time_zone: str | tzinfo | None = None) -> Tumbling:
    """Windows of one size that follow each other: each row is in one.

    Sizes are Polars' durations, calendar units among them: "10s", "1h", "1d", "1w", "1mo", "1q", "1y". Days
    and longer begin where they begin in `time_zone`, which is that of the event time column when left out;
    weeks begin on Monday. `offset` moves all windows: `tumbling("1d", offset="6h")` begins days at six.

    >>> import polars as pl, unistream as us
    >>> rows = us.from_frame({"t": [0, 4, 11], "v": [1, 2, 3]}).with_event_time("t", unit="s")
    >>> rows.window(us.tumbling("10s")).agg(pl.col("v").sum()).collect().rows()
    [(0, 10, 3), (10, 20, 3)]
    """
    where = user_location()
    return Tumbling(
        size=Span.parse(size, "size", where),
        offset=microseconds(offset, "offset"),
        time_zone=_zone(time_zone),
        where=where,
    )


def sliding(
    size: Duration, every: Duration, *, offset: Duration = 0, time_zone: str | tzinfo | None = None
) -> Sliding:
    """Windows of one size of which a new one begins at every `every`: rows are in several.

    Aggregates that can be put together from parts are computed once per piece of `every`, so that the cost
    of a row does not grow with the overlap. See `tumbling` for sizes, `offset` and `time_zone`.

    >>> import polars as pl, unistream as us
    >>> rows = us.from_frame({"t": [1, 6], "v": [1, 2]}).with_event_time("t", unit="s")
    >>> rows.window(us.sliding("10s", every="5s")).agg(pl.col("v").sum()).collect().rows()
    [(-5, 5, 1), (0, 10, 3), (5, 15, 2)]
    """
    where = user_location()
    return Sliding(
        size=Span.parse(size, "size", where),
        every=Span.parse(every, "every", where),
        offset=microseconds(offset, "offset"),
        time_zone=_zone(time_zone),
        where=where,
    )


def cumulating(
    size: Duration, step: Duration, *, offset: Duration = 0, time_zone: str | tzinfo | None = None
) -> Cumulating:
    """Windows that share their beginning and end one `step` later each, up to `size`: totals so far today.

    >>> import polars as pl, unistream as us
    >>> rows = us.from_frame({"t": [1, 6], "v": [1, 2]}).with_event_time("t", unit="s")
    >>> rows.window(us.cumulating("10s", step="5s")).agg(pl.col("v").sum()).collect().rows()
    [(0, 5, 1), (0, 10, 3)]
    """
    where = user_location()
    return Cumulating(
        size=Span.parse(size, "size", where),
        step=Span.parse(step, "step", where),
        offset=microseconds(offset, "offset"),
        time_zone=_zone(time_zone),
        where=where,
    )


def _zone(given: str | tzinfo | None) -> str | None:
    """Its name: a `ZoneInfo` is spelled by it."""
    return None if given is None else str(given)


def session(gap: Duration) -> Session:
    """Windows of rows of a key with less than `gap` between one and the next: visits, trips, bursts.

    A session begins with its first row and ends `gap` behind its last. Rows may come in any order within
    the delay that event time allows: sessions that turn out to be one are joined.

    >>> import polars as pl, unistream as us
    >>> rows = us.from_frame({"t": [0, 20, 8]}).with_event_time("t", unit="s")
    >>> rows.window(us.session("10s")).agg(n=pl.len()).collect().rows()
    [(0, 18, 2), (20, 30, 1)]
    """
    where = user_location()
    micros = microseconds(gap, "gap")
    if micros <= 0:
        raise InvalidSettings(f"The gap {gap!r} of a session is not longer than nothing", where)
    return Session(gap=micros, where=where)


def counting(n: int, *, every: int | None = None) -> Counting:
    """Windows of `n` rows of a key in the order they come; a new one begins at every `every` rows.

    Results come when a window is full, and at the end of the input for those that are not; with `emit=` of
    `window` also before: `emit="change"` gives windows that are not full yet whenever rows come,
    `us.every("5s")` by the clock. `window_start` and `window_end` are numbers of the key's rows, from 0; the
    end is that of the full window. No event time is needed and no row is late.

    >>> import polars as pl, unistream as us
    >>> rows = us.from_frame({"v": [1, 2, 3, 4, 5]})
    >>> rows.window(us.counting(2)).agg(pl.col("v").sum()).collect().rows()
    [(0, 2, 3), (2, 4, 7), (4, 6, 5)]
    >>> rows.window(us.counting(2), emit="change").agg(pl.col("v").sum()).changes().collect().rows()
    [('+I', 0, 2, 3), ('+I', 2, 4, 7), ('+I', 4, 6, 5)]
    """
    return Counting(n=n, every=n if every is None else every, where=user_location())


def global_window(*, every: int | None = None, purge: bool = False) -> GlobalWindow:
    """One window for all rows of a key; `emit=` of `window`, or every so many rows, say when it is given.

    With `emit="close"` (and no `every`) that is at the end of the input. With `purge` what was given is
    forgotten and the window begins anew: a total per five seconds of the clock is
    `.window(us.global_window(purge=True), emit=us.every("5s"))`; without, results update by key.
    `window_start` and `window_end` are numbers of the key's rows, from 0.

    >>> import polars as pl, unistream as us
    >>> rows = us.from_frame({"v": [1, 2, 3]})
    >>> rows.window(us.global_window()).agg(pl.col("v").sum()).collect().rows()
    [(0, 3, 6)]
    """
    return GlobalWindow(every=every, purge=purge, where=user_location())


def every(interval: Duration) -> Emit:
    """For `emit=`: what has changed is given so often, by the clock, until the window closes.

    >>> import unistream as us
    >>> us.every("5s").text
    'every 5s'
    """
    micros = microseconds(interval, "interval")
    if micros <= 0:
        raise InvalidSettings(f"every({interval!r}) is not longer than nothing", user_location())
    return Emit(when="every", every=micros)
