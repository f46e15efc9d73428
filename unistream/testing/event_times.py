"""Event times of the rows in a script, to say how early a watermark may come and which rows are late."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import polars as pl

from unistream.elements import MAX_TIME, MIN_TIME, Batch, Watermark
from unistream.expressions.schema import EventTime, StreamSchema
from unistream.expressions.time import microseconds_of


def times_of(frame: pl.DataFrame, time: EventTime) -> pl.Series:
    """Event times in microseconds since the epoch.

    >>> times_of(pl.DataFrame({"t": [1, 2]}), EventTime("t", "s")).to_list()
    [1000000, 2000000]
    """
    return frame.select(microseconds_of(time, frame.schema)).to_series()


def has_late_rows(script: Sequence[Any], inputs: Sequence[StreamSchema]) -> bool:
    """Whether a row comes after a watermark beyond its time."""
    mark = MIN_TIME
    for event in script:
        if isinstance(event, Watermark):
            mark = max(mark, event.time)
        elif isinstance(event, Batch) and _least(event, inputs) < mark:
            return True
    return False


def early_watermarks(script: Sequence[Any], inputs: Sequence[StreamSchema]) -> list[Any]:
    """The script with a watermark after each batch, as far on as the rows still to come allow."""
    least = [_least(event, inputs) if isinstance(event, Batch) else MAX_TIME for event in script]
    least_later = list(accumulate(reversed(least), min, initial=MAX_TIME))[::-1][1:]
    result: list[Any] = []
    mark = MIN_TIME
    for event, allowed in zip(script, least_later, strict=True):
        result.append(event)
        if isinstance(event, Watermark):
            mark = max(mark, event.time)
        elif isinstance(event, Batch) and mark < allowed < MAX_TIME:
            mark = allowed
            result.append(Watermark(mark))
    return result


def _least(batch: Batch, inputs: Sequence[StreamSchema]) -> int:
    time = inputs[batch.port].event_time
    if time is None:
        return MIN_TIME
    least = times_of(batch.frame, time).min()
    return least if isinstance(least, int) else MAX_TIME
